"""How good is flipbook? VAE PSNR on held-out clips, prompt fit on held-out captions at full steps.

python -m benchmarks.flipbook_quality [--model flipbook] [--captions 200] [--clips 64]
    [--steps N] [--guidance-scale G] [--num-frames N] [--threads 2]
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from dataclasses import replace

from benchmarks.common import FIRST_SEEDS, answer, head, options, subject
from benchmarks.making import Maker
from flipbook_training.prompt_fit import Fit, by_attribute, prompt_fit
from vidplat.domain import OperatingPoint


def main() -> None:
    parser = options(__doc__, model="flipbook", captions=200, threads=2)
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--steps", type=int, help="default: the model's")
    parser.add_argument("--guidance-scale", type=float, help="default: the model's")
    parser.add_argument("--num-frames", type=int, help="default: the model's")
    told = parser.parse_args()

    from flipbook_training.vae import held_out_psnr  # takes seconds, which --help need not

    maker = Maker(told.model, told.threads)
    asked = {"guidance_scale": told.guidance_scale, "num_frames": told.num_frames}
    spec = replace(maker.shape.defaults, **{name: one for name, one in asked.items() if one})
    steps = told.steps or maker.steps

    psnr = held_out_psnr(maker.family.vae, count=told.clips) if told.clips else []
    fits: dict[str, list[Fit]] = defaultdict(list)
    began = time.perf_counter()
    for number in range(told.captions):
        one = subject(FIRST_SEEDS["flipbook_quality"], number)
        video = maker.make(one, spec, OperatingPoint(steps))
        fits[one.kind].append(prompt_fit(video.frames, one.caption, spec.fps))
    seconds = (time.perf_counter() - began) / max(1, told.captions)
    shares = by_attribute(fit for group in fits.values() for fit in group)
    classes = {kind: statistics.mean(fit.share for fit in group) for kind, group in fits.items()}

    about = f"{maker.ref.id} {maker.ref.revision[:12]}: {spec.width}x{spec.height}, "
    about += f"{spec.num_frames} frames, {steps} steps, guidance {spec.guidance_scale}"
    print(head(about, "flipbook_quality"))
    if psnr:
        mean_db = statistics.mean(psnr)
        print(f"VAE, {len(psnr)} held-out clips: {mean_db:.2f} dB mean, {min(psnr):.2f} dB worst")
    print(f"prompt fit, {told.captions} held-out captions:")
    for name, (share, count) in shares.items():
        print(f"  {name:<12} {share:6.1%}  of {count}")
    for kind, share in classes.items():
        print(f"  all, {kind:<7} {share:6.1%}")
    answer(
        "flipbook_quality",
        **vars(told) | {"steps": steps},
        revision=maker.ref.revision,
        vae_psnr_db=statistics.mean(psnr) if psnr else None,
        fit={name: share for name, (share, _) in shares.items()},
        fit_by_class=classes,
        seconds_per_video=seconds,
    )


if __name__ == "__main__":
    main()
