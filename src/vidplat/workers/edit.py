"""Video to video: the frames of a video become the latents that a run starts from.

SDEdit (arXiv 2108.01073): the source's latents are noised to the level at which the last `strength`
of a schedule begins, and the model denoises from there under the new text. Little strength keeps
the source, 1 forgets it. The loops are those of every video (generate.py, blocks/jobs.py); the
method `lipar` prunes what the source repeats, see `methods/lipar`.
"""

from __future__ import annotations

import numpy as np
import torch

from vidplat.domain import VideoSpec
from vidplat.errors import SpecError
from vidplat.workers.making import Source
from vidplat.workers.models.family import Family, TakesVideo


@torch.inference_mode()
def encoded(family: Family, video: np.ndarray, strength: float, spec: VideoSpec) -> Source:
    """The video (num_frames, height, width, 3) uint8 RGB as a start; `strength` in (0, 1].

    Raises `SpecError` when the family takes no video, and for frames of another size than `spec`'s.
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
    return Source(family.encode_video(video), strength)
