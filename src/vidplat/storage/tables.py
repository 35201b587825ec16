"""The SQL tables.

    batches       one row per submit: state, holder (who works on it), wishes
    jobs          one row per job of a batch: what is asked, where it stands, what came of it
    attempts      append-only: one row per ended attempt
    events        append-only: what happened, for people
    plans         append-only: each plan's promise
    observations  append-only: measured stage seconds, the cost model's food
    cost_states   the cost model's memory, one JSON document per key
    workers       the workers a batch last saw
    answers       what each caller was last answered, in case that was lost on its way (`door.py`)
    clocks        for SQLite: a machine's own time, by each of its starts (`clock.py`)

All times are seconds since the Unix epoch as doubles; `held_until`, `lease_until` and `beat_at` are
by the database's clock, all others by the platform's. Mappings are JSON text: they are read whole
and never searched. How rows become values is in `rows.py`; how an old catalog reaches this shape is
in `migrations/`, and a contract test holds both to the same result.

Two choices to know:

- A job without a deadline stores `infinity`, because SQLite sorts NULL first and PostgreSQL last,
  and the index that hands out open jobs sorts by deadline.
- A poster or sidecar that lies beside its video is stored by its name alone; a row then stays under
  1 KB.
"""

from __future__ import annotations

import sqlalchemy as sa

from vidplat.storage.columns import Id, counter, needed, optional

metadata = sa.MetaData()

batches = sa.Table(
    "batches",
    metadata,
    sa.Column("batch_id", Id, primary_key=True),
    *needed(sa.Text, "source", "output_prefix", "model_id", "model_revision"),
    *needed(sa.Double, "submitted_at"),
    *optional(sa.Double, "deadline_at"),
    *needed(sa.Integer, "priority"),
    *needed(sa.Double, "quality_floor"),
    *needed(sa.Text, "on_infeasible"),
    *needed(sa.Integer, "total"),
    *optional(sa.Text, "method"),
    *needed(sa.Text, "state"),
    *optional(sa.Text, "held_by"),  # the platform process that works on it
    sa.Column("held_until", sa.Double, nullable=False, default=0.0),
    *optional(sa.Double, "finish_p50_at", "finish_p90_at"),  # by the plan that is being followed
    sa.Index("batches_by_prefix", "output_prefix"),
    sa.Index("batches_by_time", "submitted_at"),
)

jobs = sa.Table(
    "jobs",
    metadata,
    # what is asked for; batch_id is no foreign key: it would be checked a million times per submit
    *needed(Id, "job_id", "batch_id"),
    *needed(sa.Integer, "row"),
    *optional(sa.Text, "external_id"),
    *needed(sa.Text, "prompt", "negative_prompt"),
    *needed(sa.Integer, "width", "height", "num_frames", "fps", "num_inference_steps"),
    *needed(sa.Double, "guidance_scale"),
    *needed(sa.BigInteger, "seed"),
    *optional(sa.Text, "model_id", "model_revision"),  # NULL: the batch's
    *needed(sa.Integer, "priority"),
    *needed(sa.Double, "deadline_at"),  # infinity: none
    *optional(sa.Text, "method"),
    # where the source was at submit, without secrets; NULL: made from text alone
    *optional(sa.Text, "input_video", "input_sha256"),
    *optional(sa.Double, "strength"),
    # where it stands
    *needed(sa.Text, "state"),
    *needed(sa.Integer, "attempt"),  # number of the latest one: the fencing token
    *needed(sa.Integer, "forgiven"),  # attempts up to this one no longer count against it
    *needed(sa.Double, "not_before"),
    *optional(sa.Text, "avoid"),  # JSON list of worker ids
    *needed(sa.Integer, "rung_down"),
    # the attempt under way, or the last one
    *optional(sa.Text, "owner"),  # the platform process that claimed it; NULL unless running
    *optional(sa.Text, "worker_id", "pool"),
    *optional(sa.Integer, "point_steps"),
    *optional(sa.Text, "point_method"),
    *optional(sa.Double, "predicted_p50_s", "predicted_p90_s", "predicted_quality"),
    *optional(sa.Double, "started_at", "lease_until"),
    *optional(sa.Text, "phase"),
    *optional(sa.Integer, "step", "steps"),
    *optional(sa.Double, "beat_at"),
    # what came of it
    *optional(sa.Double, "finished_at"),
    *optional(sa.Text, "video_uri"),
    *optional(sa.Text, "poster_uri", "meta_uri"),  # a bare name lies beside the video
    *optional(sa.Text, "sha256"),
    *optional(sa.BigInteger, "size_bytes"),
    *optional(sa.Integer, "won_by"),  # the attempt that won the commit
    *optional(sa.Text, "phases", "metrics"),  # JSON
    *optional(sa.Text, "failure_kind", "failure_message"),  # of the last failure, while not done
    *optional(sa.Text, "reused_from"),  # the batch that made this video
    # job_id leads, so that one index finds a job of a batch, a job anywhere, and a prefix typed by
    # a person
    sa.PrimaryKeyConstraint("job_id", "batch_id"),
    sa.UniqueConstraint("batch_id", "row"),
)
# Hands out open jobs in order, counts states and finds running jobs without touching the wide rows.
sa.Index(
    "jobs_by_state",
    jobs.c.batch_id,
    jobs.c.state,
    jobs.c.priority.desc(),
    jobs.c.deadline_at,
    jobs.c.row,
)

attempts = sa.Table(
    "attempts",
    metadata,
    *needed(Id, "job_id", "batch_id"),
    *needed(sa.Integer, "attempt"),
    *needed(sa.Text, "ended", "worker_id", "pool"),
    *needed(sa.Integer, "point_steps"),
    *needed(sa.Text, "point_method"),
    *optional(sa.Double, "predicted_p50_s", "predicted_p90_s"),
    *needed(sa.Double, "started_at", "finished_at"),
    *needed(sa.Integer, "steps_done"),
    *optional(sa.Text, "phases"),  # JSON
    *optional(sa.Text, "failure_kind", "failure_message"),
    sa.PrimaryKeyConstraint("job_id", "batch_id", "attempt"),
    # rows are short: kept inside their key's index they take a quarter less
    sqlite_with_rowid=False,
)

events = sa.Table(
    "events",
    metadata,
    counter(),
    *needed(Id, "batch_id"),
    *optional(Id, "job_id"),
    *needed(sa.Text, "kind"),
    *needed(sa.Double, "at"),
    *optional(sa.Text, "detail"),  # JSON
    sa.Index("events_by_batch", "batch_id", "id"),
)

plans = sa.Table(
    "plans",
    metadata,
    counter(),
    *needed(Id, "batch_id"),
    *needed(sa.Double, "at"),
    *needed(sa.Text, "inputs_sha256", "verdict", "reason"),
    *needed(sa.Double, "earliest_at", "full_quality_at", "finish_p50_at", "finish_p90_at"),
    *needed(sa.Double, "device_seconds", "mean_quality", "quality_bound"),
    *needed(sa.Integer, "jobs", "deferred_count"),
    *needed(sa.Text, "detail"),  # JSON: shares, deferred, notes
    sa.Index("plans_by_batch", "batch_id", "id"),
)

observations = sa.Table(
    "observations",
    metadata,
    counter(),
    *needed(sa.Double, "at"),
    *optional(Id, "batch_id", "job_id"),
    *needed(sa.Text, "model_id", "device_class", "stage"),
    *needed(sa.Double, "seconds"),
    *needed(sa.Text, "features"),  # JSON
    sa.Index("observations_by_cell", "model_id", "device_class", "stage", "id"),
)

cost_states = sa.Table(
    "cost_states",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    *needed(sa.Text, "document"),  # JSON
)

workers = sa.Table(
    "workers",
    metadata,
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

answers = sa.Table(
    "answers",
    metadata,
    sa.Column("client", sa.Text, primary_key=True),  # one thread of one process
    *needed(sa.Integer, "number"),  # of its latest change
    *optional(sa.Text, "answer"),  # JSON
    *needed(sa.Double, "at"),
)

clocks = sa.Table(
    "clocks",
    metadata,
    sa.Column("boot", sa.Text, primary_key=True),
    *needed(sa.Double, "ahead_s"),  # of the epoch's seconds over those since this start
)
