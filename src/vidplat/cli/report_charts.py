"""The two charts of the report page as inline SVG: what each worker did when, and predicted against
actual.

Pure functions of `Report`; colours come from the page's style sheet by class (p0 to p3 are pools),
so the charts follow light and dark. Numbers are all that is drawn; text from users appears only in
tooltips, escaped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from vidplat.cli import phrases
from vidplat.domain import JobRecord
from vidplat.errors import printable
from vidplat.platform.report import Report, actual_s, lateness_s

Scale = Callable[[float], float]  # a moment to its place from the left

WIDTH, GUTTER, LANE, GAP, TOP = 1120, 92, 24, 7, 44
LANES = 16  # workers drawn; a larger cluster shows its first ones
SQUARE, INSET = 290, 34


def pool_classes(report: Report) -> dict[str, str]:
    """A colour class for each pool, the same wherever it appears."""
    pools = {record.pool or "?" for record in report.marks} | {
        group.pool for group in report.groups
    }
    return {pool: f"p{index % 4}" for index, pool in enumerate(sorted(pools))}


def clock_chart(report: Report) -> str:
    """Seconds since submit from left to right, a lane per worker, a bar per video; deadline,
    promise and finish."""
    batch, start = report.batch, report.batch.submitted_at
    ended = [record.finished_at for record in report.marks if record.finished_at is not None]
    if not ended:
        return ""
    promise = report.promise
    ends = [*ended, *filter(None, [batch.deadline_at, promise.finish_p90_at if promise else None])]
    span = max(max(ends) - start, 1e-3) * 1.03
    scale = (WIDTH - GUTTER - 8) / span

    def x(at: float) -> float:
        return GUTTER + (min(max(at, start), start + span) - start) * scale

    workers = sorted({record.worker_id or "?" for record in report.marks})[:LANES]
    bottom = TOP + len(workers) * (LANE + GAP)
    parts = [
        f'<svg class="clock" viewBox="0 0 {WIDTH} {bottom + 26}" role="img" '
        f'aria-label="{_clock_words(report)}">'
    ]
    if promise and promise.finish_p90_at > start:
        left, right = x(promise.finish_p50_at), x(promise.finish_p90_at)
        parts.append(
            f'<rect class="band" x="{left:.1f}" y="{TOP - 6}" width="{max(right - left, 2):.1f}" '
            f'height="{bottom - TOP + 6}"><title>predicted finish, p50 to p90</title></rect>'
        )
    pools = pool_classes(report)
    for lane, worker in enumerate(workers):
        parts += _lane(report, worker, TOP + lane * (LANE + GAP), x, pools)
    parts += _axis(span, bottom, x, start)
    parts += _flags(report, bottom, x)
    return "".join([*parts, "</svg>"])


def _lane(report: Report, worker: str, y: float, x: Scale, pools: dict[str, str]) -> list[str]:
    parts = [
        f'<text x="0" y="{y + 16}">{_text(worker, 14)}</text>',
        f'<rect class="lane" x="{GUTTER}" y="{y}" width="{WIDTH - GUTTER - 8}" height="{LANE}" '
        'rx="2"/>',
    ]
    for record in report.marks:
        if (
            (record.worker_id or "?") != worker
            or record.started_at is None
            or record.finished_at is None
        ):
            continue
        left, right = x(record.started_at), x(record.finished_at)
        late = (lateness_s(record, report.batch) or 0) > 0
        parts.append(
            f'<rect class="bar {pools[record.pool or "?"]}{" late" if late else ""}" '
            f'x="{left:.1f}" y="{y}" '
            f'width="{max(right - left, 1):.1f}" height="{LANE}" '
            f'rx="2"><title>{_about(record)}</title></rect>'
        )
    return parts


def _axis(span: float, bottom: float, x: Scale, start: float) -> list[str]:
    parts = []
    for tick in ticks(span, 8):
        at = x(start + tick)
        anchor = "start" if tick == 0 else "middle"
        parts.append(
            f'<line class="axis" x1="{at:.1f}" y1="{bottom}" x2="{at:.1f}" y2="{bottom + 5}"/>'
        )
        parts.append(
            f'<text x="{at:.1f}" y="{bottom + 20}" '
            f'text-anchor="{anchor}">{phrases.seconds_tick(tick)}</text>'
        )
    return parts


def _flags(report: Report, bottom: float, x: Scale) -> list[str]:
    """Vertical lines with a word each, on rows of their own so that close ones do not overlap."""
    batch, flags = report.batch, []
    late = report.late > 0
    if report.finished_at is not None:
        took = phrases.seconds(report.finished_at - batch.submitted_at)
        word = "finished" if report.done == sum(report.counts.values()) else "last video"
        flags.append((report.finished_at, f"{word} {took}", "bad" if late else "good", 32))
    if batch.deadline_at is not None:
        allowed = phrases.seconds(batch.deadline_at - batch.submitted_at)
        flags.append((batch.deadline_at, f"deadline {allowed}", "ink", 14))
    parts = []
    for at, words, style, y in flags:
        place = x(at)
        on_right = place < WIDTH * 0.2
        anchor, shift = ("start", 6) if on_right else ("end", -6)
        parts.append(
            f'<line class="{style}" x1="{place:.1f}" y1="{y - 10}" x2="{place:.1f}" y2="{bottom}"/>'
        )
        parts.append(
            f'<text class="halo {style}" x="{place + shift:.1f}" y="{y}" '
            f'text-anchor="{anchor}">{escape(words)}</text>'
        )
    return parts


def scatter_chart(report: Report) -> str:
    """One dot per video: predicted seconds (p50) to the right, actual seconds up; on the line they
    agree."""
    dots = [(record, record.predicted_p50_s, actual_s(record)) for record in report.marks]
    known = [
        (record, p50, actual)
        for record, p50, actual in dots
        if p50 is not None and actual is not None
    ]
    if not known:
        return ""
    top = max(max(p50, actual) for _, p50, actual in known) * 1.08 or 1.0
    inner = SQUARE - INSET - 12
    pools = pool_classes(report)

    def place(p50: float, actual: float) -> tuple[float, float]:
        return INSET + p50 / top * inner, SQUARE - INSET - actual / top * inner

    (left, low), (right, high) = place(0, 0), place(top, top)
    parts = [
        f'<svg viewBox="0 0 {SQUARE} {SQUARE}" role="img" '
        f'aria-label="Predicted against actual seconds of {phrases.count(len(known), "video")}">',
        f'<line class="ideal" x1="{left}" y1="{low}" x2="{right}" y2="{high}"/>',
    ]
    for tick in ticks(top, 4):
        across, up = place(tick, tick)
        parts.append(f'<line class="axis" x1="{left}" y1="{up:.1f}" x2="{right}" y2="{up:.1f}"/>')
        parts.append(f'<text x="{left - 6}" y="{up + 4:.1f}" text-anchor="end">{tick:g}</text>')
        parts.append(f'<text x="{across:.1f}" y="{low + 16}" text-anchor="middle">{tick:g}</text>')
    for record, p50, actual in known:
        across, up = place(p50, actual)
        parts.append(
            f'<circle class="{pools[record.pool or "?"]}" cx="{across:.1f}" cy="{up:.1f}" r="5">'
            f"<title>{_about(record)}; predicted {phrases.seconds(p50)}</title></circle>"
        )
    parts.append(f'<text class="halo" x="{left + 8}" y="{high + 12}">slower than predicted</text>')
    parts.append(
        f'<text class="halo" x="{right - 2}" y="{low - 10}" text-anchor="end">faster</text>'
    )
    parts.append(f'<text x="{right}" y="{SQUARE - 6}" text-anchor="end">predicted seconds</text>')
    parts.append('<text x="0" y="10">actual</text></svg>')
    return "".join(parts)


def ticks(top: float, about: int) -> list[float]:
    """Round numbers from 0 up to `top`, about as many as asked for: steps of 1, 2 or 5 times a
    power of ten, or of whole minutes and hours."""
    steps: Sequence[float] = [
        *(digit * 10.0**power for power in range(-3, 2) for digit in (1, 2, 5)),
        *(60.0 * many for many in (1, 2, 5, 10, 15, 30, 60, 120, 240, 360, 720, 1440)),
    ]
    step = next(
        (step for step in steps if top / step <= about),
        86_400.0 * max(1, round(top / 86_400 / about)),
    )
    return [round(index * step, 6) for index in range(int(top / step) + 1)]


def _about(record: JobRecord) -> str:
    point = record.point.label if record.point else "?"
    return (
        f"row {record.job.row}, {escape(point)}, {phrases.seconds(actual_s(record))}: "
        f"{_text(record.job.prompt, 80)}"
    )


def _clock_words(report: Report) -> str:
    took = (
        phrases.seconds(report.finished_at - report.batch.submitted_at)
        if report.finished_at
        else "unknown"
    )
    return f"What each worker did when. The last video was finished {escape(took)} after submit."


def _text(text: object, limit: int) -> str:
    return escape(printable(text, limit), quote=True)
