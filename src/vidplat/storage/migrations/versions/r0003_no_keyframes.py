"""No keyframes: videos made from their first latent frames alone are made no more, so the column
goes and what it said of old rows becomes part of their method's text, as a user had written it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    for name in ("jobs", "attempts"):
        table = sa.table(name, sa.column("point_method"), sa.column("point_keyframes"))
        frames = sa.cast(table.c.point_keyframes, sa.Text)
        op.execute(
            table.update()
            .where(table.c.point_keyframes.is_not(None))
            .values(point_method=sa.literal("keyframes:", sa.Text).concat(frames))
        )
        op.drop_column(name, "point_keyframes")
