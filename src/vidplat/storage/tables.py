"""The SQL tables.

    batches       one row per submit: state, holder (who works on it), wishes
    jobs          one row per job of a batch: what is asked, where it stands, what came of it
    attempts      append-only: one row per ended attempt
    events        append-only: what happened, for people
    plans         append-only: each plan's promise
    observations  append-only: measured stage seconds, the cost model's food
    cost_states   the cost model's memory, one JSON document per key
    workers       the workers a batch last saw

All times are seconds since the Unix epoch as doubles. Mappings are JSON text: they are read whole
and never searched. How rows become values is in `rows.py`; how an old catalog reaches this shape is
in `migrations/`, and a contract test holds both to the same result.

Two choices to know:

- A job without a deadline stores `infinity`, because SQLite sorts NULL first and PostgreSQL last,
  and the index that hands out open jobs sorts by deadline.
- A poster or sidecar that lies beside its video is stored by its name alone; a row then stays under
  1 KB.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)

from vidplat.storage.columns import Id, counter, needed, optional

metadata = MetaData()

batches = Table(
    "batches",
    metadata,
    Column("batch_id", Id, primary_key=True),
    *needed(Text, "source", "output_prefix", "model_id", "model_revision"),
    *needed(Double, "submitted_at"),
    *optional(Double, "deadline_at"),
    *needed(Integer, "priority"),
    *needed(Double, "quality_floor"),
    *needed(Text, "on_infeasible"),
    *needed(Integer, "total"),
    *optional(Text, "method"),
    *needed(Text, "state"),
    *optional(Text, "held_by"),  # the platform process that works on it
    Column("held_until", Double, nullable=False, default=0.0),
    Index("batches_by_prefix", "output_prefix"),
    Index("batches_by_time", "submitted_at"),
)

jobs = Table(
    "jobs",
    metadata,
    # what is asked for; batch_id is no foreign key: it would be checked a million times per submit
    *needed(Id, "job_id", "batch_id"),
    *needed(Integer, "row"),
    *optional(Text, "external_id"),
    *needed(Text, "prompt", "negative_prompt"),
    *needed(Integer, "width", "height", "num_frames", "fps", "num_inference_steps"),
    *needed(Double, "guidance_scale"),
    *needed(BigInteger, "seed"),
    *optional(Text, "model_id", "model_revision"),  # NULL: the batch's
    *needed(Integer, "priority"),
    *needed(Double, "deadline_at"),  # infinity: none
    *optional(Text, "method"),
    # where the source was at submit, without secrets; NULL: made from text alone
    *optional(Text, "input_video", "input_sha256"),
    *optional(Double, "strength"),
    # where it stands
    *needed(Text, "state"),
    # number of the latest attempt: the fencing token
    Column("attempt", Integer, nullable=False, default=0),
    # attempts up to this one no longer count against it
    Column("forgiven", Integer, nullable=False, default=0),
    Column("not_before", Double, nullable=False, default=0.0),
    *optional(Text, "avoid"),  # JSON list of worker ids
    Column("rung_down", Integer, nullable=False, default=0),
    # the attempt under way, or the last one
    *optional(Text, "owner"),  # the platform process that claimed it; NULL unless running
    *optional(Text, "worker_id", "pool"),
    *optional(Integer, "point_steps"),
    *optional(Text, "point_method"),
    *optional(Double, "predicted_p50_s", "predicted_p90_s", "predicted_quality"),
    *optional(Double, "started_at", "lease_until"),
    *optional(Text, "phase"),
    *optional(Integer, "step", "steps"),
    *optional(Double, "beat_at"),
    # what came of it
    *optional(Double, "finished_at"),
    *optional(Text, "video_uri"),
    *optional(Text, "poster_uri", "meta_uri"),  # a bare name lies beside the video
    *optional(Text, "sha256"),
    *optional(BigInteger, "size_bytes"),
    *optional(Integer, "won_by"),  # the attempt that won the commit
    *optional(Text, "phases", "metrics"),  # JSON
    *optional(Text, "failure_kind", "failure_message"),  # of the last failure, while not done
    *optional(Text, "reused_from"),  # the batch that made this video
    # job_id leads, so that one index finds a job of a batch, a job anywhere, and a prefix typed by
    # a person
    PrimaryKeyConstraint("job_id", "batch_id"),
    UniqueConstraint("batch_id", "row"),
)
# Hands out open jobs in order, counts states and finds running jobs without touching the wide rows.
Index(
    "jobs_by_state",
    jobs.c.batch_id,
    jobs.c.state,
    jobs.c.priority.desc(),
    jobs.c.deadline_at,
    jobs.c.row,
)

attempts = Table(
    "attempts",
    metadata,
    *needed(Id, "job_id", "batch_id"),
    *needed(Integer, "attempt"),
    *needed(Text, "ended", "worker_id", "pool"),
    *needed(Integer, "point_steps"),
    *needed(Text, "point_method"),
    *optional(Double, "predicted_p50_s", "predicted_p90_s"),
    *needed(Double, "started_at", "finished_at"),
    *needed(Integer, "steps_done"),
    *optional(Text, "phases"),  # JSON
    *optional(Text, "failure_kind", "failure_message"),
    PrimaryKeyConstraint("job_id", "batch_id", "attempt"),
    # rows are short: kept inside their key's index they take a quarter less
    sqlite_with_rowid=False,
)

events = Table(
    "events",
    metadata,
    counter(),
    *needed(Id, "batch_id"),
    *optional(Id, "job_id"),
    *needed(Text, "kind"),
    *needed(Double, "at"),
    *optional(Text, "detail"),  # JSON
    Index("events_by_batch", "batch_id", "id"),
)

plans = Table(
    "plans",
    metadata,
    counter(),
    *needed(Id, "batch_id"),
    *needed(Double, "at"),
    *needed(Text, "inputs_sha256", "verdict", "reason"),
    *needed(Double, "earliest_at", "full_quality_at", "finish_p50_at", "finish_p90_at"),
    *needed(Double, "device_seconds", "mean_quality", "quality_bound"),
    *needed(Integer, "jobs", "deferred_count"),
    *needed(Text, "detail"),  # JSON: shares, deferred, notes
    Index("plans_by_batch", "batch_id", "id"),
)

observations = Table(
    "observations",
    metadata,
    counter(),
    *needed(Double, "at"),
    *optional(Id, "batch_id", "job_id"),
    *needed(Text, "model_id", "device_class", "stage"),
    *needed(Double, "seconds"),
    *needed(Text, "features"),  # JSON
    Index("observations_by_cell", "model_id", "device_class", "stage", "id"),
)

cost_states = Table(
    "cost_states",
    metadata,
    Column("key", Text, primary_key=True),
    *needed(Text, "document"),  # JSON
)

workers = Table(
    "workers",
    metadata,
    *needed(Id, "batch_id"),
    *needed(Text, "worker_id", "pool", "device_class"),
    *needed(BigInteger, "free_bytes"),
    *needed(Double, "ready_at", "speed"),
    *optional(Text, "running"),
    *needed(Double, "price_per_s"),
    *needed(Integer, "alive", "suspect"),
    *needed(Double, "seen_at"),
    PrimaryKeyConstraint("batch_id", "worker_id"),
)
