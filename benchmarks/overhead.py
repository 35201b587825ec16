"""What the platform itself costs: jobs per second with a model that takes no time.

    python -m benchmarks.overhead [--jobs 2000] [--only local|ray]

SQLite and a folder on local disk, as by default; every job is claimed, made, written, verified,
committed and recorded, in this process and through Ray. Bars: 200 jobs/s here, 50 through Ray.
Beside them stands the rate of bare Ray calls on this machine, the ceiling.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import answer, head, options
from vidplat.config import Config, PoolConfig, RunConfig
from vidplat.platform import submit
from vidplat.platform.interface import Listener, SubmitRequest


def figures(jobs: int, *, local: bool) -> dict[str, float]:
    """Of one batch with the fake model, in a fresh folder."""
    with tempfile.TemporaryDirectory() as folder:
        prompts = Path(folder) / "prompts.txt"
        lines = (f"a red circle drifts to the left, take {n}\n" for n in range(jobs))
        prompts.write_text("".join(lines))
        config = Config(
            catalog=f"sqlite:///{folder}/catalog.db",
            output=f"{folder}/out",
            pools=(PoolConfig("cloud"), PoolConfig("edge")),
            run=RunConfig(local=local),
            model="fake:step_s=0.0",
        )
        result = submit(SubmitRequest(str(prompts), submitted_at=time.time()), config, Listener())
    startup_s = result.score.startup_s
    working_s = result.score.finished_at - result.batch.submitted_at - startup_s
    return {
        "jobs": result.computed,
        "exit_code": int(result.exit_code),
        "startup_s": round(startup_s, 2),
        "jobs_per_s": round(result.computed / working_s, 1),  # first dispatch to last commit
        "jobs_per_s_whole": round(result.computed / result.wall_s, 1),  # submit to exit
    }


def bare_ray_calls_per_s(calls: int = 2_000) -> float:
    """Asynchronous calls of an empty actor method: what Ray alone can do here."""
    import ray

    class Empty:
        def nothing(self) -> None: ...

    quiet: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False}
    ray.init(address="local", num_cpus=2, logging_level="ERROR", **quiet)
    actors = [ray.remote(Empty).remote() for _ in range(2)]
    ray.get([actor.nothing.remote() for actor in actors])
    began = time.monotonic()
    ray.get([actors[n % 2].nothing.remote() for n in range(calls)])
    rate = calls / (time.monotonic() - began)
    ray.shutdown()
    return rate


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--jobs", type=int, default=2_000)
    parser.add_argument("--only", choices=("local", "ray"))
    told = parser.parse_args()
    found: dict[str, Any] = {"load": os.getloadavg()[0]}  # others make every figure smaller
    print(head(f"{told.jobs} jobs, load {found['load']:.1f}", "overhead"))
    if told.only != "ray":
        found["local"] = figures(told.jobs, local=True)
        print(f"in this process    {found['local']}")
    if told.only != "local":
        found["ray"] = figures(told.jobs, local=False)
        print(f"through Ray        {found['ray']}")
        found["bare_ray_calls_per_s"] = round(bare_ray_calls_per_s())
        print(f"bare Ray calls     {found['bare_ray_calls_per_s']} per s")
    answer("overhead", **found)


if __name__ == "__main__":
    main()
