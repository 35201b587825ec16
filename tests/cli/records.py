"""Builders of catalog records for reports and tables: neutral defaults, only what matters is
named.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tests.builders import job_id
from vidplat.domain import (
    Artifact,
    Batch,
    Failure,
    FailureKind,
    Job,
    JobRecord,
    JobState,
    ModelRef,
    OperatingPoint,
    VideoSpec,
)
from vidplat.storage.catalog_words import Event, PlanRecord

SUBMITTED_AT = 1_700_000_000.0
MODEL = ModelRef("flipbook", "0123456789abcdef")
SPEC = VideoSpec(
    width=64, height=64, num_frames=33, fps=16, num_inference_steps=24, guidance_scale=5.0, seed=0
)


def a_batch(**changes: Any) -> Batch:
    batch = Batch(
        id="b0123456789a",
        source="prompts.parquet",
        output_prefix="memory://videos",
        model=MODEL,
        submitted_at=SUBMITTED_AT,
        deadline_at=SUBMITTED_AT + 60,
        total=1,
    )
    return replace(batch, **changes)


def a_record(
    row: int = 1,
    prompt: str = "a small red circle drifts left",
    *,
    state: JobState = JobState.DONE,
    steps: int = 24,
    start_s: float = 6.0,
    took_s: float = 2.0,
    p50_s: float = 2.0,
    pool: str = "cloud",
    quality: float = 1.0,
    failure: str | None = None,
    external_id: str | None = None,
    prefix: str = "memory://videos",
    batch_id: str = "b0123456789a",
    **changes: Any,
) -> JobRecord:
    """A job that took `took_s` from `start_s` seconds after submit; not done means no artifact."""
    spec = replace(SPEC, seed=row)
    job = Job(
        job_id(prompt, "", spec, MODEL), prompt, "", spec, MODEL, row, external_id=external_id
    )
    done = state is JobState.DONE
    folder = f"{prefix}/batches/{batch_id}/jobs/{job.id[:2]}/{job.id}"
    record = JobRecord(
        batch_id=batch_id,
        job=job,
        state=state,
        attempt=1,
        point=OperatingPoint(steps) if state is not JobState.QUEUED else None,
        predicted_p50_s=p50_s,
        predicted_p90_s=p50_s * 1.2,
        predicted_quality=quality,
        worker_id=f"{pool}-0",
        pool=pool,
        started_at=SUBMITTED_AT + start_s if state is not JobState.QUEUED else None,
        finished_at=SUBMITTED_AT + start_s + took_s if state.is_final else None,
        artifact=Artifact(
            f"{folder}/video.mp4",
            f"{folder}/poster.jpg",
            f"{folder}/meta.json",
            "ab" * 32,
            12_345,
            attempt=1,
        )
        if done
        else None,
        failure=Failure(FailureKind.JOB, failure) if failure else None,
        phases={"encode": 0.02, "denoise": took_s * 0.7, "decode": took_s * 0.25} if done else {},
    )
    return replace(record, **changes)


@dataclass
class Rows:
    """Records as a catalog would give them, in the order of their rows."""

    records: Sequence[JobRecord] = ()
    state: str = "done"  # of the batch
    promise: PlanRecord | None = None
    causes: Mapping[str, str] = field(default_factory=dict)  # that a run's score remembers

    def batch_state(self, batch_id: str) -> str:
        return self.state

    def plans(self, batch_id: str, limit: int | None = None) -> list[PlanRecord]:
        return [self.promise] if self.promise else []

    def events(self, batch_id: str, *, limit: int, newest_first: bool) -> list[Event]:
        return [Event(1, SUBMITTED_AT, batch_id, None, "scored", {"causes": self.causes})]

    def every_job(
        self, batch_id: str, *, states: Iterable[JobState] | None = None
    ) -> Iterator[JobRecord]:
        wanted = None if states is None else set(states)
        rows = sorted(self.records, key=lambda record: record.job.row)
        return (record for record in rows if wanted is None or record.state in wanted)
