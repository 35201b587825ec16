"""A plan in the catalog's words: what is kept of it, and the claims that begin its jobs.

The catalog knows no scheduler; this is the one place where an Assignment becomes a Claim and a
Plan becomes a PlanRecord.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from vidplat.domain import OperatingPoint
from vidplat.scheduler.decision import Assignment, Plan
from vidplat.storage.catalog_words import Claim, PlanRecord, PointShare

# A plan of a million jobs may defer most of them for the same reason.
KEPT_DEFERRALS = 100


def claim(planned: Assignment, owner: str) -> Claim:
    """What begins this job on behalf of `owner` (host:pid:start of the platform process)."""
    return Claim(
        job_id=planned.job_id,
        worker_id=planned.worker_id,
        pool=planned.pool,
        point=planned.point,
        p50_s=planned.p50_s,
        p90_s=planned.p90_s,
        quality=planned.quality,
        owner=owner,
        reason=planned.reason,
    )


def plan_record(plan: Plan, *, at: float, inputs_sha256: str) -> PlanRecord:
    """The promise of a plan made at `at`, its shares, and the first of its deferrals."""
    return PlanRecord(
        at=at,
        inputs_sha256=inputs_sha256,
        verdict=plan.verdict.value,
        reason=plan.reason,
        earliest_at=plan.earliest_at,
        full_quality_at=plan.full_quality_at,
        finish_p50_at=plan.finish_p50_at,
        finish_p90_at=plan.finish_p90_at,
        device_seconds=plan.device_seconds,
        mean_quality=plan.mean_quality,
        quality_bound=plan.quality_bound,
        jobs=len(plan.assignments),
        shares=shares_of(plan.assignments),
        deferred_count=len(plan.deferred),
        deferred=tuple((each.job_id, each.reason) for each in plan.deferred[:KEPT_DEFERRALS]),
        notes=plan.notes,
    )


def shares_of(assignments: Sequence[Assignment]) -> tuple[PointShare, ...]:
    """Assignments counted by pool and operating point, most jobs first."""
    groups: dict[tuple[str, OperatingPoint], list[Assignment]] = defaultdict(list)
    for each in assignments:
        groups[each.pool, each.point].append(each)
    shares = [
        PointShare(
            pool=pool,
            point=point,
            jobs=len(group),
            mean_quality=math.fsum(each.quality for each in group) / len(group),
            p50_s=math.fsum(each.p50_s for each in group),
        )
        for (pool, point), group in groups.items()
    ]
    return tuple(sorted(shares, key=lambda share: (-share.jobs, share.pool, share.point.label)))
