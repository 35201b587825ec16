"""`vidplat show`: one job with all that is known of it."""

from __future__ import annotations

from collections.abc import Iterator

from vidplat.cli import documents, options, phrases, reach, render
from vidplat.domain import JobRecord
from vidplat.methods.language import made_with


def show_job(
    job: options.JobId,
    batch: options.InBatch = None,
    catalog: options.Catalog = None,
    json: options.Json = False,
) -> None:
    """All about one job. What was asked, how it was made, where the video is, every attempt."""
    with reach.open_catalog(catalog) as opened:
        record = reach.job_named(opened, job, batch)
        attempts = opened.attempts(record.batch_id, record.job.id)
    if json:
        told = [documents.of_attempt(attempt) for attempt in attempts]
        render.print_json({**documents.of_job(record), "attempts": told})
        return
    render.print_facts(_facts(record))
    if len(attempts) > 1 or any(attempt.failure for attempt in attempts):
        render.say()
        render.print_table(
            ["ATTEMPT", "ENDED", "WORKER", "MADE WITH", "AT", "TOOK", "FAILURE"],
            [
                (
                    one.attempt,
                    one.ended,
                    one.worker_id,
                    made_with(one.point),
                    phrases.moment(one.finished_at),
                    phrases.seconds(one.finished_at - one.started_at),
                    one.failure.message if one.failure else "",
                )
                for one in attempts
            ],
            right=("ATTEMPT", "TOOK"),
            wide="FAILURE",
        )


def _facts(record: JobRecord) -> Iterator[tuple[str, object]]:
    """What is known, by name; None is left out when it is printed."""
    job, spec, artifact = record.job, record.job.spec, record.artifact
    yield "job", job.id
    yield "batch", f"{record.batch_id}, row {job.row}"
    yield "your id", job.external_id
    yield "state", record.state
    if record.failure:
        yield "failure", record.failure.message
    yield "prompt", job.prompt
    yield "not", job.negative_prompt or None
    if job.input_video:
        yield "from", f"{job.input_video}, strength {job.strength:g}"
    yield "from sha256", job.input_sha256
    yield "model", f"{job.model.id} ({job.model.revision[:16]})"
    yield "size", f"{spec.width}x{spec.height}, {spec.num_frames} frames at {spec.fps} fps"
    steps = f"{spec.num_inference_steps} steps"
    yield "asked for", f"{steps}, guidance {spec.guidance_scale:g}, seed {spec.seed}"
    yield "made with", record.point and made_with(record.point)
    if record.predicted_quality is not None:
        yield "quality", f"{record.predicted_quality:.3f} predicted"
    if record.predicted_p50_s is not None:
        p50, p90 = map(phrases.seconds, (record.predicted_p50_s, record.predicted_p90_s))
        yield "predicted", f"{p50}, p90 {p90}"
    if record.started_at and record.finished_at and not record.reused_from:
        yield "took", phrases.seconds(record.finished_at - record.started_at)
    phases = (f"{name} {phrases.seconds(seconds)}" for name, seconds in record.phases.items())
    yield "phases", ", ".join(phases) or None
    metrics = (f"{name} {value:.4g}" for name, value in record.metrics.items())
    yield "metrics", ", ".join(metrics) or None
    yield "worker", record.worker_id
    yield "started", phrases.moment(record.started_at) if record.started_at else None
    yield "finished", phrases.moment(record.finished_at) if record.finished_at else None
    if record.reused_from:
        yield "made by", f"batch {record.reused_from}, earlier"
    if artifact:
        yield "video", artifact.video_uri
        yield "sidecar", artifact.meta_uri
        yield "bytes", f"{artifact.size_bytes:,} ({phrases.size(artifact.size_bytes)})"
        yield "sha256", artifact.sha256
