"""First tables: a catalog that outlives every process needs batches, jobs and their history on
disk.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from vidplat.storage.columns import Id, counter, needed, optional

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "attempts",
        *needed(Id, "job_id", "batch_id"),
        *needed(sa.Integer, "attempt"),
        *needed(sa.Text, "ended", "worker_id", "pool"),
        *needed(sa.Integer, "point_steps"),
        *optional(sa.Integer, "point_keyframes"),
        *needed(sa.Text, "point_method"),
        *optional(sa.Double, "predicted_p50_s", "predicted_p90_s"),
        *needed(sa.Double, "started_at", "finished_at"),
        *needed(sa.Integer, "steps_done"),
        *optional(sa.Text, "phases", "failure_kind", "failure_message"),
        sa.PrimaryKeyConstraint("job_id", "batch_id", "attempt"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "batches",
        *needed(Id, "batch_id"),
        *needed(sa.Text, "source", "output_prefix", "model_id", "model_revision"),
        *needed(sa.Double, "submitted_at"),
        *optional(sa.Double, "deadline_at"),
        *needed(sa.Integer, "priority"),
        *needed(sa.Double, "quality_floor"),
        *needed(sa.Text, "on_infeasible"),
        *needed(sa.Integer, "total"),
        *optional(sa.Text, "method"),
        *needed(sa.Text, "state"),
        *optional(sa.Text, "held_by"),
        *needed(sa.Double, "held_until"),
        sa.PrimaryKeyConstraint("batch_id"),
    )
    op.create_index("batches_by_prefix", "batches", ["output_prefix"])
    op.create_index("batches_by_time", "batches", ["submitted_at"])
    op.create_table(
        "cost_states", *needed(sa.Text, "key", "document"), sa.PrimaryKeyConstraint("key")
    )
    op.create_table(
        "events",
        counter(),
        *needed(Id, "batch_id"),
        *optional(Id, "job_id"),
        *needed(sa.Text, "kind"),
        *needed(sa.Double, "at"),
        *optional(sa.Text, "detail"),
    )
    op.create_index("events_by_batch", "events", ["batch_id", "id"])
    op.create_table(
        "jobs",
        *needed(Id, "job_id", "batch_id"),
        *needed(sa.Integer, "row"),
        *optional(sa.Text, "external_id"),
        *needed(sa.Text, "prompt", "negative_prompt"),
        *needed(sa.Integer, "width", "height", "num_frames", "fps", "num_inference_steps"),
        *needed(sa.Double, "guidance_scale"),
        *needed(sa.BigInteger, "seed"),
        *optional(sa.Text, "model_id", "model_revision"),
        *needed(sa.Integer, "priority"),
        *needed(sa.Double, "deadline_at"),
        *optional(sa.Text, "method"),
        *needed(sa.Text, "state"),
        *needed(sa.Integer, "attempt", "forgiven"),
        *needed(sa.Double, "not_before"),
        *optional(sa.Text, "avoid"),
        *needed(sa.Integer, "rung_down"),
        *optional(sa.Text, "owner", "worker_id", "pool"),
        *optional(sa.Integer, "point_steps", "point_keyframes"),
        *optional(sa.Text, "point_method"),
        *optional(sa.Double, "predicted_p50_s", "predicted_p90_s", "predicted_quality"),
        *optional(sa.Double, "started_at", "lease_until"),
        *optional(sa.Text, "phase"),
        *optional(sa.Integer, "step", "steps"),
        *optional(sa.Double, "beat_at", "finished_at"),
        *optional(sa.Text, "video_uri", "poster_uri", "meta_uri", "sha256"),
        *optional(sa.BigInteger, "size_bytes"),
        *optional(sa.Integer, "won_by"),
        *optional(sa.Text, "phases", "metrics", "failure_kind", "failure_message", "reused_from"),
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
        counter(),
        *needed(sa.Double, "at"),
        *optional(Id, "batch_id", "job_id"),
        *needed(sa.Text, "model_id", "device_class", "stage"),
        *needed(sa.Double, "seconds"),
        *needed(sa.Text, "features"),
    )
    op.create_index(
        "observations_by_cell", "observations", ["model_id", "device_class", "stage", "id"]
    )
    op.create_table(
        "plans",
        counter(),
        *needed(Id, "batch_id"),
        *needed(sa.Double, "at"),
        *needed(sa.Text, "inputs_sha256", "verdict", "reason"),
        *needed(sa.Double, "earliest_at", "full_quality_at", "finish_p50_at", "finish_p90_at"),
        *needed(sa.Double, "device_seconds", "mean_quality", "quality_bound"),
        *needed(sa.Integer, "jobs", "deferred_count"),
        *needed(sa.Text, "detail"),
    )
    op.create_index("plans_by_batch", "plans", ["batch_id", "id"])
    op.create_table(
        "workers",
        *needed(Id, "batch_id"),
        *needed(sa.Text, "worker_id", "pool", "device_class"),
        *needed(sa.BigInteger, "free_bytes"),
        *needed(sa.Double, "ready_at", "speed"),
        *optional(sa.Text, "running"),
        *needed(sa.Double, "price_per_s"),
        *needed(sa.Integer, "alive", "suspect"),
        *needed(sa.Double, "seen_at"),
        sa.PrimaryKeyConstraint("batch_id", "worker_id"),
    )
