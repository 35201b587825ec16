"""The one file in which a job's state changes, always by compare-and-set.

               claim               finish with an artifact, mark_done
    queued ------------> running ---------------------------------------> done
       ^                    |
       |  finish: Requeue   |  finish: GiveUp
       +--- release --------+--------------------> failed | quarantined
       |                                               |
       +------------- retry_failed --------------------+---- cancelled <-- cancel (queued or
       running)

Each change reads the rows it is about to change under a lock (SQLite's write lock, PostgreSQL's row
locks, taken in one order), changes those that are still as expected, and appends the attempt and
the events in the same transaction. A caller that comes late changes nothing and is told so by what
is returned.

(job, attempt) is the fencing token: `claim` counts the attempt up, and only the holder of that
number can finish it or renew its lease. Leases are in the caller's clock: the platform process is
the one writer of a batch, and `hold_batch` says which process that is. `cancel` and `retry_failed`
may come from other processes at any moment.

Whether and when to try again is decided elsewhere (`scheduler/retry.py`) and handed in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, bindparam, insert, or_, select, update

from vidplat.domain import Artifact, Failure, JobState, OperatingPoint, Outcome, Progress
from vidplat.errors import printable
from vidplat.storage.catalog_words import BatchState, Claim, Decision, GiveUp, Hold, Requeue
from vidplat.storage.journal import Journal, event_row, write_events
from vidplat.storage.tables import artifact_row, attempts, batches, jobs, to_json

IDS_PER_QUERY = 500
OPEN = (JobState.QUEUED.value, JobState.RUNNING.value)
GIVEN_UP = (JobState.FAILED.value, JobState.QUARANTINED.value, JobState.CANCELLED.value)

# One row of `jobs`, named by its key, if it is still in the expected state and attempt. The bound
# names differ from the columns' because an UPDATE binds those itself.
_AS_EXPECTED = (
    jobs.c.job_id == bindparam("of_job"),
    jobs.c.batch_id == bindparam("of_batch"),
    jobs.c.state == bindparam("if_state"),
    jobs.c.attempt == bindparam("if_attempt"),
)
_UNATTENDED = {
    "owner": None,
    "lease_until": None,
    "phase": None,
    "step": None,
    "steps": None,
    "beat_at": None,
}
_BLAMELESS: dict[str, Any] = {
    "failure_kind": None,
    "failure_message": None,
    "avoid": None,
    "rung_down": 0,
}


class Transitions(Journal):
    """The changing half of the catalog."""

    # --- who works on a batch ---------------------------------------------------------------------

    def hold_batch(
        self,
        batch_id: str,
        owner: str,
        *,
        now: float,
        lease_s: float,
        instead_of: str | None = None,
    ) -> Hold:
        """Asks to be the process that works on a batch, or renews that. Returns who holds it now:
        compare the owner.

        It is given when nobody holds it, when the hold has run out, or when `instead_of` (an owner
        known to be dead) holds it.
        """
        free = or_(
            batches.c.held_by.is_(None),
            batches.c.held_by.in_([owner] if instead_of is None else [owner, instead_of]),
            batches.c.held_until <= now,
        )
        take = update(batches).where(batches.c.batch_id == batch_id, free)
        with self.database.writing() as connection:
            connection.execute(take.values(held_by=owner, held_until=now + lease_s))
            held = connection.execute(
                select(batches.c.held_by, batches.c.held_until).where(
                    batches.c.batch_id == batch_id
                )
            ).one()
        return Hold(held.held_by, held.held_until)

    def leave_batch(self, batch_id: str, owner: str) -> None:
        """Ends `owner`'s hold, if it has it."""
        mine = (batches.c.batch_id == batch_id, batches.c.held_by == owner)
        with self.database.writing() as connection:
            connection.execute(update(batches).where(*mine).values(held_by=None, held_until=0.0))

    def set_batch_state(self, batch_id: str, state: str, *, at: float) -> None:
        """Records that a batch is open, paused, done, cancelled or infeasible."""
        with self.database.writing() as connection:
            _set_batch_state(connection, batch_id, BatchState(state), at)

    # --- the usual way of a job -------------------------------------------------------------------

    def claim(
        self, batch_id: str, claims: Sequence[Claim], *, now: float, lease_s: float
    ) -> dict[str, int]:
        """Queued jobs begin. Returns the attempt number of each that was got; jobs no longer queued
        are left out."""
        wanted = {each.job_id: each for each in claims}
        with self.database.writing() as connection:
            found = _locked(connection, _these(batch_id, wanted), JobState.QUEUED)
            attempt_of = {row["job_id"]: row["attempt"] + 1 for row in found}
            _change(
                connection,
                [
                    {
                        **_key(row, batch_id),
                        **_claimed(wanted[row["job_id"]], row["attempt"] + 1, now, now + lease_s),
                    }
                    for row in found
                ],
            )
            write_events(
                connection,
                [
                    event_row(batch_id, job_id, "started", now, _started(wanted[job_id], attempt))
                    for job_id, attempt in attempt_of.items()
                ],
            )
        return attempt_of

    def heartbeat(
        self, batch_id: str, progress: Sequence[Progress], *, now: float, lease_s: float
    ) -> set[str]:
        """Stores phase and step, and renews the leases. Returns jobs that are no longer the
        sender's: stop them.

        Of several heartbeats of one job the last one counts.
        """
        latest = {each.job_id: each for each in progress}
        rows = [
            {
                "of_job": each.job_id,
                "of_batch": batch_id,
                "if_state": JobState.RUNNING.value,
                "if_attempt": each.attempt,
                "phase": each.phase,
                "step": each.step,
                "steps": each.steps,
                "beat_at": each.at,
                "lease_until": now + lease_s,
            }
            for each in latest.values()
        ]
        if not rows:
            return set()
        with self.database.writing() as connection:
            if _change(connection, rows) == len(rows):
                return set()
            running = {
                row["job_id"]: row["attempt"]
                for row in _locked(connection, _these(batch_id, latest), JobState.RUNNING)
            }
        return {each.job_id for each in latest.values() if running.get(each.job_id) != each.attempt}

    def renew(self, batch_id: str, owner: str, *, now: float, lease_s: float) -> int:
        """Renews the leases of all jobs that `owner` runs (a step may take longer than a lease).
        Returns how many."""
        mine = (
            jobs.c.batch_id == batch_id,
            jobs.c.state == JobState.RUNNING.value,
            jobs.c.owner == owner,
        )
        with self.database.writing() as connection:
            return connection.execute(
                update(jobs).where(*mine).values(lease_until=now + lease_s)
            ).rowcount

    def finish(
        self,
        batch_id: str,
        outcomes: Sequence[Outcome],
        decisions: Mapping[str, Decision] | None = None,
    ) -> set[str]:
        """Attempts end: done with an artifact, else as decided. Returns the jobs that changed.

        An outcome counts only for the attempt that is under way now. A late one (its lease had run
        out, or the job was cancelled) changes nothing but leaves an event; if it carries an
        artifact, `mark_done` is the way. Raises KeyError when a failed outcome that counts comes
        without a decision.
        """
        ended = {each.job_id: each for each in outcomes}
        with self.database.writing() as connection:
            running = {
                row["job_id"]: row
                for row in _locked(connection, _these(batch_id, ended), JobState.RUNNING)
            }
            counted = [each for each in ended.values() if _is_current(each, running)]
            late = [each for each in ended.values() if not _is_current(each, running)]
            finished, failed, history = [], [], []
            for each in counted:
                row = running[each.job_id]
                if each.artifact is not None:
                    quality = row["predicted_quality"] if each.quality is None else each.quality
                    ended_well = {**_finished(each, each.artifact), "predicted_quality": quality}
                    finished.append({**_key(row, batch_id), **ended_well})
                    history.append(
                        event_row(
                            batch_id,
                            each.job_id,
                            "done",
                            each.finished_at,
                            {"attempt": each.attempt},
                        )
                    )
                    continue
                decision = (decisions or {})[each.job_id]
                failed.append({**_key(row, batch_id), **_failed(each, decision)})
                history.append(_failure_event(batch_id, each, decision))
            _change(connection, finished)
            _change(connection, failed)
            _append_attempts(
                connection, [_attempt_row(running[each.job_id], batch_id, each) for each in counted]
            )
            history += [
                event_row(
                    batch_id,
                    each.job_id,
                    "late",
                    each.finished_at,
                    {"attempt": each.attempt, "ok": each.ok},
                )
                for each in late
            ]
            write_events(connection, history)
        return {each.job_id for each in counted}

    # --- the unusual ways -------------------------------------------------------------------------

    def mark_done(
        self,
        batch_id: str,
        job_id: str,
        artifact: Artifact,
        attempt: int,
        at: float,
        *,
        point: OperatingPoint | None = None,
        phases: Mapping[str, float] | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> bool:
        """The store proves that `attempt` won: the job is done, whatever non-final state the
        catalog had it in.

        Give `point`, `phases` and `metrics` of the winner where they are known: the row may hold
        those of another attempt. Returns False, and changes nothing, when the job had a final state
        already.
        """
        with self.database.writing() as connection:
            found = _locked(
                connection, _these(batch_id, [job_id]), JobState.QUEUED, JobState.RUNNING
            )
            if not found:
                return False
            row = found[0]
            values = {
                **_UNATTENDED,
                **_BLAMELESS,
                **artifact_row(artifact),
                "state": JobState.DONE.value,
            }
            values |= {"finished_at": at, "won_by": attempt}
            values |= {"phases": to_json(phases or {}), "metrics": to_json(metrics or {})}
            values |= _point_row(point) if point is not None else {}
            _change(connection, [{**_key(row, batch_id), **values}])
            if row["state"] == JobState.RUNNING.value and row["attempt"] == attempt:
                _append_attempts(
                    connection,
                    [{**_attempt_facts(row, batch_id), "ended": "done", "finished_at": at}],
                )
            write_events(
                connection,
                [event_row(batch_id, job_id, "done", at, {"attempt": attempt, "repaired": True})],
            )
        return True

    def release(
        self,
        batch_id: str,
        owner: str | None = None,
        *,
        now: float,
        job_ids: Iterable[str] | None = None,
    ) -> list[str]:
        """Running jobs of a dead platform process (or of all, or the named ones) are queued again
        without blame.

        Returns their ids. The attempt is recorded as released and does not count towards a job's
        limit.
        """
        queries = [_running_of(batch_id)] if job_ids is None else _these(batch_id, job_ids)
        if owner is not None:
            queries = [query.where(jobs.c.owner == owner) for query in queries]
        with self.database.writing() as connection:
            found = _locked(connection, queries, JobState.RUNNING)
            _change(
                connection,
                [
                    {**_key(row, batch_id), **_UNATTENDED, "state": JobState.QUEUED.value}
                    for row in found
                ],
            )
            _append_attempts(
                connection,
                [
                    {**_attempt_facts(row, batch_id), "ended": "released", "finished_at": now}
                    for row in found
                ],
            )
            write_events(
                connection,
                [
                    event_row(batch_id, row["job_id"], "released", now, {"attempt": row["attempt"]})
                    for row in found
                ],
            )
        return [row["job_id"] for row in found]

    def cancel(self, batch_id: str, job_id: str | None = None, *, now: float) -> int:
        """Open jobs are cancelled: one, or all of a batch with the batch itself. Returns how many.

        A running one is stopped by its platform at the next heartbeat. Done jobs keep their videos.
        """
        with self.database.writing() as connection:
            changed = _move_all(
                connection,
                batch_id,
                job_id,
                OPEN,
                {**_UNATTENDED, "state": JobState.CANCELLED.value},
            )
            if job_id is None:
                _set_batch_state(connection, batch_id, BatchState.CANCELLED, now)
            if changed:
                write_events(
                    connection, [event_row(batch_id, job_id, "cancelled", now, {"jobs": changed})]
                )
        return changed

    def retry_failed(self, batch_id: str, job_id: str | None = None, *, now: float) -> int:
        """Failed, quarantined and cancelled jobs are queued again: one, or all of a batch. Returns
        how many.

        Attempt numbers keep counting, but what failed so far no longer counts towards a job's
        limit.
        """
        fresh = {
            **_UNATTENDED,
            **_BLAMELESS,
            "state": JobState.QUEUED.value,
            "not_before": 0.0,
            "finished_at": None,
        }
        with self.database.writing() as connection:
            changed = _move_all(
                connection, batch_id, job_id, GIVEN_UP, {**fresh, "forgiven": jobs.c.attempt}
            )
            if changed:
                _set_batch_state(connection, batch_id, BatchState.OPEN, now)
                write_events(
                    connection, [event_row(batch_id, job_id, "retried", now, {"jobs": changed})]
                )
        return changed


# --- reading under a lock, changing if still so ---------------------------------------------------


def _lockable() -> Select[Any]:
    """The columns a change needs, in one order of locking, so that two writers on PostgreSQL cannot
    deadlock."""
    return select(
        jobs.c.job_id,
        jobs.c.state,
        jobs.c.attempt,
        jobs.c.worker_id,
        jobs.c.pool,
        jobs.c.point_steps,
        jobs.c.point_method,
        jobs.c.predicted_p50_s,
        jobs.c.predicted_p90_s,
        jobs.c.predicted_quality,
        jobs.c.started_at,
        jobs.c.step,
    ).order_by(jobs.c.job_id)


def _these(batch_id: str, job_ids: Iterable[str]) -> list[Select[Any]]:
    """Queries for named jobs of a batch, in pieces that every database takes."""
    ordered = sorted(job_ids)
    return [
        _lockable().where(
            jobs.c.batch_id == batch_id, jobs.c.job_id.in_(ordered[first : first + IDS_PER_QUERY])
        )
        for first in range(0, len(ordered), IDS_PER_QUERY)
    ]


def _running_of(batch_id: str) -> Select[Any]:
    return _lockable().where(jobs.c.batch_id == batch_id, jobs.c.state == JobState.RUNNING.value)


def _locked(
    connection: Connection, queries: Sequence[Select[Any]], *states: JobState
) -> list[RowMapping]:
    """The rows in one of `states`, locked until the transaction ends.

    The state is looked at here and not in the query: given both, SQLite takes the index by state
    and walks every queued job of the batch for each call (a second per 500 claims among 300,000
    jobs, instead of ten milliseconds).
    """
    wanted = {state.value for state in states}
    found: list[RowMapping] = []
    for query in queries:
        rows = connection.execute(query.with_for_update()).mappings()
        found += [row for row in rows if row["state"] in wanted]
    return found


def _key(row: RowMapping, batch_id: str) -> dict[str, Any]:
    return {
        "of_job": row["job_id"],
        "of_batch": batch_id,
        "if_state": row["state"],
        "if_attempt": row["attempt"],
    }


def _change(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> int:
    """Changes job rows that are still as expected; all `rows` set the same columns. Returns how
    many changed."""
    if not rows:
        return 0
    columns = [
        name for name in rows[0] if name not in ("of_job", "of_batch", "if_state", "if_attempt")
    ]
    statement = (
        update(jobs).where(*_AS_EXPECTED).values({name: bindparam(name) for name in columns})
    )
    return connection.execute(statement, rows).rowcount


def _move_all(
    connection: Connection,
    batch_id: str,
    job_id: str | None,
    states: Sequence[str],
    values: Mapping[str, Any],
) -> int:
    """Changes every job of a batch (or one) that is in one of `states`."""
    chosen = [jobs.c.batch_id == batch_id, jobs.c.state.in_(states)]
    if job_id is not None:
        chosen.append(jobs.c.job_id == job_id)
    return connection.execute(update(jobs).where(*chosen).values(values)).rowcount


def _set_batch_state(connection: Connection, batch_id: str, state: BatchState, at: float) -> None:
    others = (batches.c.batch_id == batch_id, batches.c.state != state.value)
    if connection.execute(update(batches).where(*others).values(state=state.value)).rowcount:
        write_events(connection, [event_row(batch_id, None, state.value, at)])


def _append_attempts(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        connection.execute(insert(attempts), rows)


# --- what a change writes -------------------------------------------------------------------------


def _point_row(point: OperatingPoint) -> dict[str, Any]:
    return {
        "point_steps": point.steps,
        "point_method": point.method,
    }


def _claimed(claim: Claim, attempt: int, now: float, lease_until: float) -> dict[str, Any]:
    return {
        **_point_row(claim.point),
        "state": JobState.RUNNING.value,
        "attempt": attempt,
        "owner": claim.owner,
        "worker_id": claim.worker_id,
        "pool": claim.pool,
        "predicted_p50_s": claim.p50_s,
        "predicted_p90_s": claim.p90_s,
        "predicted_quality": claim.quality,
        "started_at": now,
        "lease_until": lease_until,
        "phase": None,
        "step": 0,
        "steps": claim.point.steps,
        "beat_at": now,
    }


def _started(claim: Claim, attempt: int) -> dict[str, Any]:
    return {
        "attempt": attempt,
        "worker": claim.worker_id,
        "point": claim.point.label,
        "reason": claim.reason,
    }


def _is_current(outcome: Outcome, running: Mapping[str, RowMapping]) -> bool:
    row = running.get(outcome.job_id)
    return row is not None and row["attempt"] == outcome.attempt


def _finished(outcome: Outcome, artifact: Artifact) -> dict[str, Any]:
    return {
        **_UNATTENDED,
        **_BLAMELESS,
        **artifact_row(artifact),
        **_point_row(outcome.point),
        "state": JobState.DONE.value,
        "worker_id": outcome.worker_id,
        "started_at": outcome.started_at,
        "finished_at": outcome.finished_at,
        "phases": to_json(outcome.phases),
        "metrics": to_json(outcome.metrics),
    }


def _failed(outcome: Outcome, decision: Decision) -> dict[str, Any]:
    failure = _failure_of(outcome)
    values: dict[str, Any] = {
        **_UNATTENDED,
        "failure_kind": failure.kind.value,
        "failure_message": printable(failure.message, 500),
        "finished_at": outcome.finished_at,
        "phases": to_json(outcome.phases),
    }
    match decision:
        case Requeue(not_before, avoid, rung_down):
            again = {
                "not_before": not_before,
                "avoid": to_json(sorted(avoid)),
                "rung_down": rung_down,
            }
            return values | again | {"state": JobState.QUEUED.value}
        case GiveUp(state):
            assert state.value in GIVEN_UP, f"giving up ends in {GIVEN_UP}, not in {state}"
            return values | {"not_before": 0.0, "avoid": None, "rung_down": 0, "state": state.value}


def _failure_of(outcome: Outcome) -> Failure:
    assert outcome.failure is not None, (
        f"outcome of {outcome.job_id} has neither artifact nor failure"
    )
    return outcome.failure


def _failure_event(batch_id: str, outcome: Outcome, decision: Decision) -> dict[str, Any]:
    failure = _failure_of(outcome)
    detail = {
        "attempt": outcome.attempt,
        "worker": outcome.worker_id,
        "cause": failure.kind.value,
        "message": printable(failure.message, 500),
    }
    if isinstance(decision, GiveUp):
        return event_row(
            batch_id, outcome.job_id, decision.state.value, outcome.finished_at, detail
        )
    again = {
        "not_before": decision.not_before,
        "avoid": sorted(decision.avoid),
        "rung_down": decision.rung_down,
    }
    return event_row(batch_id, outcome.job_id, "requeued", outcome.finished_at, detail | again)


def _attempt_facts(row: RowMapping, batch_id: str) -> dict[str, Any]:
    """An attempt as its job's row tells it, without its end."""
    return {
        "job_id": row["job_id"],
        "batch_id": batch_id,
        "attempt": row["attempt"],
        "worker_id": row["worker_id"],
        "pool": row["pool"],
        "point_steps": row["point_steps"],
        "point_method": row["point_method"],
        "predicted_p50_s": row["predicted_p50_s"],
        "predicted_p90_s": row["predicted_p90_s"],
        "started_at": row["started_at"],
        "steps_done": row["step"] or 0,
    }


def _attempt_row(row: RowMapping, batch_id: str, outcome: Outcome) -> dict[str, Any]:
    """An attempt with its end. All rows of one call bear the same columns."""
    return {
        **_attempt_facts(row, batch_id),
        **_point_row(outcome.point),
        "ended": "done" if outcome.ok else "failed",
        "worker_id": outcome.worker_id,
        "started_at": outcome.started_at,
        "finished_at": outcome.finished_at,
        "steps_done": outcome.steps_done,
        "phases": to_json(outcome.phases),
        "failure_kind": outcome.failure.kind.value if outcome.failure else None,
        "failure_message": printable(outcome.failure.message, 500) if outcome.failure else None,
    }
