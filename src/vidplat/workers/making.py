"""What is to be made and what comes of it: shared by the loop over all frames at once (generate.py)
and the one over blocks (blocks/jobs.py).

An `Ask` names the video and what may change meanwhile, `Made` is the video before it is compressed.
`Pace` counts what still fits before `finish_by`. Nothing here imports torch, for light workers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vidplat import times
from vidplat.domain import OperatingPoint, VideoSpec
from vidplat.errors import JobError
from vidplat.methods.filling.moments import Filling
from vidplat.workers.models.family import Condition, Family

if TYPE_CHECKING:
    import numpy as np
    import torch


#: Epoch seconds, or a function that is asked at every step boundary.
FinishBy = float | Callable[[], float | None] | None
OnStep = Callable[[str, int, int], None]  # phase, steps finished, steps in all
LONGEST_SCHEDULE = 10_000


class Cancelled(JobError):
    """Stopped between two steps because it was asked to."""


@dataclass(frozen=True)
class Control:
    """What may change while a video is being made. The defaults change nothing."""

    on_step: OnStep = lambda phase, step, steps: None
    finish_by: FinishBy = None
    tail_s: float = 0.0  # seconds that decoding and delivery will take after the last step
    min_steps: int = 1  # of all steps, never fewer than this many
    is_cancelled: Callable[[], bool] = lambda: False

    def left_s(self) -> float | None:
        """Seconds from now that steps may take, below 0 when late; None without `finish_by`."""
        by = self.finish_by() if callable(self.finish_by) else self.finish_by
        return None if by is None else by - times.now() - self.tail_s


@dataclass(frozen=True)
class Source:
    """A video to start from."""

    latents: torch.Tensor  # (1, C, F, H, W) float32, clean and normalised
    strength: float  # share of the schedule that is run, in (0, 1]

    def skipped(self, steps: int) -> int:
        """How many of a schedule's `steps` are left out; one at least is taken."""
        return steps - max(1, min(int(steps * self.strength), steps))


@dataclass(frozen=True)
class Ask:
    """One video to be made."""

    prompt: str
    negative_prompt: str
    spec: VideoSpec
    point: OperatingPoint  # its steps are those taken, also of an edit
    source: Source | None = None  # None: from text alone
    control: Control = Control()


@dataclass(frozen=True)
class Made:
    """A finished video, before it is compressed."""

    frames: np.ndarray  # (num_frames, rows, columns, 3) uint8 RGB
    latents: torch.Tensor  # (1, C, F, H, W) float32
    steps_done: int
    sigmas: tuple[float, ...]  # those really used, so that a shortened run can be told and repeated
    phases: Mapping[str, float]  # seconds of encode, denoise, decode, reconstruct
    passes: int | None = None  # what progress counted, where that was not steps
    facts: Mapping[str, float] = field(default_factory=dict)  # what methods found of it
    files: tuple[Mapping[str, Any], ...] = ()  # of methods, that decided pixels
    filling: Filling | None = None  # how `frames` become the whole video; None: they are


class Stopwatch:
    """Seconds per phase; `lap` closes the phase that began at the last call."""

    def __init__(self) -> None:
        self.phases: dict[str, float] = {}
        self._since = time.perf_counter()

    def restart(self) -> None:
        """Leave the time since the last lap out: a rehearsal is no work of this video."""
        self._since = time.perf_counter()

    def lap(self, phase: str) -> None:
        now = time.perf_counter()
        self.phases[phase] = self.phases.get(phase, 0.0) + now - self._since
        self._since = now


class Pace:
    """How many steps still fit, by the seconds that this run's own steps take: each halves the
    weight of those before.

    Where methods make some steps cheaper than others, `share` tells by how much: seconds and shares
    are then averaged alike, and what is left is counted by its shares. Else full steps at the start
    would foretell a run of full steps.
    """

    def __init__(
        self, control: Control, share: Callable[[int, int], float] = lambda step, steps: 1.0
    ) -> None:
        self._control, self._share = control, share
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
        if self._step_s is None or self._step_share <= 0:
            return remaining
        if (left_s := self._control.left_s()) is None:
            return remaining
        left = left_s / self._step_s * self._step_share  # in full steps
        fits = (count for count in range(remaining, 0, -1) if self._cost(done, count) <= left)
        return min(remaining, max(next(fits, 0), self._control.min_steps - done, 1))

    def _cost(self, done: int, count: int) -> float:
        """Of the next `count` steps, the last of the run, in full steps."""
        return sum(self._share(step, done + count) for step in range(done, done + count))


def schedule_steps(steps: int, strength: float) -> int:
    """The least length of a schedule of which the last `strength` has `steps` steps.

    A point counts steps that are taken, as costs and the profile do; an edit takes the last
    `strength` of a schedule, int(length x strength) steps. So 24 steps at strength 0.6 are the end
    of a schedule of 40. A strength of next to nothing gets fewer steps, not an endless schedule.
    """
    length = max(1, int(min(steps / strength, LONGEST_SCHEDULE)) - 1)
    while int(length * strength) < steps and length < LONGEST_SCHEDULE:
        length += 1
    return length


def conditioned(
    family: Family, prompt: str, negative_prompt: str, guidance_scale: float
) -> Condition:
    """What the model is told. Without guidance the negative text is not encoded."""
    negative = family.encode(negative_prompt) if guidance_scale > 1.0 else None
    return Condition(family.encode(prompt), negative, guidance_scale)


def told_of_tiles(family: Family) -> dict[str, float]:
    """What should be known of a video that was decoded in tiles: its seams were blended."""
    return {"decoded_in_tiles": 1.0} if family.in_tiles else {}


def check_finite(latents: torch.Tensor, within: str) -> None:
    """Raises `JobError` where the model gave NaN or infinity `within` so many steps or blocks."""
    if not bool(latents.isfinite().all()):
        raise JobError(f"the model gave values that are not finite within {within}")


def check_promise(frames: np.ndarray, spec: VideoSpec) -> None:
    """Raises `JobError` unless the frames (F, H, W, 3) are as many and as large as asked for."""
    promised = (spec.num_frames, spec.height, spec.width, 3)
    if frames.shape != promised:
        raise JobError(f"the model made frames of shape {frames.shape}, promised were {promised}")
