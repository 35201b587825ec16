"""Numbers, times and sizes as people read them: one way of saying each, for tables, progress and
the report.

Pure text; nothing here knows a terminal or HTML. Scripts get plain numbers instead (see
`documents`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime

from vidplat.domain import JobState, quality_in_words
from vidplat.times import in_words

MINUTE_S, HOUR_S = 60, 3600


def seconds(value: float | None) -> str:
    """`0.42 s`, `3.4 s`, `48 s`, `12 min 5 s`, `3 h 20 min`; a dash for None and infinity."""
    return "–" if value is None or not math.isfinite(value) else in_words(value)


def moment(at: float | None, now: float | None = None) -> str:
    """Local time: `21:45:10` on the day of `now`, else with its date; a dash for never."""
    if at is None or not abs(at) < 250_000_000_000:
        return "–"
    local = datetime.fromtimestamp(at, UTC).astimezone()
    if now is not None and local.date() == datetime.fromtimestamp(now, UTC).astimezone().date():
        return f"{local:%H:%M:%S}"
    return f"{local:%Y-%m-%d %H:%M:%S}"


def ago(at: float, now: float) -> str:
    """`12 s ago`, `in 40 s`."""
    return f"{seconds(now - at)} ago" if now >= at else f"in {seconds(at - now)}"


def when(at: float, now: float) -> str:
    """`21:45:10 (12 s ago)`."""
    return f"{moment(at, now)} ({ago(at, now)})"


def size(value: float | None) -> str:
    """Decimal sizes: `812 B`, `9.4 kB`, `1.2 MB`; a dash for None."""
    if value is None:
        return "–"
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 99.5 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def count(number: int, noun: str) -> str:
    """`1 video`, `1,200 videos`."""
    return f"{number:,} {noun if number == 1 else noun + 's'}"


def not_done(counts: Mapping[JobState, int]) -> list[str]:
    """`2 running`, `5 queued`, `1 failed`: jobs that are in any state but done."""
    return [
        f"{many:,} {state.value}"
        for state, many in counts.items()
        if many and state is not JobState.DONE
    ]


def file_name(place: str | None) -> str | None:
    """The last part of a path or URL: `a.mp4` of `s3://bucket/clips/a.mp4?region=x`."""
    if place is None:
        return None
    return (place.partition("?")[0] if "://" in place else place).rpartition("/")[2]


def percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"


def quality(value: float | None) -> str:
    """Predicted or measured likeness to the full-quality video, 1.00 at best; a dash for None."""
    return "–" if value is None else quality_in_words(value)


def against(actual: float, predicted: float) -> str:
    """How far off a prediction was: `+12 %` is slower; a dash where nothing was predicted."""
    return f"{100 * (actual / predicted - 1):+.0f} %" if predicted > 0 else "–"


def seconds_tick(value: float) -> str:
    """A short label for an axis: `0`, `20 s`, `5 min`, `2 h`."""
    if value == 0:
        return "0"
    if value < 2 * MINUTE_S or value % MINUTE_S:
        return f"{value:g} s"
    return (
        f"{value / MINUTE_S:g} min"
        if value < 2 * HOUR_S or value % HOUR_S
        else f"{value / HOUR_S:g} h"
    )
