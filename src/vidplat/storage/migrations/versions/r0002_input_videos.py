"""Input videos: a job may start from one, so its row says where that was, which bytes, and how much
is changed.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    # Three columns without a default: neither database rewrites a row for that, however many there
    # are.
    op.add_column("jobs", sa.Column("input_video", sa.Text()))
    op.add_column("jobs", sa.Column("input_sha256", sa.Text()))
    op.add_column("jobs", sa.Column("strength", sa.Double()))
