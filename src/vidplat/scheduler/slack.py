"""Spend a chain's slack on better rungs: best quality per second first, every deadline kept at p90.

With one machine and a concave hull the greedy order is optimal up to one edge per tight deadline: the prefix
constraints are nested (a polymatroid). It is done in two strides. A long chain first rises together: the
lowest price per second that every deadline allows is found by bisection on whole arrays; what a tight deadline
holds back stays there, and what comes after it goes on rising. Then single upgrades are tried, best first, each
tested exactly against every later deadline.

Axis letters: L lots (jobs of one place at one rung), K rungs, R different deadlines.
"""

from __future__ import annotations

import heapq
import math

import numpy as np
from numpy.typing import NDArray

from vidplat.scheduler.chains import EASE_S, Chain, Place
from vidplat.scheduler.cost import CORRELATION
from vidplat.scheduler.groups import NEVER

_TOGETHER_FROM = 16  # lots; shorter chains are quicker one by one
_MOST_STRIDES = 12

_Floats = NDArray[np.float64]
_Ints = NDArray[np.int64]


def spend_slack(chain: Chain) -> None:
    """Raise the runs of `chain` in place. Places without a deadline, and late ones, stay as they are; a place that
    misses its deadline at p90 already gets nothing, nor does any before it."""
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
        flat = [(i, p, rung, count) for i, p in enumerate(places) for rung, count in sorted(p.runs.items())]
        depth = max(len(p.rungs.points) for p in places)
        self.places = len(places)
        self.place: _Ints = np.array([i for i, _, _, _ in flat])
        self.rung: _Ints = np.array([rung for _, _, rung, _ in flat])
        self.top: _Ints = np.array([p.rungs.top for _, p, _, _ in flat])
        self.count: _Ints = np.array([count for _, _, _, count in flat])
        tables = {id(p.rungs): _padded(p, depth) for p in places}
        self.p50_s: _Floats = np.array([tables[id(p.rungs)][0] for _, p, _, _ in flat])  # (L, K)
        self.spread_s: _Floats = np.array([tables[id(p.rungs)][1] for _, p, _, _ in flat])  # (L, K)
        weights = np.array([p.weight for _, p, _, _ in flat])
        self.gain: _Floats = np.array([tables[id(p.rungs)][2] for _, p, _, _ in flat]) * weights[:, None]  # (L, K)
        # Waits stand before the first lot of their place.
        self.wait_s: _Floats = np.zeros(len(flat))
        first = {i: k for k, (i, _, _, _) in reversed(list(enumerate(flat)))}
        for i, k in first.items():
            self.wait_s[k] = places[i].wait_s
        deadlines = [p.deadline_at for _, p, _, _ in flat]
        self.last: _Ints = np.array(  # (R,) index of the last lot of each deadline
            [k for k, d in enumerate(deadlines) if k + 1 == len(deadlines) or deadlines[k + 1] != d]
        )
        self.due: _Floats = np.array([deadlines[k] for k in self.last]) - free_at + EASE_S
        self.row: _Ints = np.searchsorted(self.last, np.arange(len(flat)))  # (L,) the deadline a lot counts for first
        self.partial: list[tuple[int, int, int]] = []  # (place, rung, count) split off a lot

    def runs(self) -> list[dict[int, int]]:
        """Per place: rung -> count."""
        found: list[dict[int, int]] = [{} for _ in range(self.places)]
        lots = zip(self.place.tolist(), self.rung.tolist(), self.count.tolist(), strict=True)
        for place, rung, count in [*lots, *self.partial]:
            if count:
                found[place][rung] = found[place].get(rung, 0) + count
        return found

    def rise_together(self) -> None:
        prices = np.unique(self.gain[self.gain > 0])[::-1]  # falling: ever cheaper seconds, ever better rungs
        held = np.zeros(len(self.rung), dtype=bool)
        for _ in range(_MOST_STRIDES):
            low, high = -1, len(prices) - 1  # prices[low] is known to fit, -1: as it is
            while low < high:
                middle = (low + high + 1) // 2
                if np.all(self._left(self._at(prices[middle], held)) >= 0):
                    low = middle
                else:
                    high = middle - 1
            if low >= 0:
                self.rung = self._at(prices[low], held)
            if low + 1 >= len(prices):
                return
            refused = np.flatnonzero(self._left(self._at(prices[low + 1], held)) < 0)
            held |= self.row <= refused[0]
            if held.all():
                return

    def rise_singly(self) -> None:
        w, s, q = self._sums(self.rung)
        room = np.full(len(self.due), math.inf)  # per deadline: seconds that were left when it last refused
        heap = [(-self.gain[k, r], k, int(r)) for k, r in enumerate(self.rung) if r < self.top[k]]
        heapq.heapify(heap)
        while heap:
            _, lot, rung = heapq.heappop(heap)
            row = int(self.row[lot])
            step = float(self.p50_s[lot, rung + 1] - self.p50_s[lot, rung])
            if step > room[row]:
                continue
            before, beyond = float(self.spread_s[lot, rung]), float(self.spread_s[lot, rung + 1])
            rise = (step, beyond - before, beyond * beyond - before * before)
            count = int(self.count[lot])
            due = self.due[row:]
            sums = (w[row:], s[row:], q[row:])
            granted = _most(count, rise, sums, due)
            for total, each in zip(sums, rise, strict=True):
                total += granted * each
            if granted == count:
                self.rung[lot] = rung + 1
                if rung + 1 < self.top[lot]:
                    heapq.heappush(heap, (-self.gain[lot, rung + 1], lot, rung + 1))
            else:
                if granted:
                    self.partial.append((int(self.place[lot]), rung + 1, granted))
                    self.count[lot] -= granted
                left = due - _finish(*sums)
                tight = int(np.argmin(left))
                np.minimum(room[: row + tight + 1], left[tight], out=room[: row + tight + 1])

    def _at(self, price: float, held: NDArray[np.bool_]) -> _Ints:
        """(L,) rungs when every step that gains at least `price` is taken, except by those held back."""
        wanted = np.maximum(self.rung, np.count_nonzero(self.gain >= price, axis=1))
        return np.where(held, self.rung, wanted)

    def _left(self, rung: _Ints) -> _Floats:
        """(R,) seconds left at each deadline."""
        return self.due - _finish(*self._sums(rung))

    def _sums(self, rung: _Ints) -> tuple[_Floats, _Floats, _Floats]:
        """(R,) each: W, S and Q up to the last lot of each deadline."""
        lots = np.arange(len(rung))
        spread = self.spread_s[lots, rung]
        w = np.cumsum(self.wait_s + self.count * self.p50_s[lots, rung])
        return w[self.last], np.cumsum(self.count * spread)[self.last], np.cumsum(self.count * spread**2)[self.last]


def _padded(place: Place, depth: int) -> tuple[list[float], list[float], list[float]]:
    """A place's seconds, spreads and gains, filled up to `depth` rungs (gain 0: never taken)."""
    rungs = place.rungs
    more = depth - len(rungs.points)
    p50, spread = [*rungs.p50_s, *[rungs.p50_s[-1]] * more], [*rungs.spread_s, *[rungs.spread_s[-1]] * more]
    return p50, spread, [*rungs.gains, *[0.0] * (more + 1)]


def _finish(w: _Floats, s: _Floats, q: _Floats) -> _Floats:
    finish: _Floats = w + np.sqrt((1 - CORRELATION) * q + CORRELATION * s * s)
    return finish


def _most(count: int, rise: tuple[float, float, float], sums: tuple[_Floats, _Floats, _Floats], due: _Floats) -> int:
    """How many of `count` jobs can take the same upgrade."""

    def fits(m: int) -> bool:
        return bool(np.all(_finish(*(total + m * each for total, each in zip(sums, rise, strict=True))) <= due))

    if fits(count):
        return count
    low, high = 0, count - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
