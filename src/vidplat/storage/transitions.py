"""Where a job's state changes, always by compare-and-set.

               claim               finish with an artifact, mark_done
    queued ------------> running ---------------------------------------> done
       ^                    |
       |  finish: Requeue   |  finish: GiveUp
       +--- release --------+--------------------> failed | quarantined
       |                                               |
       +------------- retry_failed --------------------+---- cancelled <-- cancel (of what is open)
       +------------- lose (a done job whose video is gone)

Each change reads the rows it is about to change under a lock, changes those that are still as
expected, and appends the attempt and the events in the same transaction (changes.py). A caller that
comes late changes nothing and is told so by what is returned.

(job, attempt) is the fencing token: `claim` counts the attempt up, and only the holder of that
number can finish it or renew its lease. Leases are by the database's clock; other times are told by
the platform process, the one writer of a batch (`Catalog.hold_batch` says which process that is).
`cancel` and `retry_failed` may come from other processes at any moment. The store's commit decides
between a `cancel` and a worker: what is committed is done, whatever the catalog had called it.

Whether and when to try again is decided elsewhere (`scheduler/retry.py`) and handed in.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import Connection, update

from vidplat.domain import Artifact, JobState, OperatingPoint, Outcome, Progress
from vidplat.storage import changes
from vidplat.storage.catalog_words import BatchState, Claim, Decision
from vidplat.storage.changes import append_attempts, attempt_row, change, changed, locked, these
from vidplat.storage.database import now_of
from vidplat.storage.door import changing
from vidplat.storage.journal import Journal, event_row, write_events
from vidplat.storage.rows import artifact_row, point_row, to_json
from vidplat.storage.tables import jobs


class Transitions(Journal):
    """The changing half of the catalog."""

    # --- the usual way of a job -------------------------------------------------------------------

    @changing
    def claim(
        self,
        connection: Connection,
        batch_id: str,
        claims: Sequence[Claim],
        *,
        now: float,
        lease_s: float,
    ) -> dict[str, int]:
        """Queued jobs begin. Returns the attempt number of each that was got."""
        here = now_of(connection)
        wanted = {each.job_id: each for each in claims}
        rows, history, attempt_of = [], [], {}
        for row in locked(connection, these(batch_id, wanted), JobState.QUEUED):
            claim, attempt = wanted[row["job_id"]], row["attempt"] + 1
            attempt_of[claim.job_id] = attempt
            rows.append(changed(row, **changes.claimed(claim, attempt, now, here, lease_s)))
            history.append(changes.started_event(batch_id, claim, attempt, now))
        change(connection, rows)
        write_events(connection, history)
        return attempt_of

    @changing
    def heartbeat(
        self, connection: Connection, batch_id: str, progress: Sequence[Progress], *, lease_s: float
    ) -> set[str]:
        """Stores phase and step, and renews the leases. Returns jobs that are no longer the
        sender's: stop them.

        Of several heartbeats of one job the last one counts.
        """
        latest, here = {each.job_id: each for each in progress}, now_of(connection)
        rows = [
            {
                **changes.expected(each.job_id, batch_id, JobState.RUNNING.value, each.attempt),
                "phase": each.phase,
                "step": each.step,
                "steps": each.steps,
                "beat_at": here,
                "lease_until": here + lease_s,
            }
            for each in latest.values()
        ]
        if change(connection, rows) == len(rows):
            return set()
        found = locked(connection, these(batch_id, latest), JobState.RUNNING)
        running = {row["job_id"]: row["attempt"] for row in found}
        return {each.job_id for each in latest.values() if running.get(each.job_id) != each.attempt}

    @changing
    def renew(self, connection: Connection, batch_id: str, owner: str, *, lease_s: float) -> int:
        """Renews the leases of all jobs that `owner` runs; how many."""
        mine = (
            jobs.c.batch_id == batch_id,
            jobs.c.state == JobState.RUNNING.value,
            jobs.c.owner == owner,
        )
        longer = update(jobs).where(*mine).values(lease_until=now_of(connection) + lease_s)
        return connection.execute(longer).rowcount

    @changing
    def finish(
        self,
        connection: Connection,
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
        made, lost, attempts, history = [], [], [], []
        found = locked(connection, these(batch_id, ended), JobState.RUNNING)
        running = {(row["job_id"], row["attempt"]): row for row in found}
        for each in ended.values():
            row = running.get((each.job_id, each.attempt))
            if row is None:
                history.append(changes.ended_event(batch_id, each, "late", ok=each.ok))
                continue
            attempts.append(changes.reported_attempt(row, each))
            if each.artifact is not None:
                quality = row["predicted_quality"] if each.quality is None else each.quality
                made.append(changed(row, **changes.finished(each, each.artifact, quality)))
                history.append(changes.ended_event(batch_id, each, "done"))
            else:
                decision = (decisions or {})[each.job_id]
                lost.append(changed(row, **changes.failed(each, decision)))
                history.append(changes.failed_event(batch_id, each, decision))
        change(connection, made)
        change(connection, lost)
        append_attempts(connection, attempts)
        write_events(connection, history)
        return {each["job_id"] for each in attempts}

    # --- the unusual ways -------------------------------------------------------------------------

    @changing
    def mark_done(
        self,
        connection: Connection,
        batch_id: str,
        job_id: str,
        artifact: Artifact,
        at: float,
        *,
        started_at: float | None = None,
        point: OperatingPoint | None = None,
        phases: Mapping[str, float] | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> bool:
        """The store proves that the artifact's attempt won, at `at`: the job is done, whatever
        other state the catalog had it in.

        Give `started_at`, `point`, `phases` and `metrics` of the winner where they are known: the
        row may hold those of another attempt. Returns False, and changes nothing, when the job was
        done already.
        """
        values = {
            **changes.UNATTENDED,
            **changes.BLAMELESS,
            **artifact_row(artifact),
            **(point_row(point) if point is not None else {}),
            **({"started_at": started_at} if started_at is not None else {}),
            "state": JobState.DONE.value,
            "finished_at": at,
            "phases": to_json(phases or {}),
            "metrics": to_json(metrics or {}),
        }
        event = event_row(batch_id, job_id, "done", at, attempt=artifact.attempt, repaired=True)
        one = these(batch_id, [job_id])
        found = locked(connection, one, *(set(JobState) - {JobState.DONE}))
        if not found:
            return False
        row = found[0]
        change(connection, [changed(row, **values)])
        if row["attempt"] == artifact.attempt and row["worker_id"] is not None:
            append_attempts(connection, [attempt_row(row, "done", at)], if_new=True)
        write_events(connection, [event])
        return True

    @changing
    def release(
        self,
        connection: Connection,
        batch_id: str,
        owner: str | None = None,
        *,
        now: float,
        job_ids: Collection[str] | None = None,
    ) -> list[str]:
        """Running jobs of a dead platform process (or of all, or the named ones) are queued again
        without blame.

        Returns their ids. The attempt is recorded as released and does not count towards a job's
        limit.
        """
        wanted = changes.all_running(batch_id) if job_ids is None else these(batch_id, job_ids)
        if owner is not None:
            wanted = [query.where(jobs.c.owner == owner) for query in wanted]
        queued = {**changes.UNATTENDED, "state": JobState.QUEUED.value}
        found = locked(connection, wanted, JobState.RUNNING)
        change(connection, [changed(row, **queued) for row in found])
        append_attempts(connection, [attempt_row(row, "released", now) for row in found])
        history = [
            event_row(batch_id, row["job_id"], "released", now, attempt=row["attempt"])
            for row in found
        ]
        write_events(connection, history)
        return [row["job_id"] for row in found]

    @changing
    def cancel(
        self, connection: Connection, batch_id: str, job_id: str | None = None, *, now: float
    ) -> int:
        """Open jobs are cancelled: one, or all of a batch with the batch itself. Returns how many.

        A running one is stopped by its platform at the next heartbeat; where its video is committed
        before that, `mark_done` has the last word. Done jobs keep their videos. A batch without
        open jobs is history and stays as it is.
        """
        stopped = {**changes.UNATTENDED, "state": JobState.CANCELLED.value}
        many = changes.move_all(connection, batch_id, job_id, changes.OPEN, stopped)
        if many and job_id is None:
            changes.set_state_of_batch(connection, batch_id, BatchState.CANCELLED, now, jobs=many)
        elif many:
            write_events(connection, [event_row(batch_id, job_id, "cancelled", now, jobs=many)])
        return many

    @changing
    def retry_failed(
        self, connection: Connection, batch_id: str, job_id: str | None = None, *, now: float
    ) -> int:
        """Failed, quarantined and cancelled jobs are queued again: one, or all of a batch. Returns
        how many.

        Attempt numbers keep counting, but what failed so far no longer counts towards a job's
        limit.
        """
        fresh = {
            **changes.UNATTENDED,
            **changes.BLAMELESS,
            "state": JobState.QUEUED.value,
            "not_before": 0.0,
            "finished_at": None,
            "forgiven": jobs.c.attempt,
        }
        many = changes.move_all(connection, batch_id, job_id, changes.GIVEN_UP, fresh)
        is_cancelled = changes.state_of_batch(connection, batch_id) is BatchState.CANCELLED
        if is_cancelled and not many and job_id is None:  # all had been made
            changes.set_state_of_batch(connection, batch_id, BatchState.DONE, now)
        if many:
            changes.set_state_of_batch(connection, batch_id, BatchState.OPEN, now)
            write_events(connection, [event_row(batch_id, job_id, "retried", now, jobs=many)])
        return many

    @changing
    def lose(
        self, connection: Connection, batch_id: str, job_ids: Collection[str], *, now: float
    ) -> int:
        """Done jobs whose videos the store has no more are to be made again; how many. In a
        cancelled batch they are cancelled, until it is retried."""
        found = locked(connection, these(batch_id, job_ids), JobState.DONE)
        is_cancelled = changes.state_of_batch(connection, batch_id) is BatchState.CANCELLED
        state = JobState.CANCELLED if is_cancelled else JobState.QUEUED
        change(connection, [changed(row, **changes.unmade(row["attempt"], state)) for row in found])
        history = [event_row(batch_id, row["job_id"], "lost", now) for row in found]
        write_events(connection, history)
        if found and not is_cancelled:
            changes.set_state_of_batch(connection, batch_id, BatchState.OPEN, now)
        return len(found)
