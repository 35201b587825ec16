"""One denoising run as `generate` makes it, without decoding, and with a total that can be made to
shrink.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.methods.on_model.tiny import randomise
from tests.workers.tiny_models import a_tiny_wan
from vidplat.domain import VideoSpec
from vidplat.methods.installed import Installed
from vidplat.methods.protocol import Grid, Run
from vidplat.workers.models.catalogue import locate
from vidplat.workers.models.family import Condition
from vidplat.workers.models.loading import load_family

SPEC = VideoSpec(
    width=32, height=32, num_frames=9, fps=8, num_inference_steps=12, guidance_scale=6.0, seed=5
)
CIRCLE, SQUARE = "a red circle moves left slowly", "a blue square moves right fast on dark"


def a_tiny_family(directory: Path, **changes: Any) -> Any:
    """A random Wan of three blocks, with a VAE and a text encoder, whose weights all have some
    size."""
    family: Any = load_family(locate(str(a_tiny_wan(directory, layers=3, **changes))), "cpu")
    torch.manual_seed(3)
    randomise(family.transformer)
    return family


def denoised(
    family: Any,
    method: str,
    *,
    prompt: str = CIRCLE,
    negative: str = "",
    spec: VideoSpec = SPEC,
    shorten: tuple[int, int] | None = None,
    source: Tensor | None = None,
    installed: Installed | None = None,
) -> Tensor:
    """Latents (1, C, F, H, W) of one run, with `method` installed for it, or by an `installed` that
    has its own.

    `shorten` = (at, to): before step `at` the remaining steps are made `to`. `source`: edit these
    clean latents with the last half of the steps.
    """
    ours = installed or Installed(family.transformers)
    if installed is None:
        ours.use(method)
    try:
        with torch.inference_mode():
            return _denoised(family, ours, prompt, negative, spec, shorten, source)
    finally:
        if installed is None:
            ours.remove()


def _denoised(
    family: Any,
    installed: Installed,
    prompt: str,
    negative: str,
    spec: VideoSpec,
    shorten: tuple[int, int] | None,
    source: Tensor | None,
) -> Tensor:
    steps, guided = spec.num_inference_steps, spec.guidance_scale > 1
    condition = Condition(
        family.encode(prompt), family.encode(negative) if guided else None, spec.guidance_scale
    )

    def rehearse() -> None:
        trial, x = (
            family.solver(steps, installed.scheduler(family.scheduler)),
            start(replace(spec, seed=0)),
        )
        fixed = replace(
            condition,
            text=family.encode("a red circle"),
            negative=family.encode("") if guided else None,
        )
        while trial.remaining:
            x = trial.advance(family.velocity(x, trial, fixed), x)

    def start(spec: VideoSpec) -> Any:
        return family.noise(spec)

    solver, latents = family.solver(steps, installed.scheduler(family.scheduler)), start(spec)
    noise = latents
    if source is not None:
        solver.skip(steps // 2)
        latents = solver.noised(source, latents)
    grid = Grid(*family.grid(latents))
    branches = 2 if guided else 1
    installed.begin(
        Run(
            solver,
            grid,
            branches,
            spec.guidance_scale,
            source,
            rehearse,
            noise=noise,
            family=family,
        )
    )
    latents = installed.started(latents)
    while solver.remaining:
        if shorten and solver.index == shorten[0]:
            solver.shorten(shorten[1])
        velocity = family.velocity(latents, solver, condition)
        latents = installed.stepped(solver.advance(velocity, latents), velocity)
    found: Tensor = latents
    return found


def error(made: Tensor, full: Tensor) -> float:
    """Relative L2 distance."""
    return float((made - full).norm() / full.norm())
