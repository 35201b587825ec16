"""Ours against a plain loop over diffusers: same model, prompts, seeds, steps and threads, one
after the other in turn.

    python benchmarks/diffusers_loop.py [--videos 8] [--threads 1] [--model flipbook] [--steps N]

The rival is what a careful user would write: `WanPipeline.from_pretrained`, one call a prompt, text
length cut to what the model's tokenizer reads, frames to mp4 with the same encoder settings. Both
write their mp4 to memory; ours also makes poster and sidecar and checks the file by decoding it.
Each pair makes the same video with both, in alternating order; the ratio is taken pair by pair,
after one warm-up of each. Prints a card and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from dataclasses import replace
from importlib.metadata import version

import numpy as np


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--videos", type=int, default=8)
    words.add_argument("--threads", type=int, default=1)
    words.add_argument("--model", default="flipbook")
    words.add_argument("--steps", type=int)
    told = words.parse_args()

    from flipbook_training import world
    from vidplat.domain import Job, OperatingPoint, job_id
    from vidplat.workers.models.catalogue import locate
    from vidplat.workers.video import to_frames, to_mp4
    from vidplat.workers.worker import Worker

    worker = Worker(told.model, threads=told.threads)
    worker.load()
    import torch
    from diffusers import AutoencoderKLWan, WanPipeline, WanTransformer3DModel

    # The shared parts of flipbook-edge lie elsewhere, so the parts are named one by one, as stored,
    # in float32.
    parts = locate(told.model).parts
    transformer = WanTransformer3DModel.from_pretrained(parts["transformer"], dtype=torch.float32)
    vae = AutoencoderKLWan.from_pretrained(parts["vae"], dtype=torch.float32)
    pipeline = WanPipeline.from_pretrained(
        parts["transformer"].parent, transformer=transformer, vae=vae, dtype=torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)

    spec = worker.shape.defaults
    spec = replace(spec, num_inference_steps=told.steps or spec.num_inference_steps)
    ours_s: list[float] = []
    rival_s: list[float] = []
    differences: list[float] = []
    for number in range(told.videos + 1):
        rng = np.random.default_rng(9_500_000_000 + number)
        caption = world.describe(world.draw_scene(rng), rng)
        mine = replace(spec, seed=number)
        job = Job(
            job_id(caption, "", mine, worker.ref), caption, "", mine, worker.ref, row=number + 1
        )

        def ours(job: Job = job) -> tuple[float, np.ndarray]:
            began = time.perf_counter()
            made = worker.make(job, OperatingPoint(spec.num_inference_steps))
            return time.perf_counter() - began, to_frames(made.video)

        def rival(job: Job = job) -> tuple[float, np.ndarray]:
            began = time.perf_counter()
            frames = pipeline(
                job.prompt,
                height=job.spec.height,
                width=job.spec.width,
                num_frames=job.spec.num_frames,
                num_inference_steps=job.spec.num_inference_steps,
                guidance_scale=job.spec.guidance_scale,
                generator=torch.Generator("cpu").manual_seed(job.spec.seed),
                max_sequence_length=worker.shape.text_tokens,
            ).frames[0]
            video = to_mp4((frames * 255).round().astype(np.uint8), job.spec.fps)
            return time.perf_counter() - began, to_frames(video)

        if number % 2:
            (a, left), (b, right) = ours(), rival()
        else:
            (b, right), (a, left) = rival(), ours()
        if number == 0:
            continue  # warm-up
        ours_s.append(a)
        rival_s.append(b)
        differences.append(float(np.abs(left.astype(int) - right.astype(int)).mean()))
    ratios = sorted(b / a for a, b in zip(ours_s, rival_s, strict=True))

    print(
        f"{told.model}, {spec.num_inference_steps} steps, {told.videos} pairs, {told.threads} "
        "thread(s)"
    )
    print(f"  ours      {statistics.median(ours_s):7.3f} s per video (median)")
    print(f"  the loop  {statistics.median(rival_s):7.3f} s per video (median)")
    print(
        f"  the loop takes {statistics.median(ratios):.3f} times as long (least "
        f"{ratios[0]:.3f}, most {ratios[-1]:.3f})"
    )
    print(f"  mean difference of the decoded videos: {statistics.mean(differences):.4f} of 255")
    print(
        json.dumps(
            {
                "benchmark": "diffusers_loop",
                "model": told.model,
                "steps": spec.num_inference_steps,
                "pairs": told.videos,
                "threads": told.threads,
                "ratio_median": round(statistics.median(ratios), 4),
                "ratio_least": round(ratios[0], 4),
                "ratio_most": round(ratios[-1], 4),
                "mean_abs_difference": round(statistics.mean(differences), 5),
                "machine": platform.processor() or platform.machine(),
                "versions": {name: version(name) for name in ("torch", "diffusers", "vidplat")},
            }
        )
    )


if __name__ == "__main__":
    main()
