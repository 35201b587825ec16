"""How much of the time do workers compute? 64 jobs of flipbook, two Ray workers, no deadline.

    python benchmarks/busy_share.py [--jobs 64] [--steps N] [--local]

Busy share = model seconds of both workers / (2 x (wall - start-up)), where model seconds are
encode, denoise, decode and interpolate, and start-up runs from submit to the first dispatch. The
rest is named by its phases: mp4 (compressing and checking the file), store (committing it), and
what no phase accounts for (waiting, imbalance at the end). Prints a card and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import numpy as np

MODEL_PHASES = ("encode", "denoise", "decode", "interpolate")


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--jobs", type=int, default=64)
    words.add_argument("--steps", type=int)
    words.add_argument(
        "--local",
        action="store_true",
        help="workers as threads of this process instead of Ray actors",
    )
    told = words.parse_args()

    from flipbook_training import world
    from vidplat.config import CatalogConfig, Config, PoolConfig, RunConfig, StoreConfig
    from vidplat.platform import Silence, SubmitRequest, submit
    from vidplat.storage import open_catalog

    with tempfile.TemporaryDirectory() as folder:
        prompts = Path(folder) / "prompts.txt"
        lines = []
        for number in range(told.jobs):
            rng = np.random.default_rng(9_900_000_000 + number)
            lines.append(world.describe(world.draw_scene(rng), rng))
        prompts.write_text("\n".join(lines) + "\n")
        config = Config(
            catalog=CatalogConfig(f"sqlite:///{folder}/catalog.db"),
            store=StoreConfig(f"{folder}/out"),
            pools=(PoolConfig("cloud"), PoolConfig("edge")),
            run=RunConfig(local=told.local),
        )
        spec = {"num_inference_steps": told.steps} if told.steps else {}
        result = submit(
            SubmitRequest(str(prompts), spec=spec, submitted_at=time.time()), config, Silence()
        )
        catalog = open_catalog(config.catalog.url)
        records = catalog.jobs(result.batch.id)
        catalog.close()

    workers = len({record.worker_id for record in records})
    phases: Counter[str] = Counter()
    for record in records:
        phases.update(dict(record.phases))
    offered = (
        result.score.finished_at - result.batch.submitted_at - result.score.startup_s
    ) * workers
    model = sum(phases[phase] for phase in MODEL_PHASES)
    shares = {phase: seconds / offered for phase, seconds in phases.items()}
    unaccounted = 1 - sum(shares.values())
    print(f"{len(records)} jobs, {workers} workers, start-up {result.score.startup_s:.1f} s")
    print(f"  busy share {model / offered:.1%}")
    for phase, share in sorted(shares.items(), key=lambda item: -item[1]):
        print(f"  {phase:<12} {share:6.1%}")
    print(f"  {'no phase':<12} {unaccounted:6.1%}")
    print(
        json.dumps(
            {
                "benchmark": "busy_share",
                "jobs": len(records),
                "workers": workers,
                "ray": not told.local,
                "busy_share": round(model / offered, 4),
                "shares": {phase: round(share, 4) for phase, share in shares.items()},
                "unaccounted": round(unaccounted, 4),
                "machine": platform.processor() or platform.machine(),
                "versions": {name: version(name) for name in ("torch", "ray", "vidplat")},
            }
        )
    )


if __name__ == "__main__":
    main()
