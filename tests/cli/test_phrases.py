"""Numbers and times as people read them."""

from __future__ import annotations

import math

import pytest

from vidplat.cli import phrases


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.004, "0.00 s"),
        (0.42, "0.42 s"),
        (0.9999, "1.0 s"),
        (3.44, "3.4 s"),
        (9.96, "10 s"),
        (48.2, "48 s"),
        (119.6, "2 min"),
        (725, "12 min 5 s"),
        (12_000, "3 h 20 min"),
        (187_200, "2 d 4 h"),
        (-7.7, "-7.7 s"),
        (None, "–"),
        (math.inf, "–"),
    ],
)
def test_seconds_have_the_precision_a_person_needs(value: float | None, text: str) -> None:
    assert phrases.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.378, "0.38"),
        (0.994, "0.99"),
        (0.996, "0.996"),
        (0.99961, "0.999"),
        (1 - 1e-12, "1.00"),  # a mean of ones
        (1.0, "1.00"),
        (None, "–"),
    ],
)
def test_what_is_below_full_quality_is_never_rounded_up_to_it(
    value: float | None, text: str
) -> None:
    assert phrases.quality(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0 B"), (999, "999 B"), (9_400, "9.4 kB"), (1_200_000, "1.2 MB")]
)
def test_sizes_are_decimal(value: int, text: str) -> None:
    assert phrases.size(value) == text


def test_a_prediction_is_compared_in_percent_of_itself() -> None:
    assert phrases.against(4.5, 4.0) == "+12 %"  # 12.5 rounds to even
    assert phrases.against(3.0, 4.0) == "-25 %"
    assert phrases.against(3.0, 0.0) == "–"


def test_counts_agree_with_their_noun() -> None:
    assert phrases.count(1, "video") == "1 video"
    assert phrases.count(1_200, "video") == "1,200 videos"


def test_ticks_are_labelled_in_the_unit_they_are_round_in() -> None:
    assert [phrases.seconds_tick(tick) for tick in (0, 20, 300, 7200)] == [
        "0",
        "20 s",
        "5 min",
        "2 h",
    ]
