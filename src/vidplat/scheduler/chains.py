"""The queue of one worker as sums that can be tested and grown quickly.

A chain is what one worker will do, in order: runs of jobs of one group at one rung. Three running sums give
the p90 finish of any place in it (see `cost` for how quantiles add): seconds at p50 (W), spreads (S) and
their squares (Q);  finish = free_at + W + sqrt((1 - rho) Q + rho S^2).

`spend_slack` raises jobs to better rungs by quality per second as long as every later place still meets its
deadline: with one machine and a concave hull that is optimal up to one edge per tight deadline, because the
prefix constraints are nested (a polymatroid). Left to others: which worker gets what (`planner`).
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field

import numpy as np

from vidplat.scheduler.cost import CORRELATION
from vidplat.scheduler.groups import NEVER, Group, Rungs

EASE_S = 1e-6  # rounding allowed at a deadline


@dataclass
class Place:
    """One group's share of a chain: its runs, cheapest first."""

    group: int  # index into the planner's groups
    rungs: Rungs
    deadline_at: float  # NEVER also for jobs that are late whatever is done
    weight: float
    wait_s: float = 0.0  # the worker idles so long before it (a job in back-off)
    runs: dict[int, int] = field(default_factory=dict)  # rung -> count


class Chain:
    """One worker's queue."""

    def __init__(self, worker: int, free_at: float) -> None:
        self.worker = worker
        self.free_at = free_at
        self.places: list[Place] = []
        self._w = self._s = self._q = 0.0

    def finish(self, p50_s: float = 0.0, spread_s: float = 0.0, not_before: float = 0.0) -> tuple[float, float]:
        """(p50, p90) finish with one more job of these seconds at the end."""
        start = max(self.free_at + self._w, not_before)
        total = self._s + spread_s
        spread = math.sqrt((1 - CORRELATION) * (self._q + spread_s * spread_s) + CORRELATION * total * total)
        return start + p50_s, start + p50_s + spread

    def append(self, group: int, entry: Group, rung: int, count: int = 1, deadline_at: float | None = None) -> None:
        """Put `count` jobs of `entry` at the end."""
        rungs = entry.rungs[self.worker]
        due = entry.deadline_at if deadline_at is None else deadline_at
        wait = max(0.0, entry.not_before - self.free_at - self._w)
        if not self.places or self.places[-1].group != group or self.places[-1].deadline_at != due:
            self.places.append(Place(group, rungs, due, entry.weight, wait))
        place = self.places[-1]
        place.runs[rung] = place.runs.get(rung, 0) + count
        spread = rungs.spread_s[rung]
        self._w += wait + count * rungs.p50_s[rung]
        self._s += count * spread
        self._q += count * spread * spread

    @property
    def value(self) -> float:
        """Weighted quality of all its jobs."""
        return sum(p.weight * p.rungs.qualities[r] * n for p in self.places for r, n in p.runs.items())

    def spend_slack(self) -> None:
        """Raise jobs to better rungs, best quality per second first, while every place still meets its deadline.

        A place that is late already at p90 takes no upgrade, nor does any place before it.
        """
        open_places = [i for i, p in enumerate(self.places) if p.deadline_at != NEVER and min(p.runs) < p.rungs.top]
        if not open_places:
            return
        slack = _Slack(self)
        heap = [self._edge(i, min(self.places[i].runs)) for i in open_places]
        heapq.heapify(heap)
        while heap:
            _, i, rung = heapq.heappop(heap)
            place = self.places[i]
            count = place.runs.get(rung, 0)
            rungs = place.rungs
            step_p50 = rungs.p50_s[rung + 1] - rungs.p50_s[rung]
            granted = slack.grant(i, count, step_p50, rungs.spread_s[rung], rungs.spread_s[rung + 1])
            if granted:
                place.runs[rung + 1] = place.runs.get(rung + 1, 0) + granted
                if granted == count:
                    del place.runs[rung]
                else:
                    place.runs[rung] = count - granted
                if rung + 1 < rungs.top and granted == count:
                    heapq.heappush(heap, self._edge(i, rung + 1))
        self._add_up()

    def _add_up(self) -> None:
        """The running sums anew, after the runs changed."""
        runs = [(p.rungs.p50_s[r], p.rungs.spread_s[r], n) for p in self.places for r, n in p.runs.items()]
        self._w = sum(p.wait_s for p in self.places) + sum(p50 * n for p50, _, n in runs)
        self._s = sum(spread * n for _, spread, n in runs)
        self._q = sum(spread * spread * n for _, spread, n in runs)

    def _edge(self, i: int, rung: int) -> tuple[float, int, int]:
        place = self.places[i]
        return (-place.weight * place.rungs.gain(rung), i, rung)


class _Slack:
    """The running sums of a chain at the last place of each deadline, and the test of an upgrade against them."""

    def __init__(self, chain: Chain) -> None:
        w = s = q = 0.0
        rows: list[tuple[float, float, float, float]] = []
        self._row_of: list[int] = []  # place -> first constraint it counts in
        places = chain.places
        for i, place in enumerate(places):
            self._row_of.append(len(rows))
            w += place.wait_s
            for rung, count in place.runs.items():
                spread = place.rungs.spread_s[rung]
                w += count * place.rungs.p50_s[rung]
                s += count * spread
                q += count * spread * spread
            last = i + 1 == len(places) or places[i + 1].deadline_at != place.deadline_at
            if last and place.deadline_at != NEVER:
                rows.append((w, s, q, place.deadline_at - chain.free_at + EASE_S))
        table = np.array(rows, dtype=np.float64).reshape(len(rows), 4)
        self._w, self._s, self._q, self._due = (table[:, k].copy() for k in range(4))

    def grant(self, place: int, count: int, step_p50: float, spread_from: float, spread_to: float) -> int:
        """How many of `count` jobs at `place` can take the upgrade; they are booked."""
        row = self._row_of[place]
        step_s, step_q = spread_to - spread_from, spread_to * spread_to - spread_from * spread_from
        w, s, q, due = self._w[row:], self._s[row:], self._q[row:], self._due[row:]

        def fits(m: int) -> bool:
            total = s + m * step_s
            finish = w + m * step_p50 + np.sqrt((1 - CORRELATION) * (q + m * step_q) + CORRELATION * total * total)
            return bool(np.all(finish <= due))

        low, high = 0, count
        if fits(count):
            low = count
        else:
            high -= 1
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(middle) else (low, middle - 1)
        if low:
            w += low * step_p50
            s += low * step_s
            q += low * step_q
        return low
