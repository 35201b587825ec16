"""The one door to the database: a call whose answer is lost on its way is asked again.

    @reading    def method(self, connection, ...)    one view; asked again as often as need be
    @changing   def method(self, connection, ...)    all of it or nothing, once, however often asked

A server restarts, a line breaks, a lock is held: such a call is repeated with growing pauses and
jitter, for as long in all as one would wait for a lock, and once at least: a process that was
frozen finds its connection broken when that time is over. Then, and for errors that do not pass by
themselves (those that last, mistakes of ours), the error goes to the caller. A database that was
never reached is tried twice: its address may be wrong.

A change whose COMMIT broke off may have happened. So each carries a token, the number of the call
among those of its thread, and leaves it beside what it answered in the table `answers`, in its own
transaction. Asked again, it finds its token and tells what it did the first time. A thread has one
row there, which its next change replaces; those of threads that are gone are removed after a day.

Methods must answer in JSON, or with a set of texts.
"""

from __future__ import annotations

import json
import random
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from sqlalchemy import ColumnElement, Connection, RowMapping, Select, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.dml import ReturningInsert

from vidplat.errors import CatalogError
from vidplat.storage.database import Database, Locked, now_of
from vidplat.storage.tables import answers

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0
_KEPT_S = 86_400.0  # answers of threads that ask no more
_SET = "set of"

T = TypeVar("T")
P = ParamSpec("P")


class Door:
    """Repeats what was asked of one database. Safe to use from several threads."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._mine = threading.local()

    def rows(self, query: Select[Any]) -> Sequence[RowMapping]:
        """The rows of one query, in a view of its own."""
        return self.read(lambda connection: connection.execute(query).mappings().all())

    def read(self, work: Callable[[Connection], T]) -> T:
        def once(is_repeated: bool) -> T:
            with self.database.reading() as connection:
                return work(connection)

        return self.until_answered(once)

    def change(self, work: Callable[[Connection], T]) -> T:
        """What `work` answered when it happened, which it does once."""
        client, number = self._next_token()

        def once(is_repeated: bool) -> T:
            with self.database.writing() as connection:
                if is_repeated and _has_happened(connection, client, number):
                    told: T = _told(connection, client)
                    return told
                answer = work(connection)
                if number == 1:
                    _forget_old(connection)
                _keep(connection, client, number, answer)
                return answer

        return self.until_answered(once)

    def _next_token(self) -> tuple[str, int]:
        mine = self._mine.__dict__
        mine["number"] = mine.get("number", 0) + 1
        return mine.setdefault("client", secrets.token_hex(8)), mine["number"]

    def until_answered(self, ask: Callable[[bool], T]) -> T:
        """What `ask` answers; it hears whether it is asked again."""
        give_up_at, pause_s = time.monotonic() + self.database.lock_timeout_s, _FIRST_PAUSE_S
        is_repeated = False
        while True:
            try:
                return ask(is_repeated)
            except CatalogError as error:
                wait_s = random.uniform(0, pause_s)
                may_be_there = self.database.was_reached or not is_repeated
                is_hopeless = not (error.retry_can_help and may_be_there)
                is_late = time.monotonic() + wait_s > give_up_at
                if is_hopeless or (is_late and (is_repeated or isinstance(error, Locked))):
                    raise
                time.sleep(wait_s)
            pause_s, is_repeated = min(2 * pause_s, _LONGEST_PAUSE_S), True


class _Asking(Protocol):
    door: Door


S = TypeVar("S", bound=_Asking)


def reading(
    method: Callable[Concatenate[S, Connection, P], T],
) -> Callable[Concatenate[S, P], T]:
    """The method reads in a transaction that it is given."""

    @wraps(method)
    def asked(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.door.read(lambda connection: method(self, connection, *args, **kwargs))

    return asked


def changing(
    method: Callable[Concatenate[S, Connection, P], T],
) -> Callable[Concatenate[S, P], T]:
    """The method changes something in a transaction that it is given."""

    @wraps(method)
    def asked(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.door.change(lambda connection: method(self, connection, *args, **kwargs))

    return asked


# --- tokens and answers ---------------------------------------------------------------------------


def _keep(connection: Connection, client: str, number: int, answer: object) -> None:
    """Leaves what the call of this number answered in place of what the one before did."""
    connection.execute(_noting(connection, client, number, json.dumps(answer, default=_listed)))


def _has_happened(connection: Connection, client: str, number: int) -> bool:
    """Whether a call of this number has come through; waits for one whose end is under way."""
    older = answers.c.number < number
    return connection.scalar(_noting(connection, client, number, None, older)) is None


def _noting(
    connection: Connection,
    client: str,
    number: int,
    answer: str | None,
    only_if: ColumnElement[bool] | None = None,
) -> ReturningInsert[tuple[str]]:
    """Returns the client when it is noted."""
    kind = postgresql if connection.dialect.name == "postgresql" else sqlite
    noted = {"number": number, "answer": answer, "at": now_of(connection)}
    statement = kind.insert(answers).values(client=client, **noted)
    noting: ReturningInsert[tuple[str]] = statement.on_conflict_do_update(
        index_elements=[answers.c.client], set_=noted, where=only_if
    ).returning(answers.c.client)
    return noting


def _told(connection: Connection, client: str) -> Any:
    found = json.loads(
        connection.execute(select(answers.c.answer).where(answers.c.client == client)).scalar_one()
    )
    return set(found[_SET]) if isinstance(found, dict) and _SET in found else found


def _listed(answer: object) -> object:
    assert isinstance(answer, set), f"{type(answer).__name__} is no answer"
    return {_SET: sorted(answer)}


def _forget_old(connection: Connection) -> None:
    connection.execute(delete(answers).where(answers.c.at < now_of(connection) - _KEPT_S))
