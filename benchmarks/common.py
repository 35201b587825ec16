"""What benchmarks share: options, the head of the card, the line they end with, held-out captions.

A benchmark prints a card for people and ends with one JSON line for programs (`answer`). Both name
the machine, the versions and the first seed, so that a kept result says where it comes from. A kept
result lies in `results/` and is called theme, machine and date (`result_file`); where a benchmark
has rows for each prompt, these go beside it as parquet. Progress goes to standard error.

Captions come from seeds that training never drew (it stayed below 3e9). `FIRST_SEEDS` lists them
for all benchmarks. Making videos of them is left to `making.py`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from flipbook_training import world

CLASSES = world.MOTION_CLASSES
FIRST_SEEDS = {
    "flipbook_quality": 9_000_000_000,
    "interpolate": 9_500_000_000,
    "diffusers_loop": 9_500_000_000,
    "lipar": 9_600_000_000,
    "keyframes": 9_700_100_000,
    "frame_rate": 9_700_200_000,
    "methods": 9_800_000_000,
    "step_grids": 9_850_000_000,
    "busy_share": 9_900_000_000,
    "cloud_edge": 9_900_000_000,
}
RESULTS = Path("benchmarks/results")
MOST_DB = 60.0  # PSNR of equal frames, which have none that is finite; means need one

Row = dict[str, Any]
_LIBRARIES = {  # module -> distribution
    "torch": "torch",
    "diffusers": "diffusers",
    "ray": "ray",
    "cv2": "opencv-python-headless",
    "av": "av",
    "pyarrow": "pyarrow",
    "sqlalchemy": "sqlalchemy",
}
_MAKERS = {"AMD", "Intel(R)", "Apple"}  # a machine is called by the word after these


# --- options, card and answer ---------------------------------------------------------------------


def options(doc: str | None, **defaults: Any) -> argparse.ArgumentParser:
    """A parser whose help is the module's text, with those common options that have a default."""
    helps = {
        "model": "an embedded model's name, a directory, or a name of the hub",
        "captions": "how many held-out captions",
        "threads": "of torch",
        "repeats": "of each measurement; the best counts",
        "rounds": "of each measurement; the median counts",
    }
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in defaults.items():
        told = f"{helps[name]} (default: {default})"
        parser.add_argument(f"--{name}", type=type(default), default=default, help=told)
    return parser


def head(about: str, benchmark: str, device: str = "cpu") -> str:
    """The first lines of a card: what was measured, on what, with which versions and seeds."""
    told = ", ".join(f"{name} {number}" for name, number in versions().items())
    seeds = f"; seeds from {FIRST_SEEDS[benchmark]:,} on" if benchmark in FIRST_SEEDS else ""
    return f"{about}\n  {machine(device)}; {told}{seeds}"


def answer(benchmark: str, device: str = "cpu", /, **figures: Any) -> dict[str, Any]:
    """Print the JSON line that a benchmark ends with, and return what it says."""
    said: dict[str, Any] = {"benchmark": benchmark, **figures}
    if benchmark in FIRST_SEEDS:
        said["first_seed"] = FIRST_SEEDS[benchmark]
    said = plain(said | {"machine": machine(device), "versions": versions()})
    print(json.dumps(said))
    return said


def plain(value: Any) -> Any:
    """What JSON can say of `value`: six digits of a number; None for what is not finite."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def progress() -> Callable[[str], None]:
    """Tells lines on standard error, each with the seconds since this call."""
    began = time.perf_counter()

    def say(line: str) -> None:
        print(f"{time.perf_counter() - began:6.0f} s  {line}", file=sys.stderr, flush=True)

    return say


# --- machine, versions, results -------------------------------------------------------------------


def machine(device: str = "cpu") -> str:
    """The processor and its cores, or the GPU and its memory."""
    if not device.startswith("cuda"):
        return f"{_processor()}, {os.cpu_count()} cores"
    import torch

    gpu = torch.cuda.get_device_properties(device)
    memory_gib = gpu.total_memory / 2**30
    return f"{gpu.name}, compute capability {gpu.major}.{gpu.minor}, {memory_gib:.0f} GiB"


def versions() -> dict[str, str]:
    """Of vidplat and of the libraries that this process has loaded."""
    loaded = (name for module, name in _LIBRARIES.items() if module in sys.modules)
    return {name: version(name) for name in ("vidplat", *loaded)}


def result_file(theme: str, suffix: str) -> Path:
    """Where today's result is kept, by theme, machine and date: methods-2core-epyc-2026-11-21."""
    name = next((word for word in _processor().split() if word not in _MAKERS), "unknown").lower()
    return RESULTS / f"{theme}-{os.cpu_count()}core-{name}-{date.today()}{suffix}"


def write_rows(rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Rows as parquet; a name that a row lacks is null there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = list(rows)
    names = {name: None for row in rows for name in row}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([{n: row.get(n) for n in names} for row in rows]), path)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


# --- captions and means ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Subject:
    """One held-out caption."""

    caption: str
    kind: str  # class of movement
    seed: int  # of the start noise: how far the caption's own seed is from the first


def subject(first_seed: int, number: int) -> Subject:
    """The caption whose seed is so far from the first."""
    rng = np.random.default_rng(first_seed + number)
    scene = world.draw_scene(rng)
    return Subject(world.describe(scene, rng), scene.motion_class, number)


def subjects(first_seed: int, count: int, classes: Sequence[str] = CLASSES) -> list[Subject]:
    """`count` captions, the classes of movement in turn, each with its own first seeds."""
    waiting: dict[str, list[Subject]] = {kind: [] for kind in classes}
    each, number = -(-count // len(classes)), 0
    while min(map(len, waiting.values())) < each:
        one = subject(first_seed, number)
        waiting.get(one.kind, []).append(one)
        number += 1
    return [waiting[kind][turn] for turn in range(each) for kind in classes][:count]


def mean_of(rows: Iterable[Row], name: str) -> float:
    """Mean of what is known and finite; NaN where nothing is."""
    known = [row[name] for row in rows if row.get(name) is not None and math.isfinite(row[name])]
    return statistics.mean(known) if known else math.nan
