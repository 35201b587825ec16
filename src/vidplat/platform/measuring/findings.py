"""What a survey found: figures per method and target, and points for a model's profile."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vidplat.methods.frames import is_planned
from vidplat.methods.language import may_rehearse
from vidplat.methods.model_shape import ProfilePoint
from vidplat.scheduler.profile import hull
from vidplat.workers.survey.survey import Row


@dataclass(frozen=True)
class Finding:
    """One method at one target over its prompts: medians of costs, means of qualities."""

    method: str
    target: float
    label: str
    point_method: str
    steps: int
    prompts: int
    cost: float
    cost_end_to_end: float
    work: float
    linear_work: float
    attention_work: float
    psnr_db: float
    ssim: float
    ssim_spread: float
    fit: float | None
    fit_full: float | None
    flicker_ratio: float | None  # flicker over that of the full runs
    motion_ratio: float | None
    peak_bytes: int


def findings(rows: Iterable[Row]) -> list[Finding]:
    """One per method and target, in the order of the rows."""
    groups: dict[tuple[str, float], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.method, row.target].append(row)
    return [_finding(group) for group in groups.values()]


def profile_points(found: Sequence[Finding], full_steps: int) -> list[ProfilePoint]:
    """Points of methods worth having beside fewer steps: on the convex hull of all (cost, SSIM).

    Plain steps are in the profile already and only help to decide what the hull is. Every setting
    of a method on the hull is kept once, cheapest first. Methods that rehearse are left out: plans
    do not count rehearsals, so they are for those who ask for them by name; so is another solver
    alone, whose fewer steps were compared with its own full run. Every value of a parameter that
    plans choose is kept (`MethodKind.left_to_plan`).
    """
    found = [
        one
        for one in found
        if not may_rehearse(one.point_method) and (not one.point_method or one.steps == full_steps)
    ]
    on_hull = {id(found[i]) for i in hull([one.cost for one in found], [one.ssim for one in found])}
    methods = [one for one in found if one.point_method]
    kept = [one for one in methods if id(one) in on_hull or is_planned(one.point_method)]
    return [_point(one, full_steps) for one in sorted(kept, key=lambda one: one.cost)]


def step_points(found: Sequence[Finding], full_steps: int) -> list[ProfilePoint]:
    """The points of plain steps, cheapest first: what the others are measured against."""
    plain = sorted((one for one in found if not one.point_method), key=lambda one: one.steps)
    return [_point(one, full_steps) for one in plain]


def _finding(rows: Sequence[Row]) -> Finding:
    first = rows[0]
    moving = [row.motion_ratio for row in rows if row.motion_ratio is not None]
    flickering = [row.flicker / row.flicker_full for row in rows if row.flicker_full > 0]
    fits = [row.fit for row in rows if row.fit is not None]
    fits_full = [row.fit_full for row in rows if row.fit_full is not None]
    return Finding(
        method=first.method,
        target=first.target,
        label=first.label,
        point_method=first.point_method,
        steps=first.steps,
        prompts=len(rows),
        cost=statistics.median(row.cost for row in rows),
        cost_end_to_end=statistics.median(row.cost_end_to_end for row in rows),
        work=first.work,
        linear_work=first.linear_work,
        attention_work=first.attention_work,
        psnr_db=statistics.mean(row.psnr_db for row in rows),
        ssim=statistics.mean(row.ssim for row in rows),
        ssim_spread=statistics.stdev(row.ssim for row in rows) if len(rows) > 1 else 0.0,
        fit=statistics.mean(fits) if fits else None,
        fit_full=statistics.mean(fits_full) if fits_full else None,
        flicker_ratio=statistics.median(flickering) if flickering else None,
        motion_ratio=statistics.median(moving) if moving else None,
        peak_bytes=max(row.peak_bytes for row in rows),
    )


def _point(one: Finding, full_steps: int) -> ProfilePoint:
    """`overhead`: measured cost over what the work costs in plain steps."""
    # Works are told against the full run, a profile's against as many plain steps.
    plain = full_steps / one.steps
    return ProfilePoint(
        steps_fraction=round(one.steps / full_steps, 6),
        quality=round(one.ssim, 4),
        quality_spread=round(one.ssim_spread, 4),
        psnr_db=round(one.psnr_db, 2),
        prompt_fit=None if one.fit is None else round(one.fit, 4),
        samples=one.prompts,
        method=one.point_method,
        linear_work=round(one.linear_work * plain, 4),
        attention_work=round(one.attention_work * plain, 4),
        overhead=round(one.cost / one.work, 4),
    )
