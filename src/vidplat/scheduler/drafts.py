"""Who gets what: drafts of a plan at different prices of a device second, and the best of them.

A draft walks the groups in deadline order and gives each job to the worker that finishes it first, at the rung
whose gain per second is worth the price; a job that does not fit falls to its cheapest rung, then at risk (in
time at p50 only), then late. Late jobs go to the end at their cheapest rung, so they cost nobody else a place;
jobs without a deadline come last of all, at full quality. The slack of a promising draft is then spent exactly,
per worker (`chains`), and the draft with the fewest late jobs, fewest at risk and most quality is kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vidplat.scheduler.chains import EASE_S, Chain
from vidplat.scheduler.groups import NEVER, Group

_SINGLY_BELOW = 4  # jobs per worker: fewer are placed one by one, more in bulk


@dataclass
class Draft:
    """One way to do it: a chain per worker, and how many jobs will not be in time."""

    chains: list[Chain]
    lowered: int = 0  # jobs that did not fit at the price's rung
    at_risk: int = 0  # in time at p50, not at p90
    late: int = 0

    @property
    def merit(self) -> tuple[int, int, float]:
        return (-self.late, -self.at_risk, sum(c.value for c in self.chains))


def best_draft(groups: Sequence[Group], free_at: Sequence[float], values: Sequence[float]) -> Draft:
    """The best of a handful of drafts, each at another price of a device second."""
    prices = _prices(groups, values)
    draft = _assign(groups, free_at, values, 0.0)
    if not draft.lowered:
        return draft  # everything is in time at full quality
    # The least price at which nothing has to be lowered; then that one, its neighbours and a few far from it.
    low, high = 0, len(prices) - 1
    while low < high:
        middle = (low + high) // 2
        if _assign(groups, free_at, values, prices[middle]).lowered:
            low = middle + 1
        else:
            high = middle
    tries = {max(0, low - 1), low, *(k * (len(prices) - 1) // 4 for k in range(5))}
    best: Draft | None = None
    for k in sorted(tries, reverse=True):
        draft = _assign(groups, free_at, values, prices[k])
        for chain in draft.chains:
            chain.spend_slack()
        if best is None or draft.merit > best.merit:
            best = draft
    assert best is not None
    return best


def _prices(groups: Sequence[Group], values: Sequence[float]) -> list[float]:
    """Every weighted gain per (fastest-worker) second that occurs, rising, at most 256; the last buys nothing."""
    gains = {
        group.weight * rungs.gain(k) / values[i]
        for group in groups
        if group.deadline_at != NEVER
        for i, rungs in group.rungs.items()
        for k in range(rungs.top)
    }
    ranked = sorted(gains)
    thinned = ranked[:: max(1, len(ranked) // 256)]
    return [*thinned, math.inf]


def assign_all(groups: Sequence[Group], free_at: Sequence[float], *, best: bool) -> list[Chain]:
    """Every job at its best (or cheapest) rung, deadlines or not."""
    chains = [Chain(i, at) for i, at in enumerate(free_at)]
    for index, group in enumerate(groups):
        _place(chains, index, group, {i: r.top if best else 0 for i, r in group.rungs.items()}, group.count)
    return chains


def _assign(groups: Sequence[Group], free_at: Sequence[float], values: Sequence[float], price: float) -> Draft:
    draft = Draft([Chain(i, at) for i, at in enumerate(free_at)])
    chains = draft.chains
    late: list[tuple[int, Group, int]] = []
    for index, group in enumerate(groups):
        if group.deadline_at == NEVER:
            continue
        bottom = dict.fromkeys(group.rungs, 0)
        wanted = {
            i: sum(1 for k in range(r.top) if group.weight * r.gain(k) / values[i] >= price)
            for i, r in group.rungs.items()
        }
        left = _place(chains, index, group, wanted, group.count, group.deadline_at)
        draft.lowered += left
        left = _place(chains, index, group, bottom, left, group.deadline_at)
        hopeless = _place(chains, index, group, bottom, left, group.deadline_at, at_median=True)
        draft.at_risk += left - hopeless
        draft.late += hopeless
        if hopeless:
            late.append((index, group, hopeless))
    for index, group, count in late:
        _place(chains, index, group, dict.fromkeys(group.rungs, 0), count, late=True)
    for index, group in enumerate(groups):
        if group.deadline_at == NEVER:
            _place(chains, index, group, {i: r.top for i, r in group.rungs.items()}, group.count)
    return draft


def _place(
    chains: Sequence[Chain],
    index: int,
    group: Group,
    rung_of: Mapping[int, int],
    count: int,
    due: float = NEVER,
    *,
    at_median: bool = False,
    late: bool = False,
) -> int:
    """Give `count` jobs of a group to whoever finishes each first; returns how many do not fit before `due`.

    `due` is tested at p90, or at p50 when `at_median`. Many equal jobs are first shared out in bulk up to a
    common finish time, so the work grows with the workers and not with the jobs.
    """
    seconds = {i: (group.rungs[i].p50_s[r], group.rungs[i].spread_s[r]) for i, r in rung_of.items()}
    mark = NEVER if late else None
    quantile = 0 if at_median else 1
    while count > _SINGLY_BELOW * len(seconds):
        shares = _shares(chains, group, seconds, count, due)
        if not any(shares.values()):
            break
        for i, share in shares.items():
            if share:
                chains[i].append(index, group, rung_of[i], share, mark)
                count -= share
    while count:
        finish, i = min((chains[i].finish(*s, group.not_before)[quantile], i) for i, s in seconds.items())
        if finish > due + EASE_S:
            break
        chains[i].append(index, group, rung_of[i], 1, mark)
        count -= 1
    return count


def _shares(
    chains: Sequence[Chain], group: Group, seconds: Mapping[int, tuple[float, float]], count: int, due: float
) -> dict[int, int]:
    """How many each worker surely finishes (p90) by the latest common time up to `due`; `count` at most in all."""
    begins = {i: chains[i].finish(not_before=group.not_before)[1] for i in seconds}
    each = {i: p50 + spread for i, (p50, spread) in seconds.items()}  # never less than one job adds at p90

    def by(at: float) -> dict[int, int]:
        return {i: max(0, int((at - begins[i]) / each[i])) for i in seconds}

    low = min(begins.values())
    high = min(due, max(begins.values()) + count * max(each.values()))
    if sum(by(high).values()) <= count:
        return by(high)
    for _ in range(60):
        middle = (low + high) / 2
        if sum(by(middle).values()) <= count:
            low = middle
        else:
            high = middle
    return by(low)


def ends(chains: Sequence[Chain], now: float) -> tuple[float, float]:
    """(p50, p90) finish of the last job of all chains."""
    last = [chain.finish() for chain in chains if chain.places]
    return max((p50 for p50, _ in last), default=now), max((p90 for _, p90 in last), default=now)
