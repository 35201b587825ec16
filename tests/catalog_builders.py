"""Builders of what the catalog is given and gives back: batches, claims, artifacts and
outcomes.

Neutral defaults, as in builders.py: now is second 0, full quality is 24 steps, a job takes ten
seconds.
"""

from __future__ import annotations

from tests.builders import FLIPBOOK
from vidplat.domain import Artifact, Batch, Failure, ModelRef, OperatingPoint, Outcome
from vidplat.storage.catalog_words import Claim


def a_batch(
    batch_id: str = "b00000000001",
    *,
    prefix: str = "memory://videos",
    submitted_at: float = 0.0,
    deadline_at: float | None = None,
    priority: int = 0,
    quality_floor: float = 0.0,
    model: ModelRef = FLIPBOOK,
    source: str = "prompts.parquet",
) -> Batch:
    return Batch(
        id=batch_id,
        source=source,
        output_prefix=prefix,
        model=model,
        submitted_at=submitted_at,
        deadline_at=deadline_at,
        priority=priority,
        quality_floor=quality_floor,
    )


def a_claim(
    job_id: str,
    owner: str = "here:1:0",
    *,
    worker_id: str = "w1",
    pool: str = "cloud",
    steps: int = 24,
    quality: float = 1.0,
) -> Claim:
    """Ten seconds of work, twelve at p90."""
    point = OperatingPoint(steps, "full" if steps == 24 else "steps")
    return Claim(job_id, worker_id, pool, point, 10.0, 12.0, quality, owner, "full quality")


def an_artifact(
    job_id: str, *, attempt: int = 1, prefix: str = "memory://videos/batches/b00000000001"
) -> Artifact:
    folder = f"{prefix}/jobs/{job_id[:2]}/{job_id}"
    return Artifact(
        f"{folder}/video.mp4",
        f"{folder}/poster.jpg",
        f"{folder}/meta.json",
        "ab" * 32,
        12_345,
        attempt,
    )


def an_outcome(
    job_id: str,
    *,
    attempt: int = 1,
    worker_id: str = "w1",
    artifact: Artifact | None = None,
    failure: Failure | None = None,
    steps: int = 24,
    started_at: float = 0.0,
    finished_at: float = 10.0,
) -> Outcome:
    """Done with an artifact unless a failure is given."""
    made = artifact or (None if failure else an_artifact(job_id, attempt=attempt))
    return Outcome(
        job_id,
        attempt,
        worker_id,
        OperatingPoint(steps),
        started_at,
        finished_at,
        phases={"denoise": 7.0, "decode": 2.5},
        artifact=made,
        failure=failure,
        metrics={"flicker": 0.25},
        steps_done=steps if made else 3,
    )
