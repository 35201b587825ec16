"""How rows of jobs change, always by compare-and-set, and what each change writes.

    read under a lock     locked(connection, these(batch_id, job_ids), JobState.RUNNING)
    change if still so    change(connection, [changed(row, **values), ...])
    keep the history      append_attempts(connection, ...), write_events(connection, ...)

SQLite's write lock, PostgreSQL's row locks, taken in one order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, bindparam, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from vidplat.domain import Artifact, JobState, Outcome
from vidplat.errors import printable
from vidplat.storage.catalog_words import BatchState, Claim, Decision, GiveUp, Requeue
from vidplat.storage.journal import event_row, write_events
from vidplat.storage.rows import POINT_COLUMNS, artifact_row, point_row, to_json
from vidplat.storage.tables import attempts, batches, jobs

IDS_PER_QUERY = 500
OPEN = (JobState.QUEUED.value, JobState.RUNNING.value)
GIVEN_UP = (JobState.FAILED.value, JobState.QUARANTINED.value, JobState.CANCELLED.value)

UNATTENDED = dict.fromkeys(("owner", "lease_until", "phase", "step", "steps", "beat_at"))
BLAMELESS = {"failure_kind": None, "failure_message": None, "avoid": None, "rung_down": 0}

# One row of `jobs`, named by its key, if it is still in the expected state and attempt. The bound
# names differ from the columns' because an UPDATE binds those itself.
_EXPECTED = ("of_job", "of_batch", "if_state", "if_attempt")
_AS_EXPECTED = tuple(
    jobs.c[column] == bindparam(name)
    for column, name in zip(("job_id", "batch_id", "state", "attempt"), _EXPECTED, strict=True)
)

# What an ended attempt takes over from its job's row.
_OF_ATTEMPT = (
    "job_id", "batch_id", "attempt", "worker_id", "pool", *POINT_COLUMNS, "predicted_p50_s",
    "predicted_p90_s", "started_at",
)  # fmt: skip
_LOCKED_COLUMNS = [jobs.c[name] for name in (*_OF_ATTEMPT, "state", "step", "predicted_quality")]


# --- reading under a lock, changing if still so ---------------------------------------------------


def these(batch_id: str, job_ids: Iterable[str]) -> list[Select[Any]]:
    """Queries for named jobs of a batch, in pieces that every database takes."""
    ordered = sorted(job_ids)
    return [
        _lockable(batch_id).where(jobs.c.job_id.in_(ordered[first : first + IDS_PER_QUERY]))
        for first in range(0, len(ordered), IDS_PER_QUERY)
    ]


def all_running(batch_id: str) -> list[Select[Any]]:
    return [_lockable(batch_id).where(jobs.c.state == JobState.RUNNING.value)]


def _lockable(batch_id: str) -> Select[Any]:
    """In one order of locking, so that two writers on PostgreSQL cannot deadlock."""
    return select(*_LOCKED_COLUMNS).where(jobs.c.batch_id == batch_id).order_by(jobs.c.job_id)


def locked(
    connection: Connection, queries: Sequence[Select[Any]], *states: JobState
) -> list[RowMapping]:
    """The rows in one of `states`, locked until the transaction ends.

    The state is looked at here and not in the query: given both, SQLite takes the index by state
    and walks every queued job of the batch for each call (a second per 500 claims among 300,000
    jobs, instead of ten milliseconds).
    """
    wanted = {state.value for state in states}
    return [
        row
        for query in queries
        for row in connection.execute(query.with_for_update()).mappings()
        if row["state"] in wanted
    ]


def changed(row: RowMapping, **values: Any) -> dict[str, Any]:
    """`values` for a row, if it is still as it was read."""
    return {**expected(row["job_id"], row["batch_id"], row["state"], row["attempt"]), **values}


def expected(*key_and_state: object) -> dict[str, Any]:
    """What must still hold of a row: job, batch, state and attempt."""
    return dict(zip(_EXPECTED, key_and_state, strict=True))


def change(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> int:
    """Changes jobs that are still as expected, how many. All `rows` set the same columns."""
    if not rows:
        return 0
    values: dict[str, Any] = {name: bindparam(name) for name in rows[0] if name not in _EXPECTED}
    return connection.execute(update(jobs).where(*_AS_EXPECTED).values(values), rows).rowcount


def move_all(
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


def state_of_batch(connection: Connection, batch_id: str) -> BatchState:
    """Its row stays locked until the transaction ends."""
    query = select(batches.c.state).where(batches.c.batch_id == batch_id).with_for_update()
    return BatchState(connection.execute(query).scalar_one())


def set_state_of_batch(
    connection: Connection, batch_id: str, state: BatchState, at: float, **detail: object
) -> None:
    """Changes a batch's state, and notes it when it was another."""
    others = (batches.c.batch_id == batch_id, batches.c.state != state.value)
    if connection.execute(update(batches).where(*others).values(state=state.value)).rowcount:
        write_events(connection, [event_row(batch_id, None, state.value, at, **detail)])


# --- what a change writes -------------------------------------------------------------------------


def claimed(
    claim: Claim, attempt: int, started_at: float, beat_at: float, lease_s: float
) -> dict[str, Any]:
    return {
        **point_row(claim.point),
        "state": JobState.RUNNING.value,
        "attempt": attempt,
        "owner": claim.owner,
        "worker_id": claim.worker_id,
        "pool": claim.pool,
        "predicted_p50_s": claim.p50_s,
        "predicted_p90_s": claim.p90_s,
        "predicted_quality": claim.quality,
        "started_at": started_at,
        "finished_at": None,
        "lease_until": beat_at + lease_s,
        "phase": None,
        "step": 0,
        "steps": claim.point.steps,
        "beat_at": beat_at,
    }


def finished(outcome: Outcome, artifact: Artifact, quality: float | None) -> dict[str, Any]:
    return {
        **UNATTENDED,
        **BLAMELESS,
        **artifact_row(artifact),
        **point_row(outcome.point),
        "state": JobState.DONE.value,
        "worker_id": outcome.worker_id,
        "started_at": outcome.started_at,
        "finished_at": outcome.finished_at,
        "phases": to_json(outcome.phases),
        "metrics": to_json(outcome.metrics),
        "predicted_quality": quality,
    }


def unmade(attempt: int, state: JobState) -> dict[str, Any]:
    """As if it had never been tried, but that attempts count on."""
    of_video = ("video_uri", "poster_uri", "meta_uri", "sha256", "size_bytes", "won_by")
    nothing = dict.fromkeys((*of_video, "finished_at", "phases", "metrics", "reused_from"))
    return {**BLAMELESS, **nothing, "state": state.value, "not_before": 0.0, "forgiven": attempt}


def failed(outcome: Outcome, decision: Decision) -> dict[str, Any]:
    match decision:
        case Requeue():
            again, state = decision, JobState.QUEUED
        case GiveUp(state):
            assert state.value in GIVEN_UP, f"giving up ends in {GIVEN_UP}, not in {state}"
            again = Requeue()  # as it was before any failure
    return {
        **UNATTENDED,
        **_failure_row(outcome),
        "finished_at": outcome.finished_at,
        "phases": to_json(outcome.phases),
        "state": state.value,
        "not_before": again.not_before,
        "avoid": to_json(sorted(again.avoid)),
        "rung_down": again.rung_down,
    }


def started_event(batch_id: str, claim: Claim, attempt: int, at: float) -> dict[str, Any]:
    how = {"worker": claim.worker_id, "point": claim.point.label, "reason": claim.reason}
    return event_row(batch_id, claim.job_id, "started", at, attempt=attempt, **how)


def ended_event(batch_id: str, outcome: Outcome, kind: str, **more: object) -> dict[str, Any]:
    facts = {"attempt": outcome.attempt, **more}
    return event_row(batch_id, outcome.job_id, kind, outcome.finished_at, **facts)


def failed_event(batch_id: str, outcome: Outcome, decision: Decision) -> dict[str, Any]:
    failure = outcome.failure
    assert failure is not None, f"outcome of {outcome.job_id} has neither artifact nor failure"
    detail: dict[str, Any] = {
        "worker": outcome.worker_id,
        "cause": failure.kind.value,
        "message": printable(failure.message, 500),
    }
    match decision:
        case GiveUp(state):
            return ended_event(batch_id, outcome, state.value, **detail)
        case Requeue(not_before, avoid, rung_down):
            again = {"not_before": not_before, "avoid": sorted(avoid), "rung_down": rung_down}
            return ended_event(batch_id, outcome, "requeued", **detail, **again)


def _failure_row(outcome: Outcome) -> dict[str, Any]:
    failure = outcome.failure
    return {
        "failure_kind": failure.kind.value if failure else None,
        "failure_message": printable(failure.message, 500) if failure else None,
    }


def attempt_row(row: RowMapping, ended: str, at: float) -> dict[str, Any]:
    """An attempt's end as its job's row tells it."""
    facts = {name: row[name] for name in _OF_ATTEMPT}
    return {**facts, "steps_done": row["step"] or 0, "ended": ended, "finished_at": at}


def reported_attempt(row: RowMapping, outcome: Outcome) -> dict[str, Any]:
    """An attempt's end as its worker tells it. All rows of one call bear the same columns."""
    return {
        **attempt_row(row, "done" if outcome.ok else "failed", outcome.finished_at),
        **point_row(outcome.point),
        **_failure_row(outcome),
        "worker_id": outcome.worker_id,
        "started_at": outcome.started_at,
        "steps_done": outcome.steps_done,
        "phases": to_json(outcome.phases),
    }


def append_attempts(
    connection: Connection, rows: Sequence[Mapping[str, Any]], *, if_new: bool = False
) -> None:
    """With `if_new` an attempt that has ended already keeps its end."""
    if rows and if_new:
        kind = postgresql if connection.dialect.name == "postgresql" else sqlite
        connection.execute(kind.insert(attempts).on_conflict_do_nothing(), rows)
    elif rows:
        connection.execute(insert(attempts), rows)
