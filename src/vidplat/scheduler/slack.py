"""Spend a chain's slack on better rungs: best quality per second first, every deadline kept at p90.

With one machine and a concave hull the greedy order is optimal up to one edge per tight deadline:
the prefix constraints are nested (a polymatroid). A long chain first rises together: the lowest
price per second that every deadline allows is found by bisection on whole arrays. At the next
price, where some deadline refuses, single upgrades are tried in the greedy order, each tested
exactly against every later deadline; what is refused is held there, and the rest goes on rising.
After some such strides, or at once in a short chain, single upgrades alone do the rest, so both
ways come to the same end.

Axis letters: P places, L lots (jobs of one place at one rung), K rungs, R different deadlines.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from vidplat.scheduler.chains import EASE_S, Chain, Place
from vidplat.scheduler.cost import CORRELATION
from vidplat.scheduler.groups import NEVER
from vidplat.scheduler.menu import Rungs

_TOGETHER_FROM = 16  # lots; shorter chains are quicker one by one
_MOST_STRIDES = 12

_Floats = NDArray[np.float64]
_Ints = NDArray[np.int64]


def spend_slack(chain: Chain) -> None:
    """Raise the runs of `chain` in place. Places without a deadline, and late ones, stay as they
    are; a place that misses its deadline at p90 already gets nothing, nor does any before it."""
    places = [p for p in chain.places if p.deadline_at != NEVER]
    if any(rung < p.rungs.top for p in places for rung in p.runs):
        lots = _Lots(places, chain.free_at)
        if len(lots.rung) > _TOGETHER_FROM:
            lots.rise_together()
        lots.rise_singly()
        for place, runs in zip(places, lots.runs(), strict=True):
            place.runs = runs
        chain.add_up()


class _Lots:
    """The jobs of a chain's places as arrays, and its running sums at each deadline."""

    def __init__(self, places: list[Place], free_at: float) -> None:
        # Of lots (L,), in the order of the chain. Those held were refused an upgrade: they stay.
        lots = [(i, r, n) for i, p in enumerate(places) for r, n in sorted(p.runs.items())]
        columns: list[_Ints] = [np.array(column) for column in zip(*lots, strict=True)]
        self.place, self.rung, self.count = columns
        self.held: NDArray[np.bool_] = np.zeros(len(lots), dtype=bool)
        # Of places (P,), and of their rungs (P, K).
        self.top: _Ints = np.array([p.rungs.top for p in places])
        depth = int(self.top.max()) + 1
        tables = {id(p.rungs): _padded(p.rungs, depth) for p in places}
        rows = [tables[id(p.rungs)] for p in places]
        self.p50_s, self.spread_s, gain = (np.array(each) for each in zip(*rows, strict=True))
        self.gain: _Floats = gain * np.array([p.weight for p in places])[:, None]
        self.wait_s: _Floats = np.array([p.wait_s for p in places])
        # Of deadlines (R,): the last place of each; and (P,) the first deadline a place counts for.
        deadlines = np.array([p.deadline_at for p in places])
        self.last: _Ints = np.append(np.flatnonzero(np.diff(deadlines)), len(places) - 1)
        self.due: _Floats = deadlines[self.last] - free_at + EASE_S
        self.row: _Ints = np.searchsorted(self.last, np.arange(len(places)))

    def runs(self) -> list[dict[int, int]]:
        """Per place: rung -> count."""
        found: list[Counter[int]] = [Counter() for _ in self.top]
        for place, rung, count in np.stack((self.place, self.rung, self.count), 1).tolist():
            found[place][rung] += count
        return [dict(each) for each in found]

    def rise_together(self) -> None:
        """Up to _MOST_STRIDES prices at which a deadline refuses; then `rise_singly` goes on."""
        # Falling prices: ever cheaper seconds, ever better rungs.
        prices = np.unique(self.gain[self.gain > 0])[::-1]
        for _ in range(_MOST_STRIDES):
            low, high = -1, len(prices) - 1  # prices[low] is known to fit, -1: as it is
            while low < high:
                middle = (low + high + 1) // 2
                if np.all(_finish(*self._sums(self._at(prices[middle]))) <= self.due):
                    low = middle
                else:
                    high = middle - 1
            if low >= 0:
                self.rung = self._at(prices[low])
            if low + 1 >= len(prices):
                return
            self.rise_singly(at_least=float(prices[low + 1]))
            if self.held.all():
                return

    def rise_singly(self, at_least: float = 0.0) -> None:
        """Upgrades that gain `at_least` so much a second, best first; the first of equals first."""
        w, s, q = self._sums(self.rung)
        room = np.full(len(self.due), math.inf)  # seconds left at a deadline when it last refused
        gains = self.gain[self.place, self.rung]
        ready = (self.rung < self.top[self.place]) & ~self.held & (gains >= at_least)
        heap = [(-gains[lot], lot, int(self.rung[lot])) for lot in np.flatnonzero(ready).tolist()]
        heapq.heapify(heap)
        raised: list[tuple[int, int]] = []  # (lot, jobs with an upgrade): it falls in two
        while heap:
            _, lot, rung = heapq.heappop(heap)
            place, count = self.place[lot], int(self.count[lot])
            row = int(self.row[place])
            step = float(self.p50_s[place, rung + 1] - self.p50_s[place, rung])
            if step > room[row]:
                self.held[lot] = True
                continue
            before, beyond = self.spread_s[place, rung : rung + 2].tolist()
            rise = (step, beyond - before, beyond * beyond - before * before)
            due, sums = self.due[row:], (w[row:], s[row:], q[row:])
            granted = _most(count, rise, sums, due)
            for total, each in zip(sums, rise, strict=True):
                total += granted * each
            if granted == count:
                self.rung[lot] = rung + 1
                gain = self.gain[place, rung + 1]
                if rung + 1 < self.top[place] and gain >= at_least:
                    heapq.heappush(heap, (-gain, lot, rung + 1))
            else:
                self.held[lot] = True
                if granted:
                    raised.append((lot, granted))
                left = due - _finish(*sums)
                tight = int(np.argmin(left))
                np.minimum(room[: row + tight + 1], left[tight], out=room[: row + tight + 1])
        if raised:
            self._split(raised)

    def _split(self, raised: list[tuple[int, int]]) -> None:
        """Make of each (lot, jobs) two lots: so many jobs one rung higher, held like the others."""
        lots, jobs = np.array(sorted(raised)).T
        for name in ("place", "rung", "count", "held"):
            column = getattr(self, name)
            setattr(self, name, np.insert(column, lots + 1, column[lots]))
        lots = lots + np.arange(len(lots))
        self.count[lots] -= jobs
        self.count[lots + 1] = jobs
        self.rung[lots + 1] += 1

    def _at(self, price: float) -> _Ints:
        """(L,) rungs when each step that gains `price` is taken, except by those held back."""
        wanted = np.count_nonzero(self.gain >= price, axis=1)[self.place]
        return np.where(self.held, self.rung, np.maximum(self.rung, wanted))

    def _sums(self, rung: _Ints) -> tuple[_Floats, _Floats, _Floats]:
        """(R,) each: W, S and Q up to the last lot of each deadline."""
        p50, spread = self.p50_s[self.place, rung], self.spread_s[self.place, rung]
        wait = np.where(np.diff(self.place, prepend=-1), self.wait_s[self.place], 0.0)
        last = np.searchsorted(self.place, self.last, side="right") - 1
        w = np.cumsum(wait + self.count * p50)[last]
        s, q = np.cumsum(self.count * spread)[last], np.cumsum(self.count * spread**2)[last]
        return w, s, q


def _padded(rungs: Rungs, depth: int) -> tuple[list[float], list[float], list[float]]:
    """Seconds, spreads and gains, filled up to `depth` rungs (gain 0: never taken)."""
    more = depth - len(rungs.points)
    p50, spread = rungs.p50_s, rungs.spread_s
    gains = [*rungs.gains, *[0.0] * (more + 1)]
    return [*p50, *p50[-1:] * more], [*spread, *spread[-1:] * more], gains


def _finish(w: _Floats, s: _Floats, q: _Floats) -> _Floats:
    finish: _Floats = w + np.sqrt((1 - CORRELATION) * q + CORRELATION * s * s)
    return finish


def _most(
    count: int,
    rise: tuple[float, float, float],
    sums: tuple[_Floats, _Floats, _Floats],
    due: _Floats,
) -> int:
    """How many of `count` jobs can take the same upgrade."""

    def fits(m: int) -> bool:
        w, s, q = (total + m * each for total, each in zip(sums, rise, strict=True))
        return bool(np.all(_finish(w, s, q) <= due))

    if fits(count):
        return count
    low, high = 0, count - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
