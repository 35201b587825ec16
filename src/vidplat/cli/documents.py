"""The values that `--json` prints. Their keys are a promise to scripts: keys may be added, none is
renamed.

Moments are ISO 8601 in UTC, durations are numbers of seconds and end in `_s`, sizes end in
`_bytes`. What is not known is null. Text from users is given as it is: JSON escapes it.
docs/commands.md lists the keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from vidplat.domain import Batch, JobRecord, JobState

if TYPE_CHECKING:
    from vidplat.platform.interface import BatchResult, PlanAnswer, Score
    from vidplat.scheduler.decision import Plan
    from vidplat.storage.catalog_words import (
        AttemptRecord,
        Event,
        PlanRecord,
        RunningJob,
        StepTotals,
    )

Document = dict[str, Any]
FAR_FUTURE = 250_000_000_000.0  # the year 9892; a plan that never ends says infinity


def moment(at: float | None) -> str | None:
    """`2026-11-20T21:45:10.125Z`."""
    if at is None or not 0 < at < FAR_FUTURE:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def of_batch(batch: Batch, state: str, counts: Mapping[JobState, int]) -> Document:
    return {
        "batch": batch.id,
        "state": state,
        "source": batch.source,
        "model": batch.model.id,
        "revision": batch.model.revision,
        "output": batch.output_prefix,
        "submitted_at": moment(batch.submitted_at),
        "deadline_at": moment(batch.deadline_at),
        "priority": batch.priority,
        "quality_floor": batch.quality_floor,
        "on_infeasible": batch.on_infeasible.value,
        "method": batch.method,
        "total": batch.total,
        "jobs": {state.value: counts.get(state, 0) for state in JobState},
    }


def of_job(record: JobRecord) -> Document:
    job, spec, point, artifact = record.job, record.job.spec, record.point, record.artifact
    return {
        "batch": record.batch_id,
        "job": job.id,
        "row": job.row,
        "id": job.external_id,
        "state": record.state.value,
        "prompt": job.prompt,
        "negative_prompt": job.negative_prompt,
        "model": job.model.id,
        "spec": {
            "width": spec.width,
            "height": spec.height,
            "num_frames": spec.num_frames,
            "fps": spec.fps,
            "num_inference_steps": spec.num_inference_steps,
            "guidance_scale": spec.guidance_scale,
            "seed": spec.seed,
        },
        "input_video": job.input_video,
        "input_sha256": job.input_sha256,
        "strength": job.strength,
        "priority": job.priority,
        "deadline_at": moment(job.deadline_at),
        "attempt": record.attempt,
        "point": None
        if point is None
        else {
            "method": point.method,
            "steps": point.steps,
            "label": point.label,
        },
        "predicted_p50_s": record.predicted_p50_s,
        "predicted_p90_s": record.predicted_p90_s,
        "predicted_quality": record.predicted_quality,
        "worker": record.worker_id,
        "pool": record.pool,
        "started_at": moment(record.started_at),
        "finished_at": moment(record.finished_at),
        "video": artifact.video_uri if artifact else None,
        "poster": artifact.poster_uri if artifact else None,
        "meta": artifact.meta_uri if artifact else None,
        "sha256": artifact.sha256 if artifact else None,
        "size_bytes": artifact.size_bytes if artifact else None,
        "failure": {"kind": record.failure.kind.value, "message": record.failure.message}
        if record.failure
        else None,
        "phases_s": dict(record.phases),
        "metrics": dict(record.metrics),
        "reused_from": record.reused_from,
    }


def of_running(job: RunningJob) -> Document:
    return {
        "job": job.job_id,
        "row": job.row,
        "attempt": job.attempt,
        "worker": job.worker_id,
        "pool": job.pool,
        "point": job.point.label,
        "phase": job.phase,
        "step": job.step,
        "steps": job.steps,
        "started_at": moment(job.started_at),
        "heard_at": moment(job.beat_at),
    }


def of_steps(steps: StepTotals) -> Document:
    return {"done": steps.done, "running": steps.running, "ahead": steps.ahead}


def of_promise(plan: Plan | PlanRecord) -> Document:
    """A plan's promise, without its assignments."""
    return {
        "verdict": str(plan.verdict),
        "reason": plan.reason,
        "finish_p50_at": moment(plan.finish_p50_at),
        "finish_p90_at": moment(plan.finish_p90_at),
        "earliest_at": moment(plan.earliest_at),
        "full_quality_at": moment(plan.full_quality_at),
        "device_seconds": plan.device_seconds,
        "mean_quality": plan.mean_quality,
        "quality_bound": plan.quality_bound,
        "notes": list(plan.notes),
    }


def of_answer(answer: PlanAnswer) -> Document:
    """What `plan --json` prints."""
    plan, start = answer.plan, answer.batch.submitted_at
    shares: dict[tuple[str, str], list[Any]] = {}
    for one in plan.assignments:
        shares.setdefault((one.pool, one.point.label), []).append(one)
    return {
        "batch": answer.batch.id,
        "jobs": answer.jobs,
        "reused": answer.reused,
        **of_promise(plan),
        "deadline_at": moment(answer.batch.deadline_at),
        "finish_p50_s": max(0.0, plan.finish_p50_at - start),
        "finish_p90_s": max(0.0, plan.finish_p90_at - start),
        "earliest_s": max(0.0, plan.earliest_at - start),
        "full_quality_s": max(0.0, plan.full_quality_at - start),
        "notes": list(dict.fromkeys(plan.notes)),
        "shares": [
            {
                "pool": pool,
                "point": point,
                "jobs": len(many),
                "p50_s": sum(one.p50_s for one in many),
                "mean_quality": sum(one.quality for one in many) / len(many),
            }
            for (pool, point), many in sorted(shares.items())
        ],
        "deferred": [{"job": one.job_id, "reason": one.reason} for one in plan.deferred],
    }


def of_result(result: BatchResult, report: str | None) -> Document:
    """What `submit --json` and `resume --json` print at the end."""
    return {
        "batch": result.batch.id,
        "exit_code": result.exit_code,
        "message": result.message,
        "output": result.batch.output_prefix,
        "report": report,
        "submitted_at": moment(result.batch.submitted_at),
        "deadline_at": moment(result.batch.deadline_at),
        "wall_s": result.wall_s,
        "jobs": {state.value: result.counts.get(state, 0) for state in JobState},
        "inserted": result.inserted,
        "reused": result.reused,
        "computed": result.computed,
        "plan": of_promise(result.plan) if result.plan else None,
        "score": of_score(result.score) if result.computed else None,
    }


def of_score(score: Score) -> Document:
    return {
        "jobs": score.jobs,
        "predicted_p50_at": moment(score.predicted_p50_at),
        "predicted_p90_at": moment(score.predicted_p90_at),
        "finished_at": moment(score.finished_at),
        "startup_s": score.startup_s,
        "predicted_startup_s": score.predicted_startup_s,
        "median_error": score.median_error,
        "within_p90": score.within_p90,
        "busy_share": score.busy_share,
        "model_seconds": score.model_seconds,
        "mean_quality": score.mean_quality,
        "misses": [
            {"job": miss.job_id, "row": miss.row, "late_s": miss.late_s, "cause": miss.cause}
            for miss in score.misses
        ],
    }


def of_event(event: Event) -> Document:
    return {
        "id": event.id,
        "at": moment(event.at),
        "batch": event.batch_id,
        "job": event.job_id,
        "kind": event.kind,
        "detail": dict(event.detail),
    }


def of_attempt(attempt: AttemptRecord) -> Document:
    return {
        "attempt": attempt.attempt,
        "ended": attempt.ended,
        "worker": attempt.worker_id,
        "pool": attempt.pool,
        "point": attempt.point.label,
        "started_at": moment(attempt.started_at),
        "finished_at": moment(attempt.finished_at),
        "steps_done": attempt.steps_done,
        "phases_s": dict(attempt.phases),
        "failure": {"kind": attempt.failure.kind.value, "message": attempt.failure.message}
        if attempt.failure
        else None,
    }
