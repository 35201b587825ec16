"""Keys that eco is measured against: the oracle is the best of all, and what a key loses to it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from itertools import combinations

import pytest

from benchmarks.rivals.keys import (
    at_random,
    leave_one_out,
    lowest,
    oracle,
    path_cost,
    regret,
)


def some_cost(seed: int) -> Callable[[int, int], float]:
    """Small whole numbers, so that equal sums are many."""
    rng = random.Random(seed)
    pairs = [(i, j) for i in range(12) for j in range(i + 1, 12)]
    table = {(i, j): float(rng.randrange(1, 9) * (j - i - 1)) for i, j in pairs}
    return lambda i, j: table[i, j]


@pytest.mark.parametrize("frames", range(2, 11))
def test_the_oracle_is_the_first_of_the_best_of_all_keys(frames: int) -> None:
    for k in range(2, frames + 1):
        for seed in range(3):
            cost = some_cost(seed)
            inside = combinations(range(1, frames - 1), k - 2)
            keys = [(0, *key, frames - 1) for key in inside]

            best = min(keys, key=lambda key: path_cost(key, cost))

            assert oracle(frames, k, cost) == best


def test_the_oracle_asks_for_each_interval_once_and_only_if_a_key_can_have_it() -> None:
    asked: list[tuple[int, int]] = []

    def noted(i: int, j: int) -> float:
        asked.append((i, j))
        return float(j - i - 1)

    oracle(21, 11, noted)

    assert len(asked) == len(set(asked))
    assert max(j - i for i, j in asked) == 21 - 11 + 1


def test_regret_is_relative_to_the_best_key() -> None:
    def squared(i: int, j: int) -> float:
        return float((j - i - 1) ** 2)

    best = oracle(9, 3, squared)

    assert best == (0, 4, 8)  # 9 + 9 = 18
    assert regret(best, best, squared) == 0
    assert regret((0, 2, 8), best, squared) == pytest.approx(26 / 18 - 1)  # 1 + 25 = 26


def test_regret_is_infinite_where_only_the_key_loses_anything() -> None:
    assert regret((0, 2), (0, 2), lambda i, j: 0.0) == 0
    assert regret((0, 1, 3), (0, 2, 3), lambda i, j: float((i, j) == (1, 3))) == math.inf


def test_leaving_one_frame_out_costs_its_interval_of_two() -> None:
    assert leave_one_out(5, lambda i, j: float(10 * i + j)) == (2.0, 13.0, 24.0)


def test_rivals_choose_the_lowest_scores_and_a_seed_s_own_key() -> None:
    assert lowest([0.0, 3.0, 1.0, 2.0, 0.5, 0.0], 4) == (0, 2, 4, 5)
    keys = {at_random(seed)([0.0] * 21, 8) for seed in range(5)}
    assert len(keys) == 5
    assert at_random(3)([9.0] * 21, 8) == at_random(3)([0.0] * 21, 8)
