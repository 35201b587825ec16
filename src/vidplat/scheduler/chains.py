"""The queue of one worker as sums that can be tested and grown quickly.

A chain is what one worker will do, in order: places, each some jobs of one group at one or more
rungs. Three running sums give the p90 finish of its end (see `cost` for how quantiles add): seconds
at p50 (W), spreads (S) and their squares (Q);  finish = free_at + W + sqrt((1 - rho) Q + rho S^2).
A video is stored beside the making of the next; storing the last one takes up to `after_s` more, so
a chain as a whole is told that much later: its ends are those of stored videos.

Left to others: which worker gets what (`trials`), better rungs for what is left (`slack`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from vidplat.scheduler.cost import CORRELATION, common_spread
from vidplat.scheduler.groups import NEVER, Group
from vidplat.scheduler.menu import Rungs

EASE_S = 1e-6  # rounding allowed at a deadline


@dataclass
class Place:
    """One group's share of a chain."""

    group: int  # index into the planner's groups
    rungs: Rungs
    deadline_at: float  # NEVER also for jobs that are late whatever is done
    weight: float
    wait_s: float  # the worker idles so long before it (a job in back-off)
    runs: dict[int, int] = field(default_factory=dict)  # rung -> jobs made at it


class Chain:
    """One worker's queue."""

    def __init__(self, worker: int, free_at: float, after_s: float = 0.0) -> None:
        self.worker = worker
        self.after_s = after_s
        self.free_at = free_at + after_s
        self.places: list[Place] = []
        self._end = self.free_at  # free_at + W
        self._s = self._q = 0.0

    def finish(
        self, p50_s: float = 0.0, spread_s: float = 0.0, not_before: float = 0.0
    ) -> tuple[float, float]:
        """(p50, p90) finish with one more job of these seconds at the end."""
        p50 = max(self._end, not_before + self.after_s) + p50_s
        total = self._s + spread_s
        return p50, p50 + common_spread(total, self._q + spread_s * spread_s)

    def room(
        self, p50_s: float, spread_s: float, due: float, not_before: float, at_median: bool
    ) -> int:
        """How many more such jobs end by `due`, at p90 (or p50).

        At p90 with k more jobs: A - k p >= sqrt((1 - rho)(Q + k s^2) + rho (S + k s)^2), A the time
        left; squared, a quadratic in k whose smaller root is the answer.
        """
        left = due - max(self._end, not_before + self.after_s)
        if left <= 0 or math.isinf(left):
            return 0
        if at_median:
            return int(left / p50_s)
        rho, s = CORRELATION, spread_s
        a = p50_s * p50_s - rho * s * s
        b = 2 * left * p50_s + (1 - rho) * s * s + 2 * rho * self._s * s
        c = left * left - (1 - rho) * self._q - rho * self._s * self._s
        if c <= 0:
            return 0
        if a <= 0:  # a spread of over twice the median: take the sure bound, spreads added up
            return max(0, int((left - self.finish()[1] + self._end) / (p50_s + spread_s)))
        return max(0, int(2 * c / (b + math.sqrt(max(0.0, b * b - 4 * a * c)))))

    def append(
        self, index: int, group: Group, rung: int, count: int = 1, *, late: bool = False
    ) -> None:
        """Put `count` jobs of `group` at the end; `late` ones no longer have a deadline to keep."""
        rungs = group.rungs[self.worker]
        due = NEVER if late else group.deadline_at
        wait = max(0.0, group.not_before + self.after_s - self._end)
        if not self.places or self.places[-1].group != index or self.places[-1].deadline_at != due:
            self.places.append(Place(index, rungs, due, group.weight, wait))
        place = self.places[-1]
        place.runs[rung] = place.runs.get(rung, 0) + count
        spread = rungs.spread_s[rung]
        self._end += wait + count * rungs.p50_s[rung]
        self._s += count * spread
        self._q += count * spread * spread

    def add_up(self) -> None:
        """The running sums anew, after runs were changed in place."""
        spreads = [(p.rungs.spread_s[r], n) for p, r, n in self.made]
        waits_s = sum(p.wait_s for p in self.places)
        self._end = self.free_at + waits_s + sum(p.rungs.p50_s[r] * n for p, r, n in self.made)
        self._s = sum(spread * n for spread, n in spreads)
        self._q = sum(spread * spread * n for spread, n in spreads)

    @property
    def made(self) -> list[tuple[Place, int, int]]:
        """(place, rung, jobs made at it), in order."""
        return [(p, r, n) for p in self.places for r, n in p.runs.items()]

    @property
    def through_at(self) -> tuple[float, float]:
        """(p50, p90) of when all that it made is done, by light workers too, and stored."""
        ends = self.finish()
        relays = [p.rungs.relayed[r] for p, r, _ in self.made]
        p50s, p90s = zip(ends, *(relay.through_at(ends) for relay in relays), strict=True)
        return max(p50s), max(p90s)

    @property
    def value(self) -> float:
        """Weighted quality of all its jobs."""
        return sum(p.weight * p.rungs.qualities[r] * n for p, r, n in self.made)
