"""An upper bound on the mean quality that any plan could reach: the certificate beside each plan.

All workers become one pool that can be cut at will (fluid), a job costs what its fastest worker
takes, and jobs may be made partly at one point and partly at the next (LP relaxation). Only medians
and the share of the spread that never averages out are charged. Each of these makes the problem
easier, so the optimum of what is left, found by a greedy walk along the hulls under the nested
deadline constraints, is a bound.

Not promised: tightness for few jobs on unequal workers, where cutting one in two is worth much.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

from vidplat.scheduler.groups import NEVER, Group
from vidplat.scheduler.profile import hull


def worker_values(groups: Sequence[Group], workers: int) -> list[float]:
    """What a second of each worker is worth in seconds of the fastest, on average of its jobs."""
    total, weight = [0.0] * workers, [0] * workers
    for group in groups:
        fastest = min(r.seconds(r.top) for r in group.rungs.values())
        for i, rungs in group.rungs.items():
            total[i] += group.count * fastest / rungs.seconds(rungs.top)
            weight[i] += group.count
    return [t / n if n else 1.0 for t, n in zip(total, weight, strict=True)]


def quality_bound(groups: Sequence[Group], free_at: Sequence[float]) -> float:
    """Upper bound on the mean quality of `groups` (in deadline order) made in time by workers that
    are free then; 1 if that cannot be. Jobs without a deadline are bounded by their best point.
    """
    values = worker_values(groups, len(free_at))
    jobs = sum(g.count for g in groups)
    if not jobs:
        return 1.0
    due = [g for g in groups if g.deadline_at != NEVER]
    free = [g for g in groups if g.deadline_at == NEVER]
    total = sum(g.count * max(r.qualities[-1] for r in g.rungs.values()) for g in free)
    kinds = {id(g.rungs): g for g in due}
    cheapest = {kind: _cheapest(g, values) for kind, g in kinds.items()}
    curves = [cheapest[id(g.rungs)] for g in due]
    capacity = [
        sum(v * max(0.0, g.deadline_at - f) for f, v in zip(free_at, values, strict=True))
        for g in due
    ]
    used = np.cumsum([g.count * curve[0][0] for g, curve in zip(due, curves, strict=True)])
    slack = np.array(capacity) - used
    if np.any(slack < -1e-6):
        return 1.0
    heap = [_edge(curve, k, 0) for k, curve in enumerate(curves) if len(curve) > 1]
    heapq.heapify(heap)
    total += sum(g.count * curve[0][1] for g, curve in zip(due, curves, strict=True))
    while heap:
        _, k, rung = heapq.heappop(heap)
        curve, count = curves[k], due[k].count
        (s0, q0), (s1, q1) = curve[rung], curve[rung + 1]
        share = min(1.0, max(0.0, float(np.min(slack[k:]))) / (count * (s1 - s0)))
        if share > 0.0:
            slack[k:] -= share * count * (s1 - s0)
            total += share * count * (q1 - q0)
            if share == 1.0 and rung + 2 < len(curve):
                heapq.heappush(heap, _edge(curve, k, rung + 1))
    return min(1.0, total / jobs)


def _cheapest(group: Group, values: Sequence[float]) -> list[tuple[float, float]]:
    """The hull of (seconds of the fastest worker, quality) over all of a group's workers."""
    ranked = sorted(
        (values[i] * rungs.seconds(k), quality)
        for i, rungs in group.rungs.items()
        for k, quality in enumerate(rungs.qualities)
    )
    return [ranked[k] for k in hull([s for s, _ in ranked], [q for _, q in ranked])]


def _edge(curve: list[tuple[float, float]], k: int, rung: int) -> tuple[float, int, int]:
    (s0, q0), (s1, q1) = curve[rung], curve[rung + 1]
    return (-(q1 - q0) / (s1 - s0), k, rung)
