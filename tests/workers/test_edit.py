"""Video to video: our loop is diffusers' `WanVideoToVideoPipeline`, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vidplat.domain import OperatingPoint, VideoSpec
from vidplat.errors import MethodRefused, SpecError
from vidplat.methods.installed import Installed
from vidplat.workers import Worker
from vidplat.workers.edit import encoded
from vidplat.workers.generate import generate
from vidplat.workers.making import Ask, Made, Source
from vidplat.workers.models.family import TakesVideo

PROMPT, NEGATIVE = "a red circle", "dark"


def a_spec(**changes: Any) -> VideoSpec:
    facts = {"width": 48, "height": 32, "num_frames": 9, "fps": 8, "num_inference_steps": 5}
    return VideoSpec(**{**facts, "guidance_scale": 4.0, "seed": 7, **changes})


def a_video(still: bool = False) -> np.ndarray:
    """Nine frames of soft noise; equal ones when `still`."""
    rng = np.random.default_rng(3)
    made = rng.integers(0, 256, (9, 32, 48, 3), dtype=np.uint8)
    return np.repeat(made[:1], 9, axis=0) if still else made


def edited(
    worker: Worker,
    method: str = "",
    video: np.ndarray | None = None,
    strength: float = 0.6,
    steps: int = 3,
) -> Made:
    """The last `steps` of a schedule of which they are `strength`."""
    model, spec = worker.loaded, a_spec()
    installed = Installed(model.family.transformers)
    installed.use(method)
    try:
        source = encoded(model.family, a_video() if video is None else video, strength, spec)
        ask = Ask(PROMPT, NEGATIVE, spec, OperatingPoint(steps), source)
        return generate(model.family, ask, installed)
    finally:
        installed.remove()


def stock(directory: Path, worker: Worker, strength: float, steps: int) -> torch.Tensor:
    """The latents of diffusers' own pipeline. Its own text cleaning needs a package that is not
    installed."""
    from diffusers import WanVideoToVideoPipeline
    from PIL import Image

    spec, texts = a_spec(), worker.loaded.family.encode
    pipeline = WanVideoToVideoPipeline.from_pretrained(directory, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.vae_scale_factor_spatial = (
        pipeline.vae.config.scale_factor_spatial
    )  # it knows Wan 2.1's autoencoder only
    made: torch.Tensor = pipeline(
        video=[Image.fromarray(frame) for frame in a_video()],
        prompt_embeds=texts(PROMPT),
        negative_prompt_embeds=texts(NEGATIVE),
        height=spec.height,
        width=spec.width,
        num_inference_steps=steps,
        guidance_scale=spec.guidance_scale,
        strength=strength,
        generator=torch.Generator("cpu").manual_seed(spec.seed),
        output_type="latent",
    ).frames
    return made


@pytest.mark.parametrize("strength", [0.4, 0.85, 1.0])
@pytest.mark.parametrize("solver", ["tiny_wan", "tiny_unipc"])
def test_latents_equal_the_stock_pipelines_bit_for_bit(
    solver: str, strength: float, request: pytest.FixtureRequest
) -> None:
    directory = request.getfixturevalue(solver)
    worker = Worker(str(directory))
    worker.load()

    steps = {0.4: 2, 0.85: 4, 1.0: 5}[strength]  # floor(5 * strength) of five steps

    made = edited(worker, strength=strength, steps=steps)

    assert torch.equal(made.latents, stock(directory, worker, strength, 5))
    assert made.steps_done == steps


def test_the_family_says_that_it_takes_video(worker: Worker) -> None:
    family = worker.loaded.family
    assert isinstance(family, TakesVideo)
    latents = family.encode_video(a_video())
    assert latents.shape[0] == 1 and latents.shape[2:] == (3, 4, 6)
    assert latents.dtype == torch.float32


def test_one_step_at_least_is_taken() -> None:
    nothing = torch.empty(0)

    # floor(4 * 0.1) = 0 steps would give the source back.
    assert [Source(nothing, strength).skipped(4) for strength in (0.1, 0.25, 0.6, 1.0)] == [
        3,
        3,
        2,
        0,
    ]


def test_lipar_on_a_still_source_makes_a_still_video_and_is_undone(worker: Worker) -> None:
    plain = edited(worker, video=a_video(still=True))

    pruned = edited(worker, "lipar:tau1=9,tau2=9", video=a_video(still=True))

    assert torch.equal(pruned.latents, pruned.latents[:, :, :1].expand_as(pruned.latents))
    assert not torch.equal(pruned.latents, plain.latents)
    assert torch.equal(edited(worker, video=a_video(still=True)).latents, plain.latents)


def test_lipar_that_prunes_nothing_changes_no_bit(worker: Worker) -> None:
    assert torch.equal(edited(worker, "lipar:tau1=0,tau2=0").latents, edited(worker).latents)


def test_what_an_edit_cannot_be_is_refused_with_the_reason(worker: Worker) -> None:
    for changes, told in (
        ({"video": a_video()[:5]}, r"frames \(5, 32, 48, 3\) uint8, needed are \(9, 32, 48, 3\)"),
        ({"strength": 0.0}, "strength must be above 0"),
        ({"strength": 1.5}, "at most 1, not 1.5"),
    ):
        with pytest.raises(SpecError, match=told):
            edited(worker, **changes)


def test_lipar_without_a_source_is_refused(worker: Worker) -> None:
    model = worker.loaded
    installed = Installed(model.family.transformers)
    installed.use("lipar")
    with pytest.raises(MethodRefused, match=r"lipar cannot be used here: .* made from text alone"):
        generate(model.family, Ask(PROMPT, "", a_spec(), OperatingPoint(2)), installed)
    installed.remove()
