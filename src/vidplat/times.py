"""What time it is, and how people write a deadline: a duration, a time of day, a date with a time.

Whoever waits, promises or measures asks `now`, not the machine's clock, which may be set at any
moment: a deadline is as far away as it was when it was given, whether written `60s` or `06:00`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from vidplat.errors import UsageError, printable

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_PART = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)([smhd])")
_FORMS = (
    "use a duration such as 60s, 90m, 6h, 2d or 1h30m, a time of day such as 06:00, or ISO 8601"
)
_LONGEST_S = 3660 * 86_400.0  # ten years: farther is a slip of the pen


def ticks() -> float:
    """Seconds that only ever go on, also while the machine sleeps; on Linux they are the same for
    all processes since a `boot`."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


_AHEAD_S = time.time() - ticks()


def now() -> float:
    """Seconds since the epoch, counted on from what the machine's clock said when this process
    began: setting that clock later moves nothing."""
    return _AHEAD_S + ticks()


def boot() -> str:
    """What tells this start of the machine from others; "" where it does not say."""
    told = Path("/proc/sys/kernel/random/boot_id")
    return told.read_text().strip() if told.exists() else ""


def in_words(seconds: float) -> str:
    """`0.42 s`, `3.4 s`, `48 s`, `12 min 5 s`, `3 h 20 min`: the one way of saying a duration."""
    sign, size = ("-" if seconds < 0 else ""), abs(seconds)
    if size < 0.9995:
        return f"{sign}{size:.2f} s"
    if size < 9.95:
        return f"{sign}{size:.1f} s"
    whole = round(size)
    if whole < 120:
        return f"{sign}{whole} s"
    units = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    large = next(i for i, (unit_s, _) in enumerate(units) if whole >= unit_s)
    (big_s, big), (small_s, small) = units[large : large + 2]
    rest = whole % big_s // small_s
    return f"{sign}{whole // big_s} {big}" + (f" {rest} {small}" if rest else "")


def parse_duration(text: str) -> float:
    """Seconds in `90m`, `1h30m`, `2d`. Raises UsageError, also for a number without its unit."""
    plain = text.strip().lower()
    shown = printable(text)
    if re.fullmatch(r"\d+(\.\d+)?", plain):
        raise UsageError(f"deadline {shown!r} has no unit: add one, e.g. {printable(plain, 30)}s")
    parts: Sequence[tuple[str, str]] = _PART.findall(plain)
    if not parts or "".join(number + unit for number, unit in parts) != plain:
        raise UsageError(f"deadline {shown!r} is not understood: {_FORMS}")
    units = [unit for _, unit in parts]
    if sorted(units, key="dhms".index) != units or len(set(units)) != len(units):
        raise UsageError(
            f"deadline {shown!r} is not understood: write each unit once, longest first, e.g. 1h30m"
        )
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not 0 < seconds <= _LONGEST_S:
        raise UsageError(f"deadline {shown!r} must be longer than nothing and at most ten years")
    return seconds


def parse_deadline(text: str, now: float) -> float:
    """The moment meant by `text`, in seconds since the epoch.

    Durations count from `now`; `06:00` is the next such local time; an ISO 8601 time without an
    offset is local. Raises UsageError for anything else and for moments that have passed.
    """
    plain = text.strip()
    shown = printable(text)
    if plain.startswith("-"):
        raise UsageError(f"deadline {shown!r} lies in the past: {_FORMS}")
    if clock := re.fullmatch(r"(\d{1,2}):(\d{2})(?::(\d{2}))?", plain):
        return _next_time_of_day(shown, int(clock[1]), int(clock[2]), int(clock[3] or 0), now)
    if re.match(r"\d{4}-\d{2}-\d{2}", plain):
        try:
            moment = datetime.fromisoformat(plain)
            at = moment.timestamp()
        except (ValueError, OverflowError, OSError) as error:
            raise UsageError(f"deadline {shown!r} is not a date and time: {_FORMS}") from error
        if at <= now:
            raise UsageError(f"deadline {shown!r} lies in the past ({_ago(now - at)} ago)")
        if at - now > _LONGEST_S:
            raise UsageError(f"deadline {shown!r} is more than ten years away")
        return at
    return now + parse_duration(plain)


def _next_time_of_day(shown: str, hour: int, minute: int, second: int, now: float) -> float:
    if hour > 23 or minute > 59 or second > 59:
        raise UsageError(f"deadline {shown!r} is not a time of day: use 00:00 to 23:59")
    today = datetime.fromtimestamp(now).astimezone()
    moment = today.replace(tzinfo=None, hour=hour, minute=minute, second=second, microsecond=0)
    # Naive local times, so that the day after a clock change is met at the same hour on the wall.
    while moment.timestamp() <= now:
        moment += timedelta(days=1)
    return moment.timestamp()


def _ago(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"
