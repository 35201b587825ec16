"""What each worker can offer a kind of job: its rungs, or the sentence why nobody can make it.

Rungs are the operating points worth having on that worker, cheapest first: the convex hull of
(seconds, quality), cut off below the quality floor. A worker without the memory offers nothing, nor
does one that failed the job before, or is suspect, while a better one is there. After running out
of memory a job is made at a point that needs less of it.

Left to others: quality (`profile`), seconds (`cost`), bytes (`work`), the choice of a rung
(`trials`, `slack`).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate

from vidplat.domain import Job, OpenJob, OperatingPoint, WorkerState
from vidplat.methods.model_shape import ModelShape
from vidplat.scheduler.cost import CORRELATION, CostModel, Estimate
from vidplat.scheduler.decision import Finisher
from vidplat.scheduler.profile import Choices, choices, hull, planned_method
from vidplat.scheduler.relay import (
    Relayed,
    draft_bytes,
    finishing,
    leaves_draft,
    mean_ready_at,
    relayed,
    stored_beside,
)
from vidplat.scheduler.work import MP4_BYTES_PER_PIXEL, needed_bytes
from vidplat.stages import BESIDE, STAGES, UNTIL_DRAFT

_COMMON = math.sqrt(CORRELATION)  # share of a part's spread that no averaging removes
_SLOWEST = 0.01


@dataclass(frozen=True)
class Knowledge:
    """What the planner knows beside the snapshot: model shapes (with their profiles) and costs."""

    shapes: Mapping[str, ModelShape]  # by model id
    costs: CostModel = field(default_factory=CostModel)
    draft_bytes_per_pixel: float = MP4_BYTES_PER_PIXEL  # as drafts were seen to take
    refused: frozenset[tuple[str, str]] = frozenset()  # (model id, method) that workers refused


@dataclass(frozen=True)
class Rungs:
    """The points one worker may make a group's jobs at: seconds and quality rise with the index."""

    points: tuple[OperatingPoint, ...]
    qualities: tuple[float, ...]
    p50_s: tuple[float, ...]  # on this worker
    spread_s: tuple[float, ...]  # p90 - p50
    relayed: tuple[Relayed, ...]  # what of it goes on beside the next

    @property
    def top(self) -> int:
        return len(self.points) - 1

    def work(self, rung: int) -> Estimate:
        """Seconds of work, of both workers where another finishes it."""
        return self.relayed[rung].work

    def seconds(self, rung: int) -> float:
        """What one more job takes of a long chain at p90: the part of its spread that adds up."""
        return self.p50_s[rung] + _COMMON * self.spread_s[rung]

    def beside_s(self, rung: int) -> float:
        """How long after its queue the last video is stored, where nobody else finishes it."""
        own = not self.relayed[rung].handed_s
        return self.work(rung).p50_s - self.p50_s[rung] if own else 0.0

    @cached_property
    def gains(self) -> tuple[float, ...]:
        """Quality per second of the step from each rung to the next, falling. Among equals the
        lower step counts a trifle more, so that equal jobs rise together."""
        rise = [
            (self.qualities[k + 1] - self.qualities[k])
            / (self.seconds(k + 1) - self.seconds(k))
            * (1 - 1e-6 * k)
            for k in range(self.top)
        ]
        return tuple(accumulate(rise, min))

    def worth(self, price: float) -> int:
        """The rung reached by every step that gains at least `price` per second."""
        return bisect_right(self.gains, -price, key=lambda g: -g)


Offer = tuple[Choices, dict[int, Rungs]]  # by index of the worker

# What a point costs on a maker of speed 1: alone, until the draft (None: it leaves none), and what
# each light worker takes from there.
_Priced = tuple[Estimate, Estimate | None, Sequence[Estimate]]


class Menu:
    """Works out which workers may make a kind of job, and at which points. Remembers its answers.

    Points that leave frames out are priced by `relay` where that lags no more than `most_lag_s`
    behind a queue, and as made by one worker elsewhere; `lags_s` are all that were met. A worker
    stores beside making the next video, or, to be counted `one_by_one`, before that: this is more
    for long queues and may be less for short ones where storing is the slower (`is_store_bound`).
    """

    def __init__(
        self,
        workers: Sequence[WorkerState],
        knowledge: Knowledge,
        floor: float,
        finishers: Sequence[Finisher] = (),
        most_lag_s: float = math.inf,
        one_by_one: bool = False,
    ) -> None:
        self._workers, self._knowledge, self._floor = workers, knowledge, floor
        self._finishers, self._most_lag_s, self._one_by_one = finishers, most_lag_s, one_by_one
        self.is_store_bound = False
        self.lags_s: set[float] = set()
        self._offers: dict[tuple[object, ...], str | Offer] = {}

    def offer(self, kind: tuple[object, ...], open_job: OpenJob) -> str | Offer:
        """The choices and each worker's rungs, or the sentence why there are none."""
        if kind not in self._offers:
            self._offers[kind] = self._work_out(open_job)
        return self._offers[kind]

    def _work_out(self, open_job: OpenJob) -> str | Offer:
        job, workers = open_job.job, self._workers
        shape = self._knowledge.shapes.get(job.model.id)
        if shape is None:
            return f"nothing is known of model {job.model.id}"
        if not workers:
            return "no live worker"
        is_edit = job.input_video is not None
        offered = choices(shape, job.spec, planned_method(job), is_edit)
        if job.method is None:
            offered = _without(offered, job.model.id, self._knowledge.refused)
        devices = {worker.device_class for worker in workers}
        needs = {
            device: [needed_bytes(shape, job.spec, point, device) for point in offered.points]
            for device in devices
        }
        fitting = [
            _fitting(offered, needs[w.device_class], w.free_bytes, open_job.rung_down, self._floor)
            for w in workers
        ]
        roomy = [i for i, fits in enumerate(fitting) if fits.points]
        if not roomy:
            most = max(workers, key=lambda w: w.free_bytes)
            need, free = min(needs[most.device_class]), most.free_bytes
            return f"needs {_gb(need)}, largest worker has {_gb(free)} free"
        # A worker that failed this job, or is suspect, is taken only when no better one is left.
        unblamed = [i for i in roomy if workers[i].id not in open_job.avoid]
        good = [i for i in unblamed if not workers[i].suspect]
        allowed = {i: fitting[i] for i in good or unblamed or roomy}
        return offered, self._rungs(job, shape, offered, allowed)

    def _rungs(
        self, job: Job, shape: ModelShape, offered: Choices, allowed: Mapping[int, Choices]
    ) -> dict[int, Rungs]:
        finished = self._finished(job, shape, offered)
        at_par: dict[tuple[str, Choices], list[_Priced]] = {}  # by device class and points
        ranked: dict[tuple[str, Choices], Rungs] = {}
        found: dict[int, Rungs] = {}
        for i, points in allowed.items():
            device, speed = self._workers[i].device_class, max(_SLOWEST, self._workers[i].speed)
            kind = device, points
            if kind not in at_par:
                at_par[kind] = self._priced(job, shape, device, points.points, finished)
                alone = [self._alone(each) for each, _, _ in at_par[kind]]
                ranked[kind] = _ranked(points, alone)
            if finished:  # how a relay comes out depends on the maker's own speed
                found[i] = _ranked(points, [self._relayed(*each, speed) for each in at_par[kind]])
            else:
                rungs = ranked[kind]
                found[i] = replace(
                    rungs,
                    p50_s=tuple(s / speed for s in rungs.p50_s),
                    spread_s=tuple(s / speed for s in rungs.spread_s),
                    relayed=tuple(each.at(speed) for each in rungs.relayed),
                )
        return found

    def _priced(
        self,
        job: Job,
        shape: ModelShape,
        device_class: str,
        points: Sequence[OperatingPoint],
        finished: Mapping[OperatingPoint, Sequence[Estimate]],
    ) -> list[_Priced]:
        def predicted(point: OperatingPoint, stages: Sequence[str]) -> Estimate:
            is_edit = job.input_video is not None
            return self._knowledge.costs.predict(
                job.model.id, shape, device_class, job.spec, point, is_edit, stages=stages
            )

        return [
            (
                predicted(point, STAGES),
                predicted(point, UNTIL_DRAFT) if point in finished else None,
                finished.get(point, ()),
            )
            for point in points
        ]

    def _finished(
        self, job: Job, shape: ModelShape, offered: Choices
    ) -> dict[OperatingPoint, list[Estimate]]:
        """What each light worker takes of a draft, for the points that leave one."""
        known, model_id, spec = self._knowledge, job.model.id, job.spec
        found: dict[OperatingPoint, list[Estimate]] = {}
        for point in offered.points if self._finishers else ():
            if leaves_draft(shape, spec, point):
                size_bytes = draft_bytes(shape, spec, point, known.draft_bytes_per_pixel)
                found[point] = [
                    finishing(known.costs, model_id, shape, spec, point, each, size_bytes)
                    for each in self._finishers
                ]
        return found

    def _alone(self, alone: Estimate) -> Relayed:
        """What one worker's queue grows by."""
        after_s = sum(alone.per_stage.get(stage, 0.0) for stage in BESIDE)
        self.is_store_bound |= after_s > alone.p50_s / 2
        return stored_beside(alone, 0.0 if self._one_by_one else after_s)

    def _relayed(
        self, alone: Estimate, draft: Estimate | None, rest: Sequence[Estimate], speed: float
    ) -> Relayed:
        """What a point comes to on a maker of that speed, with light workers where they count."""
        own = self._alone(alone).at(speed)
        if draft is None:
            return own
        making = Estimate(draft.p50_s / speed, draft.p90_s / speed)
        free_at = mean_ready_at(self._finishers)
        relay = relayed(making, rest, own, len(self._workers), free_at)
        self.lags_s.add(relay.lag_p90_s)
        return relay if relay.lag_p90_s <= self._most_lag_s else own


def _ranked(offered: Choices, counted: Sequence[Relayed]) -> Rungs:
    """The points that are worth having."""
    indices = hull([each.p50_s + _COMMON * each.spread_s for each in counted], offered.qualities)
    kept = [counted[i] for i in indices]
    return Rungs(
        points=tuple(offered.points[i] for i in indices),
        qualities=tuple(offered.qualities[i] for i in indices),
        p50_s=tuple(each.p50_s for each in kept),
        spread_s=tuple(each.spread_s for each in kept),
        relayed=tuple(kept),
    )


def _fitting(
    offered: Choices, needs: Sequence[int], free_bytes: int, rungs_down: int, floor: float
) -> Choices:
    """The points that a worker has the memory for (0: not known until it is up), at or above the
    floor (at least the best); after running out of memory, whatever the floor says, those that need
    less by so many rungs, and where no point needs less, all but the best (at least one)."""
    fits = [i for i, need in enumerate(needs) if not 0 < free_bytes < need]
    rungs = sorted({needs[i] for i in fits})
    left = rungs[: max(1, len(rungs) - rungs_down)]
    kept = [i for i in fits if needs[i] in left]
    if rungs_down:
        further = rungs_down - (len(rungs) - len(left))
        kept = kept[: max(1, len(kept) - further)]
    else:
        kept = [i for i in kept if offered.qualities[i] >= floor - 1e-12] or kept[-1:]
    points = tuple(offered.points[i] for i in kept)
    return Choices(points, tuple(offered.qualities[i] for i in kept), offered.guess)


def _without(offered: Choices, model_id: str, refused: frozenset[tuple[str, str]]) -> Choices:
    """The points whose method no worker has refused."""
    kept = [
        (point, quality)
        for point, quality in zip(offered.points, offered.qualities, strict=True)
        if (model_id, point.accelerator) not in refused
    ]
    if len(kept) in (0, len(offered.points)):
        return offered
    points, qualities = zip(*kept, strict=True)
    return Choices(points, qualities, offered.guess)


def _gb(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.3g} GB"
