"""What runs teach about seconds: timings go into the cost model, a worker's pace into its speed.

The cost model itself is arithmetic of the scheduler; this holds its newest value between turns,
carries it to and from the catalog, and keeps learning cheap: when jobs take milliseconds, only some
of them are looked at, so that learning never costs more than two percent of the time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from vidplat.domain import Job, ModelRef, OperatingPoint, Outcome, VideoSpec
from vidplat.methods.model_shape import ModelShape
from vidplat.platform.dispatch.dispatcher import DRAFT_BYTES, Seat, WorkerUp
from vidplat.scheduler.cost import CostModel, Estimate, Observation, updated_speed
from vidplat.scheduler.decision import Finisher
from vidplat.scheduler.link import Link, after
from vidplat.scheduler.menu import Knowledge
from vidplat.scheduler.relay import finishing
from vidplat.scheduler.work import MP4_BYTES_PER_PIXEL, StageFeatures, decoded_frames, features
from vidplat.stages import AFTER_DRAFT, LOAD, NETWORK, STARTUP, STORE
from vidplat.storage.catalog import Catalog
from vidplat.workers.draft import Draft

COST_KEY = "costs"
_BUDGET = 0.02  # share of wall time that learning may take
_TRUSTED = 10  # timings of a device class before single workers are compared with it
_MOST_UNWRITTEN = 2_000
KEPT_SHARE = "kept_share"  # metric of a video whose method left tokens out by its source
_DRAFT_WEIGHT = 0.3  # of the newest draft in what drafts are expected to weigh
_NONE = StageFeatures()
_ANY_POINT = OperatingPoint(steps=1)
_Described = tuple[ModelRef, ModelShape]


class Learner:
    """`describe` tells of a model by its id; without a catalog nothing is remembered."""

    def __init__(
        self, describe: Callable[[str], _Described], catalog: Catalog | None, batch_id: str
    ) -> None:
        document = catalog.cost_state(COST_KEY) if catalog is not None else None
        self.costs = CostModel.from_dict(document) if document else CostModel()
        self.shapes: dict[str, ModelShape] = {}
        self._describe, self._catalog, self._batch_id = describe, catalog, batch_id
        self._refused: frozenset[tuple[str, str]] = frozenset()
        self._speeds: dict[str, float] = {}
        self._links: dict[str, Link] = {}  # to each worker that finished drafts
        self._bytes_per_pixel = MP4_BYTES_PER_PIXEL  # of drafts
        self._unwritten: list[dict[str, Any]] = []
        self._predicted: dict[tuple[str, str, VideoSpec, OperatingPoint, bool], Estimate] = {}
        self._began, self._spent = time.monotonic(), 0.0

    def know(self, model_id: str) -> None:
        """Whatever is asked of a model is asked after this."""
        if model_id not in self.shapes:
            self.shapes[model_id] = self._describe(model_id)[1]

    @property
    def knowledge(self) -> Knowledge:
        return Knowledge(self.shapes, self.costs, self._bytes_per_pixel, self._refused)

    def speed(self, worker_id: str) -> float:
        return self._speeds.get(worker_id, 1.0)

    def predict(self, job: Job, device_class: str, point: OperatingPoint) -> Estimate:
        """On a worker of speed 1. Remembered until something is learnt."""
        spec = replace(job.spec, seed=0) if job.spec.seed else job.spec
        model_id, is_edit = job.model.id, job.input_video is not None
        key = (model_id, device_class, spec, point, is_edit)
        if key not in self._predicted:
            self._predicted[key] = self.costs.predict(
                model_id, self.shapes[model_id], device_class, spec, point, is_edit
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
    ) -> Mapping[str, float]:
        """p50 seconds of each stage from that draft to the stored video."""
        model_id, shape = job.model.id, self.shapes[job.model.id]
        size = draft.size_bytes
        return finishing(self.costs, model_id, shape, job.spec, point, worker, size).per_stage

    def startup(self, model_id: str, device_class: str) -> Estimate:
        return self.costs.startup(model_id, self.shapes[model_id], device_class)

    def expected_up(self, model_id: str, seat: Seat, now: float) -> float:
        """When a worker that is still coming will be up; one that is late may be as late again."""
        expected_at = seat.since + self.startup(model_id, seat.device_class).p50_s
        return max(expected_at, now + (now - expected_at))

    def refused(self, model_id: str, point: OperatingPoint) -> None:
        """A loaded model refuses that point's method: no plan of this run chooses it again."""
        self._refused |= {(model_id, point.accelerator)}

    # --- learning -------------------------------------------------------------------------------

    def finished(self, outcome: Outcome, job: Job, device_classes: Mapping[str, str]) -> None:
        """Learn from a job that was made, at the point that was really spent; where a worker left a
        draft, the stages until then are its. Raises KeyError for one not in `device_classes`."""
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
            megabytes = outcome.metrics.get(DRAFT_BYTES, 0.0) / 1e6
            counted[NETWORK] = StageFeatures(calls=1, megabytes=megabytes)
        for worker_id, timed in _parts(outcome):
            seen = [
                Observation(model_id, device_classes[worker_id], stage, counted[stage], seconds)
                for stage, seconds in timed.items()
                if any(counted.get(stage, _NONE).vector)
            ]
            self._note_speed(worker_id, seen)
            for each in seen:
                self._observe(each, outcome.finished_at, job.id)
        self._spent += time.monotonic() - began

    def _note_speed(self, worker_id: str, seen: Sequence[Observation]) -> None:
        if not seen or self.costs.samples(seen[0].model_id, seen[0].device_class) < _TRUSTED:
            # A wrong guess about the device class would pass for a slow worker, and count twice.
            # What nobody predicts must not either.
            return
        expected_s = sum(
            self.costs.stage(each.model_id, each.device_class, each.stage, each.features).p50_s
            for each in seen
        )
        took_s = sum(each.seconds for each in seen)
        self._speeds[worker_id] = updated_speed(self.speed(worker_id), expected_s, took_s)

    def _note_draft(self, outcome: Outcome, job: Job, shape: ModelShape) -> None:
        """What a draft weighed, and how fast it came."""
        size_bytes = outcome.metrics.get(DRAFT_BYTES, 0.0)
        pixels = decoded_frames(shape, job.spec, outcome.point) * job.spec.width * job.spec.height
        if size_bytes > 0:
            self._bytes_per_pixel += _DRAFT_WEIGHT * (size_bytes / pixels - self._bytes_per_pixel)
        link = self._links.get(outcome.worker_id, Link())
        seconds = outcome.phases.get(NETWORK, 0.0)
        self._links[outcome.worker_id] = after(link, int(size_bytes), seconds)

    def started(self, up: WorkerUp, model_id: str, startup_s: float) -> None:
        """Learn how long a worker takes to come up, and from the micro-benchmark it ran."""
        shape, device_class = self.shapes[model_id], up.device_class
        load = features(shape, shape.defaults, _ANY_POINT)[LOAD]
        start = StageFeatures(calls=1)
        self._observe(Observation(model_id, device_class, LOAD, load, up.load_s), up.at)
        self._observe(Observation(model_id, device_class, STARTUP, start, startup_s), up.at)
        for row in up.observations:
            counted, stage = features(shape, row["spec"], row["point"]), row["stage"]
            if stage in counted:
                seen = Observation(
                    row["model_id"], row["device_class"], stage, counted[stage], row["seconds"]
                )
                self._observe(seen, up.at)

    def _observe(self, seen: Observation, at: float, job_id: str | None = None) -> None:
        self.costs = self.costs.observe(seen)
        self._predicted.clear()
        if len(self._unwritten) < _MOST_UNWRITTEN:
            row = {"at": at, "batch_id": self._batch_id, "job_id": job_id, **asdict(seen)}
            self._unwritten.append(row)

    def save(self) -> None:
        """Put what was learnt into the catalog."""
        if self._catalog is not None and self._unwritten:
            self._catalog.add_observations(self._unwritten)
            self._unwritten = []
            self._catalog.save_cost_state(COST_KEY, self.costs.to_dict())


def _parts(outcome: Outcome) -> list[tuple[str, dict[str, float]]]:
    """The stages' seconds by the worker that spent them."""
    if not outcome.drafted_by:
        return [(outcome.worker_id, dict(outcome.phases))]
    finished = {stage: s for stage, s in outcome.phases.items() if stage in AFTER_DRAFT}
    made = {stage: s for stage, s in outcome.phases.items() if stage not in AFTER_DRAFT}
    return [(outcome.drafted_by, made), (outcome.worker_id, finished)]
