"""What a decision looks at and comes to, in frozen values: Snapshot and Policy in, Plan out.

Left to others: jobs and workers themselves (`domain`), how a plan is made (`planner`), what is kept
of it in the catalog (`storage.catalog_words`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from vidplat.domain import OnInfeasible, OpenJob, OperatingPoint, WorkerState


@dataclass(frozen=True)
class Finisher:
    """A worker that may finish drafts, at the moment of a snapshot."""

    device_class: str
    # when it is up, and through with the drafts it has and its share of those in the making
    ready_at: float
    speed: float = 1.0
    bits_per_s: float | None = None  # of its link, as last seen; None: it has fetched nothing yet


@dataclass(frozen=True)
class Snapshot:
    """All that a decision may look at."""

    now: float
    jobs: tuple[OpenJob, ...]
    workers: tuple[WorkerState, ...]
    deadline_at: float | None = None
    finishers: tuple[Finisher, ...] = ()  # light workers that may be counted on
    asked_at: float | None = None  # from where a plan's words count, as deadlines do; None: now


@dataclass(frozen=True)
class Policy:
    """What the owner of a batch allows."""

    on_infeasible: OnInfeasible = OnInfeasible.DEGRADE
    quality_floor: float = 0.0  # least predicted quality

    def __post_init__(self) -> None:
        if not 0.0 <= self.quality_floor <= 1.0:
            raise ValueError(f"quality_floor must lie in [0, 1], got {self.quality_floor}")


@dataclass(frozen=True)
class Assignment:
    """This job, made so, by that worker, at about that time."""

    job_id: str
    worker_id: str
    pool: str
    point: OperatingPoint
    start_at: float
    p50_s: float  # seconds of work, median; with `handed_s` of both workers
    p90_s: float
    quality: float  # predicted, in [0, 1]
    finish_p50_at: float
    finish_p90_at: float
    reason: str = ""  # e.g. "full quality", "8 of 24 steps: 12 s short"
    finish_by: float | None = None  # latest end that keeps it, and all after it there, in time
    handed_s: float = 0.0  # of `p50_s`, what another worker is counted on for


@dataclass(frozen=True)
class Deferred:
    """A job that gets no place in this plan, and why."""

    job_id: str
    reason: str


class Verdict(StrEnum):
    FEASIBLE = "feasible"
    DEGRADED = "degraded"
    INFEASIBLE = "infeasible"


@dataclass(frozen=True)
class Plan:
    """Assignments in the order they start, deferrals with reasons, and the promise."""

    verdict: Verdict
    assignments: tuple[Assignment, ...]
    deferred: tuple[Deferred, ...] = ()
    earliest_at: float = 0.0  # p90 finish with every job at its cheapest acceptable point
    full_quality_at: float = 0.0  # p90 finish with every job at full quality
    finish_p50_at: float = 0.0
    finish_p90_at: float = 0.0
    device_seconds: float = 0.0  # p50 sum over assignments
    mean_quality: float = 1.0
    quality_bound: float = 1.0  # upper bound on the mean of any plan (LP relaxation)
    reason: str = ""
    notes: tuple[str, ...] = ()  # e.g. "no profile for this model: step counts alone"
