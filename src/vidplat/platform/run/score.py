"""The platform scores itself: predicted against actual, and each miss attributed to its cause.

A `Tally` collects while a run goes on, in a few numbers per job; `score` turns it into the values
that the user sees. A job whose video came after its deadline is a miss; the first cause that fits:

    infeasible    the promise itself said that not all could be in time
    worker lost   a worker died with it in hand
    retry         an attempt of it failed
    start-up      the workers came up late, by at least as much as the video
    estimate      none of these: it, or those before it, took longer than predicted
"""

from __future__ import annotations

from array import array
from statistics import median

from vidplat.domain import Batch, Outcome
from vidplat.platform.dispatch.dispatcher import Order
from vidplat.platform.interface import Miss, Score
from vidplat.scheduler.decision import Plan, Verdict
from vidplat.stages import AFTER_DRAFT

MOST_MISSES = 10_000  # listed one by one


def worked_s(order: Order, outcome: Outcome) -> float:
    """Seconds that a video took, less those that its draft waited for whoever finished it."""
    if order.drafted is None:
        return outcome.finished_at - outcome.started_at
    finishing_s = sum(outcome.phases.get(stage, 0.0) for stage in AFTER_DRAFT)
    return order.drafted.at - order.drafted.started_at + finishing_s


class Tally:
    """What happened in one run, as far as the score needs it."""

    def __init__(
        self, batch: Batch, workers: int, promised: Plan, promised_startup_s: float
    ) -> None:
        self._batch, self._workers = batch, workers
        self._promised, self._promised_startup_s = promised, promised_startup_s
        self._first_dispatch_at: float | None = None
        self._finished_at = self._model_seconds = self._quality = 0.0
        self._errors = array("d")  # actual / p50 - 1
        self._within_p90 = self.computed = 0
        self._misses: list[tuple[str, int, float]] = []
        self._causes: dict[str, str] = {}  # why a job may be late, by its id

    def worker_lost(self, job_id: str) -> None:
        self._causes[job_id] = "worker lost"

    def dispatched(self, at: float) -> None:
        self._first_dispatch_at = at if self._first_dispatch_at is None else self._first_dispatch_at

    def ended(self, order: Order, outcome: Outcome) -> None:
        self._model_seconds += sum(outcome.phases.values())
        if not outcome.ok:
            self._causes.setdefault(outcome.job_id, "retry")
            return
        self.computed += 1
        self._finished_at = max(self._finished_at, outcome.finished_at)
        promised, took = order.assignment, worked_s(order, outcome)
        if promised.p50_s > 0:
            self._errors.append(took / promised.p50_s - 1)
        self._within_p90 += took <= promised.p90_s
        self._quality += promised.quality if outcome.quality is None else outcome.quality
        own = order.job.deadline_at
        due = self._batch.deadline_at if own is None else own
        if due is not None and outcome.finished_at > due:
            self._misses.append((outcome.job_id, order.job.row, outcome.finished_at - due))

    @property
    def missed(self) -> int:
        return len(self._misses)

    def score(self) -> Score:
        if self.computed == 0:
            return Score()
        started = self._first_dispatch_at or self._batch.submitted_at
        startup_s = started - self._batch.submitted_at
        working_s = max(1e-9, self._finished_at - started) * max(1, self._workers)
        return Score(
            jobs=self.computed,
            predicted_p50_at=self._promised.finish_p50_at,
            predicted_p90_at=self._promised.finish_p90_at,
            finished_at=self._finished_at,
            startup_s=startup_s,
            predicted_startup_s=self._promised_startup_s,
            median_error=median(self._errors) if self._errors else 0.0,
            within_p90=self._within_p90 / self.computed,
            busy_share=min(1.0, self._model_seconds / working_s),
            model_seconds=self._model_seconds,
            mean_quality=self._quality / self.computed,
            misses=tuple(
                Miss(job_id, row, late_s, self._cause(job_id, late_s, startup_s))
                for job_id, row, late_s in self._misses[:MOST_MISSES]
            ),
        )

    def _cause(self, job_id: str, late_s: float, startup_s: float) -> str:
        if self._promised.verdict is Verdict.INFEASIBLE:
            return "infeasible"
        came_late = startup_s - self._promised_startup_s >= late_s
        return self._causes.get(job_id, "start-up" if came_late else "estimate")
