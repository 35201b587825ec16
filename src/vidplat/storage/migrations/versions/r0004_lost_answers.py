"""Lost answers: a change can be asked again, so what was answered is kept; leases are by one clock,
so SQLite keeps its machine's; and a batch tells when the plan being followed ends.

Adds alone: a process of an earlier version that is still at work goes on.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from vidplat.storage.columns import needed, optional

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "answers",
        sa.Column("client", sa.Text, primary_key=True),
        *needed(sa.Integer, "number"),
        *optional(sa.Text, "answer"),
        *needed(sa.Double, "at"),
    )
    op.create_table(
        "clocks",
        sa.Column("boot", sa.Text, primary_key=True),
        *needed(sa.Double, "ahead_s"),
    )
    for column in optional(sa.Double, "finish_p50_at", "finish_p90_at"):
        op.add_column("batches", column)
