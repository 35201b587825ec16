"""The window: those queued jobs of a batch that are planned one by one. The rest waits in the
catalog.

A queue of a million rows is never held in memory. The window is the front of it, in the catalog's
order; it is read again when it is half empty, and the planner is told how many more there are, so
that it leaves them their share of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol

from vidplat.domain import JobState, OpenJob
from vidplat.scheduler import Backlog


class Queue(Protocol):
    """What the window needs of the catalog."""

    def open_jobs(self, batch_id: str, *, limit: int | None = None) -> list[OpenJob]: ...
    def counts(self, batch_id: str) -> dict[JobState, int]: ...


class Window:
    """`size` jobs at most; `on_model` hears each model id that occurs, before the window is used.

    Deadlines before `passed_at` are left out: nothing that is planned now can meet them.
    """

    def __init__(
        self,
        queue: Queue,
        batch_id: str,
        size: int,
        on_model: Callable[[str], None],
        passed_at: float = 0.0,
    ) -> None:
        self._queue, self._batch_id, self._size, self._on_model = queue, batch_id, size, on_model
        self._passed_at = passed_at
        self._jobs: dict[str, OpenJob] = {}
        self._beyond = 0  # queued jobs that are not in the window
        self.has_deadlines = False

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[OpenJob]:
        return iter(self._jobs.values())

    def find(self, job_id: str) -> OpenJob | None:
        return self._jobs.get(job_id)

    def take(self, job_id: str) -> OpenJob:
        return self._jobs.pop(job_id)

    def put(self, open_job: OpenJob) -> None:
        """A job that came back: after a failure, or from a lost worker."""
        self._jobs[open_job.job.id] = open_job

    @property
    def is_low(self) -> bool:
        """Whether it should be read again: half empty, and the catalog has more."""
        return self._beyond > 0 and len(self._jobs) <= self._size // 2

    def read(self) -> int:
        """Read the front of the queue from the catalog; how many jobs that are."""
        found = [
            without_passed(each, self._passed_at)
            for each in self._queue.open_jobs(self._batch_id, limit=self._size)
        ]
        for model_id in {each.job.model.id for each in found}:
            self._on_model(model_id)
        self._jobs = {each.job.id: each for each in found}
        self.has_deadlines = any(each.job.deadline_at is not None for each in found)
        is_full = len(found) == self._size
        self._beyond = (
            self._queue.counts(self._batch_id)[JobState.QUEUED] - len(found) if is_full else 0
        )
        return len(found)

    def backlog(self) -> tuple[Backlog, ...]:
        """Queued jobs beyond the window, as more of the window's last one."""
        if self._beyond <= 0 or not self._jobs:
            return ()
        return (Backlog(next(reversed(self._jobs.values())), self._beyond),)

    def has_ready(self, now: float) -> bool:
        """Whether a job waits that may start now."""
        return any(each.not_before <= now for each in self._jobs.values())


def without_passed(open_job: OpenJob, passed_at: float) -> OpenJob:
    """`open_job` without its deadline if that lies before `passed_at`."""
    due = open_job.job.deadline_at
    if due is None or due > passed_at:
        return open_job
    return replace(open_job, job=replace(open_job.job, deadline_at=None))
