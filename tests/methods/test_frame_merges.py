"""VGDFR's plan: which frames are merged, what is left, in which order all come back."""

from __future__ import annotations

import math
import random
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidplat.methods.vgdfr.merges import (
    Blocks,
    Merges,
    Similarity,
    Spans,
    block_starts,
    cuts,
    least_latents,
    merges_above,
    merges_of_ratio,
    merges_to,
    moments,
    span_frames,
)

LENGTHS = (9, 17, 25, 33, 49, 65, 81, 85, 97, 129)


def alike(frames: int, value: float = 1.0, t: int = 4, *, strict: bool = False) -> Blocks:
    """A video whose frames are all equally alike."""
    return Blocks(Similarity(*([value] * max(0, frames - lag) for lag in (1, 2, 3))), t, strict)


@st.composite
def videos(draw: st.DrawFn, strict: bool = False) -> Blocks:
    """Any length; few values, so that equal ones meet, and all from some value up, so that blocks
    are alike."""
    frames, lowest = draw(st.sampled_from(LENGTHS)), draw(st.integers(0, 19))
    chance = random.Random(draw(st.integers(0, 2**32)))
    tables = [[chance.randint(lowest, 20) / 20 for _ in range(frames - lag)] for lag in (1, 2, 3)]
    return Blocks(Similarity(*tables), strict=strict)


def test_spans_are_compared_from_a_run_s_first_frame_to_the_last_of_each_of_its_latents() -> None:
    # 33 frames: blocks begin at 1, 9 and 17; the last eight frames are never merged
    assert span_frames(33, 4, 2) == [(1, (4, 8)), (9, (12, 16)), (17, (20, 24))]
    assert span_frames(33, 4, 4) == [(1, (4, 8, 12, 16)), (9, (12, 16, 20, 24))]


def test_spans_above_the_threshold_are_merged_four_by_four_first() -> None:
    spans = Spans(33, (0.9, 0.8, 0.7), (0.4, 0.6))
    assert merges_above(spans, 0.75).runs == ((1, 2), (9, 2))
    assert merges_above(spans, 0.5, quads=True).runs == ((1, 2), (9, 4))
    assert merges_above(spans, 0.3, quads=True).runs == ((1, 4), (17, 2))


@given(st.integers(0, 2**32), st.sampled_from(LENGTHS), st.booleans())
def test_raising_theta_never_lowers_the_latents_of_spans(
    chance: int, frames: int, quads: bool
) -> None:
    rng = random.Random(chance)
    pairs = tuple(rng.randint(0, 9) / 10 for _ in block_starts(frames, 4))
    fours = tuple(min(one, other, rng.randint(0, 9) / 10) for one, other in pairwise(pairs))
    spans = Spans(frames, pairs, fours)
    left = [len(merges_above(spans, theta / 10, quads=quads).latents) for theta in range(11)]
    assert left == sorted(left)


def test_a_ratio_is_met_where_the_ends_of_every_span_are_unlike() -> None:
    # 33 frames whose 9 latents can become 6 by pairs: 21 frames, 0.64 of all
    plan = merges_of_ratio(Spans(33, (-0.4, -0.2, 0.0), (-0.5, -0.6)), 0.65)
    assert (len(plan.latents), plan.reason) == (6, "")


def test_spans_of_another_number_than_the_video_s_blocks_are_refused() -> None:
    with pytest.raises(
        ValueError, match="33 frames have 3 blocks, not values for 2 of them and for 0 neighbours"
    ):
        Spans(33, (0.5, 0.5))
    with pytest.raises(ValueError, match="not finite"):
        Spans(17, (math.nan,))
    with pytest.raises(ValueError, match="more alike than each of them"):
        Spans(33, (0.5, 0.4, 0.5), (0.45, 0.4))


def as_the_code_has_it(blocks: Blocks, theta: float, allow4: bool) -> list[tuple[int, int]]:
    """The specification's loop, b4, word for word."""
    s1, s2, s3 = blocks.similarity.s1, blocks.similarity.s2, blocks.similarity.s3
    frames, i, runs = blocks.num_frames, 1, []
    while i < frames - 9:
        if allow4 and i < frames - 17:
            q = min(
                min(s1[i + o], s2[i + o], s3[i + o], s1[i + o + 1], s2[i + o + 1], s1[i + o + 2])
                for o in (0, 4, 8, 12)
            )
            if q > theta:
                runs.append((i, 4))
                i += 16
                continue
        if min(s1[i], s1[i + 2], s1[i + 4], s1[i + 6]) > theta:
            runs.append((i, 2))
        i += 8
    return runs


@given(videos(), st.integers(0, 20), st.booleans())
def test_the_plan_is_that_of_the_specification_s_loop(
    blocks: Blocks, theta: int, quads: bool
) -> None:
    made = merges_above(blocks, theta / 20, quads=quads)
    assert list(made.runs) == as_the_code_has_it(blocks, theta / 20, quads)


@given(videos(), st.integers(0, 20), st.booleans())
def test_what_is_left_is_a_video_of_a_valid_length(blocks: Blocks, theta: int, quads: bool) -> None:
    plan = merges_above(blocks, theta / 20, quads=quads)

    assert len(plan.frames) == 4 * (len(plan.latents) - 1) + 1
    assert {0, plan.all_latents - 1} <= set(plan.latents)
    # Groups are in order and share no frame.
    covered = [frame for group in plan.groups for frame in group.frames]
    assert covered == sorted(set(covered))
    # Every latent that was dropped belongs to one run.
    dropped = set(range(plan.all_latents)) - set(plan.latents)
    homes = [[latent in run[1:] for run in plan.latent_runs].count(True) for latent in dropped]
    assert homes == [1] * len(dropped)
    # The last 8 frames are never touched; the last 4 where the latents after the first are odd in
    # number.
    tail = 8 if (plan.num_frames - 1) % 8 == 0 else 4
    assert not set(covered) & set(range(plan.num_frames - tail, plan.num_frames))


@pytest.mark.parametrize(
    ("frames", "pairs", "quads"),
    [(81, 12, 8), (97, 14, 9), (49, 8, 6), (129, 18, 11), (33, 6, 5), (65, 10, 7)],
)
def test_a_still_video_merges_down_to_its_floor(frames: int, pairs: int, quads: int) -> None:
    assert len(merges_above(alike(frames), 0.5).latents) == pairs
    assert len(merges_above(alike(frames), 0.5, quads=True).latents) == quads
    assert (least_latents(frames), least_latents(frames, quads=True)) == (pairs, quads)


@pytest.mark.parametrize("frames", LENGTHS)
def test_frames_that_are_not_alike_stay(frames: int) -> None:
    plan = merges_above(alike(frames, 0.0), 0.0, quads=True)
    assert plan.merges_nothing
    assert plan.latents == tuple(range(1 + (frames - 1) // 4))
    assert plan.frames == tuple(range(frames))


def test_at_theta_one_nothing_merges() -> None:
    assert merges_above(alike(81), 1.0, quads=True).merges_nothing


@given(videos(), st.integers(0, 20), st.integers(0, 20), st.booleans())
def test_raising_theta_never_lowers_the_latents(
    blocks: Blocks, one: int, other: int, quads: bool
) -> None:
    low, high = sorted((one, other))
    left = [len(merges_above(blocks, theta / 20, quads=quads).latents) for theta in (low, high)]
    assert left[0] <= left[1]


@given(videos(strict=True), st.integers(0, 20), st.integers(0, 20), st.booleans())
def test_nor_when_neighbours_of_different_pairs_are_asked_too(
    blocks: Blocks, one: int, other: int, quads: bool
) -> None:
    low, high = sorted((one, other))
    left = [len(merges_above(blocks, theta / 20, quads=quads).latents) for theta in (low, high)]
    assert left[0] <= left[1]


@given(videos(), st.integers(0, 20))
def test_latents_saved_are_blocks_alike_plus_the_most_quads_that_fit(
    blocks: Blocks, theta: int
) -> None:
    """The proof's count: in a run of n blocks alike as quads fit n // 2 quad runs, each saves one
    more than pairs."""
    within = [
        all(
            min(s1[q], s1[q + 1], s1[q + 2], s2[q], s2[q + 1], s3[q]) > theta / 20
            for s1, s2, s3 in [(blocks.similarity.s1, blocks.similarity.s2, blocks.similarity.s3)]
            for q in (i, i + 4)
        )
        for i in block_starts(blocks.num_frames, 4)
    ]
    chains = "".join("x" if one else " " for one in within).split()
    plan = merges_above(blocks, theta / 20, quads=True)
    saved = sum(q > theta / 20 for q in blocks.pairs) + sum(len(chain) // 2 for chain in chains)
    assert plan.all_latents - len(plan.latents) == saved


@given(videos())
def test_quads_in_addition_never_leave_more_latents(blocks: Blocks) -> None:
    """So the ratio mode's threshold may pass 0.5, where quads come in, and stay monotone."""
    assert len(merges_above(blocks, 0.5, quads=True).latents) <= len(
        merges_above(blocks, 0.5).latents
    )


def test_a_small_step_between_pairs_is_seen_by_the_strict_form_alone() -> None:
    # Frames 1..8 of 17 are one block, pairs (1, 2), (3, 4), ...; the picture changes between 2 and
    # 3.
    s1 = [0.0, 1.0, 0.2, *[1.0] * 13]
    assert merges_above(Blocks(Similarity(s1)), 0.5).runs == ((1, 2),)
    assert merges_above(Blocks(Similarity(s1), strict=True), 0.5).merges_nothing


def test_quads_are_merged_first_and_pairs_take_what_is_left_over() -> None:
    # 49 frames: blocks at 1, 9, 17, 25, 33. Two quad runs take four of them, a pair run the fifth.
    plan = merges_above(alike(49), 0.5, quads=True)
    assert plan.runs == ((1, 4), (17, 4), (33, 2))
    assert plan.latents == (0, 1, 5, 9, 11, 12)
    assert plan.frames == (0, 1, 5, 9, 13, 17, 21, 25, 29, 33, 35, 37, 39, *range(41, 49))


def test_a_latent_of_eight_frames_merges_sixteen_or_thirty_two() -> None:
    # LTX-Video, 65 frames, 9 latents: blocks of 16 at 1, 17, 33. One quad run of two blocks, one
    # pair run.
    plan = merges_above(alike(65, t=8), 0.5, quads=True)
    assert plan.runs == ((1, 4), (33, 2))
    assert len(plan.frames) == 8 * (len(plan.latents) - 1) + 1 == 33


@given(videos(), st.integers(1, 100))
def test_the_ratio_is_met_from_below_as_nearly_as_any_threshold_can(
    blocks: Blocks, percent: int
) -> None:
    plan = merges_of_ratio(blocks, percent / 100)
    again = merges_of_ratio(blocks, percent / 100)
    assert plan == again

    thetas = [*cuts(blocks, 0.01, 0.99, quads=True), 0.99]
    every = [
        merges_above(blocks, theta, quads=quads)
        for theta in thetas
        for quads in (False, theta < 0.5)
    ]
    within = [other for other in every if other.ratio <= percent / 100]
    if within:
        assert plan.reason == ""
        assert plan.ratio == max(other.ratio for other in within)
        assert plan.quads == min(other.quads for other in within if other.ratio == plan.ratio)
    else:
        assert plan.ratio == min(other.ratio for other in every)
        assert f"more than {percent / 100:g}" in plan.reason


def test_where_blocks_differ_every_ratio_above_the_floor_is_met_within_a_group() -> None:
    # 81 frames, nine blocks that are less and less alike: any count of pairs from 0 to 9 can be
    # had.
    s1 = [0.0] + [0.9 - 0.05 * ((i - 1) // 8) for i in range(1, 80)]
    blocks = Blocks(Similarity(s1))
    for target in (x / 100 for x in range(56, 101)):  # 45 of 81 frames are left at the floor: 0.556
        assert target - 4 / 81 < merges_of_ratio(blocks, target).ratio <= target


def test_the_threshold_of_a_ratio_gives_its_plan_again() -> None:
    blocks = Blocks(Similarity([0.0] + [0.9 - 0.05 * ((i - 1) // 8) for i in range(1, 80)]))
    plan = merges_of_ratio(blocks, 0.75)
    assert merges_above(blocks, plan.theta) == plan


def test_of_plans_with_as_many_latents_the_one_with_fewer_quads_is_taken() -> None:
    # 49 frames, all 0.4 alike: 5 pairs leave 8 of 13. With quads below 0.5 only 6 are left. 8
    # asked: pairs alone.
    assert merges_to(alike(49, 0.4), 8).quads == 0
    assert merges_to(alike(49, 0.4), 7).runs == ((1, 4), (17, 4), (33, 2))


@given(videos(), st.integers(0, 20), st.booleans(), st.sampled_from(["first", "centre"]))
def test_every_frame_comes_back_once_from_neighbours_in_time(
    blocks: Blocks, theta: int, quads: bool, anchor: str
) -> None:
    plan = merges_above(blocks, theta / 20, quads=quads)
    found = moments(plan, anchor)

    assert len(found) == plan.num_frames
    centre = {group.first: group.centre for group in plan.groups} if anchor == "centre" else {}
    times = [centre.get(frame, frame) for frame in plan.frames]
    for frame, moment in enumerate(found):
        after = times[moment.before + (not moment.is_decoded)]
        assert 0 <= moment.part < 1
        assert times[moment.before] + moment.part * (after - times[moment.before]) == frame
    if (
        anchor == "first"
    ):  # each decoded frame stands where it was taken from, and is not made again
        assert (
            tuple(frame for frame, moment in enumerate(found) if moment.is_decoded) == plan.frames
        )


def test_pairs_come_back_half_way_and_quads_by_quarters() -> None:
    found = [(one.before, one.part) for one in moments(Merges(33, ((1, 2), (9, 4))))]
    assert found[1:4] == [(1, 0), (1, Fraction(1, 2)), (2, 0)]
    # Frame 9 is decoded as number 5; 10, 11, 12 lie between it and number 6, which is frame 13.
    assert found[9:14] == [
        (5, 0),
        (5, Fraction(1, 4)),
        (5, Fraction(1, 2)),
        (5, Fraction(3, 4)),
        (6, 0),
    ]


def test_around_its_centre_a_mean_of_frames_stands_between_whole_times() -> None:
    # Frames 1 and 2 are one at 1.5, 3 and 4 at 3.5; so 1 lies two thirds of the way from 0, and 2 a
    # quarter from 1.5.
    found = [(one.before, one.part) for one in moments(Merges(17, ((1, 2),)), "centre")]
    assert found[:4] == [(0, 0), (0, Fraction(2, 3)), (1, Fraction(1, 4)), (1, Fraction(3, 4))]


@pytest.mark.parametrize("theta", [-0.01, 1.01, math.nan])
def test_a_threshold_outside_its_range_is_refused(theta: float) -> None:
    with pytest.raises(ValueError, match="theta must be between 0 and 1"):
        merges_above(alike(17), theta)


@pytest.mark.parametrize("ratio", [0.0, 1.2, math.nan])
def test_a_ratio_outside_its_range_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="ratio of frames"):
        merges_of_ratio(alike(17), ratio)


def test_tables_that_fit_no_video_are_refused() -> None:
    with pytest.raises(ValueError, match="17 frames have 15 pairs 2 apart, not 16"):
        Similarity([1.0] * 16, [1.0] * 16)
    with pytest.raises(ValueError, match="not finite"):
        Similarity([math.nan] * 16)
    with pytest.raises(ValueError, match="18 frames are no whole number of latents"):
        Blocks(Similarity([1.0] * 17))


@pytest.mark.parametrize("runs", [((1, 3),), ((2, 2),), ((1, 2), (5, 2)), ((9, 2),), ((25, 2),)])
def test_runs_that_cannot_be_merged_are_refused(runs: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(ValueError, match="cannot"):
        Merges(17, runs)


def test_the_anchor_is_one_of_two_words() -> None:
    with pytest.raises(ValueError, match="not 'last'"):
        moments(Merges(17), "last")
