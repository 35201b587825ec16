"""One video: encode, denoise, decode, check. One page, in that order.

The loop takes `point.steps` steps, fewer when `finish_by` comes too near: after each step the
remaining ones are counted against the time that is left, at the step time measured in this very
run, and if they do not fit the rest of the schedule is spaced anew over those that do
(`Solver.shorten`). It never grows again. Without `finish_by` the clock is not looked at and the
result depends on the request alone.

With a `Source` the video does not start from noise alone: the source's latents are noised to the
sigma that the last `strength` of the schedule begins with, and the steps before are left out
(SDEdit, arXiv 2108.01073, as diffusers' `WanVideoToVideoPipeline` does it).

A method may leave frames out in mid-run (`Installed.stepped`). Then `draft` ends with those that
were decoded and the `Filling` that makes them the whole video; `filled_in` needs no model and may
run on another machine.

Models that make a video block by block have a loop of their own, `block_jobs.py`.

Legend: F latent frames of the full video, K generated ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from vidplat.domain import OperatingPoint, VideoSpec
from vidplat.errors import JobError
from vidplat.methods.filling.moments import Filling
from vidplat.methods.protocol import Grid, Run
from vidplat.workers.models.family import Condition, Family, MakesBlocks
from vidplat.workers.text_cache import TextCache

if TYPE_CHECKING:
    import numpy as np

    from vidplat.methods.installed import Installed

FinishBy = (
    float | Callable[[], float | None] | None
)  # epoch seconds, or asked at every step boundary
OnStep = Callable[[str, int, int], None]  # phase, steps finished, steps in all


class Cancelled(JobError):
    """Stopped between two steps because it was asked to."""


@dataclass(frozen=True)
class Wishes:
    """What may change while a video is being made. The defaults change nothing."""

    on_step: OnStep = lambda phase, step, steps: None
    finish_by: FinishBy = None
    tail_s: float = 0.0  # seconds that decoding and delivery will take after the last step
    min_steps: int = 1  # of all steps, never fewer than this many
    is_cancelled: Callable[[], bool] = lambda: False

    def left_s(self) -> float | None:
        """Seconds from now that steps may take, below 0 when it is late; None where there is no
        `finish_by`."""
        by = self.finish_by() if callable(self.finish_by) else self.finish_by
        return None if by is None else by - time.time() - self.tail_s


@dataclass(frozen=True)
class Made:
    """A finished video, before it is compressed."""

    frames: np.ndarray  # (num_frames, rows, columns, 3) uint8 RGB
    latents: torch.Tensor  # (1, C, F or K, H, W) float32
    steps_done: int
    sigmas: tuple[float, ...]  # those really used, so that a shortened run can be told and repeated
    phases: dict[str, float]  # seconds of encode, denoise, decode, reconstruct
    passes: int | None = None  # what progress counted, where that was not steps
    facts: Mapping[str, float] = field(
        default_factory=dict
    )  # what a block by block video's method found
    filling: Filling | None = None  # how `frames` become the whole video; None: they are


@dataclass(frozen=True)
class Source:
    """A video to start from."""

    latents: torch.Tensor  # (1, C, F, H, W) float32, clean and normalised
    strength: float  # share of the schedule that is run, in (0, 1]

    def skipped(self, steps: int) -> int:
        """How many of `steps` are left out; one at least is taken."""
        return steps - max(1, min(int(steps * self.strength), steps))


class Stopwatch:
    """Seconds per phase; `lap` closes the phase that began at the last call."""

    def __init__(self) -> None:
        self.phases: dict[str, float] = {}
        self._since = time.perf_counter()

    def restart(self) -> None:
        """Leave the time since the last lap out: a rehearsal happens once and would pass for this
        video's own work."""
        self._since = time.perf_counter()

    def lap(self, phase: str) -> None:
        now = time.perf_counter()
        self.phases[phase] = self.phases.get(phase, 0.0) + now - self._since
        self._since = now


@torch.inference_mode()
def generate(
    family: Family,
    texts: TextCache,
    prompt: str,
    negative_prompt: str,
    spec: VideoSpec,
    point: OperatingPoint,
    wishes: Wishes = Wishes(),
    installed: Installed | None = None,
    source: Source | None = None,
) -> Made:
    """Make one video at one operating point. Raises `JobError`, `Cancelled`, or torch's
    out-of-memory error.

    `source`: start from this video (edit.py makes it from frames). Of `point.steps` the first are
    then left out.

    `installed` are the methods around the family's transformers; the point's method must be on
    already. Raises `SpecError` when one of them cannot make this video.
    """
    made = draft(family, texts, prompt, negative_prompt, spec, point, wishes, installed, source)
    return made if made.filling is None else filled_in(made, spec, wishes)


@torch.inference_mode()
def draft(
    family: Family,
    texts: TextCache,
    prompt: str,
    negative_prompt: str,
    spec: VideoSpec,
    point: OperatingPoint,
    wishes: Wishes = Wishes(),
    installed: Installed | None = None,
    source: Source | None = None,
) -> Made:
    """As `generate`, but what a method left out is not filled in yet: `filled_in` does that,
    anywhere."""
    if isinstance(family, MakesBlocks):
        from vidplat.workers.blocks.jobs import generate_blocks

        return generate_blocks(family, texts, prompt, negative_prompt, spec, point, wishes, source)
    watch = Stopwatch()

    # 1. Encode.
    wishes.on_step("encode", 0, point.steps)
    condition = conditioned(texts, prompt, negative_prompt, spec.guidance_scale)
    watch.lap("encode")

    # 2. Denoise.
    solver = family.solver(
        point.steps, installed.scheduler(family.scheduler) if installed else None
    )
    latents = noise = family.noise(spec)
    if source:
        solver.skip(source.skipped(solver.total))
        latents = solver.noised(source.latents, noise)
    if installed:
        grid, clean = Grid(*family.grid(latents)), source.latents if source else None
        scheduler = installed.scheduler(family.scheduler)
        rehearse = partial(_rehearse, family, texts, spec, point, scheduler, wishes)
        branches = 1 if condition.negative is None else 2
        run = Run(
            solver,
            grid,
            branches,
            spec.guidance_scale,
            clean,
            rehearse,
            noise=noise,
            family=family,
        )
        installed.begin(run)
        latents = installed.started(latents)
        watch.restart()
    wishes.on_step("denoise", 0, solver.total)
    pace = Pace(wishes, installed.share) if installed else Pace(wishes)
    while solver.remaining:
        if wishes.is_cancelled():
            raise Cancelled(f"cancelled after {solver.index} of {solver.total} steps")
        solver.shorten(pace.affordable(solver.index, solver.remaining))
        velocity = family.velocity(latents, solver, condition)
        latents = solver.advance(velocity, latents)
        if installed:
            latents = installed.stepped(latents, velocity)
        pace.step_done(solver.index - 1, solver.total)
        wishes.on_step("denoise", solver.index, solver.total)
    check_finite(latents, f"{solver.total} steps")
    watch.lap("denoise")

    # 3. Decode.
    wishes.on_step("decode", solver.total, solver.total)
    frames = family.decode(latents)
    watch.lap("decode")
    filling = installed.filling() if installed else None

    # 4. Check.
    if filling is None:
        check_promise(frames, spec)
    return Made(frames, latents, solver.total, tuple(solver.sigmas), watch.phases, filling=filling)


def filled_in(made: Made, spec: VideoSpec, wishes: Wishes = Wishes()) -> Made:
    """The whole video of a draft that has a filling. Needs no model. Raises `JobError` as
    `generate` does."""
    from vidplat.methods.filling.frames import filled

    assert made.filling is not None, "something was left out"
    watch = Stopwatch()
    wishes.on_step("reconstruct", made.steps_done, made.steps_done)
    frames = filled(made.frames, made.filling.moments)
    watch.lap("reconstruct")
    check_promise(frames, spec)
    return replace(made, frames=frames, phases=made.phases | watch.phases, filling=None)


def _rehearse(
    family: Family,
    texts: TextCache,
    spec: VideoSpec,
    point: OperatingPoint,
    scheduler: Any,
    wishes: Wishes,
) -> None:
    """The same run without decoding, of a prompt and a seed that no job chooses: for methods that
    are calibrated."""
    from vidplat.methods.peers.calibration import REHEARSAL_PROMPT, REHEARSAL_SEED

    shown = conditioned(texts, REHEARSAL_PROMPT, "", spec.guidance_scale)
    solver = family.solver(point.steps, scheduler)
    latents = family.noise(replace(spec, seed=REHEARSAL_SEED))
    while solver.remaining:
        if wishes.is_cancelled():
            raise Cancelled("cancelled while a method was calibrated")
        wishes.on_step("denoise", 0, point.steps)  # a sign of life, and no step of the video
        latents = solver.advance(family.velocity(latents, solver, shown), latents)


def conditioned(
    texts: TextCache, prompt: str, negative_prompt: str, guidance_scale: float
) -> Condition:
    """What the model is told. Without guidance the negative text plays no part and is not
    encoded."""
    negative = texts(negative_prompt) if guidance_scale > 1.0 else None
    return Condition(texts(prompt), negative, guidance_scale)


def check_finite(latents: torch.Tensor, within: str) -> None:
    """Raises `JobError` where the model gave NaN or infinity, saying within how many steps or
    blocks."""
    if not bool(torch.isfinite(latents).all()):
        raise JobError(f"the model gave values that are not finite within {within}")


def check_promise(frames: np.ndarray, spec: VideoSpec) -> None:
    """Raises `JobError` unless the frames, (F, H, W, 3), are as many and as large as the job asks
    for."""
    promised = (spec.num_frames, spec.height, spec.width, 3)
    if frames.shape != promised:
        raise JobError(f"the model made frames of shape {frames.shape}, promised were {promised}")


class Pace:
    """How many steps still fit, from the seconds that this run's own steps take (mean of the last
    and before).

    Where methods make some steps cheaper than others, `share` tells by how much: seconds and shares
    are then averaged alike, and what is left is counted by its shares. Else full steps at the start
    would foretell a run of full steps.
    """

    def __init__(
        self, wishes: Wishes, share: Callable[[int, int], float] = lambda step, steps: 1.0
    ) -> None:
        self._wishes, self._share = wishes, share
        self._step_s: float | None = None
        self._step_share = 1.0
        self._since = time.perf_counter()

    def step_done(self, step: int = 0, steps: int = 1) -> None:
        now = time.perf_counter()
        took, share = now - self._since, self._share(step, steps)
        first = self._step_s is None
        self._step_share = share if first else (self._step_share + share) / 2
        self._step_s = took if self._step_s is None else (self._step_s + took) / 2
        self._since = now

    def affordable(self, done: int, remaining: int) -> int:
        """Steps to take from here, in 1..remaining. Before the first step nothing is known: all of
        them."""
        if (
            self._step_s is None
            or self._step_share <= 0
            or (left_s := self._wishes.left_s()) is None
        ):
            return remaining
        left = left_s / self._step_s * self._step_share  # in full steps
        fit = next(
            (count for count in range(remaining, 0, -1) if self._cost(done, count) <= left), 0
        )
        return min(remaining, max(fit, self._wishes.min_steps - done, 1))

    def _cost(self, done: int, count: int) -> float:
        """Of the next `count` steps, the last of the run, in full steps."""
        return sum(self._share(step, done + count) for step in range(done, done + count))
