"""What `eco` gains where kept frames still attend to those that were left out, and those are
refreshed now and then.

    python benchmarks/context.py [--frames 33 65] [--captions 8] [--refresh 3 5 8]

Held-out captions, the first seeds from 9,700,500,000 of each class of movement; flipbook, its own
full step count and solver, half of the latent frames kept, evenly spaced. `context=on` keeps their
states as they were when they were left out; `refresh=N` lets all frames take part once in every N
steps. PSNR and SSIM are to the full run of the same seed. The rival is as many plain steps as each
setting's denoising time pays, interpolated between measured step counts.

Times are processor seconds of one thread over those of the full run. Prints a card and ends with
one JSON line.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from statistics import mean

import numpy as np
import torch
from keyframes import Maker, Subject, near, subjects

from vidplat.domain import OperatingPoint

FIRST_SEED = 9_700_500_000  # captions from here on; training drew below 3e9
SHARES = (0.3, 0.45, 0.6, 0.75, 0.9)  # of the full step count, of the rival


@dataclass(frozen=True)
class Found:
    """Means over the captions."""

    share: float  # of the full run's denoising time
    psnr_db: float
    ssim: float


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--model", default="flipbook")
    words.add_argument("--frames", type=int, nargs="+", default=[33, 65])
    words.add_argument("--captions", type=int, default=8)
    words.add_argument("--refresh", type=int, nargs="+", default=[3, 5, 8])
    told = words.parse_args()
    torch.set_num_threads(1)
    maker = Maker(told.model)
    lengths = {}
    for frames in told.frames:
        lengths[str(frames)] = measured(
            maker, frames, subjects(told.captions, FIRST_SEED), told.refresh
        )
    maker.installed.remove()
    steps = maker.shape.defaults.num_inference_steps
    print(
        f"{told.model} {maker.ref.revision[:12]}, {told.captions} captions, against {steps} "
        "steps of the same seed"
    )
    for frames, rows in lengths.items():
        print(
            f"  {frames} frames{'':<30} {'time':>6} {'PSNR':>6} {'SSIM':>6}   as many plain steps"
        )
        for name, row in rows.items():
            print(
                f"    {name:<36} {row['share']:>6.3f} {row['psnr_db']:>6.2f} {row['ssim']:>6.3f}"
                f"   {row['steps_psnr_db']:.2f} dB, {row['steps_ssim']:.3f}"
            )
    answer = {
        "benchmark": "context",
        "model": told.model,
        "revision": maker.ref.revision,
        "captions": told.captions,
        "seeds": f"{FIRST_SEED}..",
        "lengths": lengths,
        "machine": platform.processor() or platform.machine(),
        "versions": {name: version(name) for name in ("torch", "diffusers", "vidplat")},
    }
    print(json.dumps(answer))


def measured(
    maker: Maker, frames: int, chosen: list[Subject], every: list[int]
) -> dict[str, dict[str, float]]:
    """Name -> time, PSNR and SSIM, and those of plain steps at that time."""
    spec = maker.spec(frames)
    full, k = spec.num_inference_steps, -(-maker.shape.latent_frames(frames) // 2)
    settings = ("", ",context=on", *(f",context=on,refresh={n}" for n in every))
    points = {f"eco:k={k}{one}": OperatingPoint(full, f"eco:k={k}{one}") for one in settings}
    plain = {
        steps: OperatingPoint(steps) for steps in sorted({round(share * full) for share in SHARES})
    }
    seen: dict[str | int, list[tuple[float, dict[str, float]]]] = {
        name: [] for name in (*points, *plain)
    }
    for subject in chosen:
        whole = maker.make(subject, spec, OperatingPoint(full))
        for name, point in (points | plain).items():
            video = maker.make(subject, spec, point)
            seen[name].append(
                (video.denoise_s / whole.denoise_s, near(video.made.frames, whole.made.frames))
            )
        print(
            f"{time.strftime('%H:%M:%S')} {frames} frames, {subject.kind}",
            file=sys.stderr,
            flush=True,
        )
    found = {name: averaged(rows) for name, rows in seen.items()}
    rival = [found[steps] for steps in plain]
    rows = {}
    for name in points:
        at = found[name].share
        steps_at = [one.share for one in rival]
        rows[name] = {
            "share": round(at, 4),
            "psnr_db": round(found[name].psnr_db, 2),
            "ssim": round(found[name].ssim, 4),
            "steps_psnr_db": round(
                float(np.interp(at, steps_at, [one.psnr_db for one in rival])), 2
            ),
            "steps_ssim": round(float(np.interp(at, steps_at, [one.ssim for one in rival])), 4),
        }
    return rows


def averaged(rows: list[tuple[float, dict[str, float]]]) -> Found:
    return Found(
        mean(share for share, _ in rows),
        mean(each["psnr_db"] for _, each in rows),
        mean(each["ssim"] for _, each in rows),
    )


if __name__ == "__main__":
    main()
