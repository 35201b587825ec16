"""From the chosen trial to a Plan: every job's place in time, its reason, and the sums a person is
told.

The slots of a group are dealt to its jobs in row order, so early rows start first. `finish_by` of
an assignment is the latest end that leaves all that follows on its worker in time, as planned: the
any-time half in the worker may use the slack until then, and must stop sooner when it would pass
it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from vidplat.domain import WorkerState
from vidplat.scheduler import wording
from vidplat.scheduler.chains import EASE_S, Chain
from vidplat.scheduler.cost import CORRELATION
from vidplat.scheduler.decision import Assignment, Deferred, Plan, Snapshot, Verdict
from vidplat.scheduler.groups import NEVER, Group
from vidplat.scheduler.relay import Relayed
from vidplat.scheduler.trials import Trial, ends

_SAME_QUALITY = 1e-9


class _Slot(NamedTuple):
    """A place in time for one job of a group."""

    start_at: float
    worker: int
    rung: int
    p50_at: float
    p90_at: float
    finish_by: float
    late: bool


def _slots(chain: Chain, groups: Sequence[Group]) -> dict[int, list[_Slot]]:
    """The places in time of a chain, by group; no more of each than the group has listed jobs."""
    found: dict[int, list[_Slot]] = {}
    latest = _latest_starts(chain)
    at = chain.free_at
    s = q = 0.0
    for place, by in zip(chain.places, latest, strict=True):
        group = groups[place.group]
        slots = found.setdefault(place.group, [])
        late = place.deadline_at == NEVER and group.deadline_at != NEVER
        at = max(at, group.not_before)
        for rung in sorted(place.runs):
            p50, spread, share = (
                place.rungs.p50_s[rung],
                place.rungs.spread_s[rung],
                place.rungs.seconds(rung),
            )
            count = place.runs[rung]
            listed = min(count, max(0, len(group.jobs) - len(slots)))
            for _ in range(listed):
                s += spread
                q += spread * spread
                by += share
                end = at + p50
                reach = end + math.sqrt((1 - CORRELATION) * q + CORRELATION * s * s)
                slots.append(_Slot(at, chain.worker, rung, end, reach, max(by, end), late))
                at = end
            more = count - listed
            at, s, q, by = (
                at + more * p50,
                s + more * spread,
                q + more * spread * spread,
                by + more * share,
            )
    return found


def _latest_starts(chain: Chain) -> list[float]:
    """Per place: the latest start that leaves it and every later place in time, as planned."""
    latest: list[float] = []
    start = NEVER
    for place in reversed(chain.places):
        start = min(start, place.deadline_at) - sum(
            place.rungs.seconds(r) * n for r, n in place.runs.items()
        )
        latest.append(start)
    return latest[::-1]


def _assignments(
    chains: Sequence[Chain],
    groups: Sequence[Group],
    workers: Sequence[WorkerState],
    full_quality_at: float,
) -> list[Assignment]:
    """The slots of each group dealt to its jobs in row order; the whole in the order of
    starting."""
    by_group: dict[int, list[_Slot]] = {}
    for chain in chains:
        for index, slots in _slots(chain, groups).items():
            by_group.setdefault(index, []).extend(slots)
    dealt: list[Assignment] = []
    for index, slots in by_group.items():
        group = groups[index]
        reasons: dict[tuple[int, int, bool, bool], str] = {}
        for job, slot in zip(group.jobs, sorted(slots), strict=False):
            rungs, worker = group.rungs[slot.worker], workers[slot.worker]
            kind = (slot.worker, slot.rung, slot.late, slot.p90_at > group.deadline_at + EASE_S)
            if kind not in reasons:
                reasons[kind] = _reason(group, slot, full_quality_at)
            dealt.append(
                _relayed(
                    Assignment(
                        job_id=job.id,
                        worker_id=worker.id,
                        pool=worker.pool,
                        point=rungs.points[slot.rung],
                        start_at=slot.start_at,
                        p50_s=rungs.p50_s[slot.rung],
                        p90_s=rungs.p50_s[slot.rung] + rungs.spread_s[slot.rung],
                        quality=rungs.qualities[slot.rung],
                        finish_p50_at=slot.p50_at,
                        finish_p90_at=slot.p90_at,
                        reason=reasons[kind],
                        finish_by=None if slot.finish_by == NEVER else slot.finish_by,
                    ),
                    rungs.relayed[slot.rung],
                )
            )
    return sorted(dealt, key=lambda a: (a.start_at, a.worker_id, a.job_id))


def _relayed(each: Assignment, relay: Relayed | None) -> Assignment:
    """From a place in the maker's queue to the video: another finishes it, and the queue may wait
    for that one."""
    if relay is None:
        return each
    waits_s = each.p50_s - (relay.work.p50_s - relay.handed_s)
    p50_at, p90_at = relay.through_at((each.finish_p50_at, each.finish_p90_at))
    return replace(
        each,
        p50_s=relay.work.p50_s,
        p90_s=relay.work.p90_s,
        finish_p50_at=p50_at,
        finish_p90_at=p90_at,
        finish_by=None if each.finish_by is None else each.finish_by - waits_s + relay.handed_s,
        handed_s=relay.handed_s,
    )


def written(
    snapshot: Snapshot,
    workers: Sequence[WorkerState],
    groups: Sequence[Group],
    deferred: Sequence[Deferred],
    trial: Trial,
    full_quality_at: float,
    earliest_at: float,
    bound: float,
) -> Plan:
    """The Plan of `trial`; `full_quality_at` and `earliest_at` are p90 finishes, `bound` is on mean
    quality."""
    made = [
        (groups[p.group], p.rungs, r, n)
        for c in trial.chains
        for p in c.places
        for r, n in p.runs.items()
    ]
    total = sum(group.count for group in groups)
    mean = sum(rungs.qualities[r] * n for _, rungs, r, n in made) / total if total else 1.0
    lowered = [
        (wording.made_at(rungs.points[r], group.first.spec.num_inference_steps), n)
        for group, rungs, r, n in made
        if rungs.qualities[r] < group.full_quality - _SAME_QUALITY
    ]
    missed = trial.late + trial.at_risk
    in_time = Verdict.DEGRADED if lowered else Verdict.FEASIBLE
    end_p50, end_p90 = ends(trial.chains, snapshot.now)
    return Plan(
        verdict=Verdict.INFEASIBLE if deferred or missed else in_time,
        assignments=tuple(_assignments(trial.chains, groups, workers, full_quality_at)),
        deferred=tuple(sorted(deferred, key=lambda d: d.job_id)),
        earliest_at=earliest_at,
        full_quality_at=full_quality_at,
        finish_p50_at=end_p50,
        finish_p90_at=end_p90,
        device_seconds=sum(rungs.work(r).p50_s * n for _, rungs, r, n in made),
        mean_quality=mean,
        quality_bound=1.0 if missed else max(bound, mean),
        reason=_summary(
            snapshot.now,
            total,
            deferred,
            missed,
            lowered,
            mean,
            full_quality_at,
            earliest_at,
            end_p90,
        ),
        notes=_notes(groups),
    )


def _reason(group: Group, slot: _Slot, full_quality_at: float) -> str:
    rungs = group.rungs[slot.worker]
    point, spec = rungs.points[slot.rung], group.first.spec
    text = wording.made_at(point, spec.num_inference_steps)
    if slot.late:
        return (
            f"{text}: late, its deadline passes "
            f"{wording.seconds(slot.p50_at - group.deadline_at)} before it can end"
        )
    if slot.p90_at > group.deadline_at + EASE_S:
        return (
            f"{text}: at risk, in time at p50 and "
            f"{wording.seconds(slot.p90_at - group.deadline_at)} late at p90"
        )
    if rungs.qualities[slot.rung] >= group.full_quality - _SAME_QUALITY:
        return "full quality" if group.full_quality >= 1.0 else f"{text}, as asked"
    if slot.rung == rungs.top:
        return f"{text}: the best that fits in memory"
    short_s = full_quality_at - group.deadline_at - group.lag_s
    if short_s > 0:
        return f"{text}: full quality for all jobs is {wording.seconds(short_s)} short"
    return f"{text}: no more fits before its deadline"


def _summary(
    now: float,
    total: int,
    deferred: Sequence[Deferred],
    missed: int,
    lowered: Sequence[tuple[str, int]],
    mean: float,
    full_at: float,
    least_at: float,
    end_at: float,
) -> str:
    if deferred and not missed:
        return (
            f"{wording.jobs(len(deferred))} of {total + len(deferred)} cannot be placed: "
            f"{deferred[0].reason}"
        )
    if missed:
        return (
            f"{missed} of {wording.jobs(total)} cannot be promised in time even at the cheapest "
            "acceptable point; "
            f"all could be done in {wording.seconds(least_at - now)}"
        )
    if lowered:
        return (
            f"{wording.lowered(lowered, total)}, predicted quality {mean:.2f}; "
            f"full quality needs {wording.seconds(full_at - now)}"
        )
    if not total:
        return "nothing to do"
    return (
        f"{'all ' if total > 1 else ''}{wording.jobs(total)} at full quality in "
        f"{wording.seconds(end_at - now)} (p90)"
    )


def _notes(groups: Sequence[Group]) -> tuple[str, ...]:
    unmeasured = sorted({g.first.model.id for g in groups if not g.measured})
    return tuple(
        f"no profile for model {m}: step counts alone, quality is a guess" for m in unmeasured
    )
