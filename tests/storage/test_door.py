"""A call whose answer is lost on its way back is asked again, and happens once."""

from __future__ import annotations

import itertools
import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, select

from tests.bad_line import BadLine
from tests.builders import a_job, a_worker
from tests.catalog_builders import a_batch, a_claim, an_artifact, an_outcome
from vidplat import times
from vidplat.domain import Failure, FailureKind, JobState, Progress
from vidplat.errors import CatalogError
from vidplat.storage import open_catalog
from vidplat.storage.catalog import Catalog
from vidplat.storage.catalog_words import PlanRecord, Requeue
from vidplat.storage.database import Database, Locked
from vidplat.storage.door import Door
from vidplat.storage.tables import answers

ME = "host:1:100"
BATCH = a_batch()
LOST, KEPT, FAILED, QUEUED = JOBS = [a_job(row=row) for row in range(1, 5)]
BROKEN = Failure(FailureKind.JOB, "frames are not finite")
PLAN = PlanRecord(1.0, "ab", "feasible", "", 2.0, 3.0, 4.0, 5.0, 6.0, 1.0, 1.0, 1)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with an empty catalog."""
    path = tmp_path_factory.mktemp("door") / "empty.db"
    open_catalog(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked again without much of a pause."""
    monkeypatch.setattr("vidplat.storage.door._FIRST_PAUSE_S", 0.001)


@pytest.fixture
def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalog]:
    url = f"sqlite:///{tmp_path}/c.db"
    if getattr(request, "param", "sqlite") == "postgres":
        url = str(request.getfixturevalue("postgres_catalog"))
    opened = open_catalog(url)
    yield opened
    opened.close()


#: Each way of changing something: what is asked, where LOST, KEPT and FAILED run.
CHANGES: dict[str, Callable[[Catalog], object]] = {
    "add a batch": lambda c: c.add_batch(a_batch("b2", submitted_at=1.0), iter(JOBS)),
    "submit again": lambda c: c.add_batch(replace(BATCH, priority=4), JOBS),
    "claim": lambda c: c.claim(BATCH.id, [a_claim(j.id, ME) for j in JOBS], now=2.0, lease_s=9),
    "finish": lambda c: c.finish(
        BATCH.id,
        [an_outcome(LOST.id), an_outcome(FAILED.id, failure=BROKEN)],
        {FAILED.id: Requeue()},
    ),
    "finish late": lambda c: c.finish(BATCH.id, [an_outcome(QUEUED.id)]),
    "mark done": lambda c: c.mark_done(BATCH.id, KEPT.id, an_artifact(KEPT.id), 9.0),
    "release": lambda c: c.release(BATCH.id, ME, now=3.0),
    "cancel": lambda c: c.cancel(BATCH.id, now=3.0),
    "retry": lambda c: (c.cancel(BATCH.id, now=3.0), c.retry_failed(BATCH.id, now=4.0)),
    "lose": lambda c: c.lose(BATCH.id, [LOST.id], now=5.0),
    "hold": lambda c: c.hold_batch(BATCH.id, ME, lease_s=9),
    "leave": lambda c: c.leave_batch(BATCH.id, ME),
    "beat": lambda c: c.heartbeat(
        BATCH.id, [Progress(QUEUED.id, 1, "w1", "denoise", 1, 24, 1.0)], lease_s=9
    ),
    "close": lambda c: c.set_batch_state(BATCH.id, "done", at=3.0),
    "note": lambda c: c.add_event(BATCH.id, None, "note", {"n": 1}, 3.0),
    "plan": lambda c: c.save_plan(BATCH.id, PLAN),
    "learn": lambda c: c.save_cost_state("flipbook", {"n": 1}),
    "see workers": lambda c: c.save_workers(BATCH.id, [a_worker()], now=1.0),
}


def told(catalog: Catalog) -> list[object]:
    """All that there is to see of the batch."""
    attempts = [catalog.attempts(BATCH.id, job.id) for job in JOBS]
    history = [(each.kind, each.job_id, each.detail) for each in catalog.events(BATCH.id)]
    return [catalog.jobs(BATCH.id), attempts, history, catalog.plans(BATCH.id), catalog.batches()]


def after(catalog: Catalog, change: Callable[[Catalog], object], line: BadLine) -> list[object]:
    """The answer and what there is to see, when the line breaks at the end of that change."""
    catalog.add_batch(BATCH, JOBS)
    catalog.claim(BATCH.id, [a_claim(job.id, ME) for job in JOBS[:3]], now=0.0, lease_s=30)
    line.stand_before(catalog.database)
    return [change(catalog), *told(catalog)]


@pytest.mark.parametrize(
    "has_arrived",
    [True, pytest.param(False, marks=pytest.mark.thorough)],
    ids=["answer lost", "request lost"],
)
@pytest.mark.parametrize("name", CHANGES)
def test_whatever_is_asked_happens_once_and_is_answered(
    name: str, has_arrived: bool, empty: Path, tmp_path: Path, quick: None
) -> None:
    def outcome(breaks_at: int | None) -> list[object]:
        shutil.copy(empty, path := tmp_path / f"{breaks_at}.db")
        catalog = open_catalog(f"sqlite:///{path}")
        line = BadLine(lambda n: n == breaks_at, has_arrived=has_arrived)
        try:
            return after(catalog, CHANGES[name], line)
        finally:
            catalog.close()

    assert outcome(breaks_at=1) == outcome(breaks_at=None)


@pytest.mark.server
@pytest.mark.parametrize("catalog", ["postgres"], indirect=True)
def test_a_postgres_that_hangs_up_while_it_commits_has_done_it_once(catalog: Catalog) -> None:
    # given a server that ends our session as soon as it has committed
    catalog.add_batch(BATCH, JOBS)
    commits = iter(range(100))

    def hang_up(connection: Connection) -> None:
        raw: Any = connection.connection.driver_connection
        raw.execute("COMMIT")
        if next(commits) % 2 == 0:
            raw.close()

    event.listen(catalog.database._engine, "commit", hang_up)

    # when
    claims = [a_claim(job.id, ME) for job in JOBS]
    claimed = catalog.claim(BATCH.id, claims, now=0.0, lease_s=30)
    ended = catalog.finish(BATCH.id, [an_outcome(job.id) for job in JOBS])

    # then
    assert claimed == {job.id: 1 for job in JOBS}
    assert ended == {job.id for job in JOBS}
    assert [event.kind for event in catalog.events(BATCH.id, LOST.id)] == ["started", "done"]


@pytest.mark.thorough
@pytest.mark.server
def test_a_pooler_that_gives_out_sessions_for_a_transaction_is_as_good(pooled_url: str) -> None:
    # given more platforms than sessions
    failed: list[BaseException] = []

    def make(n: int) -> None:
        batch, jobs = a_batch(f"b{n}", submitted_at=n), [a_job(row=row) for row in range(1, 301)]
        try:
            catalog = open_catalog(pooled_url)
            assert catalog.add_batch(batch, jobs).inserted == 300
            for first in range(0, 300, 20):
                some = jobs[first : first + 20]
                claims = [a_claim(job.id, f"host:{n}:1") for job in some]
                assert len(catalog.claim(batch.id, claims, now=0.0, lease_s=30)) == 20
                catalog.finish(batch.id, [an_outcome(job.id) for job in some])
                assert catalog.hold_batch(batch.id, f"host:{n}:1", lease_s=30) == f"host:{n}:1"
            assert catalog.counts(batch.id)[JobState.DONE] == 300
            catalog.close()
        except BaseException as error:
            failed.append(error)

    # when
    threads = [threading.Thread(target=make, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)

    # then
    assert failed == []


def test_an_error_that_does_not_pass_is_told_at_once(catalog: Catalog) -> None:
    asked = []

    def refuse(connection: Connection) -> None:
        asked.append(1)
        raise CatalogError.lasting("no such luck")

    for ask in (catalog.door.read, catalog.door.change):
        with pytest.raises(CatalogError, match="no such luck"):
            ask(refuse)
    assert len(asked) == 2


def test_patience_ends(catalog: Catalog) -> None:
    catalog.database.lock_timeout_s = 0.2

    def refuse(connection: Connection) -> None:
        raise CatalogError("still down")

    began = time.monotonic()
    with pytest.raises(CatalogError, match="still down"):
        catalog.door.change(refuse)
    assert 0.0 < time.monotonic() - began < 0.5


def test_who_was_frozen_past_its_patience_asks_once_more(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a connection that broke while this process was frozen for a minute
    frozen_s = [0.0]
    monkeypatch.setattr(
        "vidplat.storage.door.time.monotonic", lambda real=time.monotonic: real() + frozen_s[0]
    )

    def broken(connection: Connection) -> int:
        if frozen_s[0]:
            return 7
        frozen_s[0] = 60.0
        raise CatalogError("the server closed the connection")

    # then it is asked again, but not for what a lock was waited for that long
    assert catalog.door.change(broken) == 7
    frozen_s[0] = 0.0

    def locked(connection: Connection) -> None:
        frozen_s[0] += 60.0
        raise Locked("the catalog is locked")

    with pytest.raises(Locked):
        catalog.door.change(locked)
    assert frozen_s[0] == 60.0


def test_threads_that_share_a_catalog_do_not_hear_each_other_s_answers(catalog: Catalog) -> None:
    # given eight threads, each of whose changes is answered only when asked again
    turns: defaultdict[int, Iterator[int]] = defaultdict(itertools.count)
    BadLine(lambda _: next(turns[threading.get_ident()]) % 2 == 0).stand_before(catalog.database)
    heard: dict[int, list[int]] = {}

    def ask(n: int) -> None:
        heard[n] = [catalog.door.change(lambda _, k=k: 100 * n + k) for k in range(5)]  # type: ignore[misc]

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert heard == {n: [100 * n + k for k in range(5)] for n in range(8)}


def test_a_catalog_that_may_only_be_read_is_read_by_the_reader_s_own_clock(
    empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a catalog from before the machine was started, on which nothing can be written
    shutil.copy(empty, path := tmp_path / "old.db")
    monkeypatch.setattr("vidplat.times.boot", lambda: "another start")

    def refuse(database: Database) -> None:
        raise CatalogError.lasting("cannot be opened for writing")

    monkeypatch.setattr(Database, "writing", refuse)

    # then it is read all the same
    with closing(open_catalog(f"sqlite:///{path}")) as catalog:
        assert catalog.batches() == []
        assert abs(catalog.time() - times.now()) < 5


def test_answers_of_those_who_ask_no_more_are_forgotten(catalog: Catalog) -> None:
    now = catalog.time()
    catalog.add_batch(BATCH, [])
    catalog.database.clock = lambda: now + 2 * 86_400
    Door(catalog.database).change(lambda _: None)
    assert len(catalog.door.rows(select(answers))) == 1
