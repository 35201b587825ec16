"""What runs teach about seconds: stage timings go into the cost model, a worker's own pace into its
speed.

The cost model itself is arithmetic of the scheduler; this holds its newest value between turns,
carries it to and from the catalog, and keeps learning cheap: when jobs take milliseconds, only some
of them are looked at, so that learning never costs more than two percent of the time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, Protocol

from vidplat.domain import Job, OperatingPoint, Outcome, VideoSpec
from vidplat.methods.model_shape import ModelShape
from vidplat.platform.dispatch.dispatcher import Seat, WorkerUp
from vidplat.scheduler import CostModel, Knowledge, Observation, features, updated_speed
from vidplat.scheduler.cost import Estimate
from vidplat.scheduler.decision import Finisher
from vidplat.scheduler.link import Link, after
from vidplat.scheduler.relay import finishing
from vidplat.scheduler.work import (
    MP4_BYTES_PER_PIXEL,
    StageFeatures,
    decoded_frames,
)
from vidplat.stages import (
    AFTER_DRAFT,
    LOAD,
    NETWORK,
    STARTUP,
    STORE,
)
from vidplat.workers.draft import Draft

COST_KEY = "costs"
_BUDGET = 0.02  # share of wall time that learning may take
_TRUSTED = 10  # timings of a device class before single workers are compared with it
_MOST_UNWRITTEN = 2_000
DRAFT_BYTES = "draft_bytes"  # metric of a video that was finished by another worker: what travelled
KEPT_SHARE = "kept_share"  # metric of a video whose method left tokens out by its source
_DRAFT_WEIGHT = 0.3  # of the newest draft in what drafts are expected to weigh
_NONE = StageFeatures()
_ANY_POINT = OperatingPoint(steps=1)


def _parts(
    outcome: Outcome, timed: Mapping[str, float], device_class: str, drafted_on: str
) -> list[tuple[str, str, dict[str, float]]]:
    """Worker, its device class and its timed stages, for each worker that had a part in a video."""
    if not outcome.drafted_by:
        return [(outcome.worker_id, device_class, dict(timed))]
    before = {stage: seconds for stage, seconds in timed.items() if stage not in AFTER_DRAFT}
    after = {stage: seconds for stage, seconds in timed.items() if stage in AFTER_DRAFT}
    return [(outcome.drafted_by, drafted_on, before), (outcome.worker_id, device_class, after)]


class Memory(Protocol):
    """What of the catalog this needs."""

    def cost_state(self, key: str) -> dict[str, Any] | None: ...
    def save_cost_state(self, key: str, document: Mapping[str, Any]) -> None: ...
    def add_observations(self, seen: list[dict[str, Any]]) -> None: ...


class Learner:
    def __init__(self, memory: Memory | None, batch_id: str = "") -> None:
        document = memory.cost_state(COST_KEY) if memory is not None else None
        self.costs = CostModel.from_dict(document) if document else CostModel()
        self.shapes: dict[str, ModelShape] = {}
        self._memory, self._batch_id = memory, batch_id
        self._speeds: dict[str, float] = {}
        self._links: dict[str, Link] = {}  # to each worker that finished drafts
        self._bytes_per_pixel = MP4_BYTES_PER_PIXEL  # of drafts
        self._unwritten: list[dict[str, Any]] = []
        self._predicted: dict[tuple[str, str, VideoSpec, OperatingPoint, bool], Estimate] = {}
        self._began, self._spent = time.monotonic(), 0.0

    @property
    def knowledge(self) -> Knowledge:
        return Knowledge(self.shapes, self.costs, self._bytes_per_pixel)

    def speed(self, worker_id: str) -> float:
        return self._speeds.get(worker_id, 1.0)

    def predict(self, job: Job, device_class: str, point: OperatingPoint) -> Estimate:
        """On a worker of speed 1. Equal questions are answered from memory until something is
        learnt."""
        spec = replace(job.spec, seed=0) if job.spec.seed else job.spec
        is_edit = job.input_video is not None
        key = (job.model.id, device_class, spec, point, is_edit)
        if key not in self._predicted:
            self._predicted[key] = self.costs.predict(
                job.model.id, self.shapes[job.model.id], device_class, spec, point, is_edit
            )
        return self._predicted[key]

    def storing(self, job: Job, device_class: str, point: OperatingPoint) -> Estimate:
        """Of the last stage alone, on a worker of speed 1."""
        model_id = job.model.id
        counted = features(self.shapes[model_id], job.spec, point)
        return self.costs.stage(model_id, device_class, STORE, counted[STORE])

    def bits_per_s(self, worker_id: str) -> float | None:
        """What may be counted on of the link to that worker; None before it fetched anything."""
        return self._links.get(worker_id, Link()).bits_per_s

    def finishing(
        self, job: Job, point: OperatingPoint, worker: Finisher, draft: Draft
    ) -> dict[str, float]:
        """p50 seconds of each stage from that draft to the stored video."""
        model_id, shape = job.model.id, self.shapes[job.model.id]
        return dict(
            finishing(
                self.costs, model_id, shape, job.spec, point, worker, draft.size_bytes
            ).per_stage
        )

    def startup(self, model_id: str, device_class: str) -> Estimate:
        return self.costs.startup(model_id, self.shapes[model_id], device_class)

    def expected_up(self, model_id: str, seat: Seat, now: float) -> float:
        """When a worker that is still coming will be up; one that is late may be as late again."""
        expected_at = seat.since + self.startup(model_id, seat.device_class).p50_s
        return max(expected_at, now + (now - expected_at))

    # --- learning -------------------------------------------------------------------------------

    def finished(self, outcome: Outcome, job: Job, device_class: str, drafted_on: str = "") -> None:
        """Learn from a job that was made; its seconds are the worker's, at the point that was
        really spent.

        Where another worker left a draft, the stages until then are that one's, of device class
        `drafted_on`.
        """
        began = time.monotonic()
        if self._spent > 0.05 + _BUDGET * (began - self._began):
            return
        model_id, shape = job.model.id, self.shapes[job.model.id]
        # By the tokens that really ran: what a still source saves must not pass for a fast worker,
        # or a cheap FLOP.
        kept, is_edit = outcome.metrics.get(KEPT_SHARE), job.input_video is not None
        if kept is not None:
            self.costs = self.costs.observe_kept(model_id, outcome.point, kept)
        counted = features(shape, job.spec, outcome.point, is_edit, kept)
        if outcome.drafted_by:
            self._note_draft(outcome, job, shape)
            counted[NETWORK] = StageFeatures(
                calls=1, megabytes=outcome.metrics.get(DRAFT_BYTES, 0.0) / 1e6
            )
        timed = {
            stage: seconds
            for stage, seconds in outcome.phases.items()
            if any(counted.get(stage, _NONE).vector)
        }
        for worker_id, its_class, its in _parts(outcome, timed, device_class, drafted_on):
            if self.costs.samples(model_id, its_class) >= _TRUSTED:
                # Earlier, a wrong guess about the device class would pass for a slow worker, and
                # count twice. What nobody predicts must not either.
                expected = sum(
                    self.costs.stage(model_id, its_class, stage, counted[stage]).p50_s
                    for stage in its
                )
                self._speeds[worker_id] = updated_speed(
                    self.speed(worker_id), expected, sum(its.values())
                )
            for stage, seconds in its.items():
                self._observe(
                    model_id, its_class, stage, counted[stage], seconds, outcome.finished_at, job.id
                )
        self._spent += time.monotonic() - began

    def _note_draft(self, outcome: Outcome, job: Job, shape: ModelShape) -> None:
        """What a draft weighed, and how fast it came."""
        size_bytes = outcome.metrics.get(DRAFT_BYTES, 0.0)
        pixels = decoded_frames(shape, job.spec, outcome.point) * job.spec.width * job.spec.height
        if size_bytes > 0:
            self._bytes_per_pixel += _DRAFT_WEIGHT * (size_bytes / pixels - self._bytes_per_pixel)
        link = self._links.get(outcome.worker_id, Link())
        self._links[outcome.worker_id] = after(
            link, int(size_bytes), outcome.phases.get(NETWORK, 0.0)
        )

    def started(self, up: WorkerUp, model_id: str, startup_s: float) -> None:
        """Learn how long a worker takes to come up, and from the micro-benchmark it ran."""
        shape = self.shapes[model_id]
        counted = features(shape, shape.defaults, _ANY_POINT)
        self._observe(model_id, up.device_class, LOAD, counted[LOAD], up.load_s, up.at)
        self._observe(model_id, up.device_class, STARTUP, StageFeatures(calls=1), startup_s, up.at)
        for row in up.observations:
            stages = features(shape, row["spec"], row["point"])
            if row["stage"] in stages:
                stage = row["stage"]
                self._observe(
                    row["model_id"],
                    row["device_class"],
                    stage,
                    stages[stage],
                    row["seconds"],
                    up.at,
                )

    def _observe(
        self,
        model_id: str,
        device_class: str,
        stage: str,
        counted: StageFeatures,
        seconds: float,
        at: float,
        job_id: str | None = None,
    ) -> None:
        self.costs = self.costs.observe(
            Observation(model_id, device_class, stage, counted, seconds)
        )
        self._predicted.clear()
        if len(self._unwritten) < _MOST_UNWRITTEN:
            self._unwritten.append(
                {
                    "at": at,
                    "batch_id": self._batch_id,
                    "job_id": job_id,
                    "model_id": model_id,
                    "device_class": device_class,
                    "stage": stage,
                    "seconds": seconds,
                    "features": asdict(counted),
                }
            )

    def save(self) -> None:
        """Put what was learnt into the catalog."""
        if self._memory is not None and self._unwritten:
            rows, self._unwritten = self._unwritten, []
            self._memory.add_observations(rows)
            self._memory.save_cost_state(COST_KEY, self.costs.to_dict())
