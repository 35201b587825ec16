"""One video's walk from noise to latents: a diffusers scheduler with its tail made replaceable.

The arithmetic of a step is the scheduler's own, called as `WanPipeline` calls it, so untouched runs equal
the stock pipeline bit for bit. What is added is `shorten`: at a step boundary the remaining sigmas are
spaced anew over fewer steps. The new ones lie on the old schedule's own curve, sampled evenly from the
present sigma to the end, so any schedule shape (shifted, karras, ...) keeps its character.

`shorten` is exact for one-step solvers (flow-match Euler). For multistep ones (UniPC) the sigmas of the
past stay in place, and with them the solver's history: its formulas take uneven steps as they come.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

#: latents, velocity, what the scheduler made of them, sigmas before and after (2,) -> the latents after the step
Correct = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class Solver:
    """State of one run. `index` is the step about to be taken, `total` how many the run will have had."""

    def __init__(self, scheduler: Any, steps: int, device: str) -> None:
        """Take a private copy of `scheduler` (a loaded diffusers one) for a run of `steps` steps."""
        self._scheduler = copy.deepcopy(scheduler)
        self._scheduler.set_timesteps(steps, device=device)
        self._scheduler.set_begin_index(0)
        self.index = 0
        self.correct: Correct | None = None  # a method's last word on each step

    @property
    def scheduler(self) -> Any:
        """The diffusers scheduler of this run, to be asked only."""
        return self._scheduler

    @property
    def total(self) -> int:
        return len(self._scheduler.timesteps)

    @property
    def remaining(self) -> int:
        return self.total - self.index

    @property
    def timestep(self) -> torch.Tensor:
        """The model's time at this step: a 0-d tensor in the scheduler's own scale (0..1000) and dtype."""
        timestep: torch.Tensor = self._scheduler.timesteps[self.index]
        return timestep

    @property
    def sigma(self) -> float:
        """Share of noise in the latents now, in [0, 1]."""
        return float(self._scheduler.sigmas[self.index])

    @property
    def sigmas(self) -> list[float]:
        """All sigmas of the run, past and to come; the last one is where it ends."""
        return [float(sigma) for sigma in self._scheduler.sigmas]

    @property
    def train_timesteps(self) -> int:
        return int(self._scheduler.config.num_train_timesteps)

    def advance(self, velocity: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """One step: the latents at the next sigma."""
        moved: torch.Tensor = self._scheduler.step(velocity, self.timestep, latents, return_dict=False)[0]
        if self.correct is not None:
            moved = self.correct(latents, velocity, moved, self._scheduler.sigmas[self.index : self.index + 2])
        self.index += 1
        return moved

    def skip(self, steps: int) -> None:
        """Leave out the first `steps`, at least one stays: for a run that starts from a partly noised video."""
        if self.index or not 0 <= steps < self.total:
            raise ValueError(f"cannot skip {steps} of {self.total} steps after {self.index}")
        self._scheduler.sigmas = self._scheduler.sigmas[steps:]
        self._scheduler.timesteps = self._scheduler.timesteps[steps:]
        self._scheduler.num_inference_steps = self.total

    def noised(self, clean: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """`clean` latents at the present sigma: (1 - sigma) clean + sigma noise (flow matching's forward process)."""
        return self.sigma * noise + (1.0 - self.sigma) * clean

    def shorten(self, remaining: int) -> None:
        """Space the rest of the run anew over `remaining` steps, at least 1 and at most those that are left."""
        if not 1 <= remaining <= self.remaining:
            raise ValueError(f"cannot shorten {self.remaining} remaining steps to {remaining}")
        if remaining == self.remaining:
            return
        sigmas, timesteps = self._scheduler.sigmas, self._scheduler.timesteps
        curve = sigmas.double().cpu().numpy()
        places = np.linspace(self.index, self.total, remaining + 1)  # the first is now, the last is the end
        tail = torch.from_numpy(np.interp(places, np.arange(len(curve)), curve)).to(sigmas)
        tail[0], tail[-1] = sigmas[self.index], sigmas[-1]
        times = (tail[:-1] * self.train_timesteps).to(timesteps)
        times[0] = timesteps[self.index]
        self._scheduler.sigmas = torch.cat([sigmas[: self.index], tail])
        self._scheduler.timesteps = torch.cat([timesteps[: self.index], times])
        self._scheduler.num_inference_steps = self.total
