"""What the platform itself costs: jobs per second with a model that takes no time.

    python benchmarks/overhead.py                 submit to committed row, in this process and
                                                  through Ray
    python benchmarks/overhead.py --jobs 2000 --only local

SQLite and a folder on local disk, as by default; every job is claimed, made, written, verified,
committed and recorded. Bars: 200 jobs/s in this process, 50 through Ray actors. Beside them stands
the rate of bare Ray calls on this machine, the ceiling. Ends with one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path

from vidplat.config import CatalogConfig, Config, PoolConfig, RunConfig, StoreConfig
from vidplat.platform import BatchResult, Silence, SubmitRequest, submit


def run(jobs: int, *, local: bool, step_s: float = 0.0) -> BatchResult:
    """One batch of `jobs` with the fake model, in a fresh folder."""
    with tempfile.TemporaryDirectory() as folder:
        prompts = Path(folder) / "prompts.txt"
        prompts.write_text(
            "".join(f"a red circle drifts to the left, take {n}\n" for n in range(jobs))
        )
        config = Config(
            catalog=CatalogConfig(f"sqlite:///{folder}/catalog.db"),
            store=StoreConfig(f"{folder}/out"),
            pools=(PoolConfig("cloud"), PoolConfig("edge")),
            run=RunConfig(local=local),
            model=f"fake:step_s={step_s}",
        )
        return submit(SubmitRequest(str(prompts), submitted_at=time.time()), config, Silence())


def bare_ray_calls_per_s(calls: int = 2_000) -> float:
    """Asynchronous calls of an empty actor method: what Ray alone can do here."""
    import ray

    class Empty:
        def nothing(self) -> None: ...

    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    actors = [ray.remote(Empty).remote() for _ in range(2)]
    ray.get([actor.nothing.remote() for actor in actors])
    began = time.monotonic()
    ray.get([actors[n % 2].nothing.remote() for n in range(calls)])
    rate = calls / (time.monotonic() - began)
    ray.shutdown()
    return rate


def figures(result: BatchResult) -> dict[str, float]:
    working_s = result.score.finished_at - result.batch.submitted_at - result.score.startup_s
    return {
        "jobs": result.computed,
        "exit_code": result.exit_code,
        "startup_s": round(result.score.startup_s, 2),
        "jobs_per_s": round(result.computed / working_s, 1),  # first dispatch to last commit
        "jobs_per_s_whole": round(result.computed / result.wall_s, 1),  # submit to exit
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=2_000)
    parser.add_argument("--only", choices=("local", "ray"))
    options = parser.parse_args()
    card: dict[str, object] = {
        "benchmark": "overhead",
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
    }
    card["load"] = round(os.getloadavg()[0], 1)  # others on this machine make every figure smaller
    if options.only != "ray":
        card["local"] = figures(run(options.jobs, local=True))
        print(f"in this process    {card['local']}")
    if options.only != "local":
        card["ray"] = figures(run(options.jobs, local=False))
        print(f"through Ray        {card['ray']}")
        card["bare_ray_calls_per_s"] = round(bare_ray_calls_per_s())
        print(f"bare Ray calls     {card['bare_ray_calls_per_s']} per s")
    print(json.dumps(card))


if __name__ == "__main__":
    main()
