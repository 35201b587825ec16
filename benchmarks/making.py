"""Videos of a loaded model, one after another, with the processor seconds that each took.

Seconds are of the process, so others on the machine count little; told with them is what the
point's method says of itself. `near` and `between` compare videos with the full run of the same
seed, and with a rival at equal cost.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.common import MOST_DB, Subject
from vidplat.domain import OperatingPoint, VideoSpec
from vidplat.methods.installed import Installed
from vidplat.quality import psnr_db, ssim
from vidplat.workers.generate import generate
from vidplat.workers.making import Ask, Control, Made
from vidplat.workers.models.catalogue import describe_model, locate
from vidplat.workers.models.loading import load_family


@dataclass(frozen=True)
class Video:
    """What was made, and the processor seconds it took."""

    made: Made
    denoise_s: float
    whole_s: float  # all but encoding the text
    facts: dict[str, float]

    @property
    def frames(self) -> np.ndarray:
        return self.made.frames


class Maker:
    """A loaded model on the CPU."""

    def __init__(self, model: str, threads: int) -> None:
        torch.set_num_threads(threads)
        cv2.setNumThreads(1)
        self.ref, self.shape = describe_model(model)
        self.family: Any = load_family(locate(model), "cpu")
        self.installed = Installed(self.family.transformers)
        self.steps = self.shape.defaults.num_inference_steps  # of a full run

    def __str__(self) -> str:
        return f"{self.ref.id} {self.ref.revision[:12]}, {self.steps} steps"

    def spec(self, frames: int) -> VideoSpec:
        return replace(self.shape.defaults, num_frames=frames)

    def make(self, subject: Subject, spec: VideoSpec, point: OperatingPoint) -> Video:
        """One video of the subject's caption and start noise."""
        self.installed.use(point.accelerator)
        self.family.encode(subject.caption)  # encoded once, and out of the seconds
        laps, mine = _Laps(), replace(spec, seed=subject.seed)
        ask = Ask(subject.caption, "", mine, point, control=Control(on_step=laps))
        made = generate(self.family, ask, self.installed)
        phases = laps.end()
        return Video(made, phases["denoise"], sum(phases.values()), self.installed.facts())

    def full(self, subject: Subject, spec: VideoSpec) -> Video:
        return self.make(subject, spec, OperatingPoint(self.steps))


class _Laps:
    """Processor seconds of each phase, told as `Control.on_step`."""

    def __init__(self) -> None:
        self._phases: dict[str, float] = defaultdict(float)
        self._phase, self._since = "", time.process_time()

    def __call__(self, phase: str, step: int, steps: int) -> None:
        now = time.process_time()
        if phase != self._phase:
            self._phases[self._phase] += now - self._since
            self._phase, self._since = phase, now

    def end(self) -> dict[str, float]:
        self("", 0, 0)
        return self._phases


def near(frames: np.ndarray, whole: np.ndarray) -> dict[str, float]:
    """Distance of frames to the full run's."""
    return {"psnr_db": min(MOST_DB, psnr_db(frames, whole)), "ssim": ssim(frames, whole)}


def between(
    costs: Sequence[float], rows: Sequence[dict[str, float]], cost: float
) -> dict[str, float]:
    """A rival's figures at `cost`, measured at `costs`: linear between, the nearest outside."""
    order = np.argsort(costs)
    x = np.array(costs)[order]
    return {
        name: float(np.interp(cost, x, np.array([row[name] for row in rows])[order]))
        for name in rows[0]
    }
