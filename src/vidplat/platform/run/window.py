"""The window: the queued jobs that are planned one by one. The rest waits in the catalog.

A queue of a million rows is never held in memory. The window is the front of it, in the catalog's
order; it is read again when it is half empty, and the planner is told how many more there are, so
that it leaves them their share of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from vidplat.domain import JobState, OpenJob
from vidplat.scheduler.groups import Backlog
from vidplat.storage.catalog import Catalog


@dataclass(frozen=True)
class Queue:
    """The open jobs of a batch: the first ones, and how many there are."""

    first: Sequence[OpenJob]
    total: int

    def backlog(self) -> tuple[Backlog, ...]:
        """Those beyond the first, as more of the last of these."""
        rest = self.total - len(self.first)
        return (Backlog(self.first[-1], rest),) if rest > 0 and self.first else ()


class Window:
    """`size` jobs at most; `on_model` hears each model id before the window is used. Deadlines
    before `passed_at` are left out: nothing that is planned now can meet them."""

    def __init__(
        self,
        catalog: Catalog,
        batch_id: str,
        size: int,
        on_model: Callable[[str], None],
        passed_at: float = 0.0,
    ) -> None:
        self._catalog, self._batch_id, self._size = catalog, batch_id, size
        self._on_model, self._passed_at = on_model, passed_at
        self.jobs: dict[str, OpenJob] = {}  # by id, in the catalog's order
        self._beyond = 0  # queued jobs that are not in the window
        self.has_deadlines = False

    def put(self, open_job: OpenJob) -> None:
        """A job that came back: after a failure, or from a lost worker."""
        self.jobs[open_job.job.id] = open_job

    @property
    def is_low(self) -> bool:
        """Whether it should be read again: half empty, and the catalog has more."""
        return self._beyond > 0 and len(self.jobs) <= self._size // 2

    def read(self) -> int:
        """Read the front of the queue from the catalog; how many jobs that are."""
        front = self._catalog.open_jobs(self._batch_id, limit=self._size)
        found = [_without_passed(each, self._passed_at) for each in front]
        for model_id in {each.job.model.id for each in found}:
            self._on_model(model_id)
        self.jobs = {each.job.id: each for each in found}
        self.has_deadlines = any(each.job.deadline_at is not None for each in found)
        self._beyond = 0
        if len(found) == self._size:
            self._beyond = self._catalog.counts(self._batch_id)[JobState.QUEUED] - len(found)
        return len(found)

    def queue(self) -> Queue:
        """The jobs in the window, and how many there are with those beyond it."""
        return Queue(tuple(self.jobs.values()), len(self.jobs) + self._beyond)


def _without_passed(open_job: OpenJob, passed_at: float) -> OpenJob:
    """`open_job` without its deadline if that lies before `passed_at`."""
    due = open_job.job.deadline_at
    if due is None or due > passed_at:
        return open_job
    return replace(open_job, job=replace(open_job.job, deadline_at=None))
