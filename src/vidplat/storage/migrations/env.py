"""Alembic runs this file to learn where to apply its steps: on the connection that `upgrade` was
given.
"""

from __future__ import annotations

from alembic import context

from vidplat.storage.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite too: `database.py` begins transactions itself, so DDL rolls back with them
    transactional_ddl=True,
)
context.run_migrations()
