"""One SQL database as the catalog uses it: connections, transactions, and errors that people can
read.

    with database.reading() as connection: ...    one consistent view, never waits for a writer
    with database.writing() as connection: ...    commits at its end, rolls back on any error

SQLite runs in WAL mode, so that `status` reads while a batch writes. A writing block takes the
write lock when it begins (BEGIN IMMEDIATE): a transaction that reads first and writes later could
otherwise be refused half-way. `synchronous=NORMAL` survives a killed process; after a power cut the
last transactions may be missing, and the reconciler then repairs the catalog from the COMMIT.json
files in the store.

PostgreSQL is reached through psycopg 3, also behind a pooler that hands out a server for each
transaction (pgbouncer): nothing is prepared and nothing is set for longer than a transaction.

Every error leaves as a `CatalogError` without a password in it; one that does not pass by itself
says so in `retry_can_help`. Repeating is the business of `door.py`.

Each transaction knows the database's own time (`now_of`), by which leases are granted and run out:
PostgreSQL's clock, or for SQLite the one that the catalog gives to `clock`.

This file knows no table but Alembic's own.
"""

from __future__ import annotations

import difflib
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import StaticPool

from vidplat import times
from vidplat.config import catalog_file, is_plain
from vidplat.errors import CatalogError, UsageError, VidplatError, printable

CONNECT_TIMEOUT_S = 5
SQLITE_CACHE_KIB = 65_536

# Reusing a million rows of another batch is one statement; intake may pause between two chunks.
_STATEMENT_S = _IDLE_S = 300.0
_DRIVERS = {
    **dict.fromkeys(("sqlite", "sqlite+pysqlite"), "sqlite"),
    **dict.fromkeys(("postgres", "postgresql", "postgresql+psycopg"), "postgresql+psycopg"),
}

# What libpq says of a request that no repetition makes right.
_WRONG_OPTION = re.compile(r"^(?:invalid|missing) | for connection option ")
_LASTING = ("authentication failed", "no password supplied", "does not exist", "pg_hba.conf")

# PostgreSQL: lock not available, deadlock, serialization failure.
_LOCKED = {"55P03", "40P01", "40001"}


def now_of(connection: Connection) -> float:
    """The database's time when this transaction began."""
    at: float = connection.info["now"]
    return at


class Locked(CatalogError):
    """Waited for already, as long as one waits for a lock."""


class Database:
    """At `sqlite:///path`, `sqlite://` (memory) or `postgresql://...`."""

    def __init__(self, url: str, *, lock_timeout_s: float = 30.0) -> None:
        parsed = _parse(url)
        self.shown = printable(
            parsed.set(drivername=parsed.get_backend_name()).render_as_string(hide_password=True)
        )
        self.is_postgres = parsed.get_backend_name() == "postgresql"
        self.is_memory = not self.is_postgres and parsed.database in (None, "", ":memory:")
        self.lock_timeout_s = lock_timeout_s
        self.clock: Callable[[], float] = times.now  # SQLite's
        self._engine = _engine(parsed, lock_timeout_s, self.is_memory, self.shown)
        begin = self._begin_postgres if self.is_postgres else self._begin_sqlite
        event.listen(self._engine, "begin", begin)
        # What a database says no with. Other errors of SQLAlchemy are mistakes of ours and stay
        # what they are.
        self._dbapi: Any = self._engine.dialect.loaded_dbapi
        self._refusals = (DBAPIError, PoolTimeout, self._dbapi.Error)
        # One shared connection serves an in-memory catalog, so its users take turns.
        self._turn: AbstractContextManager[Any] = (
            threading.RLock() if self.is_memory else nullcontext()
        )
        self.was_reached = False

    def reading(self) -> AbstractContextManager[Connection]:
        """A transaction that sees one state of the database and changes nothing."""
        return self._transaction(writing=False)

    def writing(self) -> AbstractContextManager[Connection]:
        """A transaction that holds SQLite's write lock from its start."""
        return self._transaction(writing=True)

    def revision(self) -> str | None:
        """Alembic's revision of the tables, by one SELECT; None when there are none yet."""
        try:
            with self._turn, self._connect(writing=False) as connection:
                query = text("SELECT version_num FROM alembic_version")
                found: str | None = connection.scalar(query)
                return found
        except self._refusals as error:
            if isinstance(error, DBAPIError) and _table_is_missing(error):
                return None
            raise self.explain(error) from error

    def explain(self, error: Exception) -> CatalogError:
        """What went wrong in one sentence, without SQL, row values or password."""
        cause = getattr(error, "orig", None) or error
        said = _said(error)
        state = getattr(cause, "sqlstate", None)
        lowered = said.lower()
        if "database is locked" in lowered or state in _LOCKED or "lock timeout" in lowered:
            return Locked(
                f"the catalog {self.shown} is locked by another process and did not come free "
                f"within {self.lock_timeout_s:g} s: see who uses it, or try again ({said})"
            )
        if "unable to open" in lowered or "readonly" in lowered or "read-only" in lowered:
            return CatalogError.lasting(
                f"the catalog {self.shown} cannot be opened for writing: check the folder and "
                f"its rights, or choose another with --catalog ({said})"
            )
        if "not a database" in lowered or "malformed" in lowered:
            return CatalogError.lasting(
                f"{self.shown} is not a vidplat catalog, or it is damaged ({said})"
            )
        if getattr(error, "connection_invalidated", False) or "connection" in lowered:
            return CatalogError(
                f"the catalog {self.shown} hung up in the middle of its work: try again ({said})"
            )
        # SQLite's are also mistakes of ours and full disks; what befalls a server passes.
        of_server = self.is_postgres and isinstance(cause, self._dbapi.OperationalError)
        passes = of_server or isinstance(error, PoolTimeout) or "disk i/o" in lowered
        kind = CatalogError if passes else CatalogError.lasting
        return kind(f"the catalog {self.shown} refused: {said}")

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _transaction(self, *, writing: bool) -> Iterator[Connection]:
        try:
            with self._turn, self._connect(writing=writing) as connection, connection.begin():
                yield connection
        except self._refusals as error:
            raise self.explain(error) from error
        except (UnicodeEncodeError, OverflowError) as error:
            # A lone surrogate or an integer beyond 64 bits: intake refuses both, so this is a last
            # guard.
            raise CatalogError.lasting(
                f"the catalog {self.shown} cannot hold a value: {printable(error)}"
            ) from error

    def _connect(self, *, writing: bool) -> Connection:
        try:
            connection = self._engine.connect().execution_options(writing=writing)
        except OperationalError as error:
            if not self.is_postgres:
                raise
            raise self._unreached(error) from error
        self.was_reached = True
        return connection

    def _begin_sqlite(self, connection: Connection) -> None:
        writing = connection.get_execution_options().get("writing", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
        connection.info["now"] = self.clock()

    def _begin_postgres(self, connection: Connection) -> None:
        limits = {"lock": self.lock_timeout_s, "statement": _STATEMENT_S, "idle": _IDLE_S}
        told = {name: f"{round(seconds * 1000)}ms" for name, seconds in limits.items()}
        connection.info["now"] = connection.execute(_LIMITS, told).one().now

    def _unreached(self, error: Exception) -> VidplatError:
        said = _said(error).removeprefix("connection is bad: ")
        if _WRONG_OPTION.search(said):
            return UsageError(f"the catalog URL {self.shown} has a wrong option: {said}")
        may_pass = not any(word in said for word in _LASTING)
        return (CatalogError if may_pass else CatalogError.lasting)(
            f"the catalog {self.shown} cannot be reached: check address, name and rights ({said})"
        )


# For this transaction alone: the next one may have another server behind a pooler.
_LIMITS = text(
    "SELECT set_config('lock_timeout', :lock, true), "
    "set_config('statement_timeout', :statement, true), "
    "set_config('idle_in_transaction_session_timeout', :idle, true), "
    "CAST(extract(epoch FROM clock_timestamp()) AS double precision) AS now"
)


def _said(error: Exception) -> str:
    """The first line of what the driver says, without SQL."""
    cause = getattr(error, "orig", None) or error
    lines = str(cause).strip().splitlines()
    return printable(lines[0] if lines else type(cause).__name__)


def _parse(url: str) -> URL:
    if "://" not in url:
        raise UsageError(
            "a catalog is named by a URL, sqlite:///path/file.db or postgresql://host/name; "
            f"found {printable(url)!r}"
        )
    scheme, _, rest = url.partition("://")
    if scheme.lower() != "sqlite" and "@" in rest.partition("?")[2]:
        # not shown: what stands after the @ is the rest of a password
        raise UsageError("the catalog URL has an @ after its ?: percent-encode @ as %40")
    shown = f"the catalog URL {printable(url)}"
    try:
        parsed = make_url(f"{_DRIVERS.get(scheme.lower(), scheme)}://{rest}")
    except (ArgumentError, ValueError) as error:  # ValueError: a port that is none
        why = "its port is no number" if "int()" in str(error) else printable(error)
        raise UsageError(f"{shown} cannot be read: {why}") from error
    if scheme.lower() not in _DRIVERS:
        raise UsageError(
            "a catalog lives in SQLite (sqlite:///path) or PostgreSQL (postgresql://host/name), "
            f"not in {printable(scheme, 40)!r}"
        )
    if not is_plain(unquote(rest)):
        raise UsageError(f"{shown} holds a control character, or one that is not UTF-8")
    if parsed.get_backend_name() == "postgresql":
        _check_postgres(parsed, rest, shown)
        return parsed
    if parsed.host or parsed.query:
        raise UsageError(
            f"{shown} names {'a host' if parsed.host else 'options'}, and SQLite has none: write "
            "sqlite:///relative/file.db or sqlite:////absolute/file.db"
        )
    file = catalog_file(url)
    return parsed if file is None else parsed.set(database=str(file))


def _check_postgres(parsed: URL, rest: str, shown: str) -> None:
    """That libpq will read the URL as it was meant, and knows its options."""
    if rest.partition("?")[0].count("@") > 1 or "@" in f"{parsed.host}{parsed.database}":
        raise UsageError(f"{shown} has more than one @: percent-encode @ as %40 in a password")
    if " " in rest:
        raise UsageError(f"{shown} holds a blank: percent-encode it as %20")
    if parsed.port is not None and not 0 < parsed.port < 65_536:
        raise UsageError(f"{shown}: the port must be 1 to 65,535, not {parsed.port}")
    if unknown := sorted(parsed.query.keys() - _connection_options()):
        near = difflib.get_close_matches(unknown[0], _connection_options(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else "see libpq's parameter key words"
        raise UsageError(f"{shown} has an unknown option {printable(unknown[0], 40)!r}: {hint}")


@cache
def _connection_options() -> frozenset[str]:
    from psycopg.pq import Conninfo

    return frozenset(option.keyword.decode() for option in Conninfo.get_defaults())


def _engine(url: URL, lock_timeout_s: float, in_memory: bool, shown: str) -> Engine:
    if url.get_backend_name() == "postgresql":
        return create_engine(
            url,
            hide_parameters=True,
            pool_pre_ping=True,
            connect_args={
                "connect_timeout": CONNECT_TIMEOUT_S,
                "application_name": "vidplat",
                "prepare_threshold": None,
            },
        )
    if not in_memory:
        folder = Path(url.database or "").parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CatalogError.lasting(
                f"the catalog {shown} needs the folder {printable(folder)}, which cannot be made: "
                f"{error.strerror}. Choose another with --catalog"
            ) from error
    engine = create_engine(
        url,
        hide_parameters=True,
        connect_args={"timeout": lock_timeout_s, "check_same_thread": False},
        **({"poolclass": StaticPool} if in_memory else {}),
    )
    event.listen(engine, "connect", lambda raw, _: _prepare_sqlite(raw, lock_timeout_s))
    return engine


def _prepare_sqlite(raw: Any, lock_timeout_s: float) -> None:
    raw.isolation_level = None  # we say BEGIN ourselves, see `_begin_sqlite`
    give_up_at = time.monotonic() + lock_timeout_s
    while True:
        try:
            # Becoming a WAL file is the one step that does not honour SQLite's own waiting.
            raw.execute("PRAGMA journal_mode=WAL").fetchone()
            break
        except Exception as error:
            if "locked" not in str(error) or time.monotonic() > give_up_at:
                raise
            time.sleep(0.02)
    raw.execute("PRAGMA synchronous=NORMAL")
    raw.execute(f"PRAGMA cache_size=-{SQLITE_CACHE_KIB}")


def _table_is_missing(error: DBAPIError) -> bool:
    return "no such table" in str(error.orig) or getattr(error.orig, "sqlstate", None) == "42P01"
