"""Sentences about plans, for people: said here once, for logs, tables and tests alike."""

from __future__ import annotations

from collections.abc import Mapping

from vidplat.domain import OperatingPoint
from vidplat.times import in_words


def seconds(value_s: float) -> str:
    """As in tables and on pages; what would lie in the past is no time at all."""
    return in_words(max(0.0, value_s))


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
