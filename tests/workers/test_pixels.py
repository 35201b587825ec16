"""Every method makes the video that it made before, bit for bit; see `pixels.py` for what is kept.

Tolerances, for machines whose kernels round otherwise: with AVX2 kernels and MKL's own choice
of code instead of the plainest, no kept value of any video's latents moved by more than 0.0002,
and none of a frame by a whole level (AMD EPYC, torch 2.13.0). The nearest two methods that mean
different things lie 0.04 apart, so 0.005 leaves room for other processors and still tells a
wrong step, mask or seed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import combinations
from typing import Any

import pytest

from tests.workers.pixels import CASES, LATENTS_WITHIN, computed, difference, furthest, stored

Computed = Callable[[bool], dict[str, Any]]
#: Cases that promise the same video: where keys lie, and what `auto` chooses, change nothing.
TWINS = [
    ("hsa work", "hsa offload"),
    ("sparse k=1", "sparse k=1,path=gather"),
    ("lipar recovery=auto", "lipar recovery=noisy"),
]
#: Cases that add up the same terms in another order.
NEAR = [
    {"sparse k=1", "sparse k=1,path=lse"},
    {"sparse k=1,path=gather", "sparse k=1,path=lse"},
    {"hsa + sparse", "hsa + sparse lse"},
]


@pytest.fixture(scope="module")
def made() -> Computed:
    """Makes the videos of the quick or the thorough cases, when first asked for them."""

    @cache
    def make(is_thorough: bool) -> dict[str, Any]:
        return computed(name for name, case in CASES.items() if case.is_thorough is is_thorough)

    return make


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.thorough if case.is_thorough else ())
        for name, case in CASES.items()
    ],
)
def test_a_method_makes_the_video_that_it_made_before(made: Computed, name: str) -> None:
    found, before = made(CASES[name].is_thorough), stored()
    exactly = found["canary"] == before["canary"]

    assert difference(found["videos"][name], before["videos"][name], exactly=exactly) == ""


def test_all_that_is_kept_is_made_again() -> None:
    assert list(stored()["videos"]) == list(CASES)


@pytest.mark.parametrize(("one", "other"), TWINS)
def test_kept_are_the_same_bits_where_two_forms_promise_the_same_video(
    one: str, other: str
) -> None:
    videos = stored()["videos"]
    assert videos[one]["latents"] == videos[other]["latents"]


def test_no_method_could_pass_for_another_even_by_summaries() -> None:
    videos, twins = stored()["videos"], [set(pair) for pair in TWINS]
    for one, other in combinations(CASES, 2):
        latents, others = videos[one]["latents"], videos[other]["latents"]
        if latents["shape"] != others["shape"] or {one, other} in (*twins, *NEAR):
            continue
        assert furthest(latents, others) > 5 * LATENTS_WITHIN, (one, other)


def test_other_bits_are_a_difference_where_the_machine_computes_the_same_ones() -> None:
    videos = stored()["videos"]
    one, other = videos["sparse k=1"], videos["sparse k=1,path=lse"]
    assert "other bits" in difference(one, other, exactly=True)
    assert difference(one, other, exactly=False) == ""
    assert "differ by up to" in difference(one, videos["full"], exactly=False)


def test_a_method_that_fails_is_a_difference_and_says_why() -> None:
    failed = {"method": "hsa", "failed": "SpecError: it cannot"}
    assert difference(failed, stored()["videos"]["full"], exactly=False).endswith(
        "SpecError: it cannot"
    )
