"""The demo file under four deadlines, through the command line, as a user types it.

    python -m benchmarks.demo_deadlines [--prompts examples/prompts.parquet] [--deadline 60]

1. submit with the demo's deadline on a fresh catalog: exit 0, all videos inside it, every file
   decodes as promised
2. the same without a deadline: the full-quality time of this machine
3. the same at 40 % of that time: the plan says degraded, the deadline is met, and the loss is
   measured (SSIM and PSNR of each video to its full-quality one, and prompt fit)
4. the same at 1 s: exit 3 with the earliest time and nothing generated; with best-effort it runs
   and exits 5

Each run has its own output folder. Runs 2 to 4 share a catalog, so their plans know what this
machine can do. Ends with exit code 1 if a promise was broken.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.common import MOST_DB, answer, head, mean_of, options
from flipbook_training.prompt_fit import prompt_fit
from vidplat.quality import psnr_db, ssim
from vidplat.workers.video import probe, to_frames

Videos = dict[int, dict[str, Any]]  # of finished jobs by row: what manifest and metrics say


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--prompts", default="examples/prompts.parquet")
    parser.add_argument("--deadline", type=float, default=60.0)
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = submitted(Path(folder), told.prompts, told.deadline)
        full, tight = runs["no deadline"], runs["40 %"]
        kept, loss = promises(runs), compared(full["videos"], tight["videos"])

    print(head(f"{len(full['videos'])} prompts", "demo_deadlines"))
    for name, run in runs.items():
        limit = f" of {run['deadline_s']:.1f} s" if run["deadline_s"] else ""
        made = f"{len(run['videos'])} videos in {run['wall_s']:.1f} s{limit}"
        print(f"  {name:<17} exit {run['exit']}  {run['verdict']:<11} {made}")
    print(
        f"  at 40 %: {loss['ssim']:.4f} SSIM, {loss['psnr_db']:.2f} dB to full quality; prompt fit "
        f"{loss['fit']:.1%} of {loss['fit_full']:.1%}; predicted quality {tight['quality']}"
    )
    for promise, is_kept in kept.items():
        print(f"  {'kept' if is_kept else 'BROKEN'}: {promise}")
    answer(
        "demo_deadlines",
        jobs=len(full["videos"]),
        kept=all(kept.values()),
        promises=kept,
        share_of_full_time={name: run["wall_s"] / full["wall_s"] for name, run in runs.items()},
        loss_at_40_percent=loss,
        predicted_quality_at_40_percent=tight["quality"],
    )
    sys.exit(0 if all(kept.values()) else 1)


def submitted(folder: Path, prompts: str, deadline_s: float) -> dict[str, dict[str, Any]]:
    """The five runs by name."""
    first = submit(folder, "first", prompts, f"{deadline_s:g}s", catalog="first.db")
    full = submit(folder, "full", prompts, None)
    return {
        "demo": first,
        "no deadline": full,
        "40 %": submit(folder, "tight", prompts, f"{0.4 * full['wall_s']:.2f}s"),
        "1 s": submit(folder, "refused", prompts, "1s"),
        "1 s, best effort": submit(folder, "late", prompts, "1s", "--on-infeasible", "best-effort"),
    }


def submit(
    folder: Path, name: str, prompts: str, deadline: str | None, *more: str, catalog: str = "c.db"
) -> dict[str, Any]:
    """One run of the command. `wall_s` is from submit to the last committed video, or to the
    refusal."""
    line = [sys.executable, "-m", "vidplat", "submit", prompts, "--json"]
    line += ["--output", str(folder / name), "--catalog", f"sqlite:///{folder}/{catalog}"]
    line += ["--deadline", deadline] if deadline else []
    began = time.time()
    done = subprocess.run([*line, *more], capture_output=True, text=True, check=False)
    took = time.time() - began
    document = json.loads(done.stdout) if done.stdout.strip().startswith("{") else {}
    limit_s = float(deadline[:-1]) if deadline else None
    videos = finished(folder / name / "batches" / str(document.get("batch")))
    seconds = [row["finished_at"] - began for row in videos.values()]
    plan = document.get("plan") or {}
    return {
        "exit": done.returncode,
        "verdict": plan.get("verdict", "infeasible" if done.returncode == 3 else "?"),
        "quality": plan.get("mean_quality"),
        "videos": videos,
        "wall_s": max(seconds, default=took),
        "deadline_s": limit_s,
        "late": sum(each > limit_s for each in seconds) if limit_s else 0,
    }


def finished(batch: Path) -> Videos:
    if not (batch / "manifest.parquet").exists():
        return {}
    manifest = pq.read_table(batch / "manifest.parquet").to_pylist()
    metrics = {row["row"]: row for row in pq.read_table(batch / "metrics.parquet").to_pylist()}
    return {row["row"]: metrics[row["row"]] | row for row in manifest if row["state"] == "done"}


def promises(runs: dict[str, dict[str, Any]]) -> dict[str, bool]:
    """What each run owed, and whether it was kept."""
    demo, tight, refused = (runs[name] for name in ("demo", "40 %", "1 s"))
    late, jobs = runs["1 s, best effort"], len(runs["no deadline"]["videos"])
    in_time = demo["exit"] == 0 and demo["late"] == 0 and len(demo["videos"]) == jobs
    degraded = tight["exit"] == 0 and tight["late"] == 0 and tight["verdict"] == "degraded"
    return {
        "demo on time": in_time,
        "files as promised": all(map(is_as_promised, demo["videos"].values())),
        "40 % degraded and on time": degraded,
        "1 s refused": refused["exit"] == 3 and not refused["videos"],
        "1 s best effort late": late["exit"] == 5 and len(late["videos"]) == jobs,
    }


def is_as_promised(row: dict[str, Any]) -> bool:
    """Whether the file decodes to the promised frames, size and fps."""
    facts = probe(stored(row))
    found = (facts.width, facts.height, facts.num_frames, round(facts.fps))
    return found == tuple(row[name] for name in ("width", "height", "num_frames", "fps"))


def compared(full: Videos, other: Videos) -> dict[str, float]:
    """Means over the videos of `other`, against those of the same rows in `full`."""

    def one(number: int) -> dict[str, float]:
        row = other[number]
        whole, made = (to_frames(stored(videos[number])) for videos in (full, other))
        fit, fit_full = (prompt_fit(x, row["prompt"], row["fps"]).share for x in (made, whole))
        psnr = min(MOST_DB, psnr_db(made, whole))
        return {"ssim": ssim(made, whole), "psnr_db": psnr, "fit": fit, "fit_full": fit_full}

    rows = list(map(one, other))
    return {name: mean_of(rows, name) for name in ("ssim", "psnr_db", "fit", "fit_full")}


def stored(row: dict[str, Any]) -> bytes:
    return Path(row["video_uri"].removeprefix("file://")).read_bytes()


if __name__ == "__main__":
    main()
