"""Keyframes: budgets by rate, selections against brute force, and the oracle that no selection
beats.
"""

from __future__ import annotations

import math
import random
import subprocess
import sys
from collections.abc import Callable
from itertools import combinations, pairwise

import numpy as np
import pytest

from vidplat.methods.eco.keyframes import (
    SELECTORS,
    aggregated,
    budget,
    changes,
    is_uninformative,
    leave_one_out,
    oracle,
    path_cost,
    rank_correlation,
    regret,
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


def some_cost(seed: int) -> Callable[[int, int], float]:
    rng = random.Random(seed)
    table = {
        (i, j): float(rng.randrange(1, 9) * (j - i - 1))
        for i in range(12)
        for j in range(i + 1, 12)
    }
    return lambda i, j: table[i, j]


@pytest.mark.parametrize(
    ("frames", "fps", "key_fps", "kept"),
    [
        (
            81,
            16,
            8,
            11,
        ),  # round(40.5) = 40 (half to even); 39 / 4 = 9.75, rounded 10, and the first
        (49, 8, 8, 13),  # the trap: its own rate, so all 13 latents
        (121, 24, 8, 11),  # round(40.33) = 40, as above
        (
            81,
            16,
            0.1,
            2,
        ),  # round(0.5) = 0 frames become 2, and round(1 / 4) + 1 = 1 latent becomes 2
        (81, 16, 1000, 21),  # never more than there are
        (81, 16, None, 21),
        (1, 16, 8, 1),
    ],
)
def test_the_budget_follows_the_rate_of_keyframes(
    frames: int, fps: float, key_fps: float | None, kept: int
) -> None:
    assert budget(frames, fps, key_fps) == kept


def test_a_rate_that_is_no_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="must be positive, not 16 and 0"):
        budget(81, 16, 0)


# --- scores ---------------------------------------------------------------------------------------


def test_scores_of_steps_are_joined_by_their_last_their_mean_or_a_moving_average() -> None:
    steps = [(1.0, 8.0), (2.0, 4.0), (6.0, 0.0)]

    assert aggregated(steps, "last") == (6.0, 0.0)
    assert aggregated(steps, "mean") == (3.0, 4.0)
    # 0.6 * 2 + 0.4 * 1 = 1.6, 0.6 * 6 + 0.4 * 1.6 = 4.24; 0.6 * 4 + 0.4 * 8 = 5.6, 0.4 * 5.6 = 2.24
    assert aggregated(steps, "ema") == pytest.approx((4.24, 2.24))
    assert aggregated(steps[:1], "ema") == (1.0, 8.0)


@pytest.mark.parametrize("steps", [[], [(1.0,), (1.0, 2.0)]])
def test_scores_that_do_not_fit_together_are_refused(steps: list[tuple[float, ...]]) -> None:
    with pytest.raises(ValueError, match="cannot be joined"):
        aggregated(steps)


def test_scores_within_a_thousandth_mean_little() -> None:
    assert is_uninformative([3.04, 3.0395, 3.04])
    assert not is_uninformative([3.04, 3.03, 3.04])


def test_motion_is_the_mean_change_from_the_frame_before() -> None:
    frames = np.zeros((3, 2, 2))
    frames[1, 0, 0] = 4  # a quarter of the pixels changes by 4, and then back and all to 2
    frames[2] = 2

    assert changes(frames) == (1.0, 1.0, 2.0)
    assert changes(frames[:1]) == (0.0,)


# --- selections -----------------------------------------------------------------------------------


@pytest.mark.parametrize("selector", SELECTORS)
@pytest.mark.parametrize(("frames", "k"), [*SMALL, (21, 11), (21, 2), (21, 21)])
def test_every_selection_is_k_ascending_frames_from_first_to_last(
    selector: str, frames: int, k: int
) -> None:
    key = select(some_scores(frames, seed=frames), k, selector=selector)

    assert len(key) == len(set(key)) == k
    assert list(key) == sorted(key)
    assert (key[0], key[-1]) == (0, frames - 1)


@pytest.mark.parametrize("cover", [True, False])
@pytest.mark.parametrize(("frames", "k"), [*SMALL, *((frames, 1) for frames in range(1, 5))])
def test_the_largest_scores_are_those_of_brute_force(frames: int, k: int, cover: bool) -> None:
    """The largest sum, and of equal ones the lowest indices: `combinations` ascends, and `max`
    takes the first."""
    for seed in range(5):
        scores = some_scores(frames, seed)
        allowed = [
            key
            for key in combinations(range(frames), k)
            if not (cover and k >= 2) or {0, frames - 1} <= set(key)
        ]

        assert top(scores, k, cover=cover) == max(
            allowed, key=lambda key: sum(scores[i] for i in key)
        )


@pytest.mark.parametrize("cover", [True, False])
@pytest.mark.parametrize(("frames", "k"), SMALL)
def test_under_a_widest_gap_too(frames: int, k: int, cover: bool) -> None:
    for seed in range(3):
        scores = some_scores(frames, seed)
        for gap in range(-(-(frames - 1) // (k - 1)), frames):
            allowed = [
                key
                for key in combinations(range(frames), k)
                if widest_gap(key) <= gap and (not cover or {0, frames - 1} <= set(key))
            ]

            assert top(scores, k, cover=cover, max_gap=gap) == max(
                allowed, key=lambda key: sum(scores[i] for i in key)
            )


def test_a_gap_moves_only_the_keys_that_it_must() -> None:
    scores = [0, 9, 8, 7, 6, 0, 1, 0, 0, 0]

    assert top(scores, 6) == (0, 1, 2, 3, 4, 9)  # 4 to 9 is a gap of 5
    assert top(scores, 6, max_gap=4) == (0, 1, 2, 3, 6, 9)  # 6 gives way to 1


def test_few_keys_and_a_narrow_gap_are_refused() -> None:
    for selector in ("entropy", "uniform"):
        with pytest.raises(
            ValueError,
            match="3 keyframes over 10 latent frames leave a gap of 5 or more, not of at most",
        ):
            select([1.0] * 10, 3, selector=selector, max_gap=4)


def test_equal_scores_keep_the_lowest_frames() -> None:
    assert top([1.0] * 8, 4) == (0, 1, 2, 7)
    assert top([1.0] * 8, 4, cover=False) == (0, 1, 2, 3)
    assert top([5.0, 1.0, 9.0], 2) == (0, 2)  # two keys are both ends, whatever lies between


def test_no_budget_keeps_all_and_too_large_a_one_is_refused() -> None:
    for selector in SELECTORS:
        assert select([1.0] * 5, 0, selector=selector) == (0, 1, 2, 3, 4)
        with pytest.raises(ValueError, match="6 keyframes cannot be chosen from 5 latent frames"):
            select([1.0] * 5, 6, selector=selector)


def test_selectors_differ_in_what_they_look_at() -> None:
    scores = [0.0, 3.0, 1.0, 2.0, 0.5, 0.0]

    assert select(scores, 4) == select(scores, 4, selector="motion") == (0, 1, 3, 5)
    assert select(scores, 4, selector="anti-entropy") == (0, 2, 4, 5)
    assert select(scores, 4, selector="uniform") == (0, 2, 3, 5)  # 0, 5/3, 10/3, 5
    with pytest.raises(ValueError, match="one of entropy, uniform"):
        select(scores, 4, selector="luck")


def test_random_keys_are_those_of_their_seed() -> None:
    keys = {select([0.0] * 21, 8, selector="random", seed=seed) for seed in range(5)}

    assert len(keys) == 5
    assert select([9.0] * 21, 8, selector="random", seed=3) == select(
        [0.0] * 21, 8, selector="random", seed=3
    )


@pytest.mark.parametrize(("frames", "k"), SMALL)
def test_uniform_keys_leave_the_narrowest_gap_that_k_can(frames: int, k: int) -> None:
    assert widest_gap(uniform(frames, k)) == -(-(frames - 1) // (k - 1))


# --- the oracle -----------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", range(2, 11))
def test_the_oracle_is_the_best_of_all_keys(frames: int) -> None:
    for k in range(2, frames + 1):
        for seed in range(3):
            cost = some_cost(seed)
            inside = combinations(range(1, frames - 1), k - 2)
            best = min(
                ((0, *key, frames - 1) for key in inside), key=lambda key: path_cost(key, cost)
            )

            assert oracle(frames, k, cost) == best


@pytest.mark.parametrize("selector", SELECTORS)
def test_no_selector_beats_the_oracle(selector: str) -> None:
    for seed in range(10):
        for k in range(2, 13):
            key = select(some_scores(12, seed), k, selector=selector, seed=seed)

            assert path_cost(oracle(12, k, some_cost(seed)), some_cost(seed)) <= path_cost(
                key, some_cost(seed)
            )
            assert regret(key, 12, some_cost(seed)) >= 0


def test_regret_is_relative_to_the_oracle() -> None:
    def squared(i: int, j: int) -> float:
        return float((j - i - 1) ** 2)

    # 0, 4, 8: 9 + 9 = 18; 0, 2, 8: 1 + 25 = 26
    assert regret((0, 4, 8), 9, squared) == 0
    assert regret((0, 2, 8), 9, squared) == pytest.approx(26 / 18 - 1)
    assert regret((0, 2), 3, lambda i, j: 0.0) == 0
    assert regret((0, 1, 3), 4, lambda i, j: float((i, j) == (1, 3))) == math.inf


def test_each_interval_is_asked_for_once_and_only_if_a_key_can_have_it() -> None:
    asked: list[tuple[int, int]] = []

    def noted(i: int, j: int) -> float:
        asked.append((i, j))
        return float(j - i - 1)

    oracle(21, 11, noted)

    assert len(asked) == len(set(asked))
    assert max(j - i for i, j in asked) == 21 - 11 + 1
    asked.clear()
    oracle(21, 21, noted)
    assert not asked


def test_an_oracle_needs_both_ends() -> None:
    with pytest.raises(ValueError, match="K must be 2 or more, not 1"):
        oracle(5, 1, some_cost(0))
    assert oracle(1, 1, some_cost(0)) == (0,)


def test_ranks_correlate_by_order_alone_and_ties_share_theirs() -> None:
    assert rank_correlation([1, 2, 3, 4], [10, 20, 30, 1000]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: deviations -1.5, 0, 0, 1.5 and -1.5, -0.5, 0.5, 1.5:
    # 4.5 / sqrt(4.5 * 5).
    assert rank_correlation([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    assert math.isnan(rank_correlation([1, 1], [1, 2]))
    with pytest.raises(ValueError, match="2 and 3 values"):
        rank_correlation([1, 2], [1, 2, 3])


def test_leaving_one_frame_out_costs_its_interval_of_two() -> None:
    assert leave_one_out(5, lambda i, j: float(10 * i + j)) == (2.0, 13.0, 24.0)


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
