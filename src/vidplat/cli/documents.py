"""The values that `--json` prints. Their keys are a promise to scripts: keys may be added, none is
renamed.

Moments are ISO 8601 in UTC, durations are numbers of seconds and end in `_s`, sizes end in
`_bytes`. What is not known is null. Text from users is given as it is: JSON escapes it.
docs/commands.md lists the keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from vidplat.domain import Batch, Failure, JobRecord, JobState

if TYPE_CHECKING:
    from vidplat.cli.glance import Glance
    from vidplat.platform.interface import BatchResult, PlanAnswer, Score
    from vidplat.scheduler.decision import Plan
    from vidplat.storage.catalog_words import (
        AttemptRecord,
        Event,
        Outlook,
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


def _told(value: object, *names: str) -> Document:
    """Attributes under their own names; those that end in `_at` as moments."""
    found = {name: getattr(value, name) for name in names}
    return {name: moment(it) if name.endswith("_at") else it for name, it in found.items()}


def of_batch(batch: Batch, state: str, counts: Mapping[JobState, int]) -> Document:
    return {
        "batch": batch.id,
        "state": state,
        "source": batch.source,
        "model": batch.model.id,
        "revision": batch.model.revision,
        "output": batch.output_prefix,
        **_told(batch, "submitted_at", "deadline_at", "priority", "quality_floor"),
        **_told(batch, "on_infeasible", "method", "total"),
        "jobs": _of_counts(counts),
    }


def _of_counts(counts: Mapping[JobState, int]) -> Document:
    return {state.value: counts.get(state, 0) for state in JobState}


def of_job(record: JobRecord) -> Document:
    job, point, artifact = record.job, record.point, record.artifact
    return {
        "batch": record.batch_id,
        "job": job.id,
        "row": job.row,
        "id": job.external_id,
        "state": record.state,
        **_told(job, "prompt", "negative_prompt"),
        "model": job.model.id,
        "spec": asdict(job.spec),
        **_told(job, "input_video", "input_sha256", "strength", "priority", "deadline_at"),
        "attempt": record.attempt,
        "point": point and _told(point, "method", "steps", "label"),
        **_told(record, "predicted_p50_s", "predicted_p90_s", "predicted_quality"),
        "worker": record.worker_id,
        **_told(record, "pool", "started_at", "finished_at"),
        "video": artifact and artifact.video_uri,
        "poster": artifact and artifact.poster_uri,
        "meta": artifact and artifact.meta_uri,
        "sha256": artifact and artifact.sha256,
        "size_bytes": artifact and artifact.size_bytes,
        "failure": _of_failure(record.failure),
        "phases_s": dict(record.phases),
        "metrics": dict(record.metrics),
        "reused_from": record.reused_from,
    }


def _of_failure(failure: Failure | None) -> Document | None:
    return _told(failure, "kind", "message") if failure else None


def of_running(job: RunningJob) -> Document:
    return {
        "job": job.job_id,
        **_told(job, "row", "attempt"),
        "worker": job.worker_id,
        "pool": job.pool,
        "point": job.point.label,
        **_told(job, "phase", "step", "steps", "started_at"),
        "heard_at": moment(job.beat_at),
    }


def of_glance(glance: Glance, batch_id: str, state: str) -> Document:
    return {
        "batch": batch_id,
        "at": moment(glance.now),
        "state": state,
        **_told(glance, "steps_done", "steps_total", "made", "lost", "cancelled", "total"),
        **_told(glance, "finish_p50_at", "finish_p90_at", "deadline_at"),
    }


def of_steps(steps: StepTotals) -> Document:
    return _told(steps, "done", "running", "ahead")


def of_promise(plan: Plan | PlanRecord, outlook: Outlook | None = None) -> Document:
    """A plan's promise, without its assignments; its finish by a later outlook where there is
    one."""
    return {
        **_told(plan, "verdict", "reason"),
        **_told(outlook or plan, "finish_p50_at", "finish_p90_at"),
        **_told(plan, "earliest_at", "full_quality_at"),
        **_told(plan, "device_seconds", "mean_quality", "quality_bound"),
        "notes": list(plan.notes),
    }


def of_answer(answer: PlanAnswer) -> Document:
    """What `plan --json` prints."""
    from vidplat.platform.interface import finish_s
    from vidplat.platform.run.plan_records import shares_of

    plan, start = answer.plan, answer.batch.submitted_at
    finish_p50_s, finish_p90_s = finish_s(plan, start)
    shares = sorted(shares_of(plan.assignments), key=lambda one: (one.pool, one.point.label))
    return {
        "batch": answer.batch.id,
        **_told(answer, "jobs", "reused"),
        **of_promise(plan),
        "deadline_at": moment(answer.batch.deadline_at),
        "finish_p50_s": max(0.0, finish_p50_s),
        "finish_p90_s": max(0.0, finish_p90_s),
        "earliest_s": max(0.0, plan.earliest_at - start),
        "full_quality_s": max(0.0, plan.full_quality_at - start),
        "notes": list(dict.fromkeys(plan.notes)),
        "shares": [
            {
                "pool": one.pool,
                "point": one.point.label,
                **_told(one, "jobs", "p50_s", "mean_quality"),
                "each_p50_s": one.p50_s / one.jobs,
            }
            for one in shares
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
        **_told(result.batch, "submitted_at", "deadline_at"),
        "wall_s": result.wall_s,
        "jobs": _of_counts(result.counts),
        **_told(result, "inserted", "reused", "computed"),
        "plan": of_promise(result.plan) if result.plan else None,
        "score": of_score(result.score) if result.computed else None,
    }


def of_score(score: Score) -> Document:
    return {
        **_told(score, "jobs", "predicted_p50_at", "predicted_p90_at", "finished_at"),
        **_told(score, "startup_s", "predicted_startup_s", "median_error", "within_p90"),
        **_told(score, "busy_share", "model_seconds", "mean_quality"),
        "misses": [
            {"job": miss.job_id, **_told(miss, "row", "late_s", "cause")} for miss in score.misses
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
        **_told(attempt, "attempt", "ended"),
        "worker": attempt.worker_id,
        "pool": attempt.pool,
        "point": attempt.point.label,
        **_told(attempt, "started_at", "finished_at", "steps_done"),
        "phases_s": dict(attempt.phases),
        "failure": _of_failure(attempt.failure),
    }
