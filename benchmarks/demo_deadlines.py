"""The demo file under four deadlines, through the command line, as a user types it.

    python benchmarks/demo_deadlines.py [--prompts examples/prompts.parquet] [--deadline 60]

1. submit with the demo's deadline on a fresh catalog: exit 0, all videos inside it, every file
   decodes as promised
2. the same without a deadline: the full-quality time of this machine
3. the same at 40 % of that time: the plan says degraded, the deadline is met, and the loss is
   measured (SSIM and PSNR of each video against its full-quality one, and prompt fit)
4. the same at 1 s: exit 3 with the earliest time and nothing generated; with best-effort it runs
   and exits 5

Each run has its own output folder. Runs 2 to 4 share a catalog, so their plans know what this
machine can do. Prints a card and one JSON line; ends with exit code 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--prompts", default="examples/prompts.parquet")
    words.add_argument("--deadline", type=float, default=60.0)
    told = words.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        answer = measure(Path(folder), told.prompts, told.deadline)
    print(json.dumps(answer))
    sys.exit(0 if answer["kept"] else 1)


def measure(folder: Path, prompts: str, deadline_s: float) -> dict[str, Any]:
    first = submit(folder, "first", prompts, f"{deadline_s:g}s", catalog="first.db")
    full = submit(folder, "full", prompts, None)
    tight_s = 0.4 * full["wall_s"]
    tight = submit(folder, "tight", prompts, f"{tight_s:.2f}s")
    refused = submit(folder, "refused", prompts, "1s")
    late = submit(folder, "late", prompts, "1s", "--on-infeasible", "best-effort")

    jobs = len(full["videos"])
    print(f"{jobs} prompts")
    rows = (
        ("demo", first),
        ("no deadline", full),
        ("40 %", tight),
        ("1 s", refused),
        ("1 s, best effort", late),
    )
    for name, run in rows:
        limit = f" of {run['deadline_s']:.1f} s" if run["deadline_s"] else ""
        made = f"{len(run['videos'])} videos in {run['wall_s']:.1f} s{limit}"
        print(f"  {name:<17} exit {run['exit']}  {run['verdict']:<11} {made}")
    loss = compare(full["videos"], tight["videos"])
    print(
        f"  at 40 %: {loss['ssim']:.4f} SSIM, {loss['psnr_db']:.2f} dB to full quality; "
        f"prompt fit {loss['fit']:.1%} of {loss['fit_full']:.1%}; predicted quality "
        f"{tight['quality']}"
    )
    kept = {
        "demo on time": first["exit"] == 0 and len(first["videos"]) == jobs and first["late"] == 0,
        "files as promised": all(check(first["videos"])),
        "40 % degraded and on time": tight["exit"] == 0
        and tight["verdict"] == "degraded"
        and tight["late"] == 0,
        "1 s refused": refused["exit"] == 3 and not refused["videos"],
        "1 s best effort late": late["exit"] == 5 and len(late["videos"]) == jobs,
    }
    for promise, is_kept in kept.items():
        print(f"  {'kept' if is_kept else 'BROKEN'}: {promise}")
    return {
        "benchmark": "demo_deadlines",
        "jobs": jobs,
        "kept": all(kept.values()),
        "promises": kept,
        "share_of_full_time": {
            name: round(run["wall_s"] / full["wall_s"], 3) for name, run in rows
        },
        "loss_at_40_percent": loss,
        "predicted_quality_at_40_percent": tight["quality"],
        "machine": platform.processor() or platform.machine(),
        "versions": {name: version(name) for name in ("torch", "ray", "vidplat")},
    }


def submit(
    folder: Path, name: str, prompts: str, deadline: str | None, *more: str, catalog: str = "c.db"
) -> dict[str, Any]:
    """One run of the command. `wall_s` is from submit to the last committed video (or to the
    refusal)."""
    url = f"sqlite:///{folder}/{catalog}"
    line = [
        sys.executable,
        "-m",
        "vidplat",
        "submit",
        prompts,
        "--output",
        str(folder / name),
        "--catalog",
        url,
        "--json",
    ]
    line += ["--deadline", deadline] if deadline else []
    began = time.time()
    done = subprocess.run([*line, *more], capture_output=True, text=True, check=False)
    took = time.time() - began
    document = json.loads(done.stdout) if done.stdout.strip().startswith("{") else {}
    limit_s = float(deadline[:-1]) if deadline else None
    videos = finished_videos(folder / name / "batches" / str(document.get("batch")))
    plan = document.get("plan") or {}
    return {
        "exit": done.returncode,
        "verdict": plan.get("verdict", "infeasible" if done.returncode == 3 else "?"),
        "quality": plan.get("mean_quality"),
        "videos": videos,
        "wall_s": max((row["finished_at"] for row in videos.values()), default=began + took)
        - began,
        "deadline_s": limit_s,
        "late": sum(row["finished_at"] - began > limit_s for row in videos.values())
        if limit_s
        else 0,
    }


def finished_videos(batch: Path) -> dict[int, dict[str, Any]]:
    """The rows of manifest and metrics together, of finished videos, by row number."""
    import pyarrow.parquet as pq

    if not (batch / "manifest.parquet").exists():
        return {}
    manifest = pq.read_table(batch / "manifest.parquet").to_pylist()
    metrics = {row["row"]: row for row in pq.read_table(batch / "metrics.parquet").to_pylist()}
    return {row["row"]: metrics[row["row"]] | row for row in manifest if row["state"] == "done"}


def check(videos: dict[int, dict[str, Any]]) -> list[bool]:
    """Does each file decode to the promised frames, size and fps?"""
    from vidplat.workers.video import probe

    found = []
    for row in videos.values():
        facts = probe(Path(row["video_uri"].removeprefix("file://")).read_bytes())
        found.append(
            (facts.width, facts.height, facts.num_frames, round(facts.fps))
            == (row["width"], row["height"], row["num_frames"], row["fps"])
        )
    return found


def compare(full: dict[int, dict[str, Any]], other: dict[int, dict[str, Any]]) -> dict[str, float]:
    from flipbook_training.prompt_fit import prompt_fit
    from vidplat.quality import psnr_db, ssim
    from vidplat.workers.video import to_frames

    rows: dict[str, list[float]] = {"ssim": [], "psnr_db": [], "fit": [], "fit_full": []}
    for number, row in other.items():
        a, b = (
            to_frames(Path(r["video_uri"].removeprefix("file://")).read_bytes())
            for r in (full[number], row)
        )
        rows["ssim"].append(ssim(b, a))
        rows["psnr_db"].append(min(60.0, psnr_db(b, a)))
        rows["fit"].append(prompt_fit(b, row["prompt"], row["fps"]).share)
        rows["fit_full"].append(prompt_fit(a, row["prompt"], row["fps"]).share)
    return {name: round(statistics.mean(values), 4) for name, values in rows.items() if values}


if __name__ == "__main__":
    main()
