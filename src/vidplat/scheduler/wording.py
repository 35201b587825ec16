"""Sentences about plans, for people: one place, so that logs, tables and tests say the same
thing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from vidplat.domain import OperatingPoint


def seconds(value_s: float) -> str:
    """`0.8 s`, `48 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`."""
    if value_s < 9.95:
        return f"{max(0.0, value_s):.1f} s"
    whole = round(value_s)
    if whole < 60:
        return f"{whole} s"
    for size, name, below in ((86400, "d", 3600), (3600, "h", 60), (60, "min", 1)):
        if whole >= size:
            small = {3600: "h", 60: "min", 1: "s"}[below]
            rest = whole % size // below
            return f"{whole // size} {name} {rest} {small}" if rest else f"{whole // size} {name}"
    raise AssertionError("a minute is the least size")


def jobs(count: int) -> str:
    return f"{count} job{'' if count == 1 else 's'}"


def made_at(point: OperatingPoint, full_steps: int) -> str:
    """`8 of 24 steps`."""
    of = f"{point.steps} of " if point.steps < full_steps else ""
    return f"{of}{full_steps} steps"


def lowered(points: Iterable[tuple[str, int]], total: int) -> str:
    """`12 of 16 jobs at 8 of 24 steps`; several points are listed, the commonest first."""
    tally: Counter[str] = Counter()
    for text, count in points:
        tally[text] += count
    ranked = sorted(tally.items(), key=lambda item: (-item[1], item[0]))
    below = sum(tally.values())
    if len(ranked) == 1:
        return f"{below} of {jobs(total)} at {ranked[0][0]}"
    shown = ", ".join(f"{count} at {text}" for text, count in ranked[:3])
    more = sum(count for _, count in ranked[3:])
    return (
        f"{below} of {jobs(total)} below full quality "
        f"({shown}{f', {more} at others' if more else ''})"
    )
