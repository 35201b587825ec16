"""With no method installed our loop is the stock pipeline: same seed, solver and steps, same
bits.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vidplat.domain import OperatingPoint, VideoSpec
from vidplat.workers import Worker
from vidplat.workers.generate import generate
from vidplat.workers.making import Ask, Made

FLIPBOOK = Path(str(files("vidplat"))) / "models_data" / "flipbook"
PROMPT, NEGATIVE = "a red circle &amp; a  blue square", "dark"


def ours(model: str, spec: VideoSpec, steps: int) -> Made:
    worker = Worker(model)
    worker.load()
    ask = Ask(PROMPT, NEGATIVE, spec, OperatingPoint(steps))
    return generate(worker.loaded.family, ask)


def stock(directory: Path, spec: VideoSpec, steps: int, output: str) -> Any:
    """The frames or latents of diffusers' own WanPipeline."""
    from diffusers import WanPipeline

    pipeline = WanPipeline.from_pretrained(directory, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        prompt=PROMPT,
        negative_prompt=NEGATIVE,
        height=spec.height,
        width=spec.width,
        num_frames=spec.num_frames,
        num_inference_steps=steps,
        guidance_scale=spec.guidance_scale,
        generator=torch.Generator("cpu").manual_seed(spec.seed),
        max_sequence_length=min(512, int(pipeline.tokenizer.model_max_length)),
        output_type=output,
    ).frames


def a_spec(**changes: Any) -> VideoSpec:
    facts = {"width": 48, "height": 32, "num_frames": 9, "fps": 8, "num_inference_steps": 5}
    return VideoSpec(**{**facts, "guidance_scale": 4.0, "seed": 7, **changes})


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("solver", ["tiny_wan", "tiny_unipc"])
def test_latents_of_a_tiny_wan_equal_the_stock_pipelines_bit_for_bit(
    solver: str, guidance: float, request: pytest.FixtureRequest
) -> None:
    directory, spec = request.getfixturevalue(solver), a_spec(guidance_scale=guidance)

    made = ours(str(directory), spec, steps=5)

    assert torch.equal(made.latents, stock(directory, spec, 5, "latent"))


def test_frames_of_a_tiny_wan_differ_from_the_stock_pipelines_by_at_most_one_level(
    tiny_wan: Path,
) -> None:
    spec = a_spec()

    made = ours(str(tiny_wan), spec, steps=3)

    theirs = stock(tiny_wan, spec, 3, "np")[0]
    assert np.abs(made.frames - (theirs * 255).round()).max() <= 1


@pytest.mark.skipif(not FLIPBOOK.is_dir(), reason="flipbook's weights are not here")
def test_latents_of_flipbook_equal_the_stock_pipelines_bit_for_bit() -> None:
    spec = a_spec(width=64, height=64, num_frames=17)

    made = ours("flipbook", spec, steps=3)

    assert torch.equal(made.latents, stock(FLIPBOOK, spec, 3, "latent"))
