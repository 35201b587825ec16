"""One video's walk from noise to latents: a diffusers scheduler with its tail made replaceable.

The arithmetic of a step is the scheduler's own, called as `WanPipeline` calls it, so untouched runs
equal the stock pipeline bit for bit. What is added is `shorten`: at a step boundary the remaining
sigmas are spaced anew over fewer steps. The new ones lie on the old schedule's own curve, sampled
evenly from the present sigma to the end, so any schedule shape (shifted, karras, ...) keeps its
character. Multistep solvers (UniPC) keep their history: their formulas take uneven steps.

A method may leave some latent frames out between two steps. What a multistep solver remembers is
then no good guide: `forget` starts it anew at first order. Euler remembers nothing.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch


class Solver:
    """State of one run. `index` is the step about to be taken, `total` how many there will be."""

    def __init__(self, scheduler: Any, steps: int, device: str) -> None:
        """Take a private copy of a diffusers `scheduler` for a run of `steps` steps."""
        self.scheduler = copy.deepcopy(scheduler)  # to be asked only
        if steps == 1 and scheduler.config.get("shift_terminal"):
            # a single step is the first: stretched to end at another sigma it would be 0 / 0
            self.scheduler.register_to_config(shift_terminal=None)
        self.scheduler.set_timesteps(steps, device=device)
        self.scheduler.set_begin_index(0)
        self.index = 0
        # the scheduler's sigmas, and the same as numbers
        self._levels: tuple[torch.Tensor, list[float]] | None = None

    @property
    def total(self) -> int:
        return len(self.scheduler.timesteps)

    @property
    def remaining(self) -> int:
        return self.total - self.index

    @property
    def timestep(self) -> torch.Tensor:
        """The model's time at this step: 0-d, in the scheduler's own scale (0..1000) and dtype."""
        timestep: torch.Tensor = self.scheduler.timesteps[self.index]
        return timestep

    @property
    def sigma(self) -> float:
        """Share of noise in the latents now, in [0, 1]."""
        return self.sigmas[self.index]

    @property
    def sigmas(self) -> list[float]:
        """All sigmas of the run, past and to come; the last one is where it ends.

        Some schedulers keep them on the device, which must not be waited for at every pass.
        """
        if self._levels is None or self._levels[0] is not self.scheduler.sigmas:
            self._levels = (self.scheduler.sigmas, self.scheduler.sigmas.tolist())
        return list(self._levels[1])

    @property
    def train_timesteps(self) -> int:
        return int(self.scheduler.config.num_train_timesteps)

    def advance(self, velocity: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """One step: the latents at the next sigma. Raises `ValueError` when some frames of them
        were left out, and the solver was not told to `forget`."""
        for known in self._remembered():
            if known.shape != latents.shape:
                raise ValueError(
                    f"latents of shape {tuple(latents.shape)}, but the solver remembers "
                    f"{tuple(known.shape)}: forget must follow a crop"
                )
        moved: torch.Tensor = self.scheduler.step(
            velocity, self.timestep, latents, return_dict=False
        )[0]
        self.index += 1
        return moved

    @property
    def tells_clean(self) -> bool:
        """Whether `clean` knows this kind of scheduler."""
        return self._is_line or self._keeps_clean

    def clean(self, latents: torch.Tensor, velocity: torch.Tensor) -> torch.Tensor:
        """What the video would be: the estimate of x0, shaped as `latents`, of the last step.

        `latents` are those after that step, `velocity` is the answer it took, guidance included.
        For flow-match Euler x0 = x_k - sigma_k v_{k-1}, which equals x_{k-1} - sigma_{k-1} v_{k-1}
        since a step keeps to that line (VGDFR, arXiv 2504.12259). UniPC leaves the line and
        remembers the estimate. Raises `ValueError` before the first step and for other solvers.
        """
        if self.index == 0:
            raise ValueError("before its first step a run has no estimate of the video")
        if self._is_line:
            sigma: torch.Tensor = self.scheduler.sigmas[self.index].to(latents)
            return latents - sigma * velocity
        if self._keeps_clean:
            found: torch.Tensor | None = self.scheduler.model_outputs[-1]
            if found is not None:
                return found
        raise ValueError(
            f"{type(self.scheduler).__name__} gives no estimate of the video between its steps"
        )

    @property
    def _is_line(self) -> bool:
        from diffusers import FlowMatchEulerDiscreteScheduler  # too slow for a worker's start

        return isinstance(self.scheduler, FlowMatchEulerDiscreteScheduler)

    @property
    def _keeps_clean(self) -> bool:
        from diffusers import UniPCMultistepScheduler

        scheduler = self.scheduler
        return isinstance(scheduler, UniPCMultistepScheduler) and bool(scheduler.config.predict_x0)

    def forget(self) -> None:
        """Forget the steps that were taken; the next one is a first step, at its own place of the
        schedule. Raises `ValueError` for a scheduler whose memory is of an unknown kind."""
        for name in ("model_outputs", "timestep_list"):
            if hasattr(self.scheduler, name):
                setattr(self.scheduler, name, [None] * len(getattr(self.scheduler, name)))
        if hasattr(self.scheduler, "last_sample"):
            self.scheduler.last_sample = None
        if hasattr(self.scheduler, "lower_order_nums"):
            self.scheduler.lower_order_nums = 0
        if self._remembered():
            raise ValueError(f"{type(self.scheduler).__name__} cannot be made to forget its steps")

    def _remembered(self) -> list[torch.Tensor]:
        """All that the scheduler keeps of past steps, each in the shape of the latents."""
        kept = vars(self.scheduler).values()
        every = [one for value in kept for one in (value if isinstance(value, list) else [value])]
        # Schedulers' tables have one axis; what has more is a sample or an answer of the model.
        return [one for one in every if isinstance(one, torch.Tensor) and one.ndim > 2]

    def skip(self, steps: int) -> None:
        """Leave out the first `steps`, but not all: for a run from a partly noised video."""
        if self.index or not 0 <= steps < self.total:
            raise ValueError(f"cannot skip {steps} of {self.total} steps after {self.index}")
        self.scheduler.sigmas = self.scheduler.sigmas[steps:]
        self.scheduler.timesteps = self.scheduler.timesteps[steps:]
        self.scheduler.num_inference_steps = self.total

    def noised(self, clean: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """`clean` latents at the present sigma: (1 - sigma) clean + sigma noise."""
        return self.sigma * noise + (1.0 - self.sigma) * clean

    def shorten(self, remaining: int) -> None:
        """Space the rest of the run anew over `remaining` steps, 1 to those that are left."""
        if not 1 <= remaining <= self.remaining:
            raise ValueError(f"cannot shorten {self.remaining} remaining steps to {remaining}")
        if remaining == self.remaining:
            return
        sigmas, timesteps = self.scheduler.sigmas, self.scheduler.timesteps
        curve = sigmas.double().cpu().numpy()
        # the first is now, the last is the end
        places = np.linspace(self.index, self.total, remaining + 1)
        tail = torch.from_numpy(np.interp(places, np.arange(len(curve)), curve)).to(sigmas)
        tail[0], tail[-1] = sigmas[self.index], sigmas[-1]
        times = (tail[:-1] * self.train_timesteps).to(timesteps)
        times[0] = timesteps[self.index]
        self.scheduler.sigmas = torch.cat([sigmas[: self.index], tail])
        self.scheduler.timesteps = torch.cat([timesteps[: self.index], times])
        self.scheduler.num_inference_steps = self.total
