"""A real PostgreSQL for tests, started on loopback once per test session and stopped by pid.

    postgres_url       URL of a database of its own for each test, without tables
    pooled_url         URL of the same behind pgbouncer in transaction mode
    postgres_catalog   URL of the process's one database with the catalog's tables, emptied

The server is Debian's PostgreSQL where it is installed (run as user postgres when the tests run as
root), else the one that the `pgserver` package brings. Without either, tests that need it skip with
one line. It runs without fsync: tests kill processes, not the power.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from vidplat.storage import open_catalog


@dataclass(frozen=True)
class PostgresServer:
    admin_url: str

    def fresh_database(self) -> str:
        """The URL of a new, empty database."""
        name = f"test_{secrets.token_hex(6)}"
        with psycopg.connect(self.admin_url, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')  # our own names: random hex digits
        return make_url(self.admin_url).set(database=name).render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    # Not pytest's own folder: that one is closed to the user postgres.
    home = Path(tempfile.mkdtemp(prefix="vidplat-postgres-"))
    try:
        programs = _debian_programs()
        yield from (
            _debian_server(programs, home) if programs is not None else _packaged_server(home)
        )
    finally:
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    return postgres_server.fresh_database()


@pytest.fixture(scope="session")
def migrated_database(postgres_server: PostgresServer) -> str:
    """The URL of one database with the catalog's tables, for all tests that empty it first."""
    url = postgres_server.fresh_database()
    open_catalog(url, migrate=True).close()
    return url


@pytest.fixture
def postgres_catalog(migrated_database: str) -> str:
    """That database with empty tables: emptying them takes a fifth of making them."""
    with psycopg.connect(migrated_database, autocommit=True) as connection:
        found = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public' "
            "AND tablename <> 'alembic_version'"
        )
        names = ", ".join(f'"{name}"' for (name,) in found)
        connection.execute(f"TRUNCATE {names} RESTART IDENTITY CASCADE")  # names are the catalog's
    return migrated_database


@pytest.fixture
def pooled_url(postgres_catalog: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The same database behind pgbouncer, which has three sessions for all and gives each out for
    one transaction."""
    program, url = shutil.which("pgbouncer"), make_url(postgres_catalog)
    if program is None:
        pytest.skip("no pgbouncer here: apt-get install pgbouncer")
    home, port = Path(tempfile.mkdtemp(prefix="vidplat-pgbouncer-")), _free_port()
    settings = {
        "listen_addr": "127.0.0.1", "listen_port": port, "auth_type": "any",
        "pool_mode": "transaction", "default_pool_size": 3, "unix_socket_dir": "",
        "server_reset_query_always": 0,
    }  # fmt: skip
    server = f"* = host={url.host} port={url.port} user={url.username}"
    lines = ["[databases]", server, "[pgbouncer]", *(f"{k} = {v}" for k, v in settings.items())]
    (home / "settings.ini").write_text("\n".join(lines))
    home.chmod(0o755)
    as_user = ["-u", "postgres"] if os.geteuid() == 0 else []
    with (home / "out").open("wb") as out:
        running = subprocess.Popen([program, *as_user, str(home / "settings.ini")], stderr=out)
    try:
        yield url.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)
    finally:
        running.terminate()
        running.wait(10)
        shutil.rmtree(home, ignore_errors=True)


def _debian_programs() -> Path | None:
    """The folder with initdb and pg_ctl of the newest installed PostgreSQL."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name)
    )
    if not found or (os.geteuid() == 0 and shutil.which("runuser") is None):
        return None
    return found[-1]


def _debian_server(programs: Path, home: Path) -> Iterator[PostgresServer]:
    data, port = home / "data", _free_port()
    data.mkdir(mode=0o700)
    home.chmod(0o755)
    as_user: tuple[str, ...] = ()
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        shutil.chown(data, "postgres", "postgres")
        as_user = ("runuser", "-u", "postgres", "--")

    def run(program: str, *arguments: str) -> None:
        # Output goes to a file and not to a pipe: the server inherits it, and a pipe would never
        # end.
        with (home / "out").open("ab") as out:
            command = (*as_user, str(programs / program), "-D", str(data), *arguments)
            subprocess.run(command, stdout=out, stderr=out, cwd="/", timeout=120, check=True)

    run("initdb", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync")
    settings = (
        f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={data} -c fsync=off"
    )
    run("pg_ctl", "-w", "-l", str(data / "log"), "-o", settings, "start")
    try:
        yield PostgresServer(f"postgresql://postgres@127.0.0.1:{port}/postgres")
    finally:
        run("pg_ctl", "-w", "-m", "immediate", "stop")


def _packaged_server(home: Path) -> Iterator[PostgresServer]:
    pgserver = pytest.importorskip(
        "pgserver", reason="no real PostgreSQL: neither Debian's nor pgserver is installed"
    )
    server = pgserver.get_server(home / "packaged")
    try:
        yield PostgresServer(server.get_uri())
    finally:
        server.cleanup()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
