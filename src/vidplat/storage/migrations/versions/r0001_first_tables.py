"""First tables: a catalog that outlives every process needs batches, jobs and their history on
disk.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

# A number that counts up by itself: SQLite does that for INTEGER keys alone.
COUNTER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# Ids of ours sort by their bytes everywhere, so that a range of an index answers "starts with".
ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "attempts",
        sa.Column("job_id", ID, nullable=False),
        sa.Column("batch_id", ID, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("ended", sa.Text(), nullable=False),
        sa.Column("worker_id", sa.Text(), nullable=False),
        sa.Column("pool", sa.Text(), nullable=False),
        sa.Column("point_steps", sa.Integer(), nullable=False),
        sa.Column("point_keyframes", sa.Integer()),
        sa.Column("point_method", sa.Text(), nullable=False),
        sa.Column("predicted_p50_s", sa.Double()),
        sa.Column("predicted_p90_s", sa.Double()),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("finished_at", sa.Double(), nullable=False),
        sa.Column("steps_done", sa.Integer(), nullable=False),
        sa.Column("phases", sa.Text()),
        sa.Column("failure_kind", sa.Text()),
        sa.Column("failure_message", sa.Text()),
        sa.PrimaryKeyConstraint("job_id", "batch_id", "attempt"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "batches",
        sa.Column("batch_id", ID, nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("output_prefix", sa.Text(), nullable=False),
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.Column("model_revision", sa.Text(), nullable=False),
        sa.Column("submitted_at", sa.Double(), nullable=False),
        sa.Column("deadline_at", sa.Double()),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("quality_floor", sa.Double(), nullable=False),
        sa.Column("on_infeasible", sa.Text(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("method", sa.Text()),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("held_by", sa.Text()),
        sa.Column("held_until", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("batch_id"),
    )
    op.create_index("batches_by_prefix", "batches", ["output_prefix"])
    op.create_index("batches_by_time", "batches", ["submitted_at"])
    op.create_table(
        "cost_states",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_table(
        "events",
        sa.Column("id", COUNTER, autoincrement=True, nullable=False),
        sa.Column("batch_id", ID, nullable=False),
        sa.Column("job_id", ID),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("detail", sa.Text()),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("events_by_batch", "events", ["batch_id", "id"])
    op.create_table(
        "jobs",
        sa.Column("job_id", ID, nullable=False),
        sa.Column("batch_id", ID, nullable=False),
        sa.Column("row", sa.Integer(), nullable=False),
        sa.Column("external_id", sa.Text()),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("negative_prompt", sa.Text(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("num_frames", sa.Integer(), nullable=False),
        sa.Column("fps", sa.Integer(), nullable=False),
        sa.Column("num_inference_steps", sa.Integer(), nullable=False),
        sa.Column("guidance_scale", sa.Double(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("model_id", sa.Text()),
        sa.Column("model_revision", sa.Text()),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("deadline_at", sa.Double(), nullable=False),
        sa.Column("method", sa.Text()),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("forgiven", sa.Integer(), nullable=False),
        sa.Column("not_before", sa.Double(), nullable=False),
        sa.Column("avoid", sa.Text()),
        sa.Column("rung_down", sa.Integer(), nullable=False),
        sa.Column("owner", sa.Text()),
        sa.Column("worker_id", sa.Text()),
        sa.Column("pool", sa.Text()),
        sa.Column("point_steps", sa.Integer()),
        sa.Column("point_keyframes", sa.Integer()),
        sa.Column("point_method", sa.Text()),
        sa.Column("predicted_p50_s", sa.Double()),
        sa.Column("predicted_p90_s", sa.Double()),
        sa.Column("predicted_quality", sa.Double()),
        sa.Column("started_at", sa.Double()),
        sa.Column("lease_until", sa.Double()),
        sa.Column("phase", sa.Text()),
        sa.Column("step", sa.Integer()),
        sa.Column("steps", sa.Integer()),
        sa.Column("beat_at", sa.Double()),
        sa.Column("finished_at", sa.Double()),
        sa.Column("video_uri", sa.Text()),
        sa.Column("poster_uri", sa.Text()),
        sa.Column("meta_uri", sa.Text()),
        sa.Column("sha256", sa.Text()),
        sa.Column("size_bytes", sa.BigInteger()),
        sa.Column("won_by", sa.Integer()),
        sa.Column("phases", sa.Text()),
        sa.Column("metrics", sa.Text()),
        sa.Column("failure_kind", sa.Text()),
        sa.Column("failure_message", sa.Text()),
        sa.Column("reused_from", sa.Text()),
        sa.PrimaryKeyConstraint("job_id", "batch_id"),
        sa.UniqueConstraint("batch_id", "row"),
    )
    op.create_index(
        "jobs_by_state",
        "jobs",
        ["batch_id", "state", sa.literal_column("priority DESC"), "deadline_at", "row"],
    )
    op.create_table(
        "observations",
        sa.Column("id", COUNTER, autoincrement=True, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("batch_id", ID),
        sa.Column("job_id", ID),
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.Column("device_class", sa.Text(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("features", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "observations_by_cell", "observations", ["model_id", "device_class", "stage", "id"]
    )
    op.create_table(
        "plans",
        sa.Column("id", COUNTER, autoincrement=True, nullable=False),
        sa.Column("batch_id", ID, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("inputs_sha256", sa.Text(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("earliest_at", sa.Double(), nullable=False),
        sa.Column("full_quality_at", sa.Double(), nullable=False),
        sa.Column("finish_p50_at", sa.Double(), nullable=False),
        sa.Column("finish_p90_at", sa.Double(), nullable=False),
        sa.Column("device_seconds", sa.Double(), nullable=False),
        sa.Column("mean_quality", sa.Double(), nullable=False),
        sa.Column("quality_bound", sa.Double(), nullable=False),
        sa.Column("jobs", sa.Integer(), nullable=False),
        sa.Column("deferred_count", sa.Integer(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("plans_by_batch", "plans", ["batch_id", "id"])
    op.create_table(
        "workers",
        sa.Column("batch_id", ID, nullable=False),
        sa.Column("worker_id", sa.Text(), nullable=False),
        sa.Column("pool", sa.Text(), nullable=False),
        sa.Column("device_class", sa.Text(), nullable=False),
        sa.Column("free_bytes", sa.BigInteger(), nullable=False),
        sa.Column("ready_at", sa.Double(), nullable=False),
        sa.Column("speed", sa.Double(), nullable=False),
        sa.Column("running", sa.Text()),
        sa.Column("price_per_s", sa.Double(), nullable=False),
        sa.Column("alive", sa.Integer(), nullable=False),
        sa.Column("suspect", sa.Integer(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("batch_id", "worker_id"),
    )
