"""How good is flipbook? VAE PSNR on held-out clips, and prompt fit on held-out captions at full
steps.

    python benchmarks/flipbook_quality.py [--model flipbook] [--captions 200] [--clips 64] [--steps
    N] [--threads 2]

Captions and clips come from seeds that training never drew. Prints a card and ends with one JSON
line.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from importlib.metadata import version

import numpy as np

FIT_SEED = 9_000_000_000  # captions from here on; training drew below 3e9, VAE tests at 1e10


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--model", default="flipbook")
    words.add_argument("--captions", type=int, default=200)
    words.add_argument("--clips", type=int, default=64)
    words.add_argument("--steps", type=int, help="default: the model's full steps")
    words.add_argument("--guidance-scale", type=float)
    words.add_argument("--num-frames", type=int)
    words.add_argument("--threads", type=int, default=2)
    told = words.parse_args()

    import torch

    from flipbook_training import vae, world
    from flipbook_training.prompt_fit import by_attribute, prompt_fit
    from vidplat.domain import OperatingPoint
    from vidplat.workers.generate import generate
    from vidplat.workers.making import Ask
    from vidplat.workers.models.catalogue import describe_model, locate
    from vidplat.workers.models.loading import load_family

    torch.set_num_threads(told.threads)
    ref, shape = describe_model(told.model)
    family = load_family(locate(told.model), "cpu")
    changes = {"guidance_scale": told.guidance_scale, "num_frames": told.num_frames}
    spec = replace_given(shape.defaults, changes)
    steps = told.steps or spec.num_inference_steps

    psnr = vae.held_out_psnr(family.vae, count=told.clips) if told.clips else []
    fits, classes, began = [], [], time.perf_counter()
    for number in range(told.captions):
        rng = np.random.default_rng(FIT_SEED + number)
        scene = world.draw_scene(rng)
        caption = world.describe(scene, rng)
        mine = replace_given(spec, {"seed": number})
        made = generate(family, Ask(caption, "", mine, OperatingPoint(steps)))
        fits.append(prompt_fit(made.frames, caption, spec.fps))
        classes.append(scene.motion_class)
    took = time.perf_counter() - began
    shares = by_attribute(fits)

    card = [
        f"{told.model} {ref.revision[:12]}: {spec.width}x{spec.height}, {spec.num_frames} "
        f"frames, {steps} steps"
    ]
    if psnr:
        card.append(
            f"VAE, {len(psnr)} held-out clips: {np.mean(psnr):.2f} dB mean, {min(psnr):.2f} dB "
            "worst"
        )
    card.append(f"prompt fit, {told.captions} held-out captions, guidance {spec.guidance_scale}:")
    card += [f"  {name:<12} {share:6.1%}  of {count}" for name, (share, count) in shares.items()]
    by_class = {
        kind: float(np.mean([fit.share for fit, c in zip(fits, classes, strict=True) if c == kind]))
        for kind in world.MOTION_CLASSES
        if kind in classes
    }
    card += [f"  all, {kind:<7} {share:6.1%}" for kind, share in by_class.items()]
    print("\n".join(card))
    print(
        json.dumps(
            {
                "benchmark": "flipbook_quality",
                "model": told.model,
                "revision": ref.revision,
                "steps": steps,
                "guidance_scale": spec.guidance_scale,
                "num_frames": spec.num_frames,
                "vae_psnr_db": round(float(np.mean(psnr)), 2) if psnr else None,
                "fit": {name: round(share, 4) for name, (share, _) in shares.items()},
                "fit_by_class": {kind: round(share, 4) for kind, share in by_class.items()},
                "captions": told.captions,
                "seconds_per_video": round(took / max(1, told.captions), 3),
                "threads": told.threads,
                "machine": platform.processor() or platform.machine(),
                "versions": {name: version(name) for name in ("torch", "diffusers", "vidplat")},
            }
        )
    )


def replace_given(spec, changes):  # type: ignore[no-untyped-def]
    """`spec` with those changes that are not None."""
    from dataclasses import replace

    return replace(spec, **{name: value for name, value in changes.items() if value is not None})


if __name__ == "__main__":
    main()
