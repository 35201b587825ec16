"""Measures what fewer steps cost in quality: the profile that the planner chooses from.

    python benchmarks/steps.py [--model flipbook] [--captions 24] [--threads 1] [--write]

For held-out captions and fixed seeds each operating point is compared with the full-step video of
the same seed: SSIM (the profile's quality), PSNR and prompt fit, beside its seconds relative to
full quality. `--write` stores the points as profile.json in the model's directory. Prints a card
and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from collections import defaultdict
from dataclasses import asdict, replace
from importlib.metadata import version

import numpy as np

STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 20)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--model", default="flipbook")
    words.add_argument("--captions", type=int, default=24)
    words.add_argument("--threads", type=int, default=1)
    words.add_argument("--write", action="store_true")
    told = words.parse_args()

    import torch

    from flipbook_training import world
    from flipbook_training.prompt_fit import prompt_fit
    from vidplat.domain import OperatingPoint
    from vidplat.methods.model_shape import ProfilePoint
    from vidplat.quality import psnr_db, ssim
    from vidplat.workers.generate import generate
    from vidplat.workers.making import Ask
    from vidplat.workers.models.catalogue import describe_model, locate
    from vidplat.workers.models.loading import load_family

    torch.set_num_threads(told.threads)
    ref, shape = describe_model(told.model)
    family = load_family(locate(told.model), "cpu")
    spec = shape.defaults
    full = OperatingPoint(spec.num_inference_steps)
    points = [OperatingPoint(steps, "steps") for steps in STEPS]

    rows: dict[OperatingPoint, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for number in range(told.captions):
        rng = np.random.default_rng(9_700_000_000 + number)
        caption = world.describe(world.draw_scene(rng), rng)
        mine = replace(spec, seed=number)
        reference = generate(family, Ask(caption, "", mine, full))
        whole_s = reference.phases["denoise"] + reference.phases["decode"]
        rows[full]["fit"].append(prompt_fit(reference.frames, caption, spec.fps).share)
        for point in points:
            made = generate(family, Ask(caption, "", mine, point))
            seconds = sum(s for phase, s in made.phases.items() if phase != "encode")
            rows[point]["cost"].append(seconds / whole_s)
            rows[point]["ssim"].append(ssim(made.frames, reference.frames))
            rows[point]["psnr"].append(min(60.0, psnr_db(made.frames, reference.frames)))
            rows[point]["fit"].append(prompt_fit(made.frames, caption, spec.fps).share)

    found = []
    print(
        f"{told.model} {ref.revision[:12]}, {told.captions} captions, against {full.steps} "
        "steps of the same seed"
    )
    print(f"  {'point':<22} {'cost':>6} {'SSIM':>7} {'+-':>6} {'PSNR':>7} {'fit':>7}")
    print(
        f"  {'full':<22} {1:6.2f} {1:7.4f} {0:6.3f} {'':>7} "
        f"{statistics.mean(rows[full]['fit']):7.1%}"
    )
    for point in points:
        row = rows[point]
        found.append(
            ProfilePoint(
                steps_fraction=round(point.steps / full.steps, 6),
                quality=round(statistics.mean(row["ssim"]), 4),
                quality_spread=round(statistics.stdev(row["ssim"]), 4),
                psnr_db=round(statistics.mean(row["psnr"]), 2),
                prompt_fit=round(statistics.mean(row["fit"]), 4),
                samples=told.captions,
            )
        )
        print(
            f"  {point.label:<22} {statistics.median(row['cost']):6.2f} {found[-1].quality:7.4f} "
            f"{found[-1].quality_spread:6.3f} {found[-1].psnr_db:7.2f} {found[-1].prompt_fit:7.1%}"
        )
    answer = {
        "benchmark": "steps",
        "model": told.model,
        "revision": ref.revision,
        "reference_steps": full.steps,
        "seeds": f"0..{told.captions - 1}",
        "reference_fit": round(statistics.mean(rows[full]["fit"]), 4),
        "points": [asdict(p) for p in found],
        "cost": {point.label: round(statistics.median(rows[point]["cost"]), 4) for point in points},
        "machine": platform.processor() or platform.machine(),
        "versions": {name: version(name) for name in ("torch", "diffusers", "vidplat")},
    }
    if told.write:
        path = locate(told.model).root / "profile.json"
        path.write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
