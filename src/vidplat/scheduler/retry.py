"""After a failure: again, elsewhere, one rung lower, or give up.

Decisions rest on the kind of failure, never on message text:
  request          the same request is wrong again: failed at once
  out-of-memory    again at once, one rung lower in memory, the worker is not to blame
  infrastructure   again after a growing wait, with a higher limit; no worker is avoided
  job              again after a wait, on another worker
  worker-lost      again at once, on another worker
Three different workers that fail one job make it poison (quarantined), as do three workers lost to
it. Three different jobs that fail on one worker, with no success between, make the worker suspect:
the last choice.

Pure: the wait's jitter comes from the job id and the attempt, so the same history gives the same
decision. Left to others: counting attempts and writing them down (`platform`, `storage.catalog`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from vidplat.domain import Failure, FailureKind, JobState

_MOST_INFRASTRUCTURE_ATTEMPTS = 10  # of one job, when the surroundings are to blame
_POISON_WORKERS = 3  # as many different workers failing one job: the job is poison
_SUSPECT_JOBS = 3  # as many different jobs failing on one worker: the worker is suspect
_BACKOFF_S = 0.5  # wait before the second attempt; doubles with each further one
_BACKOFF_CAP_S = 60.0


@dataclass(frozen=True)
class Again:
    """Queue the job again. The fields are those of `OpenJob`."""

    not_before: float
    avoid: frozenset[str]
    rung_down: int
    reason: str


@dataclass(frozen=True)
class Stop:
    """Give the job up."""

    state: JobState  # FAILED or QUARANTINED
    reason: str


def after(
    failure: Failure,
    *,
    job_id: str,
    worker_id: str,
    attempt: int,
    now: float,
    max_attempts: int,
    avoid: frozenset[str] = frozenset(),
    rung_down: int = 0,
    deadline_at: float | None = None,
) -> Again | Stop:
    """What to do with a job whose `attempt` (counted from 1) just failed on `worker_id`.

    `avoid` and `rung_down` are the job's so far (`OpenJob`). A wait never takes more than a tenth
    of the time that is left to the deadline.
    """
    kind, message = failure.kind, failure.message
    if kind is FailureKind.REQUEST:
        return Stop(JobState.FAILED, message)
    if kind is FailureKind.INFRASTRUCTURE:
        if attempt >= _MOST_INFRASTRUCTURE_ATTEMPTS:
            return Stop(JobState.FAILED, f"gave up after {attempt} attempts: {message}")
        wait_s = _wait_s(job_id, attempt, now, deadline_at)
        return Again(now + wait_s, avoid, rung_down, f"again in {wait_s:.1f} s: {message}")
    if kind is FailureKind.OUT_OF_MEMORY:
        if attempt >= max_attempts:
            return Stop(JobState.FAILED, f"out of memory in {attempt} attempts: {message}")
        return Again(now, avoid, rung_down + 1, f"one rung lower: {message}")
    blamed = avoid | {worker_id}
    lost = kind is FailureKind.WORKER_LOST
    if len(blamed) >= _POISON_WORKERS:
        return Stop(JobState.QUARANTINED, f"{len(blamed)} workers failed it: {message}")
    if attempt >= max_attempts:
        state = JobState.QUARANTINED if lost else JobState.FAILED
        return Stop(state, f"gave up after {attempt} attempts: {message}")
    wait_s = 0.0 if lost else _wait_s(job_id, attempt, now, deadline_at)
    return Again(now + wait_s, blamed, rung_down, f"again, rather not on {worker_id}: {message}")


def suspects(history: Iterable[tuple[str, str, bool]]) -> frozenset[str]:
    """Workers on which three different jobs failed since their last success.

    `history` is (worker id, job id, ok) in order of time; leave out failures that blame no worker
    (request, out of memory).
    """
    failed: dict[str, set[str]] = {}
    for worker_id, job_id, ok in history:
        if ok:
            failed.pop(worker_id, None)
        else:
            failed.setdefault(worker_id, set()).add(job_id)
    return frozenset(w for w, jobs in failed.items() if len(jobs) >= _SUSPECT_JOBS)


def _wait_s(job_id: str, attempt: int, now: float, deadline_at: float | None) -> float:
    """Exponential, capped, with jitter in [0.5, 1): equal jobs do not come back in step."""
    wait_s = min(_BACKOFF_CAP_S, _BACKOFF_S * 2.0 ** min(attempt - 1, 30))
    if deadline_at is not None:
        wait_s = min(wait_s, max(0.0, (deadline_at - now) / 10))
    digest = hashlib.sha256(f"{job_id}:{attempt}".encode()).digest()
    return wait_s * (0.5 + int.from_bytes(digest[:4], "big") / 2**33)
