"""How fast a catalog takes jobs in, moves them, and answers questions when it is large.

    python benchmarks/catalog.py [--jobs 1000000] [--moved 20000] [--catalog postgresql://...]

Adds one batch of `--jobs` jobs, then claims, beats and finishes `--moved` of them in calls of 500
as the platform does, then asks what `status`, `ls` and `show` ask. Without `--catalog` it uses a
new SQLite file, and measures its size. A PostgreSQL given here must be empty. Prints a card, and
one JSON line at the end.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from vidplat.domain import (
    Artifact,
    Batch,
    Job,
    JobState,
    ModelRef,
    OperatingPoint,
    Outcome,
    Progress,
    VideoSpec,
)
from vidplat.storage.catalog import Catalog, open_catalog
from vidplat.storage.catalog_words import Claim

PER_CALL = 500
POINT = OperatingPoint(24)
MODEL = ModelRef("flipbook", "0123456789abcdef")
SPEC = VideoSpec(64, 64, 33, 16, 24, 5.0, 0)
BATCH = Batch("b00000000001", "prompts.parquet", "/renders", MODEL, 0.0)


def some_jobs(count: int) -> Iterator[Job]:
    for row in range(1, count + 1):
        text = (
            f"a small red circle number {row} drifts slowly to the left over a blue "
            "background, soft light at dawn"
        )
        yield Job(
            hashlib.sha256(str(row).encode()).hexdigest()[:32],
            text,
            "",
            SPEC,
            MODEL,
            row,
            f"clip-{row:09d}",
        )


def move(catalog: Catalog, count: int) -> dict[str, float]:
    """Claim, beat and finish `count` jobs; jobs per second of each, and of all three together."""
    spent = dict.fromkeys(("claim", "heartbeat", "finish"), 0.0)
    moved = 0
    while moved < count:
        waiting = [each.job.id for each in catalog.open_jobs(BATCH.id, limit=PER_CALL)]
        claims = [
            Claim(job, "w1", "cloud", POINT, 10.0, 12.0, 1.0, "host:1:1", "full quality")
            for job in waiting
        ]
        beats = [Progress(job, 1, "w1", "denoise", 12, 24, 5.0) for job in waiting]
        ended = [finished(job) for job in waiting]
        for name, call in (
            ("claim", lambda claims=claims: catalog.claim(BATCH.id, claims, now=0.0, lease_s=30)),
            (
                "heartbeat",
                lambda beats=beats: catalog.heartbeat(BATCH.id, beats, now=5.0, lease_s=30),
            ),
            ("finish", lambda ended=ended: catalog.finish(BATCH.id, ended)),
        ):
            spent[name] += seconds_of(call)
        moved += len(waiting)
    rates = {f"{name}_per_s": round(moved / seconds) for name, seconds in spent.items()}
    return {**rates, "moved_per_s": round(moved / sum(spent.values()))}


def finished(job: str) -> Outcome:
    folder = f"/renders/batches/{BATCH.id}/jobs/{job[:2]}/{job}"
    artifact = Artifact(
        f"{folder}/video.mp4", f"{folder}/poster.jpg", f"{folder}/meta.json", "ab" * 32, 12_345, 1
    )
    phases = {"encode": 0.0213, "denoise": 7.1234, "decode": 2.5432, "mp4": 0.0456, "store": 0.0012}
    return Outcome(job, 1, "w1", POINT, 0.0, 10.0, phases, artifact, None, {"flicker": 0.25}, 24)


def ask(catalog: Catalog) -> dict[str, float]:
    """Median milliseconds of the questions behind `status`, `ls` and `show`."""
    some = catalog.jobs(BATCH.id, limit=1, after_row=1234)[0]
    questions: dict[str, Callable[[], object]] = {
        "counts": lambda: catalog.counts(BATCH.id),
        "step_totals": lambda: catalog.step_totals(BATCH.id),
        "open_2000": lambda: catalog.open_jobs(BATCH.id, limit=2_000),
        "running": lambda: catalog.running(BATCH.id),
        "running_records": lambda: catalog.jobs(BATCH.id, states=[JobState.RUNNING]),
        "page_of_failed": lambda: catalog.jobs(BATCH.id, states=[JobState.FAILED], limit=500),
        "page_of_all": lambda: catalog.jobs(BATCH.id, after_row=5_000, limit=500),
        "find_by_id": lambda: catalog.find_job(some.job.id[:10]),
        "find_by_own_id": lambda: catalog.find_job(str(some.job.external_id), BATCH.id),
    }
    return {
        f"{name}_ms": round(1000 * statistics.median(seconds_of(question) for _ in range(5)), 1)
        for name, question in questions.items()
    }


def seconds_of(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--jobs", type=int, default=1_000_000)
    options.add_argument("--moved", type=int, default=20_000)
    options.add_argument("--catalog", help="URL of an empty PostgreSQL database")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "catalog.db"
        catalog = open_catalog(chosen.catalog or f"sqlite:///{file}", migrate=True)
        added_s = seconds_of(lambda: catalog.add_batch(BATCH, some_jobs(chosen.jobs)))
        result: dict[str, float] = {"add_per_s": round(chosen.jobs / added_s)}
        result |= move(catalog, min(chosen.moved, chosen.jobs))
        result |= ask(catalog)
        catalog.close()
        if file.exists():
            result["bytes_per_job"] = round(file.stat().st_size / chosen.jobs)
    kind = "postgresql" if chosen.catalog else "sqlite"
    print(
        f"{kind}, {chosen.jobs:,} jobs added, {chosen.moved:,} of them moved in calls of {PER_CALL}"
    )
    for name, value in result.items():
        print(f"  {name:20} {value:>12,}")
    print(json.dumps({"benchmark": "catalog", "kind": kind, "jobs": chosen.jobs, **result}))


if __name__ == "__main__":
    main()
