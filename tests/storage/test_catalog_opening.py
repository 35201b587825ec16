"""Opening a catalog: created, brought up to date, or refused with one clear sentence and no
password in it.
"""

from __future__ import annotations

import multiprocessing
import re
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, insert, make_url, text

from tests.builders import a_job, a_policy, a_snapshot, knowledge
from tests.catalog_builders import a_batch
from vidplat.errors import CatalogError, UsageError
from vidplat.scheduler import plan
from vidplat.storage import migrations, open_catalog
from vidplat.storage.database import Database
from vidplat.storage.rows import NEW_JOB_COLUMNS, batch_row, new_job_row
from vidplat.storage.tables import batches, metadata


def at(path: Path) -> str:
    return f"sqlite:///{path}"


# --- created and migrated -------------------------------------------------------------------------


def test_an_sqlite_catalog_is_created_with_its_folders(tmp_path: Path) -> None:
    home = tmp_path / "deep" / "down" / "catalog.db"
    open_catalog(at(home)).close()
    again = open_catalog(at(home))
    assert again.batches() == []
    again.close()


def test_a_catalog_remembers_after_it_was_closed(tmp_path: Path) -> None:
    first = open_catalog(at(tmp_path / "c.db"))
    first.add_batch(a_batch(), [a_job()])
    first.close()
    second = open_catalog(at(tmp_path / "c.db"))
    assert [record.job for record in second.jobs("b00000000001")] == [a_job()]
    second.close()


def test_the_migrations_and_the_tables_describe_the_same_catalog(tmp_path: Path) -> None:
    open_catalog(at(tmp_path / "c.db")).close()
    engine = create_engine(at(tmp_path / "c.db"))
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


@pytest.mark.server
def test_the_migrations_and_the_tables_agree_on_postgres_too(postgres_catalog: str) -> None:
    engine = create_engine(make_url(postgres_catalog).set(drivername="postgresql+psycopg"))
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_the_list_of_revisions_names_every_step_in_order() -> None:
    folder = Path(migrations.__file__).parent / "versions"
    found = [
        re.search(r'^revision = "(\w+)"', file.read_text(), re.M)
        for file in sorted(folder.glob("r*.py"))
    ]
    assert tuple(match[1] for match in found if match) == migrations.REVISIONS


def test_processes_that_open_a_new_catalog_at_once_all_get_it(tmp_path: Path) -> None:
    processes = [
        multiprocessing.Process(target=_open_and_add, args=(at(tmp_path / "c.db"),))
        for _ in range(6)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 6
    catalog = open_catalog(at(tmp_path / "c.db"))
    assert len(catalog.batches()) == 1
    catalog.close()


def _open_and_add(url: str) -> None:
    catalog = open_catalog(url)
    catalog.add_batch(a_batch(), [a_job(row=row) for row in range(1, 50)])
    catalog.close()


def test_an_up_to_date_catalog_opens_without_alembic_torch_or_ray(tmp_path: Path) -> None:
    url = at(tmp_path / "c.db")
    open_catalog(url).close()
    program = (
        "import sys; from vidplat.storage import open_catalog; open_catalog(sys.argv[1]).close();"
        "print([name for name in ('alembic', 'torch', 'ray', 'pyarrow', 'psycopg', 'boto3') if "
        "name in sys.modules])"
    )
    told = subprocess.run(
        [sys.executable, "-c", program, url], capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == "[]"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.server)])
def old_catalog(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A catalog as the first version left it: revision 0001, one batch with one job."""
    url = (
        at(tmp_path / "c.db")
        if request.param == "sqlite"
        else str(request.getfixturevalue("postgres_url"))
    )
    database, job, batch = Database(url), a_job(), a_batch()
    with database.writing() as connection:
        migrations.upgrade(connection, "0001")
        connection.execute(insert(batches).values(batch_row(batch, "open")))
        row = dict(zip(NEW_JOB_COLUMNS, new_job_row(job, batch), strict=True))
        for added_since in ("input_video", "input_sha256", "strength"):
            del row[added_since]
        names = ", ".join(f'"{name}"' for name in row)
        marks = ", ".join(f":{name}" for name in row)
        connection.execute(text(f"INSERT INTO jobs ({names}) VALUES ({marks})"), row)  # noqa: S608 (names are ours)
    database.close()
    return url


def test_an_old_catalog_goes_on_with_its_jobs(old_catalog: str) -> None:
    if old_catalog.startswith("postgres"):
        with pytest.raises(
            CatalogError, match=r"is at revision 0001 and needs .*: run `vidplat doctor --migrate`"
        ):
            open_catalog(old_catalog)
    catalog = open_catalog(
        old_catalog, migrate=True if old_catalog.startswith("postgres") else None
    )

    # its job is still the same, made from text alone, and jobs made from a video join it
    edited = replace(a_job(row=2), input_video="/a.mp4", input_sha256="ab" * 32, strength=0.5)
    assert [record.job for record in catalog.jobs("b00000000001")] == [a_job()]
    catalog.add_batch(a_batch("b00000000002", submitted_at=1.0), [edited])
    assert [record.job for record in catalog.jobs("b00000000002")] == [edited]
    assert catalog.database.revision() == migrations.NEWEST
    catalog.close()


def test_videos_that_are_made_no_more_that_way_are_shown_as_they_were_made(
    old_catalog: str,
) -> None:
    # given a job that failed after 24 steps of 5 keyframes, its attempt and its plan
    _run_old(
        old_catalog,
        """
        UPDATE jobs SET state = 'failed', attempt = 1, method = 'keyframes:5',
            point_steps = 24, point_keyframes = 5, point_method = 'keyframes'
        """,
        """
        INSERT INTO attempts (job_id, batch_id, attempt, ended, worker_id, pool, point_steps,
            point_keyframes, point_method, started_at, finished_at, steps_done)
        SELECT job_id, batch_id, 1, 'failed', 'w1', 'cloud', 24, 5, 'keyframes', 1, 2, 24 FROM jobs
        """,
        """
        INSERT INTO plans (batch_id, at, inputs_sha256, verdict, reason, earliest_at,
            full_quality_at, finish_p50_at, finish_p90_at, device_seconds, mean_quality,
            quality_bound, jobs, deferred_count, detail)
        VALUES ('b00000000001', 0, '', 'feasible', '', 0, 0, 0, 0, 0, 1, 1, 2, 0,
            '{"shares": [["cloud", [24, 5, "keyframes"], 1, 0.5, 3.0],
                         ["cloud", [8, null, "steps"], 1, 0.8, 1.0]],
              "deferred": [], "notes": []}')
        """,
    )

    # when
    catalog = open_catalog(old_catalog, migrate=True)

    # then
    (record,) = catalog.jobs("b00000000001")
    (attempt,) = catalog.attempts("b00000000001", record.job.id)
    (promise,) = catalog.plans("b00000000001")
    assert record.point is not None
    assert record.point.label == attempt.point.label == "24 steps, keyframes:5"
    assert [share.point.label for share in promise.shares] == ["24 steps, keyframes:5", "8 steps"]

    # and a retry plans it anew
    assert catalog.retry_failed("b00000000001", now=3.0) == 1
    opened = catalog.open_jobs("b00000000001")
    decided = plan(a_snapshot(jobs=opened, now=3.0), a_policy(), knowledge())
    assert [each.point.label for each in decided.assignments] == ["24 steps"]
    catalog.close()


def _run_old(url: str, *statements: str) -> None:
    database = Database(url)
    with database.writing() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    database.close()


# --- refused --------------------------------------------------------------------------------------


def test_a_catalog_of_a_newer_version_is_refused_and_both_revisions_are_named(
    tmp_path: Path,
) -> None:
    open_catalog(at(tmp_path / "c.db")).close()
    with sqlite3.connect(tmp_path / "c.db") as raw:
        raw.execute("UPDATE alembic_version SET version_num = '0999'")
    raw.close()
    with pytest.raises(
        CatalogError, match=rf"revision 0999.*only up to {migrations.NEWEST}.*Upgrade vidplat"
    ):
        open_catalog(at(tmp_path / "c.db"))


@pytest.mark.server
def test_a_postgres_catalog_is_migrated_only_when_asked(postgres_url: str) -> None:
    with pytest.raises(CatalogError, match="has no tables yet: run `vidplat doctor --migrate`"):
        open_catalog(postgres_url)
    open_catalog(postgres_url, migrate=True).close()
    catalog = open_catalog(postgres_url)
    assert catalog.batches() == []
    catalog.close()


@pytest.mark.server
def test_a_postgres_catalog_behind_its_time_asks_for_a_migration(
    postgres_catalog: str, monkeypatch
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("vidplat.storage.catalog.NEWEST", "0999")
    monkeypatch.setattr("vidplat.storage.catalog.REVISIONS", (*migrations.REVISIONS, "0999"))
    expected = f"is at revision {migrations.NEWEST} and needs 0999: run `vidplat doctor --migrate`"
    with pytest.raises(CatalogError, match=expected):
        open_catalog(postgres_catalog)


@pytest.mark.server
def test_a_postgres_that_hangs_up_is_found_again(postgres_catalog: str) -> None:
    catalog = open_catalog(postgres_catalog)
    assert catalog.batches() == []
    # when an administrator ends every session of ours
    admin = create_engine(
        make_url(postgres_catalog).set(drivername="postgresql+psycopg"),
        isolation_level="AUTOCOMMIT",
    )
    with admin.connect() as connection:
        ended = text(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        assert len(connection.execute(ended).all()) == 1
    admin.dispose()
    # then the next call finds a new connection
    assert catalog.batches() == []
    catalog.close()


@pytest.mark.server
def test_a_locked_postgres_table_says_so(postgres_catalog: str) -> None:
    catalog = open_catalog(postgres_catalog, lock_timeout_s=0.2)
    other = create_engine(make_url(postgres_catalog).set(drivername="postgresql+psycopg"))
    with other.connect() as connection:
        connection.execute(text("LOCK TABLE batches IN ACCESS EXCLUSIVE MODE"))
        with pytest.raises(CatalogError, match="locked by another process"):
            catalog.batches()
    other.dispose()
    assert catalog.batches() == []
    catalog.close()


def test_a_locked_sqlite_catalog_says_so_and_reads_go_on(tmp_path: Path) -> None:
    catalog = open_catalog(at(tmp_path / "c.db"), lock_timeout_s=0.1)
    other = sqlite3.connect(tmp_path / "c.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(CatalogError, match=r"locked by another process.*within 0\.1 s"):
        catalog.add_batch(a_batch(), [])
    assert catalog.batches() == []
    other.execute("ROLLBACK")
    other.close()
    assert catalog.add_batch(a_batch(), []).new
    catalog.close()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://someone:hunter2@127.0.0.1:1/videos",
        "postgres://someone:hunter2@127.0.0.1:1/videos",
        "postgresql://someone:hunter2@no-such-host.invalid/videos",
    ],
)
def test_an_unreachable_postgres_is_named_without_its_password(url: str) -> None:
    with pytest.raises(CatalogError, match="cannot be reached") as caught:
        open_catalog(url)
    assert "hunter2" not in str(caught.value)
    assert "someone" in str(caught.value)


def test_a_place_that_cannot_hold_a_catalog_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CatalogError, match=r"needs the folder .*file/below, which cannot be made"):
        open_catalog(at(tmp_path / "file" / "below" / "c.db"))
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(CatalogError, match="cannot be opened for writing"):
        open_catalog(at(tmp_path / "folder.db"))


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("these are my notes, not a catalog\n" * 100)
    with pytest.raises(CatalogError, match="is not a vidplat catalog"):
        open_catalog(at(tmp_path / "notes.txt"))
    assert (tmp_path / "notes.txt").read_text().startswith("these are my notes")


@pytest.mark.parametrize(
    "url", ["catalog.db", "mysql://host/x", "", "sqlite", "://", "postgresql://host:port/x"]
)
def test_a_url_that_names_no_catalog_is_a_mistake_of_usage(url: str) -> None:
    with pytest.raises(UsageError):
        open_catalog(url)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://u:Zq@hunter2@127.0.0.1:1/v", "percent-encode @ as %40"),
        ("postgresql://u:Zq?a@hunter2@127.0.0.1:1/v", "percent-encode @ as %40"),
        ("postgresql://127.0.0.1:1/v?user=u&password=Zq@hunter2", "percent-encode @ as %40"),
        ("postgresql://u@127.0.0.1:1/v?password=Zq@hunter2", "percent-encode @ as %40"),
        ("postgresql:///v?password=Zq@hunter2:x&host=127.0.0.1", "percent-encode @ as %40"),
        ("postgresql://u:my hunter2@127.0.0.1:1/v", "percent-encode it as %20"),
        ("postgresql://u:hunter2@127.0.0.1:1/v?sslmod=disable", "did you mean 'sslmode'"),
        ("postgresql://u:hunter2@127.0.0.1:1/v?autocommit=1", "unknown option 'autocommit'"),
        ("postgresql://u:hunter2@127.0.0.1:1/v?sslmode=maybe", "wrong option: invalid sslmode"),
        ("postgresql://u:hunter2@127.0.0.1:1/v?keepalives=x", "invalid integer value"),
        ("postgresql://u:hunter2@127.0.0.1:99999/v", "port must be 1 to 65,535"),
        ("postgresql://u:hunter2@127.0.0.1/v%00w", "control character"),
        ("sqlite://host/c.db", "names a host"),
        ("sqlite:///c.db?mode=ro", "names options"),
        ("sqlite:///c\0.db", "control character"),
    ],
)
def test_a_url_that_says_what_nobody_means_connects_to_nothing(url: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_catalog(url)
    assert words in str(caught.value) and "hunter2" not in str(caught.value)


def test_what_lasts_until_somebody_mends_it_is_told_from_what_passes(tmp_path: Path) -> None:
    database = Database("postgresql://u@127.0.0.1:1/v")
    refused = 'connection failed: FATAL:  password authentication failed for user "u"'
    assert not database._unreached(Exception(refused)).retry_can_help
    assert database._unreached(Exception("connection failed: Connection refused")).retry_can_help
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(CatalogError) as caught:
        open_catalog(at(tmp_path / "folder.db"))
    assert not caught.value.retry_can_help


def test_a_tilde_in_an_sqlite_url_is_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    open_catalog("sqlite:///~/deep/c.db").close()
    assert (tmp_path / "deep" / "c.db").is_file()


def test_a_full_disk_is_an_error_of_the_surroundings() -> None:
    error = sqlite3.OperationalError("database or disk is full")
    assert "disk is full" in str(Database("sqlite://").explain(error))
