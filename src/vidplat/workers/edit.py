"""Video to video with a model that sees all frames at once: encode the source, renoise it, denoise
the rest.

SDEdit (arXiv 2108.01073): the source's latents are noised to the level at which the last `strength`
of the schedule begins, and the model denoises from there under the new text. Little strength keeps
the source, 1 forgets it. The loop is that of `generate.py`; this file brings frames to where it
starts.

The method `lipar` prunes what the source repeats, see `methods/lipar`. On models that make one
block of frames after the other, `generate` goes on with `block_jobs.py`; there `point.steps` are
steps taken, whatever the strength.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from vidplat.domain import DEFAULT_STRENGTH, OperatingPoint, VideoSpec
from vidplat.errors import SpecError
from vidplat.workers.generate import Made, Source, Wishes, generate
from vidplat.workers.models.family import Family, TakesVideo
from vidplat.workers.text_cache import TextCache

if TYPE_CHECKING:
    from vidplat.methods.installed import Installed


def edit(
    family: Family,
    texts: TextCache,
    video: np.ndarray,
    prompt: str,
    negative_prompt: str,
    spec: VideoSpec,
    point: OperatingPoint,
    strength: float = DEFAULT_STRENGTH,
    wishes: Wishes = Wishes(),
    installed: Installed | None = None,
) -> Made:
    """The video (num_frames, height, width, 3) uint8 RGB, changed as `prompt` says; `strength` in
    (0, 1].

    Everything else, and what is raised, is as in `generate`; the phase `source` is added. Raises
    `SpecError` too when the family takes no video, and for frames of another size.
    """
    if not isinstance(family, TakesVideo):
        raise SpecError(f"the model family {family.name} cannot start from a video")
    if not 0.0 < strength <= 1.0:
        raise SpecError(f"strength must be above 0 and at most 1, not {strength:g}")
    wanted = (spec.num_frames, spec.height, spec.width, 3)
    if video.shape != wanted or video.dtype != np.uint8:
        raise SpecError(
            f"the source has frames {video.shape} {video.dtype}, needed are {wanted} uint8"
        )
    since = time.perf_counter()
    with torch.inference_mode():
        source = Source(family.encode_video(video), strength)
    took_s = time.perf_counter() - since
    made = generate(family, texts, prompt, negative_prompt, spec, point, wishes, installed, source)
    return replace(made, phases={"source": took_s, **made.phases})
