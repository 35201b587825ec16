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

metadata = MetaData()

# Ids of ours sort by their bytes everywhere, so that a range of an index answers "starts with".
Id = Text().with_variant(Text(collation="C"), "postgresql")

# A number that counts up by itself: SQLite does that for INTEGER keys alone.
Counter = BigInteger().with_variant(Integer, "sqlite")

batches = Table(
    "batches",
    metadata,
    Column("batch_id", Id, primary_key=True),
    Column("source", Text, nullable=False),
    Column("output_prefix", Text, nullable=False),
    Column("model_id", Text, nullable=False),
    Column("model_revision", Text, nullable=False),
    Column("submitted_at", Double, nullable=False),
    Column("deadline_at", Double),
    Column("priority", Integer, nullable=False),
    Column("quality_floor", Double, nullable=False),
    Column("on_infeasible", Text, nullable=False),
    Column("total", Integer, nullable=False),
    Column("method", Text),
    Column("state", Text, nullable=False),
    Column("held_by", Text),  # the platform process that works on it
    Column("held_until", Double, nullable=False, default=0.0),
    Index("batches_by_prefix", "output_prefix"),
    Index("batches_by_time", "submitted_at"),
)

jobs = Table(
    "jobs",
    metadata,
    # what is asked for
    Column("job_id", Id, nullable=False),
    # no foreign key: it would be checked a million times per submit
    Column("batch_id", Id, nullable=False),
    Column("row", Integer, nullable=False),
    Column("external_id", Text),
    Column("prompt", Text, nullable=False),
    Column("negative_prompt", Text, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("num_frames", Integer, nullable=False),
    Column("fps", Integer, nullable=False),
    Column("num_inference_steps", Integer, nullable=False),
    Column("guidance_scale", Double, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("model_id", Text),  # NULL: the batch's
    Column("model_revision", Text),
    Column("priority", Integer, nullable=False),
    Column("deadline_at", Double, nullable=False),  # infinity: none
    Column("method", Text),
    # where the source was at submit, without secrets; NULL: made from text alone
    Column("input_video", Text),
    Column("input_sha256", Text),
    Column("strength", Double),
    # where it stands
    Column("state", Text, nullable=False),
    # number of the latest attempt: the fencing token
    Column("attempt", Integer, nullable=False, default=0),
    # attempts up to this one no longer count against it
    Column("forgiven", Integer, nullable=False, default=0),
    Column("not_before", Double, nullable=False, default=0.0),
    Column("avoid", Text),  # JSON list of worker ids
    Column("rung_down", Integer, nullable=False, default=0),
    # the attempt under way, or the last one
    Column("owner", Text),  # the platform process that claimed it; NULL unless running
    Column("worker_id", Text),
    Column("pool", Text),
    Column("point_steps", Integer),
    Column("point_method", Text),
    Column("predicted_p50_s", Double),
    Column("predicted_p90_s", Double),
    Column("predicted_quality", Double),
    Column("started_at", Double),
    Column("lease_until", Double),
    Column("phase", Text),
    Column("step", Integer),
    Column("steps", Integer),
    Column("beat_at", Double),
    # what came of it
    Column("finished_at", Double),
    Column("video_uri", Text),
    Column("poster_uri", Text),  # a bare name lies beside the video
    Column("meta_uri", Text),
    Column("sha256", Text),
    Column("size_bytes", BigInteger),
    Column("won_by", Integer),  # the attempt that won the commit
    Column("phases", Text),  # JSON
    Column("metrics", Text),  # JSON
    Column("failure_kind", Text),  # of the last failed attempt, while not done
    Column("failure_message", Text),
    Column("reused_from", Text),  # the batch that made this video
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
    Column("job_id", Id, nullable=False),
    Column("batch_id", Id, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("ended", Text, nullable=False),
    Column("worker_id", Text, nullable=False),
    Column("pool", Text, nullable=False),
    Column("point_steps", Integer, nullable=False),
    Column("point_method", Text, nullable=False),
    Column("predicted_p50_s", Double),
    Column("predicted_p90_s", Double),
    Column("started_at", Double, nullable=False),
    Column("finished_at", Double, nullable=False),
    Column("steps_done", Integer, nullable=False),
    Column("phases", Text),  # JSON
    Column("failure_kind", Text),
    Column("failure_message", Text),
    PrimaryKeyConstraint("job_id", "batch_id", "attempt"),
    # rows are short: kept inside their key's index they take a quarter less
    sqlite_with_rowid=False,
)

events = Table(
    "events",
    metadata,
    Column("id", Counter, primary_key=True, autoincrement=True),
    Column("batch_id", Id, nullable=False),
    Column("job_id", Id),
    Column("kind", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("detail", Text),  # JSON
    Index("events_by_batch", "batch_id", "id"),
)

plans = Table(
    "plans",
    metadata,
    Column("id", Counter, primary_key=True, autoincrement=True),
    Column("batch_id", Id, nullable=False),
    Column("at", Double, nullable=False),
    Column("inputs_sha256", Text, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("earliest_at", Double, nullable=False),
    Column("full_quality_at", Double, nullable=False),
    Column("finish_p50_at", Double, nullable=False),
    Column("finish_p90_at", Double, nullable=False),
    Column("device_seconds", Double, nullable=False),
    Column("mean_quality", Double, nullable=False),
    Column("quality_bound", Double, nullable=False),
    Column("jobs", Integer, nullable=False),
    Column("deferred_count", Integer, nullable=False),
    Column("detail", Text, nullable=False),  # JSON: shares, deferred, notes
    Index("plans_by_batch", "batch_id", "id"),
)

observations = Table(
    "observations",
    metadata,
    Column("id", Counter, primary_key=True, autoincrement=True),
    Column("at", Double, nullable=False),
    Column("batch_id", Id),
    Column("job_id", Id),
    Column("model_id", Text, nullable=False),
    Column("device_class", Text, nullable=False),
    Column("stage", Text, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("features", Text, nullable=False),  # JSON
    Index("observations_by_cell", "model_id", "device_class", "stage", "id"),
)

cost_states = Table(
    "cost_states",
    metadata,
    Column("key", Text, primary_key=True),
    Column("document", Text, nullable=False),  # JSON
)

workers = Table(
    "workers",
    metadata,
    Column("batch_id", Id, nullable=False),
    Column("worker_id", Text, nullable=False),
    Column("pool", Text, nullable=False),
    Column("device_class", Text, nullable=False),
    Column("free_bytes", BigInteger, nullable=False),
    Column("ready_at", Double, nullable=False),
    Column("speed", Double, nullable=False),
    Column("running", Text),
    Column("price_per_s", Double, nullable=False),
    Column("alive", Integer, nullable=False),
    Column("suspect", Integer, nullable=False),
    Column("seen_at", Double, nullable=False),
    PrimaryKeyConstraint("batch_id", "worker_id"),
)
