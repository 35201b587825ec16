"""A catalog and a store as a real run would leave them, told from records (see records.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.cli.records import SUBMITTED_AT, a_batch
from vidplat.domain import (
    Batch,
    Failure,
    FailureKind,
    JobRecord,
    JobState,
    OperatingPoint,
    Outcome,
    Progress,
)
from vidplat.storage import open_catalog, open_store
from vidplat.storage.catalog_words import Claim, GiveUp, PlanRecord

VIDEO, POSTER = b"not really a video", b"not really a poster"


def tell(
    folder: Path, records: Sequence[JobRecord], *, state: str | None = None, **wishes: object
) -> tuple[str, Batch]:
    """Writes catalog.db and renders/ below `folder` for these jobs; returns the catalog's URL and
    the batch."""
    url = f"sqlite:///{folder}/catalog.db"
    batch = a_batch(output_prefix=str(folder / "renders"), total=len(records), **wishes)
    store = open_store(batch.output_prefix)
    catalog = open_catalog(url)
    try:
        catalog.add_batch(batch, [record.job for record in records])
        begun = [record for record in records if record.state is not JobState.QUEUED]
        plan = PlanRecord(
            at=SUBMITTED_AT + 1,
            inputs_sha256="",
            verdict="feasible",
            reason="all at full quality",
            earliest_at=0.0,
            full_quality_at=0.0,
            finish_p50_at=SUBMITTED_AT + 40,
            finish_p90_at=SUBMITTED_AT + 50,
            device_seconds=0.0,
            mean_quality=1.0,
            quality_bound=1.0,
            jobs=len(records),
        )
        catalog.save_plan(batch.id, plan)
        claims = [_claim(record) for record in begun]
        catalog.claim(batch.id, claims, now=SUBMITTED_AT + 6, lease_s=30)
        beats = [
            Progress(r.job.id, 1, f"{r.pool}-0", "denoise", 12, 24, SUBMITTED_AT + 7) for r in begun
        ]
        catalog.heartbeat(batch.id, beats, lease_s=30)
        ended = [record for record in begun if record.state.is_final]
        outcomes = [_outcome(record, batch) for record in ended]
        for outcome in outcomes:
            if outcome.artifact is not None:
                for uri, data in (
                    (outcome.artifact.video_uri, VIDEO),
                    (outcome.artifact.poster_uri, POSTER),
                ):
                    store.put(uri.removeprefix(store.uri("x")[:-1]), data)
        catalog.finish(
            batch.id,
            outcomes,
            {r.job.id: GiveUp(r.state) for r in ended if r.state is not JobState.DONE},
        )
        if state is not None:
            catalog.set_batch_state(batch.id, state, at=SUBMITTED_AT + 60)
    finally:
        catalog.close()
    return url, batch


def _claim(record: JobRecord) -> Claim:
    return Claim(
        job_id=record.job.id,
        worker_id=f"{record.pool}-0",
        pool=record.pool or "cloud",
        point=record.point or OperatingPoint(24),
        p50_s=record.predicted_p50_s or 1.0,
        p90_s=record.predicted_p90_s or 1.2,
        quality=record.predicted_quality or 1.0,
        owner="here:1:0",
        reason="full quality",
    )


def _outcome(record: JobRecord, batch: Batch) -> Outcome:
    assert record.point and record.started_at and record.finished_at
    artifact = record.artifact
    if artifact is not None:
        folder = (
            f"{batch.output_prefix}/batches/{batch.id}/jobs/{record.job.id[:2]}/{record.job.id}"
        )
        artifact = replace(
            artifact,
            video_uri=f"{folder}/video.mp4",
            poster_uri=f"{folder}/poster.jpg",
            meta_uri=f"{folder}/meta.json",
            sha256=_sha256(VIDEO),
            size_bytes=len(VIDEO),
        )
    return Outcome(
        job_id=record.job.id,
        attempt=1,
        worker_id=f"{record.pool}-0",
        point=record.point,
        started_at=record.started_at,
        finished_at=record.finished_at,
        phases=record.phases,
        artifact=artifact,
        failure=None if artifact else record.failure or Failure(FailureKind.JOB, "it failed"),
        steps_done=record.point.steps,
    )


def _sha256(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()
