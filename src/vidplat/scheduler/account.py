"""From the chosen trial to a Plan: each job's place in time and reason, and the sums that are told.

The slots of a group are dealt to its jobs in row order, so early rows start first. `finish_by` of
an assignment is the latest end that leaves all that follows on its worker in time, as planned: the
any-time half in the worker may use the slack until then, and must stop sooner when it would pass
it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from vidplat.domain import Job, WorkerState, quality_in_words
from vidplat.scheduler import wording
from vidplat.scheduler.chains import EASE_S, Chain
from vidplat.scheduler.cost import common_spread
from vidplat.scheduler.decision import Assignment, Deferred, Plan, Snapshot, Verdict
from vidplat.scheduler.groups import NEVER, Group
from vidplat.scheduler.menu import Rungs
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
    after_s: float  # of its chain: `p50_at`, `p90_at` and `finish_by` are told so much later


def _slots(chain: Chain, groups: Sequence[Group]) -> dict[int, list[_Slot]]:
    """The places in time of a chain, by group; no more of each than the group has listed jobs."""
    found: dict[int, list[_Slot]] = {}
    at = chain.free_at
    s = q = 0.0
    for place, by in zip(chain.places, _latest_starts(chain), strict=True):
        group = groups[place.group]
        slots = found.setdefault(place.group, [])
        late = place.deadline_at == NEVER and group.deadline_at != NEVER
        at = max(at, group.not_before + chain.after_s)
        for rung in sorted(place.runs):
            p50, spread = place.rungs.p50_s[rung], place.rungs.spread_s[rung]
            share, count = place.rungs.seconds(rung), place.runs[rung]
            listed = min(count, max(0, len(group.jobs) - len(slots)))
            for _ in range(listed):
                s += spread
                q += spread * spread
                by += share
                end = at + p50
                reach = end + common_spread(s, q)
                latest, start = max(by, end), at - chain.after_s
                slots.append(
                    _Slot(start, chain.worker, rung, end, reach, latest, late, chain.after_s)
                )
                at = end
            more = count - listed
            at, by = at + more * p50, by + more * share
            s, q = s + more * spread, q + more * spread * spread
    return found


def _latest_starts(chain: Chain) -> list[float]:
    """Per place: the latest start that leaves it and every later place in time, as planned."""
    latest: list[float] = []
    start = NEVER
    for place in reversed(chain.places):
        takes_s = sum(place.rungs.seconds(r) * n for r, n in place.runs.items())
        start = min(start, place.deadline_at) - takes_s
        latest.append(start)
    return latest[::-1]


def _assignments(
    chains: Sequence[Chain],
    groups: Sequence[Group],
    workers: Sequence[WorkerState],
    full_quality_at: float,
) -> list[Assignment]:
    """The slots of each group dealt to its jobs in row order; the whole by time of start."""
    by_group: dict[int, list[_Slot]] = {}
    for chain in chains:
        for index, slots in _slots(chain, groups).items():
            by_group.setdefault(index, []).extend(slots)
    dealt: list[Assignment] = []
    for index, slots in by_group.items():
        group = groups[index]
        reasons: dict[tuple[int, int, bool, bool], str] = {}
        for job, slot in zip(group.jobs, sorted(slots), strict=False):
            kind = (slot.worker, slot.rung, slot.late, slot.p90_at > group.deadline_at + EASE_S)
            if kind not in reasons:
                reasons[kind] = _reason(group, slot, full_quality_at)
            rungs, worker = group.rungs[slot.worker], workers[slot.worker]
            dealt.append(_assignment(job, slot, rungs, worker, reasons[kind]))
    return sorted(dealt, key=lambda a: (a.start_at, a.worker_id, a.job_id))


def _assignment(
    job: Job, slot: _Slot, rungs: Rungs, worker: WorkerState, reason: str
) -> Assignment:
    """Where another worker finishes the video, its maker's queue may have to wait for that; where
    its maker stores it, the queue does not."""
    work, relay = rungs.work(slot.rung), rungs.relayed[slot.rung]
    ends = relay.through_at((slot.p50_at, slot.p90_at))
    waits_s = rungs.p50_s[slot.rung] - (work.p50_s - relay.handed_s)
    # It may take as long as planned, also where those behind it are late then.
    finish_by = max(ends[0], slot.finish_by - slot.after_s - waits_s + relay.handed_s)
    return Assignment(
        job_id=job.id,
        worker_id=worker.id,
        pool=worker.pool,
        point=rungs.points[slot.rung],
        start_at=slot.start_at,
        p50_s=work.p50_s,
        p90_s=work.p90_s,
        quality=rungs.qualities[slot.rung],
        finish_p50_at=ends[0],
        finish_p90_at=ends[1],
        reason=reason,
        finish_by=None if finish_by == NEVER else finish_by,
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
    """The Plan of `trial`; `full_quality_at` and `earliest_at` at p90, `bound` on mean quality."""
    missed = trial.late + trial.at_risk
    lowered: Counter[str] = Counter()
    for place, rung, count in trial.made:
        group, rungs = groups[place.group], place.rungs
        if rungs.qualities[rung] < group.full_quality - _SAME_QUALITY:
            steps = group.first.spec.num_inference_steps
            lowered[wording.made_at(rungs.points[rung], steps)] += count
    in_time = Verdict.DEGRADED if lowered else Verdict.FEASIBLE
    end_p50, end_p90 = ends(trial.chains, snapshot.now)
    guesses = {g.guess.replace("{model}", g.first.model.id) for g in groups if g.guess}
    plan = Plan(
        verdict=Verdict.INFEASIBLE if deferred or missed else in_time,
        assignments=tuple(_assignments(trial.chains, groups, workers, full_quality_at)),
        deferred=tuple(sorted(deferred, key=lambda d: d.job_id)),
        earliest_at=earliest_at,
        full_quality_at=full_quality_at,
        finish_p50_at=end_p50,
        finish_p90_at=end_p90,
        device_seconds=sum(p.rungs.work(r).p50_s * n for p, r, n in trial.made),
        mean_quality=trial.mean_quality,
        quality_bound=1.0 if missed else max(bound, trial.mean_quality),
        notes=tuple(sorted(guesses)),
    )
    total = sum(group.count for group in groups)
    as_asked = {
        wording.made_at(place.rungs.points[rung], asked.first.spec.num_inference_steps)
        for place, rung, _ in trial.made
        if (asked := groups[place.group]).full_quality < 1.0 - _SAME_QUALITY
    }
    asked_at = snapshot.now if snapshot.asked_at is None else snapshot.asked_at
    summary = _summary(plan, asked_at, total, deferred, missed, lowered, as_asked)
    return replace(plan, reason=summary)


def _reason(group: Group, slot: _Slot, full_quality_at: float) -> str:
    rungs = group.rungs[slot.worker]
    text = wording.made_at(rungs.points[slot.rung], group.first.spec.num_inference_steps)
    if slot.late:
        over = wording.seconds(slot.p50_at - group.deadline_at)
        return f"{text}: late, its deadline passes {over} before it can end"
    if slot.p90_at > group.deadline_at + EASE_S:
        over = wording.seconds(slot.p90_at - group.deadline_at)
        return f"{text}: at risk, in time at p50 and {over} late at p90"
    if rungs.qualities[slot.rung] >= group.full_quality - _SAME_QUALITY:
        return "full quality" if group.full_quality >= 1.0 else f"{text}, as asked"
    if slot.rung == rungs.top:
        return f"{text}: the best that fits in memory"
    short_s = full_quality_at - group.deadline_at - group.lag_s
    if short_s > 0:
        return f"{text}: full quality for all jobs is {wording.seconds(short_s)} short"
    return f"{text}: no more fits before its deadline"


def _summary(
    plan: Plan,
    asked_at: float,
    total: int,
    deferred: Sequence[Deferred],
    missed: int,
    lowered: Mapping[str, int],
    as_asked: Collection[str],
) -> str:
    """The plan of `total` jobs in a sentence; `lowered`: how many are made at each lower point;
    `as_asked`: what some were asked to be made with, though it is less than full quality."""
    all_of_them, quality = wording.jobs(total), quality_in_words(plan.mean_quality)
    if deferred and not missed:
        refused = f"{wording.jobs(len(deferred))} of {total + len(deferred)}"
        return f"{refused} cannot be placed: {deferred[0].reason}"
    if missed:
        least = wording.seconds(plan.earliest_at - asked_at)
        return (
            f"{missed} of {all_of_them} cannot be promised in time even at the cheapest "
            f"acceptable point; all could be done in {least}"
        )
    if lowered:
        below, full = (
            wording.lowered(lowered, total),
            wording.seconds(plan.full_quality_at - asked_at),
        )
        return f"{below}, predicted quality {quality}; full quality needs {full}"
    if not total:
        return "nothing to do"
    soon = wording.seconds(plan.finish_p90_at - asked_at)
    every = f"{'all ' if total > 1 else ''}{all_of_them}"
    if as_asked:
        how = min(as_asked) if len(as_asked) == 1 else "in several ways"
        return f"{every} as asked ({how}), predicted quality {quality}, in {soon} (p90)"
    return f"{every} at full quality in {soon} (p90)"
