"""The one door where rows become dataclasses and dataclasses become rows.

`..._row` makes what is written, `to_...` what is read. A column with the name of a field holds its
value. What differs is spelled out here: enumerations are their text, mappings are JSON, no deadline
is infinity, and a file beside its video is its bare name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from sqlalchemy import RowMapping, Table

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
from vidplat.storage.tables import attempts, batches, events, jobs

POINT_COLUMNS = ("point_steps", "point_method")


def same_names(kind: type[Any], table: Table, *differing: str) -> tuple[str, ...]:
    """The fields of a dataclass that a column of their name holds as they are."""
    names = (each.name for each in fields(kind))
    return tuple(name for name in names if name in table.c and name not in differing)


_BATCH = same_names(Batch, batches, "on_infeasible")
_SPEC = same_names(VideoSpec, jobs)
_JOB = same_names(Job, jobs, "deadline_at")
_OPEN = same_names(OpenJob, jobs, "avoid")
_RECORD = same_names(JobRecord, jobs, "state", "phases", "metrics")
_RUNNING = same_names(RunningJob, jobs, "phase", "step", "steps")
_ATTEMPT = same_names(AttemptRecord, attempts, "phases")
_EVENT = same_names(Event, events, "detail")
_ARTIFACT = same_names(Artifact, jobs, "attempt", "poster_uri", "meta_uri")


# --- values become rows ---------------------------------------------------------------------------


def to_json(value: Mapping[str, Any] | list[str]) -> str | None:
    """Compact ASCII JSON, in which nothing harms a database; empty is NULL."""
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
        **{name: getattr(batch, name) for name in _BATCH},
        "batch_id": batch.id,
        "model_id": batch.model.id,
        "model_revision": batch.model.revision,
        "on_infeasible": batch.on_infeasible.value,
        "state": state,
    }


# The columns a new job fills, in the order of `new_job_row`.
NEW_JOB_COLUMNS = (
    "job_id", "batch_id", "row", "external_id", "prompt", "negative_prompt", *_SPEC,
    "model_id", "model_revision", "priority", "deadline_at", "method", "input_video",
    "input_sha256", "strength", "state", "attempt", "forgiven", "not_before", "rung_down",
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
        job.input_sha256, job.strength, "queued", 0, 0, 0.0, 0,
    )  # fmt: skip


def stored_deadline(deadline_at: float | None) -> float:
    return math.inf if deadline_at is None else deadline_at


def point_row(point: OperatingPoint) -> dict[str, Any]:
    return {"point_steps": point.steps, "point_method": point.method}


def artifact_row(artifact: Artifact) -> dict[str, Any]:
    return {
        **{name: getattr(artifact, name) for name in _ARTIFACT},
        "poster_uri": beside(artifact.poster_uri, artifact.video_uri),
        "meta_uri": beside(artifact.meta_uri, artifact.video_uri),
        "won_by": artifact.attempt,
    }


# --- rows become values ---------------------------------------------------------------------------


def to_batch(row: RowMapping) -> Batch:
    return Batch(
        **_taken(row, _BATCH),
        id=row["batch_id"],
        model=ModelRef(row["model_id"], row["model_revision"]),
        on_infeasible=OnInfeasible(row["on_infeasible"]),
    )


def to_job(row: RowMapping) -> Job:
    """`model_id` and `model_revision` must already be filled in from the batch."""
    return Job(
        **_taken(row, _JOB),
        id=row["job_id"],
        spec=VideoSpec(**_taken(row, _SPEC)),
        model=ModelRef(row["model_id"], row["model_revision"]),
        deadline_at=None if row["deadline_at"] == math.inf else row["deadline_at"],
    )


def to_point(row: RowMapping) -> OperatingPoint:
    return OperatingPoint(*(row[name] for name in POINT_COLUMNS))


def to_failure(row: RowMapping) -> Failure | None:
    kind = row["failure_kind"]
    return None if kind is None else Failure(FailureKind(kind), row["failure_message"])


def to_artifact(row: RowMapping) -> Artifact | None:
    video_uri = row["video_uri"]
    if video_uri is None:
        return None
    return Artifact(
        **_taken(row, _ARTIFACT),
        poster_uri=whole(row["poster_uri"], video_uri),
        meta_uri=whole(row["meta_uri"], video_uri),
        attempt=row["won_by"],
    )


def to_open_job(row: RowMapping) -> OpenJob:
    avoid = frozenset(json.loads(row["avoid"])) if row["avoid"] else frozenset()
    return OpenJob(to_job(row), avoid=avoid, **_taken(row, _OPEN))


def to_job_record(row: RowMapping) -> JobRecord:
    return JobRecord(
        **_taken(row, _RECORD),
        job=to_job(row),
        state=JobState(row["state"]),
        point=None if row["point_steps"] is None else to_point(row),
        artifact=to_artifact(row),
        failure=to_failure(row),
        phases=from_json(row["phases"]),
        metrics=from_json(row["metrics"]),
    )


def to_running_job(row: RowMapping) -> RunningJob:
    return RunningJob(
        **_taken(row, _RUNNING),
        point=to_point(row),
        phase=row["phase"] or "",
        step=row["step"] or 0,
        steps=row["steps"] or row["point_steps"],
    )


def to_attempt(row: RowMapping) -> AttemptRecord:
    """`forgiven` comes from the job's row."""
    return AttemptRecord(
        **_taken(row, _ATTEMPT),
        point=to_point(row),
        phases=from_json(row["phases"]),
        failure=to_failure(row),
        counts=row["ended"] == "failed" and row["attempt"] > row["forgiven"],
    )


def to_event(row: RowMapping) -> Event:
    return Event(**_taken(row, _EVENT), detail=from_json(row["detail"]))


def _taken(row: RowMapping, names: Iterable[str]) -> dict[str, Any]:
    return {name: row[name] for name in names}
