"""How an old catalog becomes a new one: numbered steps, each with a sentence saying why.

`REVISIONS` lists the steps in order, so that opening a catalog that is up to date costs one SELECT
and does not load Alembic. A test holds the list and the files in `versions/` together. To add a
step: write `versions/r0005_*.py`, change `tables.py`, append to the list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Connection

REVISIONS = ("0001", "0002", "0003", "0004")
NEWEST = REVISIONS[-1]


def upgrade(connection: Connection, to: str = NEWEST) -> None:
    """Bring the tables to a revision inside the caller's transaction: all of it happens, or
    nothing."""
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", "vidplat.storage:migrations")
    config.set_main_option("path_separator", "os")
    command.upgrade(config, to)
