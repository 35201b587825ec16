"""Seconds per video beside a plain loop over diffusers: same model, prompts, seeds and threads.

    python -m benchmarks.diffusers_loop [--videos 8] [--threads 1] [--model flipbook] [--steps N]

Both write their mp4 to memory; ours also makes poster and sidecar and checks the file by decoding
it. Each pair makes the same video with both, one after the other in turn; the ratio is taken pair
by pair, after one warm-up of each. The rival is `rivals/plain_loop.py`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from benchmarks.common import FIRST_SEEDS, answer, head, options, subject
from benchmarks.rivals.plain_loop import PlainLoop
from vidplat.domain import Job, OperatingPoint, around_seed, id_at_seed
from vidplat.workers.draft import Rendered
from vidplat.workers.video import to_frames
from vidplat.workers.worker import Worker


def main() -> None:
    parser = options(__doc__, model="flipbook", threads=1)
    parser.add_argument("--videos", type=int, default=8)
    parser.add_argument("--steps", type=int, help="default: the model's")
    told = parser.parse_args()
    worker = Worker(told.model, threads=told.threads)
    worker.load()
    loop = PlainLoop(told.model, worker.shape.text_tokens)
    spec = worker.shape.defaults
    spec = replace(spec, num_inference_steps=told.steps or spec.num_inference_steps)
    point = OperatingPoint(spec.num_inference_steps)

    pairs: list[tuple[float, float]] = []  # seconds of ours, of the loop
    differences: list[float] = []
    for number in range(told.videos + 1):
        text, mine = (
            subject(FIRST_SEEDS["diffusers_loop"], number).caption,
            replace(spec, seed=number),
        )
        name = id_at_seed(around_seed(text, "", mine, worker.ref), mine.seed)
        job = Job(name, text, "", mine, worker.ref, row=number + 1)
        ways = (partial(made_whole, worker, job, point), partial(loop.make, job))
        order = (0, 1) if number % 2 else (1, 0)
        made = {way: timed(ways[way]) for way in order}
        if number > 0:  # the first warms up
            pairs.append((made[0][0], made[1][0]))
            ours, theirs = (to_frames(made[way][1]).astype(int) for way in (0, 1))
            differences.append(float(np.abs(ours - theirs).mean()))
    ratios = sorted(theirs / ours for ours, theirs in pairs)
    medians = [statistics.median(seconds) for seconds in zip(*pairs, strict=True)]

    about = f"{told.model}, {point.steps} steps, {told.videos} pairs, {told.threads} thread(s)"
    print(head(about, "diffusers_loop"))
    for name, seconds in zip(("ours", "the loop"), medians, strict=True):
        print(f"  {name:<9} {seconds:7.3f} s per video (median)")
    print(
        f"  the loop takes {statistics.median(ratios):.3f} times as long (least "
        f"{ratios[0]:.3f}, most {ratios[-1]:.3f})"
    )
    print(f"  mean difference of the decoded videos: {statistics.mean(differences):.4f} of 255")
    answer(
        "diffusers_loop",
        **vars(told) | {"steps": point.steps},
        ratio_median=statistics.median(ratios),
        ratio_least=ratios[0],
        ratio_most=ratios[-1],
        mean_abs_difference=statistics.mean(differences),
    )


def made_whole(worker: Worker, job: Job, point: OperatingPoint) -> bytes:
    made = worker.make(job, point)
    assert isinstance(made, Rendered)
    return made.video


def timed(make: Callable[[], bytes]) -> tuple[float, bytes]:
    began = time.perf_counter()
    video = make()
    return time.perf_counter() - began, video


if __name__ == "__main__":
    main()
