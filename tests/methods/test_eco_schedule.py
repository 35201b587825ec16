"""What leaving frames out costs: the published sizes, the scheduler's own formula, and the whole
run.
"""

from __future__ import annotations

import math

import pytest

from vidplat.methods.eco.budget import budgets, kept_frames, warmup_steps
from vidplat.methods.frames import kept_latents, texts_to_plan
from vidplat.methods.kinds import PlannedRun
from vidplat.methods.language import parse
from vidplat.methods.pass_size import BlockSize

BLOCK = BlockSize(192, 768, 64)
SMALL, LARGE = (1536, 8960), (5120, 13824)  # widths of Wan 2.1 1.3B and 14B


@pytest.mark.parametrize(
    ("widths", "per_frame", "share", "speedups"),
    [
        (SMALL, 1560, 0.3497, {11: 2.41, 8: 3.39, 6: 4.37}),  # 480 x 832
        (LARGE, 1560, 0.3938, {11: 2.20, 8: 3.01, 6: 3.82}),
        (LARGE, 3600, 0.3449, {11: 2.44, 8: 3.44, 6: 4.43}),  # 720 x 1280
    ],
)
def test_the_work_of_wan_at_81_frames(
    widths: tuple[int, int], per_frame: int, share: float, speedups: dict[int, float]
) -> None:
    block = BlockSize(*widths, text_tokens=512)
    assert block.share(11 * per_frame, 21 * per_frame) == pytest.approx(share, abs=5e-5)
    for k, speedup in speedups.items():  # 5 of 50 steps with all frames
        later = block.share(k * per_frame, 21 * per_frame)
        assert 50 / (5 + 45 * later) == pytest.approx(speedup, abs=5e-3)


def test_attention_falls_with_the_square_and_the_rest_a_little_less_than_with_the_frames() -> None:
    linear, attention = BLOCK.shares(5 * 64, 9 * 64)
    assert attention == pytest.approx(25 / 81)
    assert 5 / 9 < linear < 5 / 9 + 0.01  # the text's own projections do not shrink


def test_a_run_is_its_warm_up_and_the_rest() -> None:
    def share(method: str) -> tuple[float, float]:
        (eco,) = parse(method)
        run = PlannedRun(steps=24, frames=9, per_frame=64, layers=6, block=BLOCK)
        return eco.kind.share(eco.values, run) or (math.nan, math.nan)

    linear, attention = share("eco:k=5")  # two steps of 24 see all frames
    assert attention == pytest.approx((2 + 22 * 25 / 81) / 24)
    assert linear == pytest.approx((2 + 22 * BLOCK.shares(5 * 64, 9 * 64)[0]) / 24)
    assert share("eco:k=9") == (1.0, 1.0)
    assert share("eco:k=5,warmup=1") == (1.0, 1.0)


@pytest.mark.parametrize(
    ("share", "steps", "counted"), [(0.1, 50, 5), (0.1, 24, 2), (0.1, 4, 1), (0.0, 4, 1), (1, 4, 4)]
)
def test_the_warm_up_is_a_share_of_the_steps_and_at_least_one(
    share: float, steps: int, counted: int
) -> None:
    assert warmup_steps(share, steps) == counted


def test_half_of_the_frames_are_kept_unless_a_number_is_given() -> None:
    assert kept_frames(None, 21) == 11  # as released for Wan, at 8 of 16 frames per second
    assert [kept_frames(None, frames) for frames in (1, 2, 3, 4, 9)] == [1, 2, 2, 2, 5]
    assert kept_frames(6, 21) == 6


# --- K that a plan chooses between ----------------------------------------------------------------


@pytest.mark.parametrize("method", ["eco:3", "eco:9,warmup=0.5", "eco", "vgdfr", "eco:40"])
def test_no_more_frames_are_kept_than_there_are(method: str) -> None:
    for frames in (1, 2, 5):
        assert 1 <= kept_latents(method, frames) <= frames


def test_the_budgets_are_the_same_shares_of_every_length() -> None:
    assert budgets(21) == (6, 8, 11, 14, 16)
    assert budgets(17) == (5, 6, 9, 11, 13)
    assert budgets(9) == (3, 5, 6, 7)
    assert budgets(3) == (2,)
    assert budgets(2) == budgets(1) == ()


def test_a_method_that_leaves_k_open_becomes_one_for_each_budget() -> None:
    assert texts_to_plan("eco", 9) == ("eco:k=3", "eco:k=5", "eco:k=6", "eco:k=7")
    assert texts_to_plan("eco:selector=entropy+euler", 3) == ("eco:k=2,selector=entropy+euler",)
    assert texts_to_plan("eco:k=4", 9) == ("eco:k=4",)
    assert texts_to_plan("hsa:preset=25", 9) == ("hsa:preset=25",)
    assert texts_to_plan("eco", 2) == ("eco",)
