"""After a crash: catalog and store are repaired from each other, before anything is started again.

The store's COMMIT.json files say which videos exist, the catalog which jobs were under way:

    1. committed jobs that the catalog does not call done are done, once their files are in place
    2. what still runs in the catalog's eyes ran in a process that is gone: queued, without blame
    3. files of attempts that came to nothing are swept

The caller holds the batch (`Catalog.hold_batch`), so nobody else works on it. Safe to repeat, and
to be killed in. Not looked at: done videos that somebody deleted from the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vidplat.domain import JobState, OperatingPoint
from vidplat.storage.artifacts import committed_jobs, repair, sweep
from vidplat.storage.catalog import Catalog
from vidplat.storage.catalog_words import told_point
from vidplat.storage.stores import Store

ORPHAN_AGE_S = 3_600.0  # younger files may belong to a worker that has not heard of its end yet
_NOT_FINAL = (JobState.QUEUED, JobState.RUNNING)


@dataclass(frozen=True)
class Repairs:
    """What was found and put right."""

    done: int = 0  # videos that existed, and that the catalog did not know of
    released: int = 0  # jobs that were under way when their platform ended
    swept: int = 0  # files of attempts that came to nothing

    def __bool__(self) -> bool:
        return bool(self.done or self.released or self.swept)

    def __str__(self) -> str:
        found = f"{self.done} finished jobs found, {self.released} put back"
        return f"{found}, {self.swept} leftover files removed"


def reconcile(catalog: Catalog, store: Store, batch_id: str, *, now: float) -> Repairs:
    """Repair one batch; see the module's text. Raises StoreError and CatalogError."""
    # 1. What the store has, the catalog must know.
    committed = set(committed_jobs(store, batch_id))
    open_jobs = catalog.every_job(batch_id, states=_NOT_FINAL) if committed else ()
    found = [each.job.id for each in open_jobs if each.job.id in committed]
    done = sum(_adopt(catalog, store, batch_id, job_id, now) for job_id in found)
    # 2. What nobody works on any more, is open again.
    released = catalog.release(batch_id, now=now)
    # 3. What nobody will finish, is rubbish.
    return Repairs(done, len(released), sweep(store, batch_id, ORPHAN_AGE_S))


def _adopt(catalog: Catalog, store: Store, batch_id: str, job_id: str, now: float) -> bool:
    """Enter a commit into the catalog; False when its files are lost, or the job was final."""
    if (commit := repair(store, batch_id, job_id)) is None:
        return False
    return catalog.mark_done(
        batch_id,
        job_id,
        commit.artifact,
        now,
        point=_point_of(commit.facts),
        phases=_numbers(commit.facts.get("phases_s")),
        metrics=_numbers(commit.facts.get("metrics")),
    )


def _point_of(facts: Mapping[str, Any]) -> OperatingPoint | None:
    """The operating point that the sidecar tells, if it does."""
    told = facts.get("point")
    if not isinstance(told, dict) or not isinstance(told.get("steps"), int):
        return None
    steps = told.get("steps_done") or told["steps"]
    return told_point(steps, told.get("method") or "full", told.get("keyframes"))


def _numbers(told: Any) -> dict[str, float]:
    if not isinstance(told, dict):
        return {}
    return {
        str(name): float(value) for name, value in told.items() if isinstance(value, int | float)
    }
