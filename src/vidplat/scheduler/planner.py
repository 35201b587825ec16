"""plan(snapshot, policy, knowledge) -> Plan: who makes what, how well, and when.

A pure function: no clock, no I/O, no randomness; the same snapshot gives the same plan whatever the
order of its rows. How (PACE: prices, assign, chain-fill; the early stop is the workers' half):

  1. Group    equal jobs with one deadline (`groups`); what nobody can take is deferred with the
              reason. Where light workers are up, makers count as relieved by them (`relay`) as far
              as that lags behind by no more than a bound; a few bounds are tried, 0 among them.
              A worker stores one video beside making the next: the slower of both fills its queue.
  2. Assign   each job to the worker that finishes it first, at a rung set by a price on device
              seconds (`trials`); a handful of prices is tried.
  3. Fill     what slack is left with upgrades, best quality per second first (`slack`).
  4. Choose   the trial with the fewest late jobs, then the fewest at risk, then the most quality.
  5. Certify  an upper bound on any plan's mean quality (`bound`; light workers count as done at
              once), and the p90 finish at the cheapest and at full quality.

Promises are made at p90. Jobs without a deadline get full quality, last, shared out so that the
tail is short. A late job never costs another its place or quality: it goes to the end at its
cheapest rung. Not promised: optimality on several unequal workers (NP-hard; the gap to the bound is
in every plan), and `ready_at` is taken as certain, so pass a p90 there if it is a guess.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from vidplat.domain import OnInfeasible
from vidplat.scheduler.account import written
from vidplat.scheduler.bound import quality_bound
from vidplat.scheduler.cost import CORRELATION
from vidplat.scheduler.decision import Deferred, Plan, Policy, Snapshot, Verdict
from vidplat.scheduler.groups import Backlog, Group, group_jobs
from vidplat.scheduler.menu import Knowledge, Menu
from vidplat.scheduler.trials import assign_all, best_trial, ends

_LITTLE = 0.002  # quality that is not worth planning anew for
_AT_ONCE = 1e18  # speed, and bit/s, of light workers that no plan can do better than


def plan(
    snapshot: Snapshot, policy: Policy, knowledge: Knowledge, backlog: Sequence[Backlog] = ()
) -> Plan:
    """The plan for every job of `snapshot`: each is assigned once, or deferred with a reason.

    `backlog` stands for further queued jobs: their work is planned around, so that a window of a
    long queue is not given time that belongs to the rest. Nothing here raises for an infeasible
    plan: read `verdict`.
    """
    floor = policy.quality_floor
    decided = _plan_above(floor, snapshot, knowledge, backlog)
    may_go_below = floor > 0 and policy.on_infeasible is not OnInfeasible.REJECT
    if decided.verdict is not Verdict.INFEASIBLE or not may_go_below:
        return decided
    lower = _plan_above(0.0, snapshot, knowledge, backlog)
    note = f"the quality floor of {floor:.2f} cannot be held: some jobs go below it"
    return decided if lower == decided else replace(lower, notes=(*lower.notes, note))


def latest_free(decided: Plan) -> Mapping[str, float]:
    """Per worker with deadlines ahead: until when it may be busy without making any of them late.

    The platform tells a running job to finish by then (or by its own deadline, the earlier).
    """
    latest: dict[str, float] = {}
    for a in decided.assignments:
        if a.finish_by is not None and a.worker_id not in latest:
            spread_s = math.sqrt(CORRELATION) * (a.p90_s - a.p50_s)
            latest[a.worker_id] = a.finish_by - a.p50_s - spread_s
    return latest


def _plan_above(
    floor: float, snapshot: Snapshot, knowledge: Knowledge, backlog: Sequence[Backlog]
) -> Plan:
    workers = sorted((w for w in snapshot.workers if w.alive), key=lambda w: w.id)
    free_at = [max(snapshot.now, w.ready_at) for w in workers]
    makers_at = min(free_at, default=snapshot.now)

    def grouped(menu: Menu, seen: Snapshot = snapshot) -> tuple[list[Group], list[Deferred]]:
        return group_jobs(seen, menu, backlog, makers_at)

    # 1. Group.
    menu = Menu(workers, knowledge, floor, snapshot.finishers)
    groups, deferred = grouped(menu)
    # 2.-5. Assign, fill, choose, certify.
    trial = best_trial(groups, free_at)
    eased = groups
    if menu.lags_s:  # light workers have a part in it
        at_once = tuple(
            replace(each, ready_at=makers_at, speed=_AT_ONCE, bits_per_s=_AT_ONCE)
            for each in snapshot.finishers
        )
        relieved = Menu(workers, knowledge, floor, at_once)
        eased, _ = grouped(relieved, replace(snapshot, finishers=at_once))
    bound = quality_bound(eased, free_at)
    is_good = not (trial.late or trial.at_risk) and trial.mean_quality >= bound - _LITTLE
    menus = [
        Menu(workers, knowledge, floor, snapshot.finishers if most_lag_s else (), most_lag_s)
        for most_lag_s in _bounds(menu.lags_s)
    ]
    if menu.is_store_bound:
        menus.append(Menu(workers, knowledge, floor, one_by_one=True))
    for each in () if is_good else menus:
        others, _ = grouped(each)
        other = best_trial(others, free_at)
        if other.merit > trial.merit:
            groups, trial = others, other
    _, full_quality_at = ends(assign_all(groups, free_at, best=True), snapshot.now)
    _, earliest_at = ends(assign_all(groups, free_at, best=False), snapshot.now)
    return written(snapshot, workers, groups, deferred, trial, full_quality_at, earliest_at, bound)


def _bounds(lags_s: Collection[float]) -> list[float]:
    """Further bounds of the lag to be tried: none at all, and two between."""
    ranked = sorted(lags_s)
    return sorted({0.0, *(ranked[len(ranked) * part // 3] for part in (1, 2))}) if ranked else []
