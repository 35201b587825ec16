"""By which clock leases of an SQLite catalog are granted and run out.

All who use such a catalog are processes of one machine, whose clock may be set, or differ between
two of them (each counts on from when it began, see `times.now`). So the first one since the machine
started keeps how far the epoch's seconds are ahead of those since the start, and all go by that.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sqlalchemy import Connection, select
from sqlalchemy.dialects import sqlite

from vidplat import times
from vidplat.errors import CatalogError
from vidplat.storage.door import Door
from vidplat.storage.tables import clocks


def machine_clock(door: Door) -> Callable[[], float]:
    """The same for all processes since this start of the machine, where it can be told from
    others."""
    if not (boot := times.boot()):
        return times.now
    found = select(clocks.c.ahead_s).where(clocks.c.boot == boot)

    def first_one_s(connection: Connection) -> float:
        mine = {"boot": boot, "ahead_s": times.now() - times.ticks()}
        connection.execute(sqlite.insert(clocks).values(mine).on_conflict_do_nothing())
        return float(connection.execute(found).scalar_one())

    rows = door.rows(found)
    try:
        ahead_s = rows[0]["ahead_s"] if rows else door.change(first_one_s)
    except CatalogError as error:
        if error.retry_can_help:
            raise
        # It may only be read: then nobody is granted a lease here.
        return times.now
    return partial(_time, ahead_s)


def _time(ahead_s: float) -> float:
    return ahead_s + times.ticks()
