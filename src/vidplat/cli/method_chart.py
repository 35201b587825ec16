"""A picture of quality against cost, one line per method, as a stand-alone SVG.

Where everything lies is worked out here; `page/methods.svg.j2` draws it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from vidplat.cli.report_charts import ticks
from vidplat.cli.templates import rendered

COLOURS = (
    "#1b6ca8", "#d1495b", "#2e933c", "#8f5ec9", "#e08e0b",
    "#00808c", "#a8327d", "#6b705c", "#1d3557", "#b5651d",
)  # fmt: skip
MARKS = ("circle", "square", "diamond")

Points = Sequence[tuple[float, float]]


def method_chart(points: Mapping[str, Points], *, title: str, measure: str) -> str:
    """SVG text. `points`: method -> (share of the full run's time, quality), in any order.
    `measure` names quality."""
    return rendered("methods.svg.j2", chart=_Chart.of(points), title=title, measure=measure)


@dataclass(frozen=True)
class _Line:
    """One method: its places from cheap to dear, and how they are marked."""

    method: str
    places: Points
    colour: str
    mark: str


@dataclass(frozen=True)
class _Chart:
    points: Mapping[str, Points]
    low: float  # quality at the lower edge
    high: float
    most: float  # cost at the right edge

    width, height, left, beside, top, below = 860, 520, 64, 190, 24, 52

    @classmethod
    def of(cls, points: Mapping[str, Points]) -> _Chart:
        costs = [cost for line in points.values() for cost, _ in line]
        qualities = [quality for line in points.values() for _, quality in line] or [0.0, 1.0]
        low, high = min(qualities), max(qualities)
        room = max(1e-9, high - low) * 0.06
        return cls(points, low - room, high + room, max([1.0, *costs]))

    def x(self, cost: float) -> float:
        return self.left + (self.width - self.left - self.beside) * cost / self.most

    def y(self, quality: float) -> float:
        share = (quality - self.low) / (self.high - self.low)
        return self.height - self.below - (self.height - self.top - self.below) * share

    @property
    def percents(self) -> range:
        """Marks of the cost axis."""
        return range(0, round(self.most * 100) + 1, 25)

    @property
    def ticks(self) -> list[float]:
        """Marks of the quality axis."""
        return ticks(self.low, self.high, 6)

    @property
    def lines(self) -> Iterator[_Line]:
        for number, (method, line) in enumerate(self.points.items()):
            places = [(self.x(cost), self.y(quality)) for cost, quality in sorted(line)]
            mark = MARKS[number // len(COLOURS) % len(MARKS)]
            yield _Line(method, places, COLOURS[number % len(COLOURS)], mark)
