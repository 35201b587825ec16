"""How long does a plan take, and how far is it from the best any plan could be?

    python benchmarks/planning.py [--jobs 1000 10000 100000]

Plans generated batches on two and eight unequal workers at twice the work that fits at full
quality: one size and one deadline (the usual batch), 18 sizes, a deadline per row, and both; then
the usual batch and a deadline per row once more with `eco` and two light workers behind a link,
which are counted on. Processor seconds of this process, so other programs disturb little; the gap
is to the plan's own certificate, an upper bound on any plan's mean quality. Prints a card and ends
with one JSON line. Costs and profile are those of `tests/builders.py`.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.builders import (
    a_job,
    a_policy,
    a_shape,
    a_snapshot,
    a_spec,
    a_worker,
    an_open_job,
    knowledge,
)
from vidplat.domain import OpenJob, OperatingPoint
from vidplat.scheduler import plan
from vidplat.scheduler.decision import Finisher, Snapshot

KNOWN = knowledge()
TWO = (a_worker("a"), a_worker("b", device_class="cpu-2"))
EIGHT = tuple(
    a_worker(f"w{k}", device_class=f"cpu-{1 + k % 2}", speed=0.8 + 0.05 * k) for k in range(8)
)
LIGHT = (Finisher("cpu-1 light", 0.0, bits_per_s=1e6),) * 2
CASES = (
    (0, 0, 0, 0),
    (1, 0, 0, 0),
    (1, 1, 0, 0),
    (1, 0, 1, 0),
    (1, 1, 1, 0),
    (1, 0, 0, 1),
    (1, 0, 1, 1),
)
SIZES = [
    a_spec(frames=f, width=w, steps=s) for f in (17, 33, 65) for w in (48, 64, 96) for s in (12, 24)
]


def a_batch(jobs: int, *, eight: bool, sizes: bool, own_deadlines: bool, light: bool) -> Snapshot:
    """`jobs` jobs that would take twice the time there is at full quality."""
    rnd = random.Random(1)
    workers = EIGHT if eight else TWO
    capacity = sum((2.0 if w.device_class == "cpu-2" else 1.0) * w.speed for w in workers)
    passed, listed = 0.0, list[OpenJob]()
    for row in range(1, jobs + 1):
        spec = rnd.choice(SIZES) if sizes else a_spec()
        full = OperatingPoint(spec.num_inference_steps)
        passed += (
            KNOWN.costs.predict("flipbook", a_shape(), "cpu-1", spec, full).p50_s / capacity / 2
        )
        due = 20.0 + passed * rnd.uniform(0.95, 1.5) if own_deadlines else None
        listed.append(
            an_open_job(a_job(row=row, spec=spec, deadline_at=due, method="eco" if light else None))
        )
    alone = a_snapshot(jobs=listed, workers=workers, deadline_at=passed)
    return replace(alone, finishers=LIGHT) if light else alone


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, nargs="+", default=[1_000, 10_000])
    rows = []
    for jobs in parser.parse_args().jobs:
        for eight, sizes, own, light in CASES:
            told = {
                "eight": bool(eight),
                "sizes": bool(sizes),
                "own_deadlines": bool(own),
                "light": bool(light),
            }
            snapshot = a_batch(jobs, **told)
            began = time.process_time()
            decided = plan(snapshot, a_policy(), KNOWN)
            seconds = time.process_time() - began
            gap = (decided.quality_bound - decided.mean_quality) / decided.quality_bound
            row = {
                "jobs": jobs,
                "workers": 8 if eight else 2,
                "sizes": 18 if sizes else 1,
                "own_deadlines": bool(own),
                "light": bool(light),
                "seconds": round(seconds, 4),
                "verdict": decided.verdict.value,
                "mean_quality": round(decided.mean_quality, 4),
                "gap_percent": round(100 * gap, 3),
            }
            rows.append(row)
            print(
                f"{jobs:>8} jobs  {row['workers']} workers  {row['sizes']:>2} sizes  "
                f"{'a deadline per row' if own else 'one deadline      '}  "
                f"{'light' if light else '     '}  "
                f"{1000 * seconds:8.1f} ms  "
                f"{row['verdict']:<10}  quality {row['mean_quality']:.4f}  gap "
                f"{row['gap_percent']:.3f} %"
            )
    print(json.dumps({"benchmark": "planning", "rows": rows}))


if __name__ == "__main__":
    main()
