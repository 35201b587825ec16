"""After a failure: again, elsewhere, one rung lower, or give up.

Decisions rest on the kind of failure, never on message text:
  request          the same request is wrong again: failed at once
  out-of-memory    again at once, one rung lower in memory, the worker is not to blame
  infrastructure   again after a growing wait, with a higher limit; no worker is avoided
  job              again after a wait, on another worker
  worker-lost      again at once, on another worker
  method           again at once, without that method; failed where the row asked for it by name
Three different workers that fail one job make it poison (quarantined), as do three workers lost to
it. Three different jobs that fail on one worker, with no success between, make the worker suspect:
the last choice.

Pure: the wait's jitter comes from the job id and the attempt, so the same history gives the same
decision. Left to others: counting attempts and writing them down (`platform`, `storage.catalog`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace

from vidplat.domain import FailureKind, Job, JobState, OpenJob

_MOST_INFRASTRUCTURE_ATTEMPTS = 10  # of one job, when the surroundings are to blame
_POISON_WORKERS = 3  # as many different workers failing one job: the job is poison
_SUSPECT_JOBS = 3  # as many different jobs failing on one worker: the worker is suspect
_BACKOFF_S = 0.5  # wait before the second attempt; doubles with each further one
_BACKOFF_CAP_S = 60.0


def after(
    kind: FailureKind,
    failed: OpenJob,
    worker_id: str,
    *,
    attempt: int,
    max_attempts: int,
    now: float,
) -> OpenJob | JobState:
    """What to do with a job whose `attempt` (counted from 1) just failed on `worker_id`: how to
    queue it again, or the state in which it is given up, FAILED or QUARANTINED.

    A wait never takes more than a tenth of the time that is left to the job's own deadline.
    """
    is_infrastructure = kind is FailureKind.INFRASTRUCTURE
    is_last = attempt >= (_MOST_INFRASTRUCTURE_ATTEMPTS if is_infrastructure else max_attempts)
    later = now + _wait_s(failed.job, attempt, now)
    if kind is FailureKind.REQUEST:
        return JobState.FAILED
    if kind is FailureKind.METHOD:
        return JobState.FAILED if failed.job.method else replace(failed, not_before=now)
    if is_infrastructure:
        return JobState.FAILED if is_last else replace(failed, not_before=later)
    if kind is FailureKind.OUT_OF_MEMORY:
        lower = replace(failed, not_before=now, rung_down=failed.rung_down + 1)
        return JobState.FAILED if is_last else lower
    is_lost = kind is FailureKind.WORKER_LOST
    blamed = failed.avoid | {worker_id}
    if len(blamed) >= _POISON_WORKERS or (is_last and is_lost):
        return JobState.QUARANTINED
    elsewhere = replace(failed, not_before=now if is_lost else later, avoid=blamed)
    return JobState.FAILED if is_last else elsewhere


def suspects(history: Iterable[tuple[str, str, bool]]) -> frozenset[str]:
    """Workers on which three different jobs failed since their last success.

    `history` is (worker id, job id, ok) in order of time, without failures that blame no worker.
    """
    failed: dict[str, set[str]] = {}
    for worker_id, job_id, ok in history:
        if ok:
            failed.pop(worker_id, None)
        else:
            failed.setdefault(worker_id, set()).add(job_id)
    return frozenset(w for w, jobs in failed.items() if len(jobs) >= _SUSPECT_JOBS)


def _wait_s(job: Job, attempt: int, now: float) -> float:
    """Exponential, capped, with jitter in [0.5, 1): equal jobs do not come back in step."""
    wait_s = min(_BACKOFF_CAP_S, _BACKOFF_S * 2.0 ** min(attempt - 1, 30))
    if job.deadline_at is not None:
        wait_s = min(wait_s, max(0.0, (job.deadline_at - now) / 10))
    digest = hashlib.sha256(f"{job.id}:{attempt}".encode()).digest()
    return wait_s * (0.5 + int.from_bytes(digest[:4], "big") / 2**33)
