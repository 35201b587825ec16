"""A line to the catalog that breaks when it is told to: twin of a network that loses an answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection

from vidplat.errors import CatalogError
from vidplat.storage.database import Database


class BadLine:
    """Breaks when the n-th transaction that changes something ends, for each n that `breaks_at`
    names: before the database has heard of its end, or after."""

    def __init__(self, breaks_at: Callable[[int], bool], *, has_arrived: bool = True) -> None:
        self._breaks_at, self._has_arrived = breaks_at, has_arrived
        self.ends = 0

    def stand_before(self, database: Database) -> None:
        """From now on what that database is asked goes over this line."""
        writing = database.writing
        database.writing = lambda: self._over(writing)  # type: ignore[method-assign]

    @contextmanager
    def _over(self, writing: Callable[[], Any]) -> Iterator[Connection]:
        with writing() as connection:
            yield connection
            self.ends += 1
            is_broken = self._breaks_at(self.ends)
            if is_broken and not self._has_arrived:
                raise CatalogError("the line broke")
        if is_broken:
            raise CatalogError("the line broke")
