"""Half the frame rate: every second latent from noise on, the others interpolated.

No method has this: from the first step on the model sees the kept latents alone, each told its own
time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import torch

from benchmarks.common import Subject
from benchmarks.making import Maker
from vidplat.domain import VideoSpec
from vidplat.methods.filling.frames import filled
from vidplat.methods.filling.moments import true_moments
from vidplat.methods.seams.frame_times import Times, timed
from vidplat.methods.seams.layouts import layout_of
from vidplat.workers.making import conditioned


@torch.inference_mode()
def half_rate(
    maker: Maker, subject: Subject, spec: VideoSpec, steps: int, key: Sequence[int]
) -> tuple[np.ndarray, float, float]:
    """Frames of the whole video, processor seconds of denoising, and all seconds, where only the
    latents `key` are made."""
    family, spec = maker.family, replace(spec, seed=subject.seed)
    maker.installed.use("")
    condition = conditioned(family, subject.caption, "", spec.guidance_scale)
    latents = family.noise(spec)[:, :, list(key)]
    began = time.process_time()
    solver, times = family.solver(steps), Times(tuple(key))
    with ExitStack() as told:
        for model in family.transformers:
            told.enter_context(timed(model, layout_of(model), times))
        while solver.remaining:
            latents = solver.advance(family.velocity(latents, solver, condition), latents)
    denoised = time.process_time()
    frames = filled(family.decode(latents), true_moments(key, spec.num_frames))
    return frames, denoised - began, time.process_time() - began
