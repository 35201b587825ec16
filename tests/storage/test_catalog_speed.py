"""What a turn of the platform asks must not grow with the batch: SQLite's own account of how it
searches.

Seconds would depend on the machine; the chosen index does not. (Without statistics SQLite guesses,
and once guessed to walk every queued job for each claim.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import event

from tests.builders import a_job
from tests.catalog_builders import a_batch, a_claim, an_artifact, an_outcome
from vidplat.domain import JobState, Progress
from vidplat.storage import open_catalog
from vidplat.storage.catalog import Catalog

BATCH = a_batch()
JOBS = [a_job(row=row) for row in range(1, 601)]  # more than one query's worth of ids
BY_KEY = "sqlite_autoindex_jobs_1 (job_id=? AND batch_id=?)"
BY_STATE = "jobs_by_state (batch_id=? AND state=?)"
BY_ROW = "sqlite_autoindex_jobs_2 (batch_id=? AND row>?)"


@pytest.fixture
def catalog() -> Iterator[Catalog]:
    opened = open_catalog("sqlite://")
    opened.add_batch(BATCH, JOBS)
    yield opened
    opened.close()


def searches_of_jobs(catalog: Catalog, call: Callable[[], object]) -> set[str]:
    """Which indexes of the table `jobs` the statements of `call` use."""
    seen: list[tuple[str, Any]] = []

    def listen(
        _connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool
    ) -> None:
        seen.append((statement, parameters[0] if many else parameters))

    engine = catalog.database._engine
    event.listen(engine, "before_cursor_execute", listen)
    call()
    event.remove(engine, "before_cursor_execute", listen)
    plans: set[str] = set()
    with catalog.database.reading() as connection:
        for statement, parameters in seen:
            if statement.startswith(("SELECT", "UPDATE")):
                told = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
                plans |= {row[3].partition(" USING ")[2] for row in told if " jobs" in row[3]}
    return {plan.removeprefix("COVERING ").removeprefix("INDEX ") for plan in plans}


def test_claims_heartbeats_and_ends_find_jobs_by_their_key(catalog: Catalog) -> None:
    claims = [a_claim(job.id, "host:1:100") for job in JOBS]
    beats = [Progress(job.id, 1, "w1", "denoise", 1, 24, 0.0) for job in JOBS]
    calls: list[Callable[[], object]] = [
        lambda: catalog.claim(BATCH.id, claims, now=0.0, lease_s=30),
        lambda: catalog.heartbeat(BATCH.id, beats, lease_s=30),
        lambda: catalog.finish(BATCH.id, [an_outcome(job.id) for job in JOBS[1:]]),
        lambda: catalog.mark_done(BATCH.id, JOBS[0].id, an_artifact(JOBS[0].id), 0.0),
        lambda: catalog.find_job(JOBS[0].id),
    ]
    assert [searches_of_jobs(catalog, call) for call in calls[:4]] == [{BY_KEY}] * 4
    assert searches_of_jobs(catalog, calls[4]) == {
        "sqlite_autoindex_jobs_1 (job_id>? AND job_id<?)"
    }


def test_what_waits_and_what_runs_is_found_by_state(catalog: Catalog) -> None:
    calls: list[Callable[[], object]] = [
        lambda: catalog.open_jobs(BATCH.id, limit=10),
        lambda: catalog.running(BATCH.id),
        lambda: catalog.jobs(BATCH.id, states=[JobState.RUNNING]),
        lambda: catalog.renew(BATCH.id, "host:1:100", lease_s=30),
        lambda: catalog.release(BATCH.id, now=0.0),
    ]
    assert [searches_of_jobs(catalog, call) for call in calls] == [{BY_STATE}] * len(calls)


def test_pages_walk_the_rows_and_counts_read_an_index_alone(catalog: Catalog) -> None:
    assert searches_of_jobs(
        catalog, lambda: catalog.jobs(BATCH.id, states=[JobState.DONE], limit=5)
    ) == {BY_ROW}
    assert searches_of_jobs(catalog, lambda: catalog.jobs(BATCH.id, after_row=3, limit=5)) == {
        BY_ROW
    }
    assert searches_of_jobs(catalog, lambda: catalog.counts(BATCH.id)) == {
        "jobs_by_state (batch_id=?)"
    }
