"""How much of the time do workers compute? 64 jobs of flipbook, two Ray workers, no deadline.

    python -m benchmarks.busy_share [--jobs 64] [--steps N] [--local]

Busy share = model seconds of both workers / (2 x (wall - start-up)). Model seconds are encode,
denoise, decode and reconstruct; start-up runs from submit to the first dispatch. The rest is named
by its phases: mp4 (compressing and checking the file), store (committing it), and what no phase
accounts for (waiting, imbalance at the end).
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.common import FIRST_SEEDS, answer, head, options, subject
from vidplat.config import Config, PoolConfig, RunConfig
from vidplat.platform import submit
from vidplat.platform.interface import Listener, SubmitRequest
from vidplat.storage import open_catalog

MODEL_PHASES = ("encode", "denoise", "decode", "reconstruct")


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--jobs", type=int, default=64)
    parser.add_argument("--steps", type=int, help="default: the model's")
    parser.add_argument("--local", action="store_true", help="threads here, not Ray actors")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        prompts = Path(folder) / "prompts.txt"
        captions = (subject(FIRST_SEEDS["busy_share"], n).caption for n in range(told.jobs))
        prompts.write_text("".join(f"{caption}\n" for caption in captions))
        config = Config(
            catalog=f"sqlite:///{folder}/catalog.db",
            output=f"{folder}/out",
            pools=(PoolConfig("cloud"), PoolConfig("edge")),
            run=RunConfig(local=told.local),
        )
        spec = {"num_inference_steps": told.steps} if told.steps else {}
        request = SubmitRequest(str(prompts), spec=spec, submitted_at=time.time())
        result = submit(request, config, Listener())
        catalog = open_catalog(config.catalog)
        records = catalog.jobs(result.batch.id)
        catalog.close()

    workers = len({record.worker_id for record in records})
    startup_s = result.score.startup_s
    offered_s = workers * (result.score.finished_at - result.batch.submitted_at - startup_s)
    phases = sum((Counter(dict(record.phases)) for record in records), Counter[str]())
    shares = {phase: seconds / offered_s for phase, seconds in phases.most_common()}
    busy = sum(shares.get(phase, 0.0) for phase in MODEL_PHASES)
    about = f"{len(records)} jobs, {workers} workers, start-up {startup_s:.1f} s"
    print(head(about, "busy_share"))
    print(f"  busy share {busy:.1%}")
    for phase, share in (*shares.items(), ("no phase", 1 - sum(shares.values()))):
        print(f"  {phase:<12} {share:6.1%}")
    answer(
        "busy_share",
        jobs=len(records),
        workers=workers,
        ray=not told.local,
        busy_share=busy,
        shares=shares,
        unaccounted=1 - sum(shares.values()),
    )


if __name__ == "__main__":
    main()
