"""How a batch and its jobs come into the catalog: the statements behind `Catalog.add_batch`.

A million jobs are written in one transaction, a chunk at a time. A batch that is submitted again
changes its wishes only, while there is something left to do; a new one takes over the videos that
its prefix has already.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Connection, bindparam, exists, func, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from vidplat.domain import Batch, Job, JobState
from vidplat.storage.catalog_words import BatchState
from vidplat.storage.changes import OPEN
from vidplat.storage.rows import (
    NEW_JOB_COLUMNS,
    POINT_COLUMNS,
    batch_row,
    new_job_row,
    stored_deadline,
)
from vidplat.storage.tables import batches, jobs

T = TypeVar("T")

JOBS_PER_INSERT = 5_000
JOBS_PER_ANALYZE = 1_000

# What a reused job copies: the video, and the facts that describe it.
_TAKEN_OVER = (
    "video_uri", "poster_uri", "meta_uri", "sha256", "size_bytes", "won_by",
    *POINT_COLUMNS, "predicted_quality", "metrics",
)  # fmt: skip


# Built once. Rows go to the driver as tuples: a mapping per row, as `execute` takes them, costs
# half as much again.
_INSERT_JOB = str(
    insert(jobs)
    .values({name: bindparam(name) for name in NEW_JOB_COLUMNS})
    .compile(dialect=sqlite.dialect())
)
_COPY_JOBS = "COPY jobs ({}) FROM STDIN".format(", ".join(f'"{name}"' for name in NEW_JOB_COLUMNS))

# Of the open jobs of a batch that is submitted again, those that wish for something else now.
_RENEW_JOB = (
    update(jobs)
    .where(
        jobs.c.job_id == bindparam("of_job"),
        jobs.c.batch_id == bindparam("of_batch"),
        or_(jobs.c.state == JobState.QUEUED.value, jobs.c.state == JobState.RUNNING.value),
        or_(
            jobs.c.deadline_at != bindparam("deadline_at"), jobs.c.priority != bindparam("priority")
        ),
    )
    .values(deadline_at=bindparam("deadline_at"), priority=bindparam("priority"))
)


def insert_batch(connection: Connection, batch: Batch) -> bool:
    """False when the batch is there already (on PostgreSQL: also when it is being added)."""
    kind = postgresql if _is_postgres(connection) else sqlite
    statement = kind.insert(batches).values(batch_row(batch, BatchState.OPEN.value))
    added = statement.on_conflict_do_nothing().returning(batches.c.batch_id)
    return connection.execute(added).first() is not None


def renew_wishes(connection: Connection, batch: Batch, wanted: Iterable[Job]) -> None:
    """A batch is submitted again: while it has open jobs, its own wishes and theirs become new."""
    has_open_jobs = exists().where(jobs.c.batch_id == batch.id, jobs.c.state.in_(OPEN))
    renewed = connection.execute(
        update(batches)
        .where(batches.c.batch_id == batch.id, has_open_jobs)
        .values(
            deadline_at=batch.deadline_at,
            priority=batch.priority,
            quality_floor=batch.quality_floor,
            on_infeasible=batch.on_infeasible.value,
        )
    )
    if not renewed.rowcount:
        return  # finished or cancelled: history
    for chunk in _chunks(wanted):
        wishes = [
            {
                "of_job": job.id,
                "of_batch": batch.id,
                "deadline_at": stored_deadline(job.deadline_at),
                "priority": job.priority,
            }
            for job in chunk
        ]
        connection.execute(_RENEW_JOB, wishes)


def insert_jobs(connection: Connection, batch: Batch, wanted: Iterable[Job]) -> int:
    """All jobs of a new batch, queued; how many."""
    inserted = 0
    for rows in _chunks(new_job_row(job, batch) for job in wanted):
        if _is_postgres(connection):
            _copy(connection, rows)
        else:
            connection.exec_driver_sql(_INSERT_JOB, rows)
        inserted += len(rows)
    if _is_postgres(connection) and inserted >= JOBS_PER_ANALYZE:
        # Its planner otherwise believes the table empty and walks a million queued rows for each
        # claim.
        connection.exec_driver_sql("ANALYZE jobs")
    this = batches.c.batch_id == batch.id
    connection.execute(update(batches).where(this).values(total=inserted))
    return inserted


def _is_postgres(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"


def _copy(connection: Connection, rows: list[tuple[Any, ...]]) -> None:
    """PostgreSQL's fast way in."""
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(_COPY_JOBS) as copy:
        for row in rows:
            copy.write_row(row)


def _chunks(values: Iterable[T]) -> Iterator[list[T]]:
    source = iter(values)
    while chunk := list(islice(source, JOBS_PER_INSERT)):
        yield chunk


def reuse_videos(connection: Connection, batch: Batch) -> int:
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
