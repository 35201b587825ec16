"""The loop a careful user would write over diffusers: one call of `WanPipeline` for each prompt.

Text length is cut to what the model's tokenizer reads; frames become an mp4 in memory with the same
encoder settings as ours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from vidplat.domain import Job
from vidplat.workers.models.catalogue import locate
from vidplat.workers.video import to_mp4


class PlainLoop:
    """A loaded pipeline in float32."""

    def __init__(self, model: str, text_tokens: int) -> None:
        from diffusers import AutoencoderKLWan, WanPipeline, WanTransformer3DModel

        # shared parts of flipbook-edge lie elsewhere, so parts are named one by one, as stored
        parts, stored = locate(model).parts, {"dtype": torch.float32}
        transformer = WanTransformer3DModel.from_pretrained(parts["transformer"], **stored)
        vae = AutoencoderKLWan.from_pretrained(parts["vae"], **stored)
        self._text_tokens = text_tokens
        self._pipeline: Any = WanPipeline.from_pretrained(
            parts["transformer"].parent, transformer=transformer, vae=vae, **stored
        )
        self._pipeline.set_progress_bar_config(disable=True)

    def make(self, job: Job) -> bytes:
        """The mp4."""
        spec = job.spec
        frames = self._pipeline(
            job.prompt,
            height=spec.height,
            width=spec.width,
            num_frames=spec.num_frames,
            num_inference_steps=spec.num_inference_steps,
            guidance_scale=spec.guidance_scale,
            generator=torch.Generator("cpu").manual_seed(spec.seed),
            max_sequence_length=self._text_tokens,
        ).frames[0]
        return to_mp4((frames * 255).round().astype(np.uint8), spec.fps)
