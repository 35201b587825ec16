"""The catalog: which batches and jobs there are, where each stands, and questions about them.

    catalog = open_catalog("sqlite:///.vidplat/catalog.db")
    added = catalog.add_batch(batch, jobs)
    for open_job in catalog.open_jobs(added.batch.id, limit=2000): ...

The catalog is the truth about a batch and outlives every process. Three files make it up, one class
on the other:

    journal.py       what was: attempts, events, plans, observations    (append-only)
    transitions.py   what changes: claim, finish, cancel, ...           (compare-and-set)
    catalog.py       what is: batches, who holds them, their jobs       (this file)

Every statement is a named method over the tables of `tables.py`; values are always bound, never
pasted into SQL, so that a prompt full of SQL is only a prompt. Methods take times as arguments. All
raise `CatalogError` when the database cannot be used, and `UsageError` for a name that fits
nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, Select, case, func, select, update

from vidplat.domain import Batch, Job, JobRecord, JobState, OpenJob
from vidplat.errors import CatalogError, UsageError, printable
from vidplat.storage import adding
from vidplat.storage.catalog_words import Added, BatchState, RunningJob, StepTotals
from vidplat.storage.changes import set_state_of_batch, state_of_batch
from vidplat.storage.clock import machine_clock
from vidplat.storage.database import Database, now_of
from vidplat.storage.door import changing, reading
from vidplat.storage.journal import event_row, write_events
from vidplat.storage.migrations import NEWEST, REVISIONS, upgrade
from vidplat.storage.rows import to_batch, to_job_record, to_open_job, to_running_job
from vidplat.storage.tables import batches, jobs
from vidplat.storage.transitions import Transitions

ID_DIGITS = 32  # of a whole job id, see `domain.id_at_seed`
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
    bounds each wait for another writer, and for a database that does not answer.
    """
    database = Database(url, lock_timeout_s=lock_timeout_s)
    catalog = Catalog(database)
    may_migrate = not database.is_postgres if migrate is None else migrate
    try:
        catalog.door.until_answered(lambda _: _bring_up_to_date(database, migrate=may_migrate))
        if not database.is_postgres and not database.is_memory:
            database.clock = machine_clock(catalog.door)
    except BaseException:
        database.close()
        raise
    return catalog


def _bring_up_to_date(database: Database, *, migrate: bool) -> None:
    found = database.revision()
    if found == NEWEST:
        return
    if found is not None and found not in REVISIONS:
        raise CatalogError.lasting(
            f"the catalog {database.shown} is at revision {printable(found, 40)}, and this "
            f"vidplat knows only up to {NEWEST}: a newer vidplat wrote it. Upgrade vidplat, or "
            "choose another catalog with --catalog"
        )
    if not migrate:
        state = (
            "has no tables yet" if found is None else f"is at revision {found} and needs {NEWEST}"
        )
        raise CatalogError.lasting(
            f"the catalog {database.shown} {state}: run `vidplat doctor --migrate` with this "
            "catalog"
        )
    with database.writing() as connection:
        if database.is_postgres:  # one migration at a time
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7364205)")
        upgrade(connection)


class Catalog(Transitions):
    """An open catalog. Safe to use from several threads; each method is one transaction."""

    # --- adding -----------------------------------------------------------------------------------

    def add_batch(self, batch: Batch, jobs: Iterable[Job]) -> Added:
        """Stores a batch and its jobs, all or nothing. `jobs` is drawn in chunks while the
        transaction is open.

        A batch of this id that is there already stays (no job is inserted). While it has open jobs
        its deadline, priority, quality floor and what to do when infeasible become the new ones,
        also for those jobs; without them it is history.

        A job whose video another batch of the same prefix has already made is born done with that
        video, provided that it was asked for by the same method and is not below this batch's
        quality floor.
        """
        again = list(jobs) if iter(jobs) is jobs else jobs  # it may have to be drawn twice
        new, inserted, reused = self._add_batch(batch, again)
        return Added(self.batch(batch.id), bool(new), inserted, reused)

    @changing
    def _add_batch(
        self, connection: Connection, batch: Batch, jobs: Iterable[Job]
    ) -> tuple[int, int, int]:
        if not adding.insert_batch(connection, batch):
            adding.renew_wishes(connection, batch, jobs)
            return 0, 0, 0
        inserted = adding.insert_jobs(connection, batch, jobs)
        reused = adding.reuse_videos(connection, batch)
        facts = {"jobs": inserted, "reused": reused, "source": printable(batch.source)}
        event = event_row(batch.id, None, "submitted", batch.submitted_at, **facts)
        write_events(connection, [event])
        return 1, inserted, reused

    # --- who works on a batch ---------------------------------------------------------------------

    @changing
    def hold_batch(
        self,
        connection: Connection,
        batch_id: str,
        owner: str,
        *,
        lease_s: float,
        instead_of: str | None = None,
    ) -> str:
        """Asks to be the process that works on a batch, or renews that. Returns who holds it now;
        "" when whoever did has just left it.

        It is given when nobody holds it, when the hold has run out, or when `instead_of` (an owner
        known to be dead) holds it.
        """
        now = now_of(connection)
        free = (
            batches.c.held_by.is_(None)
            | batches.c.held_by.in_([owner] if instead_of is None else [owner, instead_of])
            | (batches.c.held_until <= now)
        )
        this = batches.c.batch_id == batch_id
        take = update(batches).where(this, free).values(held_by=owner, held_until=now + lease_s)
        connection.execute(take)
        holder = connection.execute(select(batches.c.held_by).where(this)).scalar_one()
        return str(holder or "")

    @changing
    def leave_batch(self, connection: Connection, batch_id: str, owner: str) -> None:
        """Ends `owner`'s hold, if it has it."""
        mine = (batches.c.batch_id == batch_id, batches.c.held_by == owner)
        connection.execute(update(batches).where(*mine).values(held_by=None, held_until=0.0))

    @reading
    def holder(self, connection: Connection, batch_id: str) -> str:
        """Who works on a batch by now; "" for nobody."""
        this = (batches.c.batch_id == batch_id, batches.c.held_until > now_of(connection))
        return connection.scalar(select(batches.c.held_by).where(*this)) or ""

    @reading
    def time(self, connection: Connection) -> float:
        """By the database's clock, as leases and heartbeats are."""
        return now_of(connection)

    @changing
    def set_batch_state(
        self,
        connection: Connection,
        batch_id: str,
        state: str,
        *,
        at: float,
        unless: BatchState | None = None,
    ) -> None:
        """Records where a batch stands, unless it is in that state, and notes it when it is new."""
        if unless is None or state_of_batch(connection, batch_id) is not unless:
            set_state_of_batch(connection, batch_id, BatchState(state), at)

    # --- batches ----------------------------------------------------------------------------------

    @reading
    def batch(self, connection: Connection, id_or_prefix: str) -> Batch:
        """The batch of this id, or the only one whose id starts so; else UsageError."""
        return _batch(connection, id_or_prefix)

    def batches(self, limit: int | None = None) -> list[Batch]:
        """Batches, latest submit first."""
        latest_first = (batches.c.submitted_at.desc(), batches.c.batch_id)
        query = select(batches).order_by(*latest_first).limit(limit)
        return [to_batch(row) for row in self.door.rows(query)]

    def batch_state(self, batch_id: str) -> BatchState:
        """Where a batch stands."""
        found = self.door.rows(select(batches.c.state).where(batches.c.batch_id == batch_id))
        if not found:
            raise _no_such_batch(batch_id, [])
        return BatchState(found[0]["state"])

    def counts(self, batch_id: str) -> dict[JobState, int]:
        """How many jobs are in each state, zeros included. Answered from an index alone."""
        query = (
            select(jobs.c.state, func.count().label("many"))
            .where(jobs.c.batch_id == batch_id)
            .group_by(jobs.c.state)
        )
        found = {row["state"]: row["many"] for row in self.door.rows(query)}
        return {state: found.get(state.value, 0) for state in JobState}

    @reading
    def step_totals(self, connection: Connection, batch_id: str) -> StepTotals:
        """Denoising steps done, under way and ahead. Reads every row: a second for a million."""
        running = jobs.c.state == JobState.RUNNING.value
        so_far = func.coalesce(jobs.c.step, 0)
        rest = func.coalesce(jobs.c.steps, jobs.c.point_steps) - so_far
        queued = (jobs.c.state == JobState.QUEUED.value, jobs.c.num_inference_steps)
        spent = (jobs.c.state == JobState.DONE.value, func.coalesce(jobs.c.point_steps, 0))
        query = select(
            *(
                func.coalesce(func.sum(case(*cases, else_=0)), 0)
                for cases in ([spent], [(running, so_far)], [queued, (running, rest)])
            )
        ).where(jobs.c.batch_id == batch_id)
        return StepTotals(*map(int, connection.execute(query).one()))

    # --- jobs -------------------------------------------------------------------------------------

    def open_jobs(self, batch_id: str, *, limit: int | None = None) -> list[OpenJob]:
        """Queued jobs, the ones to begin first at the front: by priority, deadline and row."""
        queued = _jobs_of(batch_id).where(jobs.c.state == JobState.QUEUED.value)
        query = queued.order_by(*_IN_ORDER).limit(limit)
        return [to_open_job(row) for row in self.door.rows(query)]

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
        return [to_job_record(row) for row in self.door.rows(query)]

    def every_job(
        self, batch_id: str, *, states: Iterable[JobState] | None = None, page: int = 2_000
    ) -> Iterator[JobRecord]:
        """All of `jobs`, of which `page` are in memory at a time."""
        wanted, after_row = None if states is None else tuple(states), 0
        while found := self.jobs(batch_id, states=wanted, after_row=after_row, limit=page):
            yield from found
            after_row = found[-1].job.row

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
        found = self.door.rows(query.where(by_id)) if len(name) == ID_DIGITS else ()
        if not found:
            found = self.door.rows(query.where(by_id | (jobs.c.external_id == name)))
        return [to_job_record(row) for row in found]

    def ids(self, batch_id: str, *, states: Collection[JobState]) -> list[str]:
        """Of the jobs in these states."""
        chosen = (jobs.c.batch_id == batch_id, jobs.c.state.in_([each.value for each in states]))
        return [row["job_id"] for row in self.door.rows(select(jobs.c.job_id).where(*chosen))]

    def tried_again(self, batch_id: str) -> list[str]:
        """Jobs of which an attempt has failed or was left: it may have left files."""
        is_clean = (jobs.c.state == JobState.DONE.value) & (jobs.c.attempt <= 1)
        chosen = (jobs.c.batch_id == batch_id, jobs.c.attempt > 0, ~is_clean)
        return [row["job_id"] for row in self.door.rows(select(jobs.c.job_id).where(*chosen))]

    def running(self, batch_id: str) -> list[RunningJob]:
        """The jobs under way, in the order they started."""
        under_way = (jobs.c.batch_id == batch_id, jobs.c.state == JobState.RUNNING.value)
        query = select(jobs).where(*under_way).order_by(jobs.c.started_at, jobs.c.row)
        return [to_running_job(row) for row in self.door.rows(query)]

    def job_rows(
        self,
        batch_id: str,
        columns: Iterable[str],
        *,
        states: Collection[JobState] = tuple(JobState),
        chunk: int = 20_000,
    ) -> Iterator[Sequence[RowMapping]]:
        """Bare columns of every job in the order of the rows, a chunk at a time: for exports."""
        named = {column.name: column for column in _WHOLE_JOB}
        query = (
            select(*(named[name] for name in dict.fromkeys(("row", *columns))))
            .join(batches, batches.c.batch_id == jobs.c.batch_id)
            .where(jobs.c.batch_id == batch_id)
            .order_by(jobs.c.row)
            .limit(chunk)
        )
        if len(states) < len(JobState):
            query = query.where(jobs.c.state.in_([state.value for state in states]))
        rows = self.door.rows(query)
        while rows:
            yield rows
            rows = self.door.rows(query.where(jobs.c.row > rows[-1]["row"]))


def _batch(connection: Connection, id_or_prefix: str) -> Batch:
    exact = select(batches).where(batches.c.batch_id == id_or_prefix)
    if row := connection.execute(exact).mappings().first():
        return to_batch(row)
    latest = select(batches).order_by(batches.c.submitted_at.desc()).limit(SHOWN_CHOICES)
    alike = latest.where(_starts_with(batches.c.batch_id, id_or_prefix))
    found = connection.execute(alike).mappings().all() if id_or_prefix else []
    if len(found) == 1:
        return to_batch(found[0])
    if found:
        names = ", ".join(row["batch_id"] for row in found)
        raise UsageError(
            f"several batches start with {printable(id_or_prefix, 40)!r}: {names}. Type more of "
            "the id"
        )
    known = connection.execute(latest).mappings()
    raise _no_such_batch(id_or_prefix, [row["batch_id"] for row in known])


def _no_such_batch(name: str, known: Sequence[str]) -> UsageError:
    there = f"the latest are {', '.join(known)}" if known else "`vidplat ls` lists those there are"
    return UsageError(f"there is no batch {printable(name, 40)!r}: {there}")


def _starts_with(column: ColumnElement[str], prefix: str) -> ColumnElement[bool]:
    """A range, which an index answers. Ids hold only a-z and 0-9."""
    return (column >= prefix) & (column < prefix + "\x7f")


def _whole_jobs() -> Select[Any]:
    return select(*_WHOLE_JOB).join(batches, batches.c.batch_id == jobs.c.batch_id)


def _jobs_of(batch_id: str) -> Select[Any]:
    return _whole_jobs().where(jobs.c.batch_id == batch_id)
