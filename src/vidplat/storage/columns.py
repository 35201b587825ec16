"""SQL columns, several of one type at a time: what `tables.py` and the first migration are written
in.

A migration says what a catalog once was, so a word here never changes its meaning.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Column, Integer, Text

# Ids of ours sort by their bytes everywhere, so that a range of an index answers "starts with".
Id = Text().with_variant(Text(collation="C"), "postgresql")

# A number that counts up by itself: SQLite does that for INTEGER keys alone.
_Counter = BigInteger().with_variant(Integer, "sqlite")


def counter() -> Column[int]:
    """The key of a table that is only appended to."""
    return Column("id", _Counter, primary_key=True, autoincrement=True)


def needed(kind: Any, *names: str) -> list[Column[Any]]:
    """Columns that always hold a value."""
    return [Column(name, kind, nullable=False) for name in names]


def optional(kind: Any, *names: str) -> list[Column[Any]]:
    """Columns that may be NULL."""
    return [Column(name, kind) for name in names]
