"""Keys that `eco` is measured against: the best by interpolation, the lowest scores, at random.

A key is the latent frames that are kept, ascending, first and last among them. What filling in
between two kept neighbours loses on the full run's own video is a cost; costs of neighbours add up,
so the best key is a shortest path. Regret is what another key loses against it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise

import numpy as np

from vidplat.methods.eco.keyframes import top
from vidplat.methods.filling.flow import Pair

Key = tuple[int, ...]
Choose = Callable[[Sequence[float], int], Key]  # scores and K -> the key
Cost = Callable[[int, int], float]  # (i, j), i < j: of filling in between neighbours i and j


def lowest(scores: Sequence[float], k: int) -> Key:
    return top([-score for score in scores], k)


def at_random(seed: int) -> Choose:
    return lambda scores, k: top(np.random.default_rng(seed).random(len(scores)).tolist(), k)


def oracle(frames: int, k: int, cost: Cost) -> Key:
    """The K frames with the least `path_cost`; of equals that with the lowest indices.

    `cost` is asked at most once for a pair, and only for pairs that a key of K frames can have.
    O(K F^2). Raises `ValueError` for a K below 2 or above F.
    """
    if not 2 <= k <= frames:
        raise ValueError(f"first and last frame are kept: {k} of {frames} cannot be")
    asked = cache(cost)

    @cache
    def rest(i: int, more: int) -> tuple[float, Key]:
        """The least cost from i on, and the `more` frames that follow."""
        if more == 1:
            return asked(i, frames - 1), (frames - 1,)
        ways = ((j, *rest(j, more - 1)) for j in range(i + 1, frames - more + 1))
        return min((asked(i, j) + further, (j, *key)) for j, further, key in ways)

    return 0, *rest(0, k - 1)[1]


def path_cost(key: Sequence[int], cost: Cost) -> float:
    """E: what filling in between all neighbours of a key costs."""
    return math.fsum(cost(i, j) for i, j in pairwise(key))


def regret(key: Sequence[int], best: Sequence[int], cost: Cost) -> float:
    """E(key) / E(best) - 1 at equal K, 0 or more; infinity where only the key loses anything."""
    least, own = path_cost(best, cost), path_cost(key, cost)
    if least == 0:
        return 0.0 if own == 0 else math.inf
    return own / least - 1


def leave_one_out(frames: int, cost: Cost) -> tuple[float, ...]:
    """What leaving out each inner frame alone costs: what a score should foretell."""
    return tuple(cost(f - 1, f + 1) for f in range(1, frames - 1))


def filling_cost(video: np.ndarray) -> Cost:
    """Of latent frames of a video (frames, rows, columns, 3): the mean squared error, of 255, of
    filling in, summed over the frames 4 f between."""
    shown = video[::4]

    @cache
    def cost(i: int, j: int) -> float:
        pair, total = Pair(shown[i], shown[j]), 0.0
        for f in range(i + 1, j):
            error = pair.at((f - i) / (j - i)).astype(np.float64) - shown[f]
            total += float((error**2).mean())
        return total

    return cost
