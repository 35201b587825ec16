"""How fast a catalog takes jobs in, moves them, and answers questions when it is large.

    python -m benchmarks.catalog [--jobs 1000000] [--moved 20000] [--catalog postgresql://...]

Adds one batch of `--jobs` jobs, then claims, beats and finishes `--moved` of them in calls of 500
as the platform does, then asks what `status`, `ls` and `show` ask. Without `--catalog` it uses a
new SQLite file, and measures its size. A PostgreSQL given here must be empty.
"""

from __future__ import annotations

import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.common import answer, head, options
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
        text = f"a small red circle number {row} drifts slowly to the left over a blue background"
        text += ", soft light at dawn"
        job_id = hashlib.sha256(str(row).encode()).hexdigest()[:32]
        yield Job(job_id, text, "", SPEC, MODEL, row, f"clip-{row:09d}")


def moved(catalog: Catalog, count: int) -> dict[str, float]:
    """Jobs per second of claiming, beating and finishing `count` jobs, and of all three."""
    spent, done = dict.fromkeys(("claim", "heartbeat", "finish"), 0.0), 0
    while done < count:
        jobs = [each.job.id for each in catalog.open_jobs(BATCH.id, limit=PER_CALL)]
        claims = [
            Claim(job, "w1", "cloud", POINT, 10.0, 12.0, 1.0, "host:1:1", "full quality")
            for job in jobs
        ]
        beats = [Progress(job, 1, "w1", "denoise", 12, 24, 5.0) for job in jobs]
        ended = [finished(job) for job in jobs]
        began = time.perf_counter()
        catalog.claim(BATCH.id, claims, now=0.0, lease_s=30)
        claimed = time.perf_counter()
        catalog.heartbeat(BATCH.id, beats, lease_s=30)
        beaten = time.perf_counter()
        catalog.finish(BATCH.id, ended)
        spent["claim"] += claimed - began
        spent["heartbeat"] += beaten - claimed
        spent["finish"] += time.perf_counter() - beaten
        done += len(jobs)
    rates = {f"{name}_per_s": round(done / seconds) for name, seconds in spent.items()}
    return {**rates, "moved_per_s": round(done / sum(spent.values()))}


def finished(job: str) -> Outcome:
    folder = f"/renders/batches/{BATCH.id}/jobs/{job[:2]}/{job}"
    video, poster, meta = (f"{folder}/{name}" for name in ("video.mp4", "poster.jpg", "meta.json"))
    artifact = Artifact(video, poster, meta, "ab" * 32, 12_345, 1)
    phases = {"encode": 0.0213, "denoise": 7.1234, "decode": 2.5432, "mp4": 0.0456, "store": 0.0012}
    return Outcome(job, 1, "w1", POINT, 0.0, 10.0, phases, artifact, None, {"flicker": 0.25}, 24)


def answers(catalog: Catalog) -> dict[str, float]:
    """Median milliseconds of the questions behind `status`, `ls` and `show`."""
    some = catalog.jobs(BATCH.id, limit=1, after_row=1234)[0].job
    questions: dict[str, Callable[[], object]] = {
        "counts": lambda: catalog.counts(BATCH.id),
        "step_totals": lambda: catalog.step_totals(BATCH.id),
        "open_2000": lambda: catalog.open_jobs(BATCH.id, limit=2_000),
        "running": lambda: catalog.running(BATCH.id),
        "running_records": lambda: catalog.jobs(BATCH.id, states=[JobState.RUNNING]),
        "page_of_failed": lambda: catalog.jobs(BATCH.id, states=[JobState.FAILED], limit=500),
        "page_of_all": lambda: catalog.jobs(BATCH.id, after_row=5_000, limit=500),
        "find_by_id": lambda: catalog.find_job(some.id[:10]),
        "find_by_own_id": lambda: catalog.find_job(str(some.external_id), BATCH.id),
    }
    return {
        f"{name}_ms": round(1000 * statistics.median(seconds_of(question) for _ in range(5)), 1)
        for name, question in questions.items()
    }


def seconds_of(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--moved", type=int, default=20_000)
    parser.add_argument("--catalog", help="URL of an empty PostgreSQL database")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "catalog.db"
        catalog = open_catalog(told.catalog or f"sqlite:///{file}", migrate=True)
        added_s = seconds_of(lambda: catalog.add_batch(BATCH, some_jobs(told.jobs)))
        found: dict[str, float] = {"add_per_s": round(told.jobs / added_s)}
        found |= moved(catalog, min(told.moved, told.jobs)) | answers(catalog)
        catalog.close()
        if file.exists():
            found["bytes_per_job"] = round(file.stat().st_size / told.jobs)
    kind = "postgresql" if told.catalog else "sqlite"
    about = f"{kind}, {told.jobs:,} jobs added, {told.moved:,} of them moved {PER_CALL} at a time"
    print(head(about, "catalog"))
    for name, value in found.items():
        print(f"  {name:20} {value:>12,}")
    answer("catalog", kind=kind, jobs=told.jobs, **found)


if __name__ == "__main__":
    main()
