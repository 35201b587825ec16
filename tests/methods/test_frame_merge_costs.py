"""Seconds and operations of a VGDFR run, and the plan that meets a deadline."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.methods.test_frame_merges import alike, videos
from vidplat.methods.vgdfr.merge_costs import (
    Costs,
    forward_flops,
    merges_by_deadline,
    most_latents,
    speedup,
)
from vidplat.methods.vgdfr.merges import Blocks

HUNYUAN = {
    "per_frame": 2040,
    "text": 256,
    "width": 3072,
    "blocks": 60,
}  # 544 x 960: 34 x 60 tokens per latent


def costs(steps: int = 50, before: int = 5, branches: int = 1) -> Costs:
    return Costs(
        lambda frames: 0.1 * frames + 0.01 * frames**2,
        steps,
        before,
        branches,
        compress_s=2.0,
        decode_frame_s=0.1,
        interpolate_frame_s=0.02,
    )


def test_a_forward_of_hunyuan_video_has_the_published_operations() -> None:
    whole, attention = forward_flops(25, **HUNYUAN)
    assert whole / 1e15 == pytest.approx(2.63, abs=0.005)
    assert attention / whole == pytest.approx(0.736, abs=0.0005)


@pytest.mark.parametrize(
    ("latents", "share", "speedups"),
    [
        (9, 0.193, (3.65, 2.82, 2.30)),
        (10, 0.226, (3.30, 2.63, 2.18)),
        (11, 0.261, (2.98, 2.44, 2.07)),
        (12, 0.299, (2.71, 2.28, 1.96)),
        (14, 0.381, (2.26, 1.98, 1.76)),
        (16, 0.473, (1.90, 1.73, 1.59)),
        (18, 0.574, (1.62, 1.52, 1.43)),
        (20, 0.684, (1.40, 1.34, 1.28)),
        (22, 0.803, (1.22, 1.19, 1.16)),
    ],
)
def test_the_cost_table_comes_out_to_three_digits(
    latents: int, share: float, speedups: tuple[float, float, float]
) -> None:
    found = forward_flops(latents, **HUNYUAN)[0] / forward_flops(25, **HUNYUAN)[0]
    assert round(found, 3) == share
    assert tuple(round(speedup(found, 50, before), 2) for before in (5, 10, 15)) == speedups


def test_the_seconds_of_a_run_are_counted_part_by_part() -> None:
    # 17 frames, 5 latents; 10 steps, 4 in full, both branches, 3 latents left: 9 frames decoded, 8
    # interpolated.
    found = Costs(lambda frames: float(frames), 10, 4, 2, 3.0, 0.5, 0.25).seconds(3, 17)
    assert found == 2 * (4 * 5 + 6 * 3) + 3.0 + 9 * 0.5 + 8 * 0.25


def test_forwards_are_k_full_ones_and_the_rest_short_and_the_preview_adds_none() -> None:
    assert costs(50, 5, branches=2).forwards() == (10, 90)


@given(st.floats(0, 300), st.floats(0, 300))
def test_more_time_never_leaves_fewer_latents(one: float, other: float) -> None:
    less, more = sorted((one, other))
    found = most_latents(costs(), less, 81)
    assert found <= most_latents(costs(), more, 81)
    if found:
        assert costs().seconds(found, 81) <= less
    if found < 21:
        assert costs().seconds(found + 1, 81) > less


@given(videos(), st.floats(0, 300))
def test_a_plan_keeps_its_deadline_or_says_why_not(blocks: Blocks, limit_s: float) -> None:
    plan = merges_by_deadline(blocks, costs(), limit_s)
    takes = costs().seconds(len(plan.latents), plan.num_frames)
    assert (takes <= limit_s) == (plan.reason == "")


def test_with_time_enough_nothing_is_merged() -> None:
    assert merges_by_deadline(alike(81), costs(), 1e6).merges_nothing


def test_a_deadline_between_two_plans_takes_the_one_below() -> None:
    # All frames 0.4 alike: 21 latents, 12 with pairs alone, 8 with quads. Time for 13 exactly: 12.
    plan = merges_by_deadline(alike(81, 0.4), costs(), costs().seconds(13, 81))
    assert len(plan.latents) == 12
    assert len(merges_by_deadline(alike(81, 0.4), costs(), costs().seconds(11, 81)).latents) == 8


def test_what_cannot_be_met_is_told_in_seconds() -> None:
    # M = 8 at 50 steps: 5 x (2.1 + 4.41) + 45 x (0.8 + 0.64) + 2 + 29 x 0.1 + 52 x 0.02 = 103.29 s
    plan = merges_by_deadline(alike(81), costs(), 50.0)
    assert len(plan.latents) == 8
    assert (
        plan.reason
        == "needs 103 s with 8 latent frames, the fewest that it merges to; the limit is 50 s"
    )


def test_steps_before_the_merge_must_fit_into_the_run() -> None:
    with pytest.raises(ValueError, match="11 steps before the merge do not fit into 10"):
        costs(10, 11)
