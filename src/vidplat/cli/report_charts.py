"""Where everything lies in the two charts of the report page: what each worker did when, and
predicted against actual.

Numbers alone, in the units of the SVG's view box, from the left and the top; `page/charts.svg.j2`
draws them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from vidplat.cli import phrases
from vidplat.domain import JobRecord
from vidplat.platform.report import Report, actual_s, lateness_s

LANES = 16  # workers drawn; a larger cluster shows its first ones


def pool_classes(report: Report) -> dict[str, str]:
    """A colour class for each pool, the same wherever it appears."""
    pools = {pool_of(record) for record in report.marks} | {group.pool for group in report.groups}
    return {pool: f"p{index % 4}" for index, pool in enumerate(sorted(pools))}


def pool_of(record: JobRecord) -> str:
    return record.pool or "?"


# --- what each worker did when --------------------------------------------------------------------


@dataclass(frozen=True)
class Span:
    left: float
    width: float


@dataclass(frozen=True)
class Bar(Span):
    """One video."""

    record: JobRecord
    colour: str
    took_s: float | None
    is_late: bool


@dataclass(frozen=True)
class Lane:
    """One worker."""

    worker: str
    y: int
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Flag:
    """A vertical line with a word, on a row of its own so that close ones do not overlap."""

    at: float
    y: int
    words: str
    tone: str  # ink, good or bad


@dataclass(frozen=True)
class Clock:
    """Seconds since submit from left to right, a lane per worker, a bar per video."""

    report: Report
    colours: Mapping[str, str]
    span_s: float  # from submit to the right edge

    width, gutter, top, lane_height, gap = 1120, 92, 44, 24, 7

    @classmethod
    def of(cls, report: Report, colours: Mapping[str, str]) -> Clock | None:
        """None where no video has an end."""
        ends = [record.finished_at for record in report.marks if record.finished_at is not None]
        if not ends:
            return None
        promised = report.promise.finish_p90_at if report.promise else None
        last = max(ends + [end for end in (report.batch.deadline_at, promised) if end])
        return cls(report, colours, 1.03 * max(last - report.batch.submitted_at, 1e-3))

    def x(self, at: float) -> float:
        """The place of a moment, within the chart."""
        passed_s = min(max(at - self.report.batch.submitted_at, 0.0), self.span_s)
        return self.gutter + passed_s / self.span_s * (self.width - self.gutter - 8)

    @property
    def workers(self) -> list[str]:
        return sorted({record.worker_id or "?" for record in self.report.marks})[:LANES]

    @property
    def bottom(self) -> int:
        return self.top + len(self.workers) * (self.lane_height + self.gap)

    @property
    def took_s(self) -> float | None:
        """Until the last video was finished."""
        end = self.report.finished_at
        return None if end is None else end - self.report.batch.submitted_at

    @property
    def band(self) -> Span | None:
        """The predicted finish, p50 to p90."""
        promise = self.report.promise
        if promise is None or promise.finish_p90_at <= self.report.batch.submitted_at:
            return None
        left, right = self.x(promise.finish_p50_at), self.x(promise.finish_p90_at)
        return Span(left, max(right - left, 2))

    @property
    def lanes(self) -> Iterator[Lane]:
        for number, worker in enumerate(self.workers):
            yield Lane(
                worker,
                self.top + number * (self.lane_height + self.gap),
                tuple(
                    self._bar(record, record.started_at, record.finished_at)
                    for record in self.report.marks
                    if (record.worker_id or "?") == worker
                    and record.started_at is not None
                    and record.finished_at is not None
                ),
            )

    def _bar(self, record: JobRecord, began: float, ended: float) -> Bar:
        left, late_s = self.x(began), lateness_s(record, self.report.batch)
        return Bar(
            left,
            max(self.x(ended) - left, 1),
            record,
            self.colours[pool_of(record)],
            actual_s(record),
            is_late=late_s is not None and late_s > 0,
        )

    @property
    def ticks(self) -> list[tuple[float, float]]:
        """(place, seconds)."""
        start = self.report.batch.submitted_at
        return [(self.x(start + tick), tick) for tick in ticks(0, self.span_s, 8)]

    @property
    def flags(self) -> Iterator[Flag]:
        batch = self.report.batch
        if self.report.finished_at is not None:
            word = "finished" if self.report.done == self.report.total else "last video"
            tone = "bad" if self.report.late else "good"
            words = f"{word} {phrases.seconds(self.took_s)}"
            yield Flag(self.x(self.report.finished_at), 32, words, tone)
        if batch.deadline_at is not None:
            words = f"deadline {phrases.seconds(batch.deadline_at - batch.submitted_at)}"
            yield Flag(self.x(batch.deadline_at), 14, words, "ink")


# --- predicted against actual ---------------------------------------------------------------------


@dataclass(frozen=True)
class Dot:
    """One video."""

    record: JobRecord
    colour: str
    predicted_s: float  # p50
    actual_s: float


@dataclass(frozen=True)
class Scatter:
    """Predicted seconds (p50) to the right, actual seconds up; on the diagonal they agree."""

    dots: tuple[Dot, ...]
    most: float  # seconds at the right and the upper edge

    side, inset = 290, 34

    @classmethod
    def of(cls, report: Report, colours: Mapping[str, str]) -> Scatter | None:
        """None where nothing was both predicted and timed."""
        dots = [
            Dot(record, colours[pool_of(record)], record.predicted_p50_s, took_s)
            for record in report.marks
            if record.predicted_p50_s is not None and (took_s := actual_s(record)) is not None
        ]
        longest = max((max(dot.predicted_s, dot.actual_s) for dot in dots), default=0.0)
        return cls(tuple(dots), 1.08 * longest or 1.0) if dots else None

    def across(self, predicted_s: float) -> float:
        return self.inset + predicted_s / self.most * (self.side - self.inset - 12)

    def up(self, actual_s: float) -> float:
        return self.side - self.inset - actual_s / self.most * (self.side - self.inset - 12)

    @property
    def ticks(self) -> list[float]:
        return ticks(0, self.most, 4)


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers from `low` to `high`, about as many as asked for: steps of 1, 2 or 5 times a
    power of ten, or of whole minutes and hours."""
    steps: Sequence[float] = [
        *(digit * 10.0**power for power in range(-3, 2) for digit in (1, 2, 5)),
        *(60.0 * many for many in (1, 2, 5, 10, 15, 30, 60, 120, 240, 360, 720, 1440)),
    ]
    step = next(
        (step for step in steps if (high - low) / step <= about),
        86_400.0 * max(1, round((high - low) / 86_400 / about)),
    )
    first, last = math.ceil(low / step), math.floor(high / step)
    return [round(index * step, 6) for index in range(first, last + 1)]
