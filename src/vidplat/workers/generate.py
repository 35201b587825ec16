"""One video: encode, denoise, decode, check. One page, in that order.

The loop takes `point.steps` steps, fewer when `finish_by` comes too near: after each step the
remaining ones are counted against the time that is left, at the step time measured in this very
run, and if they do not fit the rest of the schedule is spaced anew over those that do
(`Solver.shorten`). It never grows again. Without `finish_by` the clock is not looked at and the
result depends on the request alone.

With a `Source` the video does not start from noise alone: the source's latents are noised to the
sigma that the last `strength` of a schedule begins with, and the steps before are left out (SDEdit,
arXiv 2108.01073, as diffusers' `WanVideoToVideoPipeline` does it).

A method may leave frames out in mid-run (`Installed.stepped`). Then `draft` ends with those that
were decoded and the `Filling` that makes them the whole video; `filled_in` needs no model and may
run on another machine.

Models that make a video block by block have a loop of their own, blocks/jobs.py.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from vidplat.domain import VideoSpec
from vidplat.methods.installed import Installed
from vidplat.methods.protocol import Grid, Run
from vidplat.methods.solver import Solver
from vidplat.stages import DECODE, DENOISE, ENCODE, RECONSTRUCT
from vidplat.workers.blocks.jobs import generate_blocks
from vidplat.workers.making import (
    Ask,
    Cancelled,
    Control,
    Made,
    Pace,
    Stopwatch,
    check_finite,
    check_promise,
    conditioned,
    schedule_steps,
    told_of_tiles,
)
from vidplat.workers.models.family import Condition, Family, MakesBlocks


def generate(family: Family, ask: Ask, installed: Installed | None = None) -> Made:
    """Make one video at one operating point. Raises `JobError`, `Cancelled`, or torch's
    out-of-memory error; `MethodRefused` when one of the `installed` methods cannot make this video.
    The point's method must be on the family's transformers already."""
    made = draft(family, ask, installed)
    return made if made.filling is None else filled_in(made, ask.spec, ask.control)


@torch.inference_mode()
def draft(family: Family, ask: Ask, installed: Installed | None = None) -> Made:
    """As `generate`, but what a method left out is not filled in: `filled_in` does it, anywhere."""
    if isinstance(family, MakesBlocks):
        return generate_blocks(family, ask)
    methods = installed or Installed(family.transformers)
    spec, tell, watch = ask.spec, ask.control.on_step, Stopwatch()

    # 1. Encode.
    tell(ENCODE, 0, ask.point.steps)
    condition = conditioned(family, ask.prompt, ask.negative_prompt, spec.guidance_scale)
    watch.lap(ENCODE)

    # 2. Denoise.
    solver, latents = _begun(family, ask, condition, methods)
    watch.restart()
    tell(DENOISE, 0, solver.total)
    pace = Pace(ask.control, methods.share)
    while solver.remaining:
        if ask.control.is_cancelled():
            raise Cancelled(f"cancelled after {solver.index} of {solver.total} steps")
        solver.shorten(pace.affordable(solver.index, solver.remaining))
        velocity = family.velocity(latents, solver, condition)
        latents = methods.stepped(solver.advance(velocity, latents), velocity)
        pace.step_done(solver.index - 1, solver.total)
        tell(DENOISE, solver.index, solver.total)
    check_finite(latents, f"{solver.total} steps")
    watch.lap(DENOISE)

    # 3. Decode.
    tell(DECODE, solver.total, solver.total)
    frames = family.decode(latents)
    watch.lap(DECODE)

    # 4. Check.
    filling = methods.filling()
    if filling is None:
        check_promise(frames, spec)
    return Made(
        frames,
        latents,
        solver.total,
        tuple(solver.sigmas),
        watch.phases,
        facts={**methods.facts(), **told_of_tiles(family)},
        files=tuple(methods.files()),
        filling=filling,
    )


def filled_in(made: Made, spec: VideoSpec, control: Control = Control()) -> Made:
    """The whole video of a draft that has a filling. Needs no model. Raises `JobError`."""
    from vidplat.methods.filling.frames import filled

    assert made.filling is not None, "something was left out"
    watch = Stopwatch()
    control.on_step(RECONSTRUCT, made.steps_done, made.steps_done)
    frames = filled(made.frames, made.filling.moments)
    watch.lap(RECONSTRUCT)
    check_promise(frames, spec)
    return replace(made, frames=frames, phases={**made.phases, **watch.phases}, filling=None)


def _begun(
    family: Family, ask: Ask, condition: Condition, methods: Installed
) -> tuple[Solver, Tensor]:
    """The solver of the run, where its schedule is entered, and the latents it starts from; the
    methods know of it and have begun."""
    spec, source, length = ask.spec, ask.source, ask.point.steps
    if source is not None:
        length = schedule_steps(length, source.strength)
    scheduler = methods.scheduler(family.scheduler)
    solver = family.solver(length, scheduler)
    latents = noise = family.noise(spec)
    if source is not None:
        solver.skip(source.skipped(solver.total))
        latents = solver.noised(source.latents, noise)
    run = Run(
        solver,
        Grid(*family.grid(latents)),
        branches=1 if condition.negative is None else 2,
        guidance_scale=spec.guidance_scale,
        source=None if source is None else source.latents,
        rehearse=lambda: _rehearse(family, ask, family.solver(length, scheduler)),
        noise=noise,
        family=family,
    )
    methods.begin(run)
    return solver, methods.started(latents)


def _rehearse(family: Family, ask: Ask, solver: Solver) -> None:
    """The same run without decoding, of a fixed prompt and seed: for methods to be calibrated."""
    from vidplat.methods.peers.calibration import REHEARSAL_PROMPT, REHEARSAL_SEED

    shown = conditioned(family, REHEARSAL_PROMPT, "", ask.spec.guidance_scale)
    latents = family.noise(replace(ask.spec, seed=REHEARSAL_SEED))
    while solver.remaining:
        if ask.control.is_cancelled():
            raise Cancelled("cancelled while a method was calibrated")
        ask.control.on_step(DENOISE, 0, ask.point.steps)  # a sign of life, no step of the video
        latents = solver.advance(family.velocity(latents, solver, shown), latents)
