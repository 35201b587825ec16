"""Sentences about plans, for people: said here once, for logs, tables and tests alike."""

from __future__ import annotations

from collections.abc import Mapping

from vidplat.domain import OperatingPoint


def seconds(value_s: float) -> str:
    """`0.8 s`, `48 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`."""
    if value_s < 9.95:
        return f"{max(0.0, value_s):.1f} s"
    whole = round(value_s)
    if whole < 60:
        return f"{whole} s"
    units = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    large = next(i for i, (size, _) in enumerate(units) if whole >= size)
    (size, name), (below, small) = units[large : large + 2]
    rest = whole % size // below
    return f"{whole // size} {name} {rest} {small}" if rest else f"{whole // size} {name}"


def jobs(count: int) -> str:
    return f"{count:,} job{'' if count == 1 else 's'}"


def made_at(point: OperatingPoint, full_steps: int) -> str:
    """`8 of 24 steps`, `24 steps, hsa:preset=25`."""
    of = f"{point.steps} of " if point.steps < full_steps else ""
    how = f", {point.accelerator}" if point.accelerator else ""
    return f"{of}{full_steps} steps{how}"


def lowered(points: Mapping[str, int], total: int) -> str:
    """`12 of 16 jobs at 8 of 24 steps`; several points are listed, the commonest first."""
    ranked = sorted(points.items(), key=lambda item: (-item[1], item[0]))
    below = sum(points.values())
    if len(ranked) == 1:
        return f"{below} of {jobs(total)} at {ranked[0][0]}"
    shown = ", ".join(f"{count} at {text}" for text, count in ranked[:3])
    more = sum(count for _, count in ranked[3:])
    others = f", {more} at others" if more else ""
    return f"{below} of {jobs(total)} below full quality ({shown}{others})"
