"""The SQL tables, and the one door where rows become dataclasses and dataclasses become rows.

    batches       one row per submit                     state, holder (who works on it), wishes
    jobs          one row per job of a batch             what is asked, where it stands, what came
                  of it
    attempts      append-only: one row per ended attempt
    events        append-only: what happened, for people
    plans         append-only: each plan's promise
    observations  append-only: measured stage seconds, the cost model's food
    cost_states   the cost model's memory, one JSON document per key
    workers       the workers a batch last saw

All times are seconds since the Unix epoch as doubles. Mappings are JSON text: they are read whole
and never searched. The statements over these tables are in `catalog.py` (what is) and `journal.py`
(what was); how an old catalog reaches this shape is in `migrations/`, and a contract test holds
both to the same result.

Two choices to know:

- A job without a deadline stores `infinity`, because SQLite sorts NULL first and PostgreSQL last,
  and the index that hands out open jobs sorts by deadline.
- A poster or sidecar that lies beside its video is stored by its name alone; a row then stays under
  1 KB.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    RowMapping,
    Table,
    Text,
    UniqueConstraint,
)

from vidplat.domain import (
    Artifact,
    Batch,
    Failure,
    FailureKind,
    Job,
    JobRecord,
    JobState,
    ModelRef,
    OnInfeasible,
    OpenJob,
    OperatingPoint,
    VideoSpec,
)
from vidplat.storage.catalog_words import AttemptRecord, Event, RunningJob

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
    Column(
        "batch_id", Id, nullable=False
    ),  # no foreign key: it would be checked a million times per submit
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
    Column(
        "input_video", Text
    ),  # where the source was at submit, without secrets; NULL: made from text alone
    Column("input_sha256", Text),
    Column("strength", Double),
    # where it stands
    Column("state", Text, nullable=False),
    Column(
        "attempt", Integer, nullable=False, default=0
    ),  # number of the latest attempt: the fencing token
    Column(
        "forgiven", Integer, nullable=False, default=0
    ),  # attempts up to this one no longer count against it
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


# --- values become rows ---------------------------------------------------------------------------


def to_json(value: Mapping[str, Any] | list[str]) -> str | None:
    """Compact ASCII JSON, so that no control character or lone surrogate reaches the database;
    empty is NULL."""
    return json.dumps(value, separators=(",", ":")) if value else None


def from_json(text: str | None) -> dict[str, Any]:
    return dict(json.loads(text)) if text else {}


def beside(uri: str, video_uri: str) -> str:
    """`uri` as stored: its bare name when it lies in the video's folder."""
    folder = video_uri.rpartition("/")[0] + "/"
    name = uri.removeprefix(folder)
    return name if uri.startswith(folder) and name and "/" not in name else uri


def whole(stored: str, video_uri: str) -> str:
    """The inverse of `beside`."""
    return stored if "/" in stored else f"{video_uri.rpartition('/')[0]}/{stored}"


def batch_row(batch: Batch, state: str) -> dict[str, Any]:
    return {
        "batch_id": batch.id,
        "source": batch.source,
        "output_prefix": batch.output_prefix,
        "model_id": batch.model.id,
        "model_revision": batch.model.revision,
        "submitted_at": batch.submitted_at,
        "deadline_at": batch.deadline_at,
        "priority": batch.priority,
        "quality_floor": batch.quality_floor,
        "on_infeasible": batch.on_infeasible.value,
        "total": batch.total,
        "method": batch.method,
        "state": state,
    }


# The columns a new job fills, in the order of `new_job_row`.
NEW_JOB_COLUMNS = (
    "job_id", "batch_id", "row", "external_id", "prompt", "negative_prompt",
    "width", "height", "num_frames", "fps", "num_inference_steps", "guidance_scale", "seed",
    "model_id", "model_revision", "priority", "deadline_at", "method", "input_video",
    "input_sha256", "strength",
    "state", "attempt", "forgiven", "not_before", "rung_down",
)  # fmt: skip


def new_job_row(job: Job, batch: Batch) -> tuple[Any, ...]:
    """A tuple and not a mapping: a million of these are built in one go."""
    spec, own_model = job.spec, job.model != batch.model
    return (
        job.id, batch.id, job.row, job.external_id, job.prompt, job.negative_prompt,
        spec.width, spec.height, spec.num_frames, spec.fps, spec.num_inference_steps,
        spec.guidance_scale, spec.seed,
        job.model.id if own_model else None, job.model.revision if own_model else None,
        job.priority, stored_deadline(job.deadline_at), job.method, job.input_video,
        job.input_sha256, job.strength,
        "queued", 0, 0, 0.0, 0,
    )  # fmt: skip


def stored_deadline(deadline_at: float | None) -> float:
    return math.inf if deadline_at is None else deadline_at


def artifact_row(artifact: Artifact) -> dict[str, Any]:
    return {
        "video_uri": artifact.video_uri,
        "poster_uri": beside(artifact.poster_uri, artifact.video_uri),
        "meta_uri": beside(artifact.meta_uri, artifact.video_uri),
        "sha256": artifact.sha256,
        "size_bytes": artifact.size_bytes,
        "won_by": artifact.attempt,
    }


# --- rows become values ---------------------------------------------------------------------------


def to_batch(row: RowMapping) -> Batch:
    return Batch(
        id=row["batch_id"],
        source=row["source"],
        output_prefix=row["output_prefix"],
        model=ModelRef(row["model_id"], row["model_revision"]),
        submitted_at=row["submitted_at"],
        deadline_at=row["deadline_at"],
        priority=row["priority"],
        quality_floor=row["quality_floor"],
        on_infeasible=OnInfeasible(row["on_infeasible"]),
        total=row["total"],
        method=row["method"],
    )


def to_job(row: RowMapping) -> Job:
    """`model_id` and `model_revision` must already be filled in from the batch."""
    return Job(
        id=row["job_id"],
        prompt=row["prompt"],
        negative_prompt=row["negative_prompt"],
        spec=VideoSpec(
            width=row["width"],
            height=row["height"],
            num_frames=row["num_frames"],
            fps=row["fps"],
            num_inference_steps=row["num_inference_steps"],
            guidance_scale=row["guidance_scale"],
            seed=row["seed"],
        ),
        model=ModelRef(row["model_id"], row["model_revision"]),
        row=row["row"],
        external_id=row["external_id"],
        priority=row["priority"],
        deadline_at=None if row["deadline_at"] == math.inf else row["deadline_at"],
        method=row["method"],
        input_video=row["input_video"],
        input_sha256=row["input_sha256"],
        strength=row["strength"],
    )


def to_point(row: RowMapping) -> OperatingPoint | None:
    if row["point_steps"] is None:
        return None
    return OperatingPoint(row["point_steps"], row["point_method"])


def to_failure(row: RowMapping) -> Failure | None:
    return (
        None
        if row["failure_kind"] is None
        else Failure(FailureKind(row["failure_kind"]), row["failure_message"])
    )


def to_artifact(row: RowMapping) -> Artifact | None:
    video_uri = row["video_uri"]
    if video_uri is None:
        return None
    return Artifact(
        video_uri=video_uri,
        poster_uri=whole(row["poster_uri"], video_uri),
        meta_uri=whole(row["meta_uri"], video_uri),
        sha256=row["sha256"],
        size_bytes=row["size_bytes"],
        attempt=row["won_by"],
    )


def to_open_job(row: RowMapping) -> OpenJob:
    return OpenJob(
        job=to_job(row),
        attempt=row["attempt"],
        not_before=row["not_before"],
        avoid=frozenset(json.loads(row["avoid"])) if row["avoid"] else frozenset(),
        rung_down=row["rung_down"],
    )


def to_job_record(row: RowMapping) -> JobRecord:
    return JobRecord(
        batch_id=row["batch_id"],
        job=to_job(row),
        state=JobState(row["state"]),
        attempt=row["attempt"],
        point=to_point(row),
        predicted_p50_s=row["predicted_p50_s"],
        predicted_p90_s=row["predicted_p90_s"],
        predicted_quality=row["predicted_quality"],
        worker_id=row["worker_id"],
        pool=row["pool"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        artifact=to_artifact(row),
        failure=to_failure(row),
        phases=from_json(row["phases"]),
        metrics=from_json(row["metrics"]),
        not_before=row["not_before"],
        reused_from=row["reused_from"],
    )


def to_running_job(row: RowMapping) -> RunningJob:
    return RunningJob(
        job_id=row["job_id"],
        row=row["row"],
        attempt=row["attempt"],
        worker_id=row["worker_id"],
        pool=row["pool"],
        owner=row["owner"],
        point=OperatingPoint(row["point_steps"], row["point_method"]),
        phase=row["phase"] or "",
        step=row["step"] or 0,
        steps=row["steps"] or row["point_steps"],
        started_at=row["started_at"],
        beat_at=row["beat_at"],
        lease_until=row["lease_until"],
        predicted_p50_s=row["predicted_p50_s"],
        predicted_p90_s=row["predicted_p90_s"],
    )


def to_attempt(row: RowMapping) -> AttemptRecord:
    """`forgiven` comes from the job's row."""
    return AttemptRecord(
        job_id=row["job_id"],
        attempt=row["attempt"],
        ended=row["ended"],
        worker_id=row["worker_id"],
        pool=row["pool"],
        point=OperatingPoint(row["point_steps"], row["point_method"]),
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        steps_done=row["steps_done"],
        predicted_p50_s=row["predicted_p50_s"],
        predicted_p90_s=row["predicted_p90_s"],
        phases=from_json(row["phases"]),
        failure=to_failure(row),
        counts=row["ended"] == "failed" and row["attempt"] > row["forgiven"],
    )


def to_event(row: RowMapping) -> Event:
    return Event(
        row["id"], row["at"], row["batch_id"], row["job_id"], row["kind"], from_json(row["detail"])
    )
