"""VGDFR's plan: which frames are merged, what is left, in which order all come back."""

from __future__ import annotations

import math
import random
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidplat.methods.filling.moments import Moment, moments_among
from vidplat.methods.vgdfr.merges import (
    HIGHEST,
    QUADS_BELOW,
    Lattice,
    Merges,
    cuts,
    merges_above,
    merges_of_ratio,
    slot_starts,
)

LENGTHS = (9, 17, 25, 33, 49, 65, 81, 85, 97, 129)


def alike(frames: int, value: float = 1.0, t: int = 4, *, quads: bool = False) -> Lattice:
    """A video whose slots are all equally alike."""
    slots = len(slot_starts(frames, t))
    fours = (value,) * max(0, slots - 1) if quads else ()
    return Lattice(frames, (value,) * slots, fours, t)


@st.composite
def lattices(draw: st.DrawFn, quads: bool | None = None) -> Lattice:
    """Any length; few values, so that equal ones meet, and all from some value up, so that slots
    are alike."""
    frames, lowest = draw(st.sampled_from(LENGTHS)), draw(st.integers(0, 19))
    chance = random.Random(draw(st.integers(0, 2**32)))
    pairs = tuple(chance.randint(lowest, 20) / 20 for _ in slot_starts(frames, 4))
    fours = tuple(min(*two, chance.randint(lowest, 20) / 20) for two in pairwise(pairs))
    return Lattice(frames, pairs, fours if draw(st.booleans()) or quads else ())


def left(plan: Merges) -> float:
    """Share of the frames that are left."""
    return len(plan.frames) / plan.num_frames


# --- a threshold ----------------------------------------------------------------------------------


def test_slots_above_the_threshold_are_merged_four_by_four_first() -> None:
    lattice = Lattice(33, (0.9, 0.8, 0.7), (0.4, 0.6))
    assert merges_above(lattice, 0.75).runs == ((1, 2), (9, 2))
    assert merges_above(lattice, 0.5).runs == ((1, 2), (9, 4))
    assert merges_above(lattice, 0.3).runs == ((1, 4), (17, 2))
    assert merges_above(Lattice(33, (0.9, 0.8, 0.7)), 0.3).runs == ((1, 2), (9, 2), (17, 2))


@given(lattices(), st.integers(0, 20))
def test_what_is_left_is_a_video_of_a_valid_length(lattice: Lattice, theta: int) -> None:
    plan = merges_above(lattice, theta / 20)

    assert len(plan.frames) == 4 * (len(plan.latents) - 1) + 1
    assert {0, plan.all_latents - 1} <= set(plan.latents)
    # Groups are in order and share no frame.
    covered = [frame for group in plan.groups for frame in group]
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
    assert len(merges_above(alike(frames, quads=True), 0.5).latents) == quads


@pytest.mark.parametrize("frames", LENGTHS)
def test_frames_that_are_not_alike_stay(frames: int) -> None:
    plan = merges_above(alike(frames, 0.0, quads=True), 0.0)
    assert plan.merges_nothing
    assert plan.latents == tuple(range(1 + (frames - 1) // 4))
    assert plan.frames == tuple(range(frames))


def test_at_theta_one_nothing_merges() -> None:
    assert merges_above(alike(81, quads=True), 1.0).merges_nothing


@given(lattices(), st.integers(0, 20), st.integers(0, 20))
def test_raising_theta_never_lowers_the_latents(lattice: Lattice, one: int, other: int) -> None:
    low, high = (merges_above(lattice, theta / 20) for theta in sorted((one, other)))
    assert len(low.latents) <= len(high.latents)


@given(lattices(quads=True), st.integers(0, 20))
def test_latents_saved_are_slots_alike_plus_the_most_quads_that_fit(
    lattice: Lattice, theta: int
) -> None:
    """The proof's count: of n neighbours in a row that are alike every second can begin a quad run,
    and each saves one latent more than pairs."""
    chains = "".join("x" if q > theta / 20 else " " for q in lattice.quads).split()
    plan = merges_above(lattice, theta / 20)
    saved = sum(q > theta / 20 for q in lattice.pairs) + sum(-(-len(c) // 2) for c in chains)
    assert plan.all_latents - len(plan.latents) == saved


@given(lattices(quads=True))
def test_quads_in_addition_never_leave_more_latents(lattice: Lattice) -> None:
    """So the ratio mode's threshold may pass 0.5, where quads come in, and stay monotone."""
    pairs_alone = Lattice(lattice.num_frames, lattice.pairs)
    with_quads = merges_above(lattice, 0.5)
    assert len(with_quads.latents) <= len(merges_above(pairs_alone, 0.5).latents)


def test_quads_are_merged_first_and_pairs_take_what_is_left_over() -> None:
    # 49 frames: slots at 1, 9, 17, 25, 33. Two quad runs take four of them, a pair run the fifth.
    plan = merges_above(alike(49, quads=True), 0.5)
    assert plan.runs == ((1, 4), (17, 4), (33, 2))
    assert plan.latents == (0, 1, 5, 9, 11, 12)
    assert plan.frames == (0, 1, 5, 9, 13, 17, 21, 25, 29, 33, 35, 37, 39, *range(41, 49))


def test_a_latent_of_eight_frames_merges_sixteen_or_thirty_two() -> None:
    # LTX-Video, 65 frames, 9 latents: slots of 16 at 1, 17, 33. One quad run of two, one pair run.
    plan = merges_above(alike(65, t=8, quads=True), 0.5)
    assert plan.runs == ((1, 4), (33, 2))
    assert len(plan.frames) == 8 * (len(plan.latents) - 1) + 1 == 33


# --- a ratio --------------------------------------------------------------------------------------


@given(lattices(), st.integers(1, 100))
def test_the_ratio_is_met_from_below_as_nearly_as_any_threshold_can(
    lattice: Lattice, percent: int
) -> None:
    plan = merges_of_ratio(lattice, percent / 100)
    assert merges_of_ratio(lattice, percent / 100) == plan

    pairs_alone = Lattice(lattice.num_frames, lattice.pairs)
    thetas = [max(0.0, theta) for theta in (*cuts(lattice, HIGHEST, quads=True), HIGHEST)]
    every = [merges_above(pairs_alone, theta) for theta in thetas]
    every += [merges_above(lattice, theta) for theta in thetas if theta < QUADS_BELOW]
    every += [_all_merged(pairs_alone), _all_merged(lattice)]
    within = [other for other in every if left(other) <= percent / 100]
    if within:
        assert left(plan) == max(map(left, within))
        assert plan.quads == min(other.quads for other in within if left(other) == left(plan))
    else:
        assert left(plan) == min(map(left, every))


def _all_merged(lattice: Lattice) -> Merges:
    """What a threshold below all values gives."""
    return merges_above(
        Lattice(lattice.num_frames, (1.0,) * len(lattice.pairs), (1.0,) * len(lattice.quads)),
        0.0,
    )


def test_a_ratio_is_met_where_the_ends_of_every_span_are_unlike() -> None:
    # 33 frames whose 9 latents can become 6 by pairs: 21 frames, 0.64 of all
    plan = merges_of_ratio(Lattice(33, (-0.4, -0.2, 0.0), (-0.5, -0.6)), 0.65)
    assert len(plan.latents) == 6


def test_where_slots_differ_every_ratio_above_the_floor_is_met_within_a_group() -> None:
    # 81 frames, nine slots that are less and less alike: any count of pairs from 0 to 9 can be had.
    lattice = Lattice(81, tuple(0.9 - 0.05 * slot for slot in range(9)))
    for target in (x / 100 for x in range(56, 101)):  # 45 of 81 frames are left at the floor: 0.556
        assert target - 4 / 81 < left(merges_of_ratio(lattice, target)) <= target


def test_a_ratio_below_the_floor_merges_all_that_can_be() -> None:
    assert merges_of_ratio(alike(49, 0.4, quads=True), 0.01).runs == ((1, 4), (17, 4), (33, 2))


def test_of_plans_with_as_many_latents_the_one_with_fewer_quads_is_taken() -> None:
    # 49 frames, all 0.4 alike: 5 pairs leave 8 of 13 latents, 29 of 49 frames; with quads 6.
    lattice = alike(49, 0.4, quads=True)
    assert merges_of_ratio(lattice, 29 / 49).quads == 0
    assert merges_of_ratio(lattice, 28 / 49).runs == ((1, 4), (17, 4), (33, 2))


# --- back in time ---------------------------------------------------------------------------------


@given(lattices(), st.integers(0, 20))
def test_every_frame_comes_back_once_from_neighbours_in_time(lattice: Lattice, theta: int) -> None:
    plan = merges_above(lattice, theta / 20)
    found = moments_among(plan.frames, plan.num_frames)

    assert len(found) == plan.num_frames
    for frame, moment in enumerate(found):
        before = plan.frames[moment.before]
        after = plan.frames[moment.before + (not moment.is_decoded)]
        assert 0 <= moment.part < 1
        assert before + moment.part * (after - before) == frame
    # each decoded frame stands where it was taken from, and is not made again
    decoded = tuple(frame for frame, moment in enumerate(found) if moment.is_decoded)
    assert decoded == plan.frames


def test_pairs_come_back_half_way_and_quads_by_quarters() -> None:
    plan = Merges(33, ((1, 2), (9, 4)))
    found = moments_among(plan.frames, plan.num_frames)
    assert found[1:4] == (Moment(1, Fraction(0)), Moment(1, Fraction(1, 2)), Moment(2, Fraction(0)))
    # Frame 9 is decoded as number 5; 10, 11, 12 lie between it and number 6, which is frame 13.
    assert [(one.before, one.part) for one in found[9:14]] == [
        (5, 0),
        (5, Fraction(1, 4)),
        (5, Fraction(1, 2)),
        (5, Fraction(3, 4)),
        (6, 0),
    ]


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("theta", [-0.01, 1.01, math.nan])
def test_a_threshold_outside_its_range_is_refused(theta: float) -> None:
    with pytest.raises(ValueError, match="theta must be between 0 and 1"):
        merges_above(alike(17), theta)


@pytest.mark.parametrize("ratio", [0.0, 1.2, math.nan])
def test_a_ratio_outside_its_range_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="ratio of frames"):
        merges_of_ratio(alike(17), ratio)


def test_values_that_fit_no_video_are_refused() -> None:
    with pytest.raises(
        ValueError, match="33 frames have 3 slots, not values for 2 of them and for 0 neighbours"
    ):
        Lattice(33, (0.5, 0.5))
    with pytest.raises(ValueError, match="not finite"):
        Lattice(17, (math.nan,))
    with pytest.raises(ValueError, match="more alike than each of them"):
        Lattice(33, (0.5, 0.4, 0.5), (0.45, 0.4))
    with pytest.raises(ValueError, match="18 frames are no whole number of latents"):
        Lattice(18, (0.5,))


@pytest.mark.parametrize("runs", [((1, 3),), ((2, 2),), ((1, 2), (5, 2)), ((9, 2),), ((25, 2),)])
def test_runs_that_cannot_be_merged_are_refused(runs: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(ValueError, match="cannot"):
        Merges(17, runs)
