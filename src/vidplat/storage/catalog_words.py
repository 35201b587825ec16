"""The catalog's own words: what is handed in and out of it beside `domain`'s values.

Plain frozen values, so that the platform, the command line and tests can name them without loading
SQL. Times are seconds since the Unix epoch; durations end in `_s`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from vidplat.domain import Batch, Failure, JobState, OperatingPoint


class BatchState(StrEnum):
    OPEN = "open"  # has work to do, or is being worked on
    DONE = "done"  # every job has reached a final state
    CANCELLED = "cancelled"
    INFEASIBLE = "infeasible"  # refused by admission: nothing was started


# --- handed in ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Claim:
    """A queued job to be begun now: by whom, how, and what was predicted of it."""

    job_id: str
    worker_id: str
    pool: str
    point: OperatingPoint
    p50_s: float  # predicted seconds of work, median
    p90_s: float
    quality: float  # predicted, in [0, 1]
    owner: str  # the platform process that begins it: host:pid:start
    reason: str = ""  # why it is made so, for people


@dataclass(frozen=True)
class Requeue:
    """After a failure: again. `avoid` and `rung_down` replace what the job had before."""

    not_before: float = 0.0
    avoid: frozenset[str] = frozenset()
    rung_down: int = 0


@dataclass(frozen=True)
class GiveUp:
    """After a failure: no more. The state is FAILED, QUARANTINED or CANCELLED."""

    state: JobState = JobState.FAILED


Decision = Requeue | GiveUp


# --- handed in and out ----------------------------------------------------------------------------


@dataclass(frozen=True)
class PointShare:
    """How many jobs of a plan run where and how."""

    pool: str
    point: OperatingPoint
    jobs: int
    mean_quality: float
    p50_s: float  # seconds of work, summed over those jobs


@dataclass(frozen=True)
class PlanRecord:
    """A plan as it is kept: its promise and its shape; predictions are kept with their jobs."""

    at: float  # when it was asked for: finishes are told from here
    inputs_sha256: str  # of the snapshot and policy it was made from
    verdict: str  # feasible, degraded or infeasible
    reason: str
    earliest_at: float
    full_quality_at: float
    finish_p50_at: float
    finish_p90_at: float
    device_seconds: float
    mean_quality: float
    quality_bound: float
    jobs: int  # assigned
    shares: tuple[PointShare, ...] = ()
    deferred_count: int = 0
    deferred: tuple[tuple[str, str], ...] = ()  # (job id, reason), the first of them
    notes: tuple[str, ...] = ()


# --- handed out -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Added:
    """What became of a submit: a batch that was there already inserts nothing."""

    batch: Batch  # as it is stored now
    new: bool
    inserted: int  # job rows written
    reused: int  # of those, born done because another batch of this prefix has the same video


@dataclass(frozen=True)
class RunningJob:
    """One job under way, for `status` and `watch`."""

    job_id: str
    row: int
    attempt: int
    worker_id: str
    pool: str
    owner: str
    point: OperatingPoint
    phase: str  # "" until the first heartbeat
    step: int
    steps: int
    started_at: float
    beat_at: float  # last heartbeat; both by the database's clock, `Catalog.time`
    lease_until: float


@dataclass(frozen=True)
class Outlook:
    """When a batch ends, by the latest plan."""

    finish_p50_at: float
    finish_p90_at: float


@dataclass(frozen=True)
class StepTotals:
    """Denoising steps of a whole batch: the honest measure of progress."""

    done: int  # spent by finished jobs
    running: int  # finished steps of the jobs under way
    ahead: int  # still to come: rest of the running ones, and queued ones at full quality


@dataclass(frozen=True)
class AttemptRecord:
    """One attempt's end. Attempts are written once and never changed."""

    job_id: str
    attempt: int
    ended: str  # done, failed, or released (the platform went away, the job is not to blame)
    worker_id: str
    pool: str
    point: OperatingPoint
    started_at: float
    finished_at: float
    steps_done: int
    phases: Mapping[str, float] = field(default_factory=dict)
    failure: Failure | None = None
    # counts towards the job's attempt limit: failed, and not forgiven by a later `retry`
    counts: bool = False


@dataclass(frozen=True)
class Event:
    """One line of history, of a batch or of one job of it."""

    id: int
    at: float
    batch_id: str
    job_id: str | None
    kind: str  # submitted, started, done, requeued, failed, cancelled, ...
    detail: Mapping[str, Any] = field(default_factory=dict)


# --- what earlier versions wrote ------------------------------------------------------------------


def told_point(steps: int, method: str, keyframes: int | None = None) -> OperatingPoint:
    """A point out of JSON of any version. Those before revision 0003 told the latent frames that a
    video was made from beside its method; they are shown as they were asked for."""
    return OperatingPoint(steps, method if keyframes is None else f"keyframes:{keyframes}")
