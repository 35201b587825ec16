"""What was found, as rows of the JSON line and as the lines of the card."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.common import Row
from benchmarks.gpu_methods.bench import Lap
from benchmarks.gpu_methods.ways import RIVAL, Setting, Way, Work, planned

WITHIN = 0.15  # of the FLOP ratio
LIPAR_BAR = 1.5  # times as fast as unpruned, on a GPU
PRUNING, EVEN = ("lipar", "stream"), ("hsa", "sparse", "both", "frames")  # parts of each bar


@dataclass
class Found:
    """All that is known of one way."""

    way: Way
    laps: list[Lap] = field(default_factory=list)
    work: Work | None = None  # counted
    kept: float = 1.0  # share of tokens that LIPAR keeps
    difference: float | None = None  # of compiled latents to eager ones, relative
    reason: str = ""


def rows_of(found: Sequence[Found], setting: Setting, steps: int) -> list[Row]:
    rival = {lap.round: lap.ratio for one in found if one.way == RIVAL for lap in one.laps}
    works = {one.way.work_key: one.work for one in found if one.work}
    rows = []
    for one in found:
        work = planned(one.way, setting, steps, one.kept)
        rows.append(_row(one, rival, works.get(one.way.work_key) or work, work))
    return rows


def _row(one: Found, rival: Mapping[int, float], work: Work | None, plan: Work | None) -> Row:
    """work: counted where it was, else planned."""
    laps, of_rival = one.laps, [lap for lap in one.laps if lap.round in rival]
    if one.way.part == "stream":
        of_rival = []
    ratio = _median([lap.ratio for lap in laps])
    against = _median([lap.ratio / rival[lap.round] for lap in of_rival])
    off = None if ratio is None or work is None else ratio / work.total
    return {
        "way": one.way.name,
        "part": one.way.part,
        "ms_per_step": _median([lap.ms for lap in laps]),
        "dense_ms_per_step": _median([lap.dense_ms for lap in laps]),
        "time_ratio": ratio,
        "flop_ratio": None if work is None else work.total,
        "time_over_flops": off,
        "within": None if off is None else abs(off - 1) <= WITHIN,
        "ratio_to_rival": against,
        "flops_counted": None if one.work is None else one.work._asdict(),
        "flops_planned": None if plan is None else plan._asdict(),
        "begin_ms": _median([lap.begin_ms for lap in laps]),
        "peak_bytes": max((lap.peak_bytes for lap in laps), default=None),
        "kept_share": one.kept,
        "difference": one.difference,
        "rounds": len(laps),
        "reason": one.reason,
    }


def card(rows: Sequence[Row], steps: int, *, on_gpu: bool) -> Iterator[str]:
    yield f"whole runs of {steps} steps; * marks a ratio within {WITHIN:.0%} of the FLOP ratio"
    yield (
        f"  {'':<44}{'ms/step':>9}{'dense':>9}{'time':>8}{'FLOPs':>8}{'time/FLOPs':>12}{'rival':>8}"
        f"{'peak GiB':>9}"
    )
    yield from map(_line, rows)
    judged = [row for row in rows if row["within"] is not None and row["part"] in EVEN]
    near = sum(bool(row["within"]) for row in judged)
    yield f"  {near} of {len(judged)} ways within {WITHIN:.0%} of their FLOPs, against dense"
    for row in rows:
        if row["part"] in PRUNING and row["rounds"]:
            times = 1 / row["time_ratio"]
            verdict = "met" if times >= LIPAR_BAR else "missed"
            told = f"is {verdict}" if on_gpu else "is for a GPU at full size"
            yield f"  {row['way']}: {times:.2f}x the unpruned run, the bar of {LIPAR_BAR}x {told}"
    if not on_gpu:
        yield "  a rehearsal: at this size, or on a CPU, ratios say nothing about a GPU"


def _line(row: Row) -> str:
    if row["ms_per_step"] is None:
        return f"  {row['way']:<44}not measured: {row['reason'] or 'stopped before'}"
    times = f"{row['ms_per_step']:>9.1f}{row['dense_ms_per_step']:>9.1f}{row['time_ratio']:>8.3f}"
    flops = _shown(row["flop_ratio"], 8) + _shown(row["time_over_flops"], 11)
    flops += "*" if row["within"] else " "
    rival = _shown(row["ratio_to_rival"], 8)
    then = f"  then: {row['reason']}" if row["reason"] else ""
    return f"  {row['way']:<44}{times}{flops}{rival}{row['peak_bytes'] / 2**30:>9.2f}{then}"


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _shown(value: Any, width: int) -> str:
    return f"{'-':>{width}}" if value is None else f"{value:>{width}.3f}"
