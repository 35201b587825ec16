"""What each worker can offer a kind of job: its rungs, or the sentence why nobody can make it.

Rungs are the operating points worth having on that worker, cheapest first: the convex hull of (seconds,
quality), cut off below the quality floor and above the worker's memory. A worker that failed the job before, or
is suspect, offers nothing while a better one is there. After running out of memory a job may only use less.

Left to others: quality (`profile`), seconds (`cost`), bytes (`work`), the choice of a rung (`drafts`, `slack`).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate

from vidplat.domain import Job, ModelShape, OpenJob, OperatingPoint, WorkerState
from vidplat.scheduler.cost import CORRELATION, CostModel
from vidplat.scheduler.profile import Choices, choices, hull
from vidplat.scheduler.work import needed_bytes

_COMMON = math.sqrt(CORRELATION)  # share of a part's spread that no averaging removes
_SLOWEST = 0.01


@dataclass(frozen=True)
class Knowledge:
    """What the planner knows beside the snapshot: model shapes (with their profiles) and costs."""

    shapes: Mapping[str, ModelShape]  # by model id
    costs: CostModel = field(default_factory=CostModel)


@dataclass(frozen=True)
class Rungs:
    """The points one worker may make a group's jobs at: seconds and quality rise with the index."""

    points: tuple[OperatingPoint, ...]
    qualities: tuple[float, ...]
    p50_s: tuple[float, ...]  # on this worker
    spread_s: tuple[float, ...]  # p90 - p50

    @property
    def top(self) -> int:
        return len(self.points) - 1

    def seconds(self, rung: int) -> float:
        """What one more job takes of a long chain at p90: its median and the part of its spread that adds up."""
        return self.p50_s[rung] + _COMMON * self.spread_s[rung]

    @cached_property
    def gains(self) -> tuple[float, ...]:
        """Quality per second of the step from each rung to the next, falling. Among equals the lower step counts
        a trifle more, so that equal jobs rise together."""
        rise = [
            (self.qualities[k + 1] - self.qualities[k]) / (self.seconds(k + 1) - self.seconds(k)) * (1 - 1e-6 * k)
            for k in range(self.top)
        ]
        return tuple(accumulate(rise, min))

    def worth(self, price: float) -> int:
        """The rung reached by every step that gains at least `price` per second."""
        return bisect_right(self.gains, -price, key=lambda g: -g)


class Menu:
    """Works out which workers may make a kind of job, and at which points. Remembers its answers."""

    def __init__(self, workers: Sequence[WorkerState], knowledge: Knowledge, floor: float) -> None:
        self._workers = workers
        self._knowledge = knowledge
        self._floor = floor
        self._offers: dict[tuple[object, ...], str | tuple[Choices, dict[int, Rungs]]] = {}

    def offer(self, kind: tuple[object, ...], open_job: OpenJob) -> str | tuple[Choices, dict[int, Rungs]]:
        """The choices and each worker's rungs, or the sentence why there are none."""
        if kind not in self._offers:
            self._offers[kind] = self._work_out(open_job)
        return self._offers[kind]

    def _work_out(self, open_job: OpenJob) -> str | tuple[Choices, dict[int, Rungs]]:
        job = open_job.job
        shape = self._knowledge.shapes.get(job.model.id)
        if shape is None:
            return f"nothing is known of model {job.model.id}"
        if not self._workers:
            return "no live worker"
        offered = choices(shape, job.spec, job.method)
        needs = [needed_bytes(shape, job.spec, p) for p in offered.points]
        allowed = _lower(needs, offered.qualities, open_job.rung_down, self._floor)
        fits = {i: [k for k in allowed if not 0 < w.free_bytes < needs[k]] for i, w in enumerate(self._workers)}
        roomy = [i for i in fits if fits[i]]
        if not roomy:
            least, most = min(needs[k] for k in allowed), max(w.free_bytes for w in self._workers)
            return f"needs {_gb(least)}, largest worker has {_gb(most)} free"
        # A worker that failed this job, or is suspect, is taken only when no better one is left.
        for good in (
            [i for i in roomy if self._workers[i].id not in open_job.avoid and not self._workers[i].suspect],
            [i for i in roomy if self._workers[i].id not in open_job.avoid],
            roomy,
        ):
            if good:
                return offered, self._rungs(job, shape, offered, {i: tuple(fits[i]) for i in good})
        raise AssertionError("roomy is not empty")

    def _rungs(
        self, job: Job, shape: ModelShape, offered: Choices, fits: Mapping[int, tuple[int, ...]]
    ) -> dict[int, Rungs]:
        by_class: dict[tuple[str, tuple[int, ...]], Rungs] = {}
        found: dict[int, Rungs] = {}
        for i, allowed in fits.items():
            worker = self._workers[i]
            key = (worker.device_class, allowed)
            if key not in by_class:
                by_class[key] = self._priced(job, shape, worker.device_class, offered, allowed)
            at_par, speed = by_class[key], max(_SLOWEST, worker.speed)
            found[i] = (
                at_par
                if speed == 1.0
                else replace(
                    at_par,
                    p50_s=tuple(s / speed for s in at_par.p50_s),
                    spread_s=tuple(s / speed for s in at_par.spread_s),
                )
            )
        return found

    def _priced(
        self, job: Job, shape: ModelShape, device_class: str, offered: Choices, allowed: Sequence[int]
    ) -> Rungs:
        costs = self._knowledge.costs
        is_edit = job.input_video is not None
        seen = [costs.predict(job.model.id, shape, device_class, job.spec, offered.points[k], is_edit) for k in allowed]
        qualities = [offered.qualities[k] for k in allowed]
        kept = hull([e.p50_s + _COMMON * e.spread_s for e in seen], qualities)
        return Rungs(
            points=tuple(offered.points[allowed[i]] for i in kept),
            qualities=tuple(qualities[i] for i in kept),
            p50_s=tuple(seen[i].p50_s for i in kept),
            spread_s=tuple(seen[i].spread_s for i in kept),
        )


def _lower(needs: Sequence[int], qualities: Sequence[float], rungs: int, floor: float) -> list[int]:
    """Indices that may be used: at or above the floor (at least the best), and `rungs` levels down in memory.

    After running out of memory it is memory that must fall, whatever the floor says; where every point needs
    the same, the best points are given up instead.
    """
    if rungs <= 0:
        above = [k for k, q in enumerate(qualities) if q >= floor - 1e-12]
        return above or [len(qualities) - 1]
    levels = sorted(set(needs), reverse=True)
    limit = levels[min(rungs, len(levels) - 1)]
    small = [k for k, n in enumerate(needs) if n <= limit]
    beyond = max(0, rungs - (len(levels) - 1))
    return small[: max(1, len(small) - beyond)]


def _gb(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.3g} GB"
