"""Spend a chain's slack on better rungs: best quality per second first, every deadline kept at p90.

With one machine and a concave hull the greedy order is optimal up to one edge per tight deadline:
the prefix constraints are nested (a polymatroid). A long chain first rises together: the lowest
price per second that every deadline allows is found by bisection on whole arrays. At the next
price, where some deadline refuses, single upgrades are tried in the greedy order, each tested
exactly against every later deadline; what is refused is held there, and the rest goes on rising.
After some such strides, or at once in a short chain, single upgrades alone do the rest, so both
ways come to the same end.

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
        flat = [
            (i, p, rung, count)
            for i, p in enumerate(places)
            for rung, count in sorted(p.runs.items())
        ]
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
        self.gain: _Floats = (
            np.array([tables[id(p.rungs)][2] for _, p, _, _ in flat]) * weights[:, None]
        )  # (L, K)
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
        self.row: _Ints = np.searchsorted(
            self.last, np.arange(len(flat))
        )  # (L,) the deadline a lot counts for first
        self.held: NDArray[np.bool_] = np.zeros(
            len(flat), dtype=bool
        )  # (L,) refused an upgrade: they rise no more

    def runs(self) -> list[dict[int, int]]:
        """Per place: rung -> count."""
        found: list[dict[int, int]] = [{} for _ in range(self.places)]
        for place, rung, count in zip(
            self.place.tolist(), self.rung.tolist(), self.count.tolist(), strict=True
        ):
            found[place][rung] = found[place].get(rung, 0) + count
        return found

    def rise_together(self) -> None:
        """Up to _MOST_STRIDES prices at which a deadline refuses; `rise_singly` goes on from
        there."""
        prices = np.unique(self.gain[self.gain > 0])[
            ::-1
        ]  # falling: ever cheaper seconds, ever better rungs
        for _ in range(_MOST_STRIDES):
            low, high = -1, len(prices) - 1  # prices[low] is known to fit, -1: as it is
            while low < high:
                middle = (low + high + 1) // 2
                if np.all(self._left(self._at(prices[middle])) >= 0):
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
        room = np.full(
            len(self.due), math.inf
        )  # per deadline: seconds that were left when it last refused
        heap = [
            (-self.gain[k, r], k, int(r))
            for k, r in enumerate(self.rung)
            if r < self.top[k] and not self.held[k] and self.gain[k, r] >= at_least
        ]
        heapq.heapify(heap)
        raised: list[
            tuple[int, int]
        ] = []  # (lot, jobs of it that an upgrade was granted for): it falls in two
        while heap:
            _, lot, rung = heapq.heappop(heap)
            row = int(self.row[lot])
            step = float(self.p50_s[lot, rung + 1] - self.p50_s[lot, rung])
            if step > room[row]:
                self.held[lot] = True
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
                if rung + 1 < self.top[lot] and self.gain[lot, rung + 1] >= at_least:
                    heapq.heappush(heap, (-self.gain[lot, rung + 1], lot, rung + 1))
            else:
                self.held[lot] = True
                if granted:
                    raised.append((lot, granted))
                left = due - _finish(*sums)
                tight = int(np.argmin(left))
                np.minimum(room[: row + tight + 1], left[tight], out=room[: row + tight + 1])
        self._split(raised)

    def _split(self, raised: list[tuple[int, int]]) -> None:
        """Make of each (lot, jobs) two lots: that many jobs one rung higher, held like the rest of
        it."""
        if not raised:
            return
        lots = np.array(sorted(lot for lot, _ in raised))
        for name in (
            "place",
            "rung",
            "top",
            "count",
            "p50_s",
            "spread_s",
            "gain",
            "wait_s",
            "row",
            "held",
        ):
            setattr(
                self,
                name,
                np.insert(getattr(self, name), lots + 1, getattr(self, name)[lots], axis=0),
            )
        jobs = dict(raised)
        for shift, lot in enumerate(lots.tolist()):
            self.count[lot + shift] -= jobs[lot]
            self.count[lot + shift + 1] = jobs[lot]
            self.rung[lot + shift + 1] += 1
            self.wait_s[lot + shift + 1] = 0.0
        self.last += np.searchsorted(lots, self.last, side="right")

    def _at(self, price: float) -> _Ints:
        """(L,) rungs when every step that gains at least `price` is taken, except by those held
        back."""
        wanted = np.maximum(self.rung, np.count_nonzero(self.gain >= price, axis=1))
        return np.where(self.held, self.rung, wanted)

    def _left(self, rung: _Ints) -> _Floats:
        """(R,) seconds left at each deadline."""
        return self.due - _finish(*self._sums(rung))

    def _sums(self, rung: _Ints) -> tuple[_Floats, _Floats, _Floats]:
        """(R,) each: W, S and Q up to the last lot of each deadline."""
        lots = np.arange(len(rung))
        spread = self.spread_s[lots, rung]
        w = np.cumsum(self.wait_s + self.count * self.p50_s[lots, rung])
        return (
            w[self.last],
            np.cumsum(self.count * spread)[self.last],
            np.cumsum(self.count * spread**2)[self.last],
        )


def _padded(place: Place, depth: int) -> tuple[list[float], list[float], list[float]]:
    """A place's seconds, spreads and gains, filled up to `depth` rungs (gain 0: never taken)."""
    rungs = place.rungs
    more = depth - len(rungs.points)
    p50, spread = (
        [*rungs.p50_s, *[rungs.p50_s[-1]] * more],
        [*rungs.spread_s, *[rungs.spread_s[-1]] * more],
    )
    return p50, spread, [*rungs.gains, *[0.0] * (more + 1)]


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
        return bool(
            np.all(
                _finish(*(total + m * each for total, each in zip(sums, rise, strict=True))) <= due
            )
        )

    if fits(count):
        return count
    low, high = 0, count - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
