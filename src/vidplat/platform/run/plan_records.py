"""A plan in the catalog's words: what is kept of it, and the claims that begin its jobs.

The catalog knows no scheduler: only here an Assignment becomes a Claim, a Plan a PlanRecord.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from vidplat.domain import OperatingPoint
from vidplat.scheduler.decision import Assignment, Plan
from vidplat.storage.catalog_words import Claim, PlanRecord, PointShare

# A plan of a million jobs may defer most of them for the same reason.
KEPT_DEFERRALS = 100


def claim(planned: Assignment, owner: str) -> Claim:
    """What begins this job on behalf of `owner` (host:pid:start of the platform process)."""
    return Claim(**_shared(planned, Claim), owner=owner)


def plan_record(plan: Plan, *, at: float, inputs_sha256: str) -> PlanRecord:
    """The promise of a plan asked for at `at`, its shares, and the first of its deferrals."""
    kept = {
        "verdict": plan.verdict.value,
        "jobs": len(plan.assignments),
        "shares": shares_of(plan.assignments),
        "deferred_count": len(plan.deferred),
        "deferred": tuple((each.job_id, each.reason) for each in plan.deferred[:KEPT_DEFERRALS]),
    }
    return PlanRecord(at=at, inputs_sha256=inputs_sha256, **_shared(plan, PlanRecord) | kept)


def _shared(source: Assignment | Plan, kind: type[Claim | PlanRecord]) -> dict[str, Any]:
    """What both call by the same name."""
    names = {each.name for each in fields(kind)}
    return {name: value for name, value in vars(source).items() if name in names}


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
