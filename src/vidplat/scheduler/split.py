"""Which split to make: how many keyframes the cloud finishes and how deep the edge refines what it fills in.

The choice (K, D) is made by trying every point: a few dozen sums (EcoVideo, arXiv 2606.30557, gives the knobs; rule
and quality model are our choice). `rated` states each point's seconds (`split_cost.py`) and predicted quality; `choose`
takes the fastest that keeps the limits, or the best within a time, and says why in words; `steadied` keeps the K of
before unless another is predicted to gain more than 5 %. K must be fixed before the warm-up ends; D may be chosen again
at hand-over, by rating the points of that K alone.

What `choose` promises for parts that follow each other: the bytes sent never grow as the link gets slower, nor the
edge's work as the edge does. With T = a + bytes / B, a point preferred at a smaller B cannot have the larger slope.
Where parts overlap, the bottleneck moves with B and slopes with it: there the promise does not hold.

Legend: F latent frames, K kept of them, D depth, B bit/s, g share of a full edge.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from vidplat.scheduler.split_cost import PAYLOADS, SplitClip, SplitMachines, SplitPoint, SplitTimes, serial
from vidplat.scheduler.wording import seconds

KEYFRAMES = (6, 8, 11, 14, 16, 21)
DEPTHS = (0, 1, 2, 3)
LEAST_GAIN = 0.05
GAMMAS = tuple(0.25 * step for step in range(13))

Timing = Callable[[SplitClip, SplitMachines, SplitPoint], SplitTimes]
Quality = Callable[[int, int], float]


@dataclass(frozen=True)
class Limits:
    """What a point must keep. `time_s`: none is needed to minimise time; with one, quality is what is maximised."""

    quality: float = 0.0  # Q_min
    cloud_s: float = math.inf
    edge_s: float = math.inf
    edge_bytes: float = math.inf
    time_s: float = math.inf  # T_max


@dataclass(frozen=True)
class Rated:
    """One point with what it takes and gives."""

    point: SplitPoint
    times: SplitTimes
    quality: float


@dataclass(frozen=True)
class Split:
    """The choice. `is_feasible` is False where no point keeps the limits: then it is the one of the best quality."""

    chosen: Rated
    is_feasible: bool
    reason: str


def rated(
    clip: SplitClip,
    machines: SplitMachines,
    quality: Quality,
    *,
    keyframes: Iterable[int] = KEYFRAMES,
    depths: Iterable[int] = DEPTHS,
    payloads: Iterable[str] = PAYLOADS[:1],
    timing: Timing = serial,
) -> tuple[Rated, ...]:
    """Every point of the sets that this clip and these machines can have; what was never measured is left out."""
    points = [
        SplitPoint(k, depth, payload)
        for k in sorted({min(k, clip.latents) for k in keyframes})
        for depth in sorted(set(depths))
        if depth < len(machines.insert_s)
        for payload in payloads
    ]
    return tuple(Rated(point, timing(clip, machines, point), quality(point.k, point.depth)) for point in points)


def choose(points: Sequence[Rated], limits: Limits = Limits()) -> Split:
    """The fastest point within the limits; with a time limit, the best one within it, and of equals the fastest.

    Equal seconds: fewer bytes, then less work for the edge, then the smaller K and D, so the answer is one whatever the
    order of `points`. Raises `ValueError` for no points.
    """
    if not points:
        raise ValueError("there is no point to choose from")
    within = [each for each in points if not _broken(each, limits)]
    if within and math.isinf(limits.time_s):
        chosen = min(within, key=_rank)
        return Split(chosen, True, f"{_named(chosen.point)} is the fastest of {len(within)}: {_parts(chosen.times)}")
    chosen = min(within or points, key=lambda each: (-each.quality, _rank(each)))
    if within:
        return Split(
            chosen, True, f"{_named(chosen.point)} is the best in time of {len(within)}: {_parts(chosen.times)}"
        )
    return Split(chosen, False, f"{_named(chosen.point)} {' and '.join(_broken(chosen, limits))}")


def steadied(points: Sequence[Rated], limits: Limits, before: SplitPoint | None) -> Split:
    """`choose`, but K stays as it was `before` unless another gains more than 5 % of time (or of quality, in time).

    The depth follows freely: it costs nothing to change. Where the old K no longer keeps the limits, it goes.
    """
    free = choose(points, limits)
    same = [each for each in points if before is not None and each.point.k == before.k]
    if not same or not free.is_feasible or free.chosen.point.k == same[0].point.k:
        return free
    held = choose(same, limits)
    if not held.is_feasible:
        return free
    if math.isinf(limits.time_s):
        gains = free.chosen.times.total_s < (1 - LEAST_GAIN) * held.chosen.times.total_s
    else:
        gains = free.chosen.quality > (1 + LEAST_GAIN) * held.chosen.quality
    if gains:
        return free
    return Split(held.chosen, True, f"{held.reason}; {_named(free.chosen.point)} would gain too little to change K")


def _rank(each: Rated) -> tuple[float, ...]:
    point, times = each.point, each.times
    return (times.total_s, times.sent_bytes, times.edge_s, point.k, point.depth, PAYLOADS.index(point.payload))


def _broken(each: Rated, limits: Limits) -> list[str]:
    """A clause for each limit that the point breaks."""
    times, said = each.times, []
    if each.quality < limits.quality:
        said.append(f"reaches quality {each.quality:.3g}, asked for is {limits.quality:.3g}")
    if times.total_s > limits.time_s:
        said.append(f"needs {seconds(times.total_s)}, limit {seconds(limits.time_s)}: {_most(times)}")
    if times.cloud_s > limits.cloud_s:
        said.append(f"keeps the cloud for {seconds(times.cloud_s)}, limit {seconds(limits.cloud_s)}")
    if times.edge_s > limits.edge_s:
        said.append(f"keeps the edge for {seconds(times.edge_s)}, limit {seconds(limits.edge_s)}")
    if times.edge_bytes > limits.edge_bytes:
        said.append(f"needs {times.edge_bytes / 1e6:.0f} MB on the edge, limit {limits.edge_bytes / 1e6:.0f} MB")
    return said


def _named(point: SplitPoint) -> str:
    return f"K={point.k}, D={point.depth}" + ("" if point.payload == "video" else ", sent as latents")


def _parts(times: SplitTimes) -> str:
    parts = f"cloud {seconds(times.cloud_s)}, network {seconds(times.network_s)}, edge {seconds(times.edge_s)}"
    return f"{seconds(times.total_s)} ({parts})"


def _most(times: SplitTimes) -> str:
    """The largest part, `network 6.1 s at 3 Mbit/s`."""
    parts = {"cloud": times.cloud_s, "network": times.network_s, "edge": times.edge_s}
    largest = max(parts, key=lambda name: parts[name])
    told = f"{largest} {seconds(parts[largest])}"
    if largest == "network":
        told += f" at {times.bits_per_s / 1e6:.3g} Mbit/s"
    return told


# --- predicted quality -----------------------------------------------------------------------------


def share_kept(frames: int) -> Quality:
    """Before anything was calibrated: Q = K / F at any depth."""
    return lambda k, depth: k / frames


@dataclass(frozen=True)
class FittedQuality:
    """Q = full - sum over dropped f of e_f gap(f)^gamma beta_D, with e the entropy over its mean (our choice of scale).

    gap(f) is the distance of the two keys between which f lies.
    """

    full: float
    gamma: float
    beta: Mapping[int, float]  # by depth

    def of(self, key: Sequence[int], entropy: Sequence[float], depth: int) -> float:
        return self.full - self.beta[depth] * missing(key, entropy, self.gamma)


@dataclass(frozen=True)
class Observed:
    """The measured quality of one key at one depth."""

    key: tuple[int, ...]
    entropy: tuple[float, ...]
    depth: int
    quality: float


def missing(key: Sequence[int], entropy: Sequence[float], gamma: float) -> float:
    """Sum over the frames between keys of e_f gap(f)^gamma; 0 for a key of all frames."""
    mean = math.fsum(entropy) / len(entropy)
    if mean <= 0:
        return math.fsum((j - i - 1) * (j - i) ** gamma for i, j in pairwise(key))
    return math.fsum(math.fsum(entropy[i + 1 : j]) / mean * (j - i) ** gamma for i, j in pairwise(key))


def fitted_quality(observed: Sequence[Observed], gammas: Sequence[float] = GAMMAS) -> FittedQuality:
    """Least squares in (full, beta_D) for each gamma of the grid 0, 0.25, .. 3; the gamma with the least error.

    Raises `ValueError` where there are not more observations than numbers to find.
    """
    depths = sorted({each.depth for each in observed})
    if len(observed) <= len(depths) + 1:
        raise ValueError(f"{len(observed)} observations do not tell {len(depths) + 2} numbers")
    measured = np.array([each.quality for each in observed])
    best: tuple[float, FittedQuality] | None = None
    for gamma in gammas:
        columns = np.zeros((len(observed), 1 + len(depths)))
        columns[:, 0] = 1
        for row, each in enumerate(observed):
            columns[row, 1 + depths.index(each.depth)] = -missing(each.key, each.entropy, gamma)
        found = np.linalg.lstsq(columns, measured, rcond=None)[0]
        error = float(np.sum((columns @ found - measured) ** 2))
        if best is None or error < best[0]:
            full, *beta = found.tolist()
            best = error, FittedQuality(full, gamma, dict(zip(depths, beta, strict=True)))
    assert best is not None, "the grid is not empty"
    return best[1]
