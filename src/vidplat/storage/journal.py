"""What was: attempts, events, plans, observations, and the cost model's memory.

Rows here are written once and read later, by people (`logs`, `report`) and by the cost model. What
*is* (the state of batches and jobs) is in `transitions.py` and `catalog.py`, which append here
inside their own transactions.

Nothing is ever deleted: a finished job costs one attempt row and about two event rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Any

from sqlalchemy import Connection, RowMapping, Update, and_, delete, insert, select, update

from vidplat.domain import WorkerState
from vidplat.storage.catalog_words import (
    AttemptRecord,
    Event,
    Outlook,
    PlanRecord,
    PointShare,
    told_point,
)
from vidplat.storage.database import Database
from vidplat.storage.door import Door, changing
from vidplat.storage.rows import from_json, same_names, to_attempt, to_event, to_json
from vidplat.storage.tables import (
    attempts,
    batches,
    cost_states,
    events,
    jobs,
    observations,
    plans,
    workers,
)

_WORKER = same_names(WorkerState, workers, "alive", "suspect")
# What of a PlanRecord has a column of its own; the rest is one JSON document.
_PLAN = same_names(PlanRecord, plans)


class Journal:
    """The append-only half of the catalog, over one `Database`."""

    def __init__(self, database: Database) -> None:
        self.database, self.door = database, Door(database)

    def close(self) -> None:
        """Gives the connections back. The catalog must not be used afterwards."""
        self.database.close()

    # --- events -----------------------------------------------------------------------------------

    @changing
    def add_event(
        self,
        connection: Connection,
        batch_id: str,
        job_id: str | None,
        kind: str,
        detail: Mapping[str, Any],
        at: float,
    ) -> None:
        """Notes that something happened to a batch, or to one job of it."""
        write_events(connection, [event_row(batch_id, job_id, kind, at, **detail)])

    def events(
        self,
        batch_id: str,
        job_id: str | None = None,
        after_id: int = 0,
        limit: int | None = None,
        *,
        newest_first: bool = False,
    ) -> list[Event]:
        """The events of a batch, or of one job of it, after the one numbered `after_id`."""
        query = select(events).where(events.c.batch_id == batch_id, events.c.id > after_id)
        if job_id is not None:
            query = query.where(events.c.job_id == job_id)
        query = query.order_by(events.c.id.desc() if newest_first else events.c.id).limit(limit)
        return [to_event(row) for row in self.door.rows(query)]

    # --- attempts ---------------------------------------------------------------------------------

    def attempts(self, batch_id: str, job_id: str) -> list[AttemptRecord]:
        """Every ended attempt of one job, oldest first."""
        same_job = and_(jobs.c.job_id == attempts.c.job_id, jobs.c.batch_id == attempts.c.batch_id)
        query = (
            select(attempts, jobs.c.forgiven)
            .join(jobs, same_job)
            .where(attempts.c.job_id == job_id, attempts.c.batch_id == batch_id)
            .order_by(attempts.c.attempt)
        )
        return [to_attempt(row) for row in self.door.rows(query)]

    # --- plans ------------------------------------------------------------------------------------

    @changing
    def save_plan(self, connection: Connection, batch_id: str, plan: PlanRecord) -> None:
        """Keeps a plan's promise and shape, and what it foresees."""
        detail = {"shares": plan.shares, "deferred": plan.deferred, "notes": plan.notes}
        row = {
            **{name: getattr(plan, name) for name in _PLAN},
            "batch_id": batch_id,
            "detail": json.dumps(detail, separators=(",", ":"), default=astuple),
        }
        connection.execute(insert(plans).values(row))
        connection.execute(_foreseen(batch_id, plan.finish_p50_at, plan.finish_p90_at))

    @changing
    def foresee(
        self, connection: Connection, batch_id: str, finish_p50_at: float, finish_p90_at: float
    ) -> None:
        """Keeps when a batch ends by the plan that is followed now."""
        connection.execute(_foreseen(batch_id, finish_p50_at, finish_p90_at))

    def outlook(self, batch_id: str) -> Outlook | None:
        """When a batch ends by the latest plan that was told; None before any."""
        this = batches.c.batch_id == batch_id
        (found,) = self.door.rows(
            select(batches.c.finish_p50_at, batches.c.finish_p90_at).where(this)
        )
        return None if found["finish_p50_at"] is None else Outlook(**found)

    def plans(self, batch_id: str, limit: int | None = None) -> list[PlanRecord]:
        """The plans of a batch, oldest first; with `limit`, the latest ones."""
        query = select(plans).where(plans.c.batch_id == batch_id).order_by(plans.c.id.desc())
        return [_to_plan(row) for row in reversed(self.door.rows(query.limit(limit)))]

    # --- what the cost model learns from ----------------------------------------------------------

    @changing
    def add_observations(self, connection: Connection, seen: Sequence[Mapping[str, Any]]) -> None:
        """Keeps measured seconds; keys: model_id, device_class, stage, seconds, features, at,
        [batch_id, job_id]."""
        rows = [
            {**each, "features": json.dumps(each["features"], separators=(",", ":"))}
            for each in seen
        ]
        if rows:
            connection.execute(insert(observations), rows)

    def cost_state(self, key: str) -> dict[str, Any] | None:
        """The document kept under `key`, or None."""
        found = self.door.rows(select(cost_states.c.document).where(cost_states.c.key == key))
        return from_json(found[0]["document"]) if found else None

    @changing
    def save_cost_state(
        self, connection: Connection, key: str, document: Mapping[str, Any]
    ) -> None:
        """Replaces the document kept under `key`. The last writer wins."""
        text = json.dumps(document, separators=(",", ":"))
        replace = update(cost_states).where(cost_states.c.key == key).values(document=text)
        if connection.execute(replace).rowcount == 0:
            connection.execute(insert(cost_states).values(key=key, document=text))

    # --- workers ----------------------------------------------------------------------------------

    @changing
    def save_workers(
        self, connection: Connection, batch_id: str, seen: Sequence[WorkerState], *, now: float
    ) -> None:
        """Replaces the list of workers that a batch last saw."""
        rows = [
            {
                **{name: getattr(each, name) for name in _WORKER},
                "batch_id": batch_id,
                "worker_id": each.id,
                "alive": int(each.alive),
                "suspect": int(each.suspect),
                "seen_at": now,
            }
            for each in seen
        ]
        connection.execute(delete(workers).where(workers.c.batch_id == batch_id))
        if rows:
            connection.execute(insert(workers), rows)


def _foreseen(batch_id: str, finish_p50_at: float, finish_p90_at: float) -> Update:
    this = update(batches).where(batches.c.batch_id == batch_id)
    return this.values(finish_p50_at=finish_p50_at, finish_p90_at=finish_p90_at)


def event_row(
    batch_id: str, job_id: str | None, kind: str, at: float, /, **detail: object
) -> dict[str, Any]:
    return {
        "batch_id": batch_id,
        "job_id": job_id,
        "kind": kind,
        "at": at,
        "detail": to_json(detail),
    }


def write_events(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        connection.execute(insert(events), rows)


def _to_plan(row: RowMapping) -> PlanRecord:
    detail = from_json(row["detail"])
    shares = tuple(
        PointShare(pool, told_point(steps, method, *keyframes), count, quality, seconds)
        for pool, (steps, *keyframes, method), count, quality, seconds in detail["shares"]
    )
    return PlanRecord(
        **{name: row[name] for name in _PLAN},
        shares=shares,
        deferred=tuple((job_id, reason) for job_id, reason in detail["deferred"]),
        notes=tuple(detail["notes"]),
    )
