"""Keyframes: the scores of several steps in one, and selections against brute force."""

from __future__ import annotations

import random
import subprocess
import sys
from itertools import combinations, pairwise

import numpy as np
import pytest

from vidplat.methods.eco.keyframes import (
    SELECTORS,
    changes,
    moving_average,
    select,
    top,
    uniform,
    widest_gap,
)

SMALL = [(frames, k) for frames in range(2, 9) for k in range(2, frames + 1)]


def some_scores(frames: int, seed: int, levels: int = 4) -> list[float]:
    """Small whole numbers, so that ties are many and sums are exact."""
    rng = random.Random(seed)
    return [float(rng.randrange(levels)) for _ in range(frames)]


def test_scores_of_steps_are_joined_by_a_moving_average() -> None:
    steps = [(1.0, 8.0), (2.0, 4.0), (6.0, 0.0)]

    # 0.6 * 2 + 0.4 * 1 = 1.6, 0.6 * 6 + 0.4 * 1.6 = 4.24; 0.6 * 4 + 0.4 * 8 = 5.6, 0.4 * 5.6 = 2.24
    assert moving_average(steps) == pytest.approx((4.24, 2.24))
    assert moving_average(steps[:1]) == (1.0, 8.0)


@pytest.mark.parametrize("steps", [[], [(1.0,), (1.0, 2.0)]])
def test_scores_that_do_not_fit_together_are_refused(steps: list[tuple[float, ...]]) -> None:
    with pytest.raises(ValueError, match="cannot be joined"):
        moving_average(steps)


def test_motion_is_the_mean_change_from_the_frame_before() -> None:
    frames = np.zeros((3, 2, 2))
    frames[1, 0, 0] = 4  # a quarter of the pixels changes by 4, and then back and all to 2
    frames[2] = 2

    assert changes(frames) == (1.0, 1.0, 2.0)
    assert changes(frames[:1]) == (0.0,)


@pytest.mark.parametrize("selector", SELECTORS)
@pytest.mark.parametrize(("frames", "k"), [*SMALL, (21, 11), (21, 2), (21, 21)])
def test_every_selection_is_k_ascending_frames_from_first_to_last(
    selector: str, frames: int, k: int
) -> None:
    key = select(some_scores(frames, seed=frames), k, selector=selector)

    assert len(key) == len(set(key)) == k
    assert list(key) == sorted(key)
    assert (key[0], key[-1]) == (0, frames - 1)


@pytest.mark.parametrize(("frames", "k"), SMALL)
def test_the_largest_scores_are_those_of_brute_force(frames: int, k: int) -> None:
    """The largest sum, and of equal ones the lowest indices: `combinations` ascends, and `max`
    takes the first."""
    for seed in range(5):
        scores = some_scores(frames, seed)
        allowed = [key for key in combinations(range(frames), k) if {0, frames - 1} <= set(key)]

        assert top(scores, k) == max(allowed, key=lambda key: sum(scores[i] for i in key))


def test_equal_scores_keep_the_lowest_frames() -> None:
    assert top([1.0] * 8, 4) == (0, 1, 2, 7)
    assert top([5.0, 1.0, 9.0], 2) == (0, 2)  # two keys are both ends, whatever lies between


@pytest.mark.parametrize("selector", SELECTORS)
@pytest.mark.parametrize("k", [1, 6])
def test_a_number_that_cannot_be_chosen_is_refused(selector: str, k: int) -> None:
    with pytest.raises(ValueError, match=f"{k} keyframes cannot be chosen from 5 latent frames"):
        select([1.0] * 5, k, selector=selector)


def test_selectors_differ_in_what_they_look_at() -> None:
    scores = [0.0, 3.0, 1.0, 2.0, 0.5, 0.0]

    assert select(scores, 4) == select(scores, 4, selector="motion") == (0, 1, 3, 5)
    assert select(scores, 4, selector="uniform") == (0, 2, 3, 5)  # 0, 5/3, 10/3, 5
    with pytest.raises(ValueError, match="one of entropy, uniform"):
        select(scores, 4, selector="luck")


@pytest.mark.parametrize(("frames", "k"), SMALL)
def test_uniform_keys_leave_the_narrowest_gap_that_k_can(frames: int, k: int) -> None:
    assert widest_gap(uniform(frames, k)) == -(-(frames - 1) // (k - 1))


def test_all_gaps_of_a_key_count() -> None:
    key = (0, 3, 4, 9)

    assert widest_gap(key) == max(j - i for i, j in pairwise(key)) == 5
    assert widest_gap((4,)) == 0


def test_choosing_keyframes_needs_no_torch() -> None:
    script = (
        "import sys, vidplat.methods.eco.keyframes, vidplat.methods.filling.moments; "
        "print('torch' in sys.modules, 'ray' in sys.modules)"
    )

    assert subprocess.check_output([sys.executable, "-c", script], text=True).split() == [
        "False",
        "False",
    ]
