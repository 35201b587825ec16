"""The catalog: which batches and jobs there are, where each stands, and questions about them.

    catalog = open_catalog("sqlite:///.vidplat/catalog.db")
    added = catalog.add_batch(batch, jobs)
    for open_job in catalog.open_jobs(added.batch.id, limit=2000): ...

The catalog is the truth about a batch and outlives every process. Three files make it up, one class
on the other:

    journal.py       what was: attempts, events, plans, observations    (append-only)
    transitions.py   what changes: claim, finish, cancel, ...           (compare-and-set)
    catalog.py       what is: adding batches, reading batches and jobs  (this file)

Every statement is a named method over the tables of `tables.py`; values are always bound, never
pasted into SQL, so that a prompt full of SQL is only a prompt. Methods take times as arguments. All
raise `CatalogError` when the database cannot be used, and `UsageError` for a name that fits
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    and_,
    bindparam,
    case,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from vidplat.domain import Batch, Job, JobRecord, JobState, OpenJob
from vidplat.errors import CatalogError, UsageError, printable
from vidplat.storage.catalog_words import Added, BatchState, RunningJob, StepTotals
from vidplat.storage.database import Database
from vidplat.storage.journal import event_row, write_events
from vidplat.storage.migrations import NEWEST, REVISIONS, upgrade
from vidplat.storage.tables import (
    NEW_JOB_COLUMNS,
    batch_row,
    batches,
    jobs,
    new_job_row,
    stored_deadline,
    to_batch,
    to_job_record,
    to_open_job,
    to_running_job,
)
from vidplat.storage.transitions import Transitions

T = TypeVar("T")

ID_DIGITS = 32  # of a whole job id, see domain.job_id
JOBS_PER_INSERT = 5_000
JOBS_PER_ANALYZE = 1_000
SHOWN_CHOICES = 5  # batches named in a message about an ambiguous or unknown id

# A job's row with the model filled in from its batch where it has none of its own.
_WHOLE_JOB = (
    *(column for column in jobs.c if column.name not in ("model_id", "model_revision")),
    func.coalesce(jobs.c.model_id, batches.c.model_id).label("model_id"),
    func.coalesce(jobs.c.model_revision, batches.c.model_revision).label("model_revision"),
)
_IN_ORDER = (jobs.c.priority.desc(), jobs.c.deadline_at, jobs.c.row)


def open_catalog(url: str, *, migrate: bool | None = None, lock_timeout_s: float = 30.0) -> Catalog:
    """The catalog at `url`: `sqlite:///path`, `sqlite://` (in memory) or
    `postgresql://user@host/name`.

    An SQLite catalog is created and brought up to date here. A PostgreSQL one, which others may be
    using, is only brought up to date with `migrate=True`; otherwise a CatalogError asks for
    `vidplat doctor --migrate`. A catalog written by a newer vidplat is refused. `lock_timeout_s`
    bounds each wait for another writer.
    """
    database = Database(url, lock_timeout_s=lock_timeout_s)
    try:
        _bring_up_to_date(
            database, migrate=not database.is_postgres if migrate is None else migrate
        )
    except BaseException:
        database.close()
        raise
    return Catalog(database)


def _bring_up_to_date(database: Database, *, migrate: bool) -> None:
    found = database.revision()
    if found == NEWEST:
        return
    if found is not None and found not in REVISIONS:
        raise CatalogError(
            f"the catalog {database.shown} is at revision {printable(found, 40)}, and this "
            "vidplat knows only up to "
            f"{NEWEST}: a newer vidplat wrote it. Upgrade vidplat, or choose another catalog "
            "with --catalog"
        )
    if not migrate:
        state = (
            "has no tables yet" if found is None else f"is at revision {found} and needs {NEWEST}"
        )
        raise CatalogError(
            f"the catalog {database.shown} {state}: run `vidplat doctor --migrate` with this "
            "catalog"
        )
    with database.writing() as connection:
        if database.is_postgres:
            connection.exec_driver_sql(
                "SELECT pg_advisory_xact_lock(7364205)"
            )  # one migration at a time
        upgrade(connection)


class Catalog(Transitions):
    """An open catalog. Safe to use from several threads; each method is one transaction."""

    # --- adding -----------------------------------------------------------------------------------

    def add_batch(self, batch: Batch, jobs: Iterable[Job]) -> Added:
        """Stores a batch and its jobs, all or nothing. `jobs` is drawn in chunks while the
        transaction is open.

        A batch of this id that is there already stays: only its deadline, priority, quality floor
        and what to do when infeasible become the new ones, also for those of its jobs that are
        still open (no job is inserted).

        A job whose video another batch of the same prefix has already made is born done with that
        video, provided that it was asked for by the same method and is not below this batch's
        quality floor.
        """
        with self.database.writing() as connection:
            if not _insert_batch(connection, batch, self.database.is_postgres):
                _renew_wishes(connection, batch, jobs)
                return Added(_batch(connection, batch.id), new=False, inserted=0, reused=0)
            inserted = 0
            write = _copy_jobs if self.database.is_postgres else _insert_jobs
            for chunk in _chunks(new_job_row(job, batch) for job in jobs):
                write(connection, chunk)
                inserted += len(chunk)
            if self.database.is_postgres and inserted >= JOBS_PER_ANALYZE:
                # Its planner otherwise believes the table empty and walks a million queued rows for
                # each claim.
                connection.exec_driver_sql("ANALYZE jobs")
            reused = _reuse(connection, batch)
            connection.execute(
                update(batches).where(batches.c.batch_id == batch.id).values(total=inserted)
            )
            facts = {"jobs": inserted, "reused": reused, "source": printable(batch.source)}
            write_events(
                connection, [event_row(batch.id, None, "submitted", batch.submitted_at, facts)]
            )
            return Added(_batch(connection, batch.id), new=True, inserted=inserted, reused=reused)

    # --- batches ----------------------------------------------------------------------------------

    def batch(self, id_or_prefix: str) -> Batch:
        """The batch of this id, or the only one whose id starts so. UsageError when there is none,
        or several."""
        with self.database.reading() as connection:
            return _batch(connection, id_or_prefix)

    def batches(self, limit: int | None = None) -> list[Batch]:
        """Batches, latest submit first."""
        query = (
            select(batches).order_by(batches.c.submitted_at.desc(), batches.c.batch_id).limit(limit)
        )
        with self.database.reading() as connection:
            return [to_batch(row) for row in connection.execute(query).mappings()]

    def batch_state(self, batch_id: str) -> BatchState:
        """open, paused, done, cancelled or infeasible."""
        with self.database.reading() as connection:
            state = connection.scalar(select(batches.c.state).where(batches.c.batch_id == batch_id))
        if state is None:
            raise _no_such_batch(batch_id, [])
        return BatchState(state)

    def counts(self, batch_id: str) -> dict[JobState, int]:
        """How many jobs are in each state, zeros included. Answered from an index alone."""
        query = (
            select(jobs.c.state, func.count())
            .where(jobs.c.batch_id == batch_id)
            .group_by(jobs.c.state)
        )
        with self.database.reading() as connection:
            found: dict[str, int] = dict(connection.execute(query).tuples().all())
        return {state: found.get(state.value, 0) for state in JobState}

    def step_totals(self, batch_id: str) -> StepTotals:
        """Denoising steps done, under way and ahead. Reads every job's row: about a second for a
        million jobs."""
        spent = func.coalesce(jobs.c.point_steps, 0)
        done_so_far = func.coalesce(jobs.c.step, 0)
        ahead = case(
            (jobs.c.state == JobState.QUEUED.value, jobs.c.num_inference_steps),
            (
                jobs.c.state == JobState.RUNNING.value,
                func.coalesce(jobs.c.steps, jobs.c.point_steps) - done_so_far,
            ),
            else_=0,
        )
        query = select(
            func.coalesce(func.sum(case((jobs.c.state == JobState.DONE.value, spent), else_=0)), 0),
            func.coalesce(
                func.sum(case((jobs.c.state == JobState.RUNNING.value, done_so_far), else_=0)), 0
            ),
            func.coalesce(func.sum(ahead), 0),
        ).where(jobs.c.batch_id == batch_id)
        with self.database.reading() as connection:
            done, running, to_come = connection.execute(query).one()
        return StepTotals(int(done), int(running), int(to_come))

    # --- jobs -------------------------------------------------------------------------------------

    def open_jobs(self, batch_id: str, *, limit: int | None = None) -> list[OpenJob]:
        """Queued jobs, the ones to begin first at the front: by priority, then deadline, then
        row."""
        query = (
            _jobs_of(batch_id)
            .where(jobs.c.state == JobState.QUEUED.value)
            .order_by(*_IN_ORDER)
            .limit(limit)
        )
        with self.database.reading() as connection:
            return [to_open_job(row) for row in connection.execute(query).mappings()]

    def jobs(
        self,
        batch_id: str,
        *,
        states: Iterable[JobState] | None = None,
        after_row: int = 0,
        limit: int | None = None,
    ) -> list[JobRecord]:
        """Jobs in the order of the input's rows, from the row after `after_row`."""
        wanted = None if states is None else [state.value for state in states]
        # Running jobs are few: find them by state and sort. The others may be many: walk the rows
        # in order. Left to itself SQLite walks a million rows for the two that run; an expression,
        # which has no index, prevents that.
        row = jobs.c.row + 0 if wanted == [JobState.RUNNING.value] else jobs.c.row
        query = _jobs_of(batch_id).where(row > after_row).order_by(row).limit(limit)
        if wanted is not None:
            query = query.where(jobs.c.state.in_(wanted))
        with self.database.reading() as connection:
            return [to_job_record(row) for row in connection.execute(query).mappings()]

    def find_job(
        self, name: str, batch_id: str | None = None, *, limit: int = 20
    ) -> list[JobRecord]:
        """Jobs whose id starts with `name`, or whose external id is exactly that; latest batch
        first.

        A whole id is answered from an index; anything shorter walks the rows, as external ids have
        none.
        """
        if not name:
            return []
        query = _whole_jobs().order_by(batches.c.submitted_at.desc(), jobs.c.row).limit(limit)
        if batch_id is not None:
            query = query.where(jobs.c.batch_id == batch_id)
        by_id = _starts_with(jobs.c.job_id, name)
        with self.database.reading() as connection:
            whole = (
                connection.execute(query.where(by_id)).mappings().all()
                if len(name) == ID_DIGITS
                else []
            )
            found = (
                whole
                or connection.execute(
                    query.where(or_(by_id, jobs.c.external_id == name))
                ).mappings()
            )
            return [to_job_record(row) for row in found]

    def running(self, batch_id: str) -> list[RunningJob]:
        """The jobs under way, in the order they started."""
        under_way = (jobs.c.batch_id == batch_id, jobs.c.state == JobState.RUNNING.value)
        query = select(jobs).where(*under_way).order_by(jobs.c.started_at, jobs.c.row)
        with self.database.reading() as connection:
            return [to_running_job(row) for row in connection.execute(query).mappings()]

    def expired(self, batch_id: str, now: float) -> list[tuple[str, int, str]]:
        """(job, attempt, worker) of running jobs whose lease has run out."""
        query = select(jobs.c.job_id, jobs.c.attempt, jobs.c.worker_id).where(
            jobs.c.batch_id == batch_id,
            jobs.c.state == JobState.RUNNING.value,
            jobs.c.lease_until < now,
        )
        with self.database.reading() as connection:
            return [
                (job_id, attempt, worker) for job_id, attempt, worker in connection.execute(query)
            ]

    def owners(self, batch_id: str) -> dict[str, float]:
        """The platform processes that have jobs under way, each with the latest time one of its
        leases ends."""
        query = (
            select(jobs.c.owner, func.max(jobs.c.lease_until))
            .where(jobs.c.batch_id == batch_id, jobs.c.state == JobState.RUNNING.value)
            .group_by(jobs.c.owner)
        )
        with self.database.reading() as connection:
            return dict(connection.execute(query).tuples().all())

    def job_rows(
        self, batch_id: str, columns: Sequence[str], *, chunk: int = 20_000
    ) -> Iterator[Sequence[RowMapping]]:
        """Bare columns of every job in the order of the rows, chunk by chunk: for exports. Each
        chunk is read anew."""
        named = {column.name: column for column in _WHOLE_JOB}
        query = select(*(named[name] for name in ("row", *columns) if name in named)).join(
            batches, batches.c.batch_id == jobs.c.batch_id
        )
        after_row = -1
        while True:
            page = (
                query.where(jobs.c.batch_id == batch_id, jobs.c.row > after_row)
                .order_by(jobs.c.row)
                .limit(chunk)
            )
            with self.database.reading() as connection:
                rows = connection.execute(page).mappings().all()
            if not rows:
                return
            yield rows
            after_row = rows[-1]["row"]


# --- batches --------------------------------------------------------------------------------------


def _batch(connection: Connection, id_or_prefix: str) -> Batch:
    exact = (
        connection.execute(select(batches).where(batches.c.batch_id == id_or_prefix))
        .mappings()
        .first()
    )
    if exact is not None:
        return to_batch(exact)
    like = select(batches).where(_starts_with(batches.c.batch_id, id_or_prefix))
    found = (
        connection.execute(like.order_by(batches.c.submitted_at.desc()).limit(SHOWN_CHOICES))
        .mappings()
        .all()
    )
    if len(found) == 1 and id_or_prefix:
        return to_batch(found[0])
    if found and id_or_prefix:
        names = ", ".join(row["batch_id"] for row in found)
        raise UsageError(
            f"several batches start with {printable(id_or_prefix, 40)!r}: {names}. Type more of "
            "the id"
        )
    latest = select(batches.c.batch_id).order_by(batches.c.submitted_at.desc()).limit(SHOWN_CHOICES)
    raise _no_such_batch(id_or_prefix, list(connection.scalars(latest)))


def _no_such_batch(name: str, known: Sequence[str]) -> UsageError:
    there = f"the latest are {', '.join(known)}" if known else "`vidplat ls` lists those there are"
    return UsageError(f"there is no batch {printable(name, 40)!r}: {there}")


def _starts_with(column: ColumnElement[str], prefix: str) -> ColumnElement[bool]:
    """A range, which an index answers; LIKE would also read % and _ as wild cards. Ids hold only
    a-z and 0-9."""
    return and_(column >= prefix, column < prefix + "\x7f")


def _insert_batch(connection: Connection, batch: Batch, is_postgres: bool) -> bool:
    """False when a batch of this id is there already (on PostgreSQL: also when it is just being
    added)."""
    row = batch_row(batch, BatchState.OPEN.value)
    statement = postgresql.insert(batches) if is_postgres else sqlite.insert(batches)
    added = statement.values(row).on_conflict_do_nothing().returning(batches.c.batch_id)
    return connection.execute(added).first() is not None


def _renew_wishes(connection: Connection, batch: Batch, wanted: Iterable[Job]) -> None:
    """Deadlines and priorities of a batch that is submitted again: for itself and for its open jobs
    that differ."""
    connection.execute(
        update(batches)
        .where(batches.c.batch_id == batch.id)
        .values(
            deadline_at=batch.deadline_at,
            priority=batch.priority,
            quality_floor=batch.quality_floor,
            on_infeasible=batch.on_infeasible.value,
        )
    )
    change = (
        update(jobs)
        .where(
            jobs.c.job_id == bindparam("of_job"),
            jobs.c.batch_id == batch.id,
            or_(jobs.c.state == JobState.QUEUED.value, jobs.c.state == JobState.RUNNING.value),
            or_(
                jobs.c.deadline_at != bindparam("deadline_at"),
                jobs.c.priority != bindparam("priority"),
            ),
        )
        .values(deadline_at=bindparam("deadline_at"), priority=bindparam("priority"))
    )
    for chunk in _chunks(wanted):
        wishes = [
            {
                "of_job": job.id,
                "deadline_at": stored_deadline(job.deadline_at),
                "priority": job.priority,
            }
            for job in chunk
        ]
        connection.execute(change, wishes)


# --- jobs -----------------------------------------------------------------------------------------


def _whole_jobs() -> Select[Any]:
    return select(*_WHOLE_JOB).join(batches, batches.c.batch_id == jobs.c.batch_id)


def _jobs_of(batch_id: str) -> Select[Any]:
    return _whole_jobs().where(jobs.c.batch_id == batch_id)


def _chunks(values: Iterable[T]) -> Iterator[list[T]]:
    source = iter(values)
    while chunk := list(islice(source, JOBS_PER_INSERT)):
        yield chunk


# Built once. Rows go to the driver as tuples: a mapping per row, as `execute` takes them, costs
# half as much again.
_INSERT_JOB = str(
    insert(jobs)
    .values({name: bindparam(name) for name in NEW_JOB_COLUMNS})
    .compile(dialect=sqlite.dialect())
)
_COPY_JOBS = "COPY jobs ({}) FROM STDIN".format(", ".join(f'"{name}"' for name in NEW_JOB_COLUMNS))


def _insert_jobs(connection: Connection, rows: list[tuple[Any, ...]]) -> None:
    connection.exec_driver_sql(_INSERT_JOB, rows)


def _copy_jobs(connection: Connection, rows: list[tuple[Any, ...]]) -> None:
    """PostgreSQL's fast way in."""
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(_COPY_JOBS) as copy:
        for row in rows:
            copy.write_row(row)


def _reuse(connection: Connection, batch: Batch) -> int:
    """Jobs of a new batch that another batch of its prefix has already done take over that video.
    Returns how many.

    Predicted and measured seconds stay empty, so that a score counts only work that was done here.
    """
    elsewhere = (batches.c.output_prefix == batch.output_prefix, batches.c.batch_id != batch.id)
    if not connection.scalar(select(exists().where(*elsewhere))):
        return 0
    mine, theirs = jobs.alias("mine"), jobs.alias("theirs")
    oldest_first = func.row_number().over(
        partition_by=theirs.c.job_id, order_by=[theirs.c.finished_at, theirs.c.batch_id]
    )
    maker = (
        select(
            *(theirs.c[name] for name in ("job_id", *_TAKEN_OVER)),
            func.coalesce(theirs.c.reused_from, theirs.c.batch_id).label("made_in"),
            oldest_first.label("nth"),
        )
        .select_from(mine)
        .join(theirs, theirs.c.job_id == mine.c.job_id)
        .join(batches, batches.c.batch_id == theirs.c.batch_id)
        .where(
            mine.c.batch_id == batch.id,
            *elsewhere,
            theirs.c.state == JobState.DONE.value,
            func.coalesce(theirs.c.method, "") == func.coalesce(mine.c.method, ""),
            func.coalesce(theirs.c.predicted_quality, 1.0) >= batch.quality_floor,
        )
        .subquery("maker")
    )
    take = (
        update(jobs)
        .where(jobs.c.batch_id == batch.id, jobs.c.job_id == maker.c.job_id, maker.c.nth == 1)
        .values(
            {
                **{name: maker.c[name] for name in _TAKEN_OVER},
                "state": JobState.DONE.value,
                "finished_at": batch.submitted_at,
                "reused_from": maker.c.made_in,
            }
        )
    )
    return connection.execute(take).rowcount


# What a reused job copies: the video, and the facts that describe it.
_TAKEN_OVER = (
    "video_uri", "poster_uri", "meta_uri", "sha256", "size_bytes", "won_by",
    "point_steps", "point_method", "predicted_quality", "metrics",
)  # fmt: skip
