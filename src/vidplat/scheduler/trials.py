"""Who gets what: trials of a plan at different prices of a device second, and the best of them.

A trial walks the groups in deadline order and gives each job to the worker that finishes it first,
at the rung whose gain per second is worth the price; a job that does not fit falls to its cheapest
rung, then at risk (in time at p50 only), then late. Late jobs go to the end at their cheapest rung,
so they cost nobody else a place; jobs without a deadline come last of all, at full quality. The
slack of a promising trial is then spent exactly, per worker (`chains`), and the trial with the
fewest late jobs, fewest at risk and most quality is kept.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vidplat.scheduler.bound import worker_values
from vidplat.scheduler.chains import EASE_S, Chain, Place
from vidplat.scheduler.groups import NEVER, Group, stored_after
from vidplat.scheduler.slack import spend_slack

_SINGLY_BELOW = 4  # jobs per worker: fewer are placed one by one, more in bulk
_PRICES = 64

_Offer = tuple[Chain, int, float, float]  # a worker's chain, rung, p50 seconds, spread


@dataclass
class Trial:
    """One way to do it: a chain per worker, and how many jobs will not be in time."""

    chains: list[Chain]
    lowered: int = 0  # jobs that did not fit at the price's rung
    at_risk: int = 0  # in time at p50, not at p90
    late: int = 0

    @property
    def merit(self) -> tuple[int, int, float]:
        return (-self.late, -self.at_risk, sum(c.value for c in self.chains))

    @property
    def made(self) -> list[tuple[Place, int, int]]:
        """(place, rung, jobs made at it), chain by chain."""
        return [each for chain in self.chains for each in chain.made]

    @property
    def mean_quality(self) -> float:
        """Over all jobs; 1 where there are none."""
        jobs = sum(n for _, _, n in self.made)
        return sum(p.rungs.qualities[r] * n for p, r, n in self.made) / jobs if jobs else 1.0


def best_trial(groups: Sequence[Group], free_at: Sequence[float]) -> Trial:
    """The best of some trials, each at another price of a device second; `free_at` by worker."""
    values = worker_values(groups, len(free_at))
    prices = _prices(groups, values)
    free = list(zip(free_at, stored_after(groups, len(free_at)), strict=True))
    trial = _assign(groups, free, values, 0.0)
    if not trial.lowered:
        return trial  # everything is in time at full quality
    # The least price at which nothing has to be lowered; it, the one below and some far from it.
    last = len(prices) - 1

    def fits(k: int) -> bool:
        return not _assign(groups, free, values, prices[k], all_or_nothing=True).lowered

    low = bisect_left(range(last), True, key=fits)
    tries = {max(0, low - 1), low, low // 2, (low + len(prices)) // 2, last}
    trials = [_assign(groups, free, values, prices[k]) for k in sorted(tries, reverse=True)]
    for trial in trials:
        for chain in trial.chains:
            spend_slack(chain)
    return max(trials, key=lambda trial: trial.merit)


def assign_all(groups: Sequence[Group], free_at: Sequence[float], *, best: bool) -> list[Chain]:
    """Every job at its best (or cheapest) rung, deadlines or not."""
    free = zip(free_at, stored_after(groups, len(free_at)), strict=True)
    chains = [Chain(i, *each) for i, each in enumerate(free)]
    for index, group in enumerate(groups):
        _place(chains, index, group, _rungs(group, best=best), group.count)
    return chains


def ends(chains: Sequence[Chain], now: float) -> tuple[float, float]:
    """(p50, p90) finish of the last job of all chains, by whomever."""
    last = [chain.through_at for chain in chains if chain.places]
    return max((p50 for p50, _ in last), default=now), max((p90 for _, p90 in last), default=now)


def _prices(groups: Sequence[Group], values: Sequence[float]) -> list[float]:
    """About 64 weighted gains per second (of the fastest worker), rising; the last buys nothing."""
    kinds = {(id(g.rungs), g.weight): g for g in groups if g.deadline_at != NEVER}
    gains = {
        g.weight * gain / values[i]
        for g in kinds.values()
        for i, r in g.rungs.items()
        for gain in r.gains
    }
    return [*sorted(gains)[:: max(1, len(gains) // _PRICES)], math.inf]


def _assign(
    groups: Sequence[Group],
    free: Sequence[tuple[float, float]],
    values: Sequence[float],
    price: float,
    *,
    all_or_nothing: bool = False,
) -> Trial:
    """A trial at `price`; with `all_or_nothing` it ends at the first job that does not fit. `free`:
    when each worker is, and how much later it may have stored its last video."""
    trial = Trial([Chain(i, *each) for i, each in enumerate(free)])
    chains = trial.chains
    late: list[tuple[int, int]] = []
    wanted: dict[tuple[int, float], dict[int, int]] = {}  # alike for groups of one kind and weight
    for index, group in enumerate(groups):
        if group.deadline_at == NEVER:
            continue
        kind = (id(group.rungs), group.weight)
        if kind not in wanted:
            prices = {i: price * values[i] / group.weight for i in group.rungs}
            wanted[kind] = {i: r.worth(prices[i]) for i, r in group.rungs.items()}
        left = _place(chains, index, group, wanted[kind], group.count, group.deadline_at)
        if not left:
            continue
        trial.lowered += left
        if all_or_nothing:
            return trial
        least = _rungs(group, best=False)
        left = _place(chains, index, group, least, left, group.deadline_at)
        hopeless = _place(chains, index, group, least, left, group.deadline_at, at_median=True)
        trial.at_risk += left - hopeless
        trial.late += hopeless
        late.append((index, hopeless))
    for index, count in late:
        _place(chains, index, groups[index], _rungs(groups[index], best=False), count, late=True)
    for index, group in enumerate(groups):
        if group.deadline_at == NEVER:
            _place(chains, index, group, _rungs(group, best=True), group.count)
    return trial


def _rungs(group: Group, *, best: bool) -> dict[int, int]:
    return {i: r.top if best else 0 for i, r in group.rungs.items()}


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
    """Give `count` jobs of a group to whoever finishes each first; the number not done by `due`.

    `due` is tested at p90, or at p50 when `at_median`. Many equal jobs are first shared out in bulk
    up to a common finish time, so the work grows with the workers and not with the jobs.
    """
    offers = [
        (chains[i], r, group.rungs[i].p50_s[r], group.rungs[i].spread_s[r])
        for i, r in rung_of.items()
    ]
    if count > _SINGLY_BELOW * len(offers):
        shares = _shares(offers, group.not_before, count, due, at_median)
        for (chain, rung, _, _), share in zip(offers, shares, strict=True):
            if share:
                chain.append(index, group, rung, share, late=late)
        count -= sum(shares)
    quantile = 0 if at_median else 1
    while count:
        finishes = [c.finish(p50, s, group.not_before)[quantile] for c, _, p50, s in offers]
        earliest = min(finishes)
        if earliest > due + EASE_S:
            break
        chain, rung, _, _ = offers[finishes.index(earliest)]
        chain.append(index, group, rung, late=late)
        count -= 1
    return count


def _shares(
    offers: Sequence[_Offer], not_before: float, count: int, due: float, at_median: bool
) -> list[int]:
    """How many jobs each worker ends by the latest common time up to `due`, at most `count` in all.

    That is what giving them out one by one to the earliest finish comes to, up to the last few.
    """

    def by(at: float) -> list[int]:
        return [c.room(p50, s, at, not_before, at_median) for c, _, p50, s in offers]

    start = min(max(chain.finish()[0], not_before) for chain, _, _, _ in offers)
    span = 2 * max(p50 + spread for _, _, p50, spread in offers) * count
    low, high = 0.0, min(due + EASE_S - start, span)
    if high <= 0:
        return [0] * len(offers)
    enough = by(start + high)
    if sum(enough) <= count:
        return enough
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        if sum(by(start + middle)) <= count:
            low = middle
        else:
            high = middle
    return by(start + low)
