"""After a crash: catalog and store are repaired from each other, before anything is started again.

The store's COMMIT.json files say which videos exist, the catalog which jobs were under way:

    1. committed jobs that the catalog does not call done are done, once their files are in place
    2. what still runs in the catalog's eyes ran in a process that is gone: queued, without blame
    3. files of attempts that came to nothing are swept

The caller holds the batch (`Catalog.hold_batch`), so nobody else works on it. Safe to repeat, and
to be killed in. Only what jobs left that are not done is looked at: ten open jobs of a hundred
thousand cost ten looks.

`put_back_lost` is the other direction: what the catalog calls done, the store must have. Whoever
relies on done videos (resume, a submit that finds some, `vidplat doctor`) asks it first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vidplat.domain import JobState, OperatingPoint
from vidplat.platform.report import key_of
from vidplat.storage.artifacts import committed_jobs, job_folder, repair, sweep
from vidplat.storage.catalog import Catalog
from vidplat.storage.catalog_words import told_point
from vidplat.storage.stores import NotFound, Store

if TYPE_CHECKING:
    from sqlalchemy import RowMapping

ORPHAN_AGE_S = 3_600.0  # younger files may belong to a worker that has not heard of its end yet
_NOT_DONE = tuple(set(JobState) - {JobState.DONE})
_AT_ONCE = 100_000  # videos looked for; a store may list all for each such look
_OF_VIDEO = ("job_id", "video_uri", "size_bytes", "sha256")


@dataclass(frozen=True)
class Repairs:
    """What was found and put right."""

    done: int = 0  # videos that existed, and that the catalog did not know of
    released: int = 0  # jobs that were under way when their platform ended
    swept: int = 0  # files of attempts that came to nothing

    def __bool__(self) -> bool:
        return bool(self.done or self.released or self.swept)

    def __add__(self, other: Repairs) -> Repairs:
        swept = self.swept + other.swept
        return Repairs(self.done + other.done, self.released + other.released, swept)

    def __str__(self) -> str:
        found = f"{self.done} finished jobs found, {self.released} put back"
        return f"{found}, {self.swept} leftover files removed"


def reconcile(catalog: Catalog, store: Store, batch_id: str, *, now: float) -> Repairs:
    """Repair one batch; see the module's text. Raises StoreError and CatalogError."""
    # 1. What the store has, the catalog must know.
    unmade = catalog.ids(batch_id, states=_NOT_DONE)
    found = list(committed_jobs(store, batch_id, unmade))
    done = sum(_adopt(catalog, store, batch_id, job_id, now) for job_id in found)
    # 2. What nobody works on any more, is open again.
    released = catalog.release(batch_id, now=now)
    # 3. What nobody will finish, is rubbish.
    return Repairs(done, len(released), sweep(store, batch_id, ORPHAN_AGE_S, unmade))


def put_back_lost(
    catalog: Catalog, store: Store, batch_id: str, *, now: float, verify: bool = False
) -> int:
    """Jobs whose videos are lost are to be made again; how many. Safe beside a process that works
    on the batch."""
    lost = lost_videos(catalog, store, batch_id, verify=verify)
    return catalog.lose(batch_id, lost, now=now) if lost else 0


def lost_videos(
    catalog: Catalog, store: Store, batch_id: str, *, verify: bool = False
) -> list[str]:
    """Jobs that are called done, whose videos are gone or of another size (with `verify`: of other
    bytes)."""
    lost = []
    for rows in catalog.job_rows(batch_id, _OF_VIDEO, states=[JobState.DONE], chunk=_AT_ONCE):
        promised = {key: row for row in rows if (key := key_of(store, row["video_uri"]))}
        sizes = store.sizes(promised.keys())
        for key, row in promised.items():
            if sizes.get(key) != row["size_bytes"] or (verify and _is_other(store, key, row)):
                lost.append(row["job_id"])
    return lost


def _is_other(store: Store, key: str, row: RowMapping) -> bool:
    try:
        return hashlib.sha256(store.get(key)).hexdigest() != str(row["sha256"])
    except NotFound:
        return True


def _adopt(catalog: Catalog, store: Store, batch_id: str, job_id: str, now: float) -> bool:
    """Enter a commit into the catalog; False when its files are lost, or the job was done."""
    if (commit := repair(store, batch_id, job_id)) is None:
        return False
    # Whatever passed since belongs to nobody: it took its phases, and ended with its commit.
    record = store.facts(f"{job_folder(batch_id, job_id)}/COMMIT.json", digest=False)
    phases = _numbers(commit.facts.get("phases_s"))
    ended_at = min(now, record.modified_at) if record else now
    return catalog.mark_done(
        batch_id,
        job_id,
        commit.artifact,
        ended_at,
        started_at=ended_at - sum(phases.values()) if phases else None,
        point=_point_of(commit.facts),
        phases=phases,
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
