"""Which latent frames of a video are kept as keyframes: budgets, selections, and the best selection
there is.

EcoVideo (arXiv 2606.30557) denoises all latent frames for a few steps, gives each a score (the
entropy of its attention), finishes the K frames with the largest ones and interpolates the rest.
Its rules, in the order of use:

    budget       K from a rate of keyframes per second
    aggregated   the scores of several steps become one score per frame
    select       K frames by score, or by one of the rules that scores are compared with
    oracle       the K frames between which filling in really costs least, by dynamic programming
    regret       what a selection loses against those; `rank_correlation` tells whether scores
                 foretell costs

What the sources leave open is marked "our choice". Only arithmetic: computing the scores is a
worker's task, and when a kept frame is shown is `timeline.py`. This file loads neither torch nor
ray.

Legend: N output frames, F latent frames, K kept of them; a key is K ascending indices in 0..F-1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vidplat.methods.model_shape import latent_frames

Cost = Callable[
    [int, int], float
]  # (i, j), i < j: the error of filling in between kept neighbours i and j

EMA_WEIGHT = 0.6
AGGREGATIONS = ("ema", "mean", "last")
#: entropy and motion keep the largest scores, anti-entropy the smallest; uniform and random look at
#: none.
SELECTORS = ("entropy", "uniform", "random", "motion", "anti-entropy")


def budget(num_frames: int, fps: float, key_fps: float | None, factor: int = 4) -> int:
    """K for `key_fps` keyframes per second of a video of N frames at `fps`; all F where `key_fps`
    is None.

    As released: round(N key_fps / fps) frames, 2 or more, then as many latents as decode to them;
    rounded half to even, so 81 frames from 16 to 8 per second are round(40.5) = 40 frames and 11
    latents. A `key_fps` that is the video's own rate keeps every latent. Raises `ValueError` for
    rates that are not positive.
    """
    full = latent_frames(num_frames, factor)
    if key_fps is None:
        return full
    if not (fps > 0 and key_fps > 0):
        raise ValueError(f"frames per second must be positive, not {fps:g} and {key_fps:g}")
    frames = max(2, round(num_frames * key_fps / fps))
    return min(full, max(2, round((frames - 1) / factor) + 1))


def aggregated(scores: Sequence[Sequence[float]], how: str = "ema") -> tuple[float, ...]:
    """One score per frame from those of steps 0, 1, ... (steps x F): their last, their mean or a
    moving average.

    ema: m = 0.6 new + 0.4 m from m = the first (our choice: the two released programs weigh the two
    sides differently). Raises `ValueError` for no steps, for steps of unequal length, and for an
    unknown word.
    """
    if not scores or len({len(step) for step in scores}) != 1:
        raise ValueError(
            f"scores of {len(scores)} steps with {[len(step) for step in scores]} frames cannot "
            "be joined"
        )
    if how == "last":
        return tuple(scores[-1])
    if how == "mean":
        return tuple(math.fsum(frame) / len(scores) for frame in zip(*scores, strict=True))
    if how != "ema":
        raise ValueError(f"scores are joined by one of {', '.join(AGGREGATIONS)}, not {how!r}")
    held = list(scores[0])
    for step in scores[1:]:
        held = [
            EMA_WEIGHT * new + (1 - EMA_WEIGHT) * old for new, old in zip(step, held, strict=True)
        ]
    return tuple(held)


def is_uninformative(scores: Sequence[float]) -> bool:
    """Whether scores differ by under a thousandth of the largest: the selection then means little.
    Our choice."""
    return max(scores) - min(scores) <= 1e-3 * abs(max(scores))


def changes(frames: NDArray[np.floating]) -> tuple[float, ...]:
    """Motion magnitude per frame of `frames` (F, ...): mean |x_f - x_{f-1}|; the first frame's is
    the second's."""
    if len(frames) < 2:
        return (0.0,) * len(frames)
    steps = (
        np.abs(np.diff(np.asarray(frames, np.float64), axis=0))
        .reshape(len(frames) - 1, -1)
        .mean(1)
        .tolist()
    )
    return (steps[0], *steps)


# --- selections -----------------------------------------------------------------------------------


def select(
    scores: Sequence[float],
    k: int,
    *,
    selector: str = "entropy",
    cover: bool = True,
    max_gap: int | None = None,
    seed: int = 0,
) -> tuple[int, ...]:
    """The K frames that are kept, ascending; all of them when `k` is 0 or less.

    scores: one per frame; of uniform and random only their number counts. cover: the first and the
    last frame are kept in any case (for K of 2 or more). max_gap: no two neighbours lie further
    apart; see `top`. seed: of random alone. Raises `ValueError` when K is above F or the gap cannot
    be kept.
    """
    frames = len(scores)
    if selector == "uniform":
        return uniform(frames, k, max_gap=max_gap)
    if selector == "random":
        scores = np.random.default_rng(seed).random(frames).tolist()
    elif selector == "anti-entropy":
        scores = [-score for score in scores]
    elif selector not in SELECTORS:
        raise ValueError(f"frames are selected by one of {', '.join(SELECTORS)}, not {selector!r}")
    return top(scores, k, cover=cover, max_gap=max_gap)


def top(
    scores: Sequence[float], k: int, *, cover: bool = True, max_gap: int | None = None
) -> tuple[int, ...]:
    """The K largest scores, of equal ones the lower index (our choice), under `cover` and
    `max_gap`.

    Where the largest scores leave a gap above `max_gap`, the key is the one with the largest sum of
    scores that leaves none: weak keys move into the gaps, and no more than needed (our choice;
    among equal sums the lowest indices).
    """
    frames = _checked(len(scores), k)
    if not 0 < k < frames:
        return tuple(range(frames))
    covered = cover and k >= 2
    forced = {0, frames - 1} if covered else set()
    ranked = sorted(set(range(frames)) - forced, key=lambda f: (-scores[f], f))
    key = tuple(sorted(forced | set(ranked[: k - len(forced)])))
    if max_gap is None or widest_gap(key) <= max_gap:
        return key
    if covered:
        _check_gap(frames, k, max_gap)
    exact = [
        Fraction(score) for score in scores
    ]  # floats would break ties by the order of summation

    def reaches(i: int, j: int) -> float | Fraction:
        return -exact[j] if j - i <= max_gap else math.inf

    starts = [0] if covered else list(range(frames))
    found = _cheapest(frames, k, reaches, starts, [-exact[i] for i in starts], ends_last=covered)
    assert found is not None, "some K frames lie close enough"
    return found


def uniform(frames: int, k: int, *, max_gap: int | None = None) -> tuple[int, ...]:
    """K evenly spaced frames from first to last, rounded half to even; frame 0 alone for K = 1."""
    _checked(frames, k)
    if not 0 < k < frames:
        return tuple(range(frames))
    if k == 1:
        return (0,)
    if max_gap is not None:
        _check_gap(frames, k, max_gap)
    return tuple(round(Fraction(i * (frames - 1), k - 1)) for i in range(k))


def widest_gap(key: Sequence[int]) -> int:
    """The largest distance of two neighbours; worth logging, since top scores cluster. 0 for one
    frame."""
    return max((j - i for i, j in pairwise(key)), default=0)


# --- the best there is ----------------------------------------------------------------------------


def oracle(frames: int, k: int, cost: Cost) -> tuple[int, ...]:
    """The K frames, first and last among them, with the least `path_cost`; of equals that with the
    lowest indices.

    cost(i, j) is the error of filling in the frames between the neighbours i < j. It is asked at
    most once for a pair, and only for pairs that a key of K frames can have. Costs of intervals add
    up, so the optimum is a shortest path with K nodes: O(K F^2). Raises `ValueError` when K is
    above F or below 2 (of more than one frame).
    """
    _checked(frames, k)
    if k == frames:
        return tuple(range(frames))
    if k < 2:
        raise ValueError(f"first and last frame are kept, so K must be 2 or more, not {k}")
    known: dict[tuple[int, int], float] = {}

    def asked(i: int, j: int) -> float:
        if j - i > frames - k + 1:
            return math.inf  # not enough frames are left over for the other keys
        if (i, j) not in known:
            known[i, j] = cost(i, j)
        return known[i, j]

    found = _cheapest(frames, k, asked, [0], [0.0], ends_last=True)
    assert found is not None, "K <= F keys reach from first to last"
    return found


def path_cost(key: Sequence[int], cost: Cost) -> float:
    """E: what filling in between all neighbours of a key costs."""
    return math.fsum(cost(i, j) for i, j in pairwise(key))


def regret(key: Sequence[int], frames: int, cost: Cost) -> float:
    """E(key) / E(oracle) - 1 at equal K, 0 or more; infinity where the oracle loses nothing and the
    key does."""
    best = path_cost(oracle(frames, len(key), cost), cost)
    own = path_cost(key, cost)
    if best == 0:
        return 0.0 if own == 0 else math.inf
    return own / best - 1


def leave_one_out(frames: int, cost: Cost) -> tuple[float, ...]:
    """What leaving out each inner frame alone costs, cost(f - 1, f + 1): what a score should
    foretell."""
    return tuple(cost(f - 1, f + 1) for f in range(1, frames - 1))


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's correlation of ranks, equal values sharing their mean rank; in [-1, 1].

    nan where one side is constant. Raises `ValueError` for unequal lengths or fewer than two
    values.
    """
    if len(one) != len(other) or len(one) < 2:
        raise ValueError(f"{len(one)} and {len(other)} values cannot be ranked against each other")
    a, b = (_ranks(values) for values in (one, other))
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale else math.nan


def _ranks(values: Sequence[float]) -> NDArray[np.float64]:
    _, place, count = np.unique(np.asarray(values, float), return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    ranks: NDArray[np.float64] = (last - (count - 1) / 2)[place]
    return ranks


def _cheapest(
    frames: int,
    k: int,
    cost: Callable[[int, int], float | Fraction],
    starts: Sequence[int],
    start_costs: Sequence[float | Fraction],
    *,
    ends_last: bool,
) -> tuple[int, ...] | None:
    """The path of `k` ascending frames with the least sum of `cost` over its steps and of its
    start's; None if none is.

    Counted from the end (`rest[i]`: the least cost of the frames that still follow i), so that
    walking forward and always taking the lowest frame that attains the least gives the lowest
    indices among equals.
    """
    rest: list[float | Fraction] = [
        0 if not ends_last or i == frames - 1 else math.inf for i in range(frames)
    ]
    table = [rest]
    for _ in range(k - 1):
        after = table[-1]
        table.append(
            [
                min(
                    (
                        _sum(cost(i, j), after[j])
                        for j in range(i + 1, frames)
                        if after[j] != math.inf
                    ),
                    default=math.inf,
                )
                for i in range(frames)
            ]
        )
    totals = [_sum(first, table[-1][i]) for i, first in zip(starts, start_costs, strict=True)]
    if min(totals) == math.inf:
        return None
    path = [starts[totals.index(min(totals))]]
    for left in range(k - 1, 0, -1):
        i, after = path[-1], table[left - 1]
        path.append(
            next(j for j in range(i + 1, frames) if _sum(cost(i, j), after[j]) == table[left][i])
        )
    return tuple(path)


def _sum(one: float | Fraction, other: float | Fraction) -> float | Fraction:
    """Exact for fractions; infinity swallows them."""
    return math.inf if math.inf in (one, other) else one + other


def _checked(frames: int, k: int) -> int:
    if frames < 1:
        raise ValueError("there are no frames to choose from")
    if k > frames:
        raise ValueError(f"{k} keyframes cannot be chosen from {frames} latent frames")
    return frames


def _check_gap(frames: int, k: int, max_gap: int) -> None:
    if (k - 1) * max_gap < frames - 1:
        least = -(-(frames - 1) // (k - 1))
        raise ValueError(
            f"{k} keyframes over {frames} latent frames leave a gap of {least} or more, not of "
            f"at most {max_gap}"
        )
