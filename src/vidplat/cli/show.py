"""`vidplat show`: one job with all that is known of it."""

from __future__ import annotations

from vidplat.cli import documents, options, phrases, reach, render
from vidplat.cli.render import Column


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
        render.print_json(
            {
                **documents.of_job(record),
                "attempts": [documents.of_attempt(attempt) for attempt in attempts],
            }
        )
        return
    asked, spec, artifact = record.job, record.job.spec, record.artifact
    took_s = (
        record.finished_at - record.started_at if record.started_at and record.finished_at else None
    )
    render.print_facts(
        [
            ("job", asked.id),
            ("batch", f"{record.batch_id}, row {asked.row}"),
            ("your id", asked.external_id),
            ("state", record.state.value),
            ("failure", record.failure.message if record.failure else None),
            ("prompt", asked.prompt),
            ("not", asked.negative_prompt or None),
            (
                "from",
                f"{asked.input_video}, strength {asked.strength:g}" if asked.input_video else None,
            ),
            ("from sha256", asked.input_sha256),
            ("model", f"{asked.model.id} ({asked.model.revision[:16]})"),
            ("size", f"{spec.width}x{spec.height}, {spec.num_frames} frames at {spec.fps} fps"),
            (
                "asked for",
                f"{spec.num_inference_steps} steps, guidance {spec.guidance_scale:g}, seed "
                f"{spec.seed}",
            ),
            ("made with", record.point.label if record.point else None),
            (
                "quality",
                f"{record.predicted_quality:.3f} predicted"
                if record.predicted_quality is not None
                else None,
            ),
            (
                "predicted",
                f"{phrases.seconds(record.predicted_p50_s)}, p90 "
                f"{phrases.seconds(record.predicted_p90_s)}"
                if record.predicted_p50_s is not None
                else None,
            ),
            (
                "took",
                phrases.seconds(took_s) if took_s is not None and not record.reused_from else None,
            ),
            (
                "phases",
                ", ".join(f"{name} {phrases.seconds(s)}" for name, s in record.phases.items())
                or None,
            ),
            (
                "metrics",
                ", ".join(f"{name} {value:.4g}" for name, value in record.metrics.items()) or None,
            ),
            ("worker", record.worker_id),
            ("started", phrases.moment(record.started_at) if record.started_at else None),
            ("finished", phrases.moment(record.finished_at) if record.finished_at else None),
            ("made by", f"batch {record.reused_from}, earlier" if record.reused_from else None),
            ("video", artifact.video_uri if artifact else None),
            ("sidecar", artifact.meta_uri if artifact else None),
            (
                "bytes",
                f"{artifact.size_bytes:,} ({phrases.size(artifact.size_bytes)})"
                if artifact
                else None,
            ),
            ("sha256", artifact.sha256 if artifact else None),
        ]
    )
    if len(attempts) > 1 or any(attempt.failure for attempt in attempts):
        render.say()
        render.print_table(
            [
                Column("ATTEMPT", right=True),
                Column("ENDED"),
                Column("WORKER"),
                Column("MADE WITH"),
                Column("AT"),
                Column("TOOK", right=True),
                Column("FAILURE", gives_way=True),
            ],
            [
                (
                    one.attempt,
                    one.ended,
                    one.worker_id,
                    one.point.label,
                    phrases.moment(one.finished_at),
                    phrases.seconds(one.finished_at - one.started_at),
                    one.failure.message if one.failure else "",
                )
                for one in attempts
            ],
        )
