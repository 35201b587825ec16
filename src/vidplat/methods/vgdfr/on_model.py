"""VGDFR (arXiv 2504.12259): quiet passages are merged in mid-run, and fewer latent frames go on.

After k steps the model's present idea of the video is decoded at half its height and width. How
alike its frames are (`likeness.py`) decides which are merged (`merges.py`). The remaining steps run
on fewer latents; once decoded, frames are put back into their times and the missing ones
interpolated (`Filling`). Two forms of the merge:

    pooled   ours: latents become the mean of what the preview has of them, noised again with the
             noise that they began with, pooled. Latents that are not merged go on as they are, and
             the model is told the times that are left. Runs are compared end to end (`by_spans`).
    paper    the published one: frames of the preview become their mean, the shorter clip is
             encoded, and each of its latents gets the noise of one that it stands for. The model
             counts the shorter clip's frames anew, as VGDFR has most layers do. Neighbours are
             compared (`by_neighbours`).

Ours is nearer to the whole run (docs/decisions/0015). Either way the solver forgets its past steps.
Where nothing is merged the video is the plain run's, bit for bit.

How many latents are left is known after k steps only: until then every step counts as a full one,
from then on as M / F of one, which is more than it takes.

Legend: B videos (1), C latent channels, F and M latent frames before and after, N output frames.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from vidplat.methods.filling.moments import Filling, moments_among
from vidplat.methods.protocol import Method, Run
from vidplat.methods.seams.frame_times import Times, timed
from vidplat.methods.seams.layouts import layout_of
from vidplat.methods.solver import Solver
from vidplat.methods.vgdfr.likeness import by_neighbours, by_spans
from vidplat.methods.vgdfr.merges import (
    Merges,
    merges_above,
    merges_of_ratio,
    steps_before,
    too_late,
)

LEVEL = 1  # of the preview: 1 / 2^level of the height and width; and of what is encoded of it


@runtime_checkable
class Previews(Protocol):
    """A family that decodes and encodes at 1 / 2^level of the height and width."""

    temporal_factor: int

    def shown(self, latents: Tensor, level: int = 0) -> Tensor:
        """Frames (1, 3, N, rows, columns) in [0, 1] of latents (1, C, F, H, W)."""

    def latents_of(self, frames: Tensor, level: int = 0) -> Tensor:
        """The reverse: clean normalised latents, float32."""


@dataclass(frozen=True)
class Midway:
    """A run between two of its steps: `latents` (1, C, F, H, W) after the last one, the `velocity`
    that it took, guidance included, and the `noise` that the run started from."""

    family: Previews
    solver: Solver
    latents: Tensor
    velocity: Tensor
    noise: Tensor


#: pictures (N, rows, columns, 3) float32 in [0, 1] -> what of them is merged
Plan = Callable[[np.ndarray], Merges]
#: the run, its clean latents, its preview (1, 3, N, rows, columns), the plan -> latents that go on
Merge = Callable[[Midway, Tensor, Tensor, Merges], Tensor]


class Vgdfr(Method):
    name = "vgdfr"

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._given_before: int | None = values["k"]
        self._is_published = values["form"] == "paper"
        alike = by_neighbours if self._is_published else by_spans
        theta, ratio, quads = float(values["theta"]), values["ratio"], values["quads"] == "on"

        def plan(pictures: np.ndarray, temporal_factor: int) -> Merges:
            lattice = alike(pictures, temporal_factor, quads=quads)
            if ratio is not None:
                return merges_of_ratio(lattice, float(ratio))
            return merges_above(lattice, theta)

        self.plan = plan
        self._times = Times()
        self._run: Run | None = None
        self._merges: Merges | None = None
        self._before = 0  # k, of the present video
        self._since = 0.0
        self._compression = 0.0  # in steps

    def refusal(self, model: Any, run: Run) -> str:
        if run.noise is None or not isinstance(run.family, Previews):
            return "it looks at the video in mid-run, and this model's family cannot show it"
        if run.grid.frames != run.noise.shape[2]:
            return "tokens of several latent frames cannot be left out frame by frame"
        if not run.solver.tells_clean:
            return (
                f"{type(run.solver.scheduler).__name__} has no preview of the video between "
                "its steps"
            )
        if why := too_late(self._given_before, run.solver.total):
            return why
        return "" if self._is_published else layout_of(model).times_refusal(model)

    def begin(self, run: Run) -> None:
        self._run, self._merges, self._times.frames = run, None, None
        self._before = steps_before(self._given_before, run.solver.total)
        self._compression, self._since = 0.0, time.perf_counter()

    @contextmanager
    def applied_to(self, model: Any) -> Iterator[None]:
        if self._is_published:  # the model counts the frames that it is given, as ever
            yield
            return
        with timed(model, layout_of(model), self._times):
            yield

    def stepped(self, latents: Tensor, velocity: Tensor) -> Tensor:
        run = self._run
        if run is None or run.solver.index != self._before or not run.solver.remaining:
            return latents
        began = _now(latents)
        assert run.noise is not None
        midway = Midway(run.family, run.solver, latents, velocity, run.noise)
        plan = partial(self.plan, temporal_factor=run.family.temporal_factor)
        going_on, self._merges = compressed(midway, plan, encoded if self._is_published else pooled)
        if not self._merges.merges_nothing:
            self._times.frames = self._merges.latents
        step_s = (began - self._since) / run.solver.index
        self._compression = (_now(latents) - began) / max(step_s, 1e-9)
        return going_on

    def filling(self) -> Filling | None:
        """A merged frame stands at its group's first index; those after it lead to the next."""
        merges = self._merges
        if merges is None or merges.merges_nothing:
            return None
        return Filling(moments_among(merges.frames, merges.num_frames))

    @property
    def kept_latents(self) -> float:
        """M / F of the present video; 1 before its preview."""
        return 1.0 if self._merges is None else len(self._merges.latents) / self._merges.all_latents

    def facts(self) -> dict[str, float]:
        return {"kept_latents": self.kept_latents}

    def share(self, step: int, steps: int) -> float:
        """1 until the merge is done; with it what the merge took; later M / F."""
        if self._merges is None or step < self._before - 1:
            return 1.0
        return 1.0 + self._compression if step < self._before else self.kept_latents


def _now(latents: Tensor) -> float:
    """Seconds, once the device has done what it was asked for."""
    if latents.is_cuda:
        torch.cuda.synchronize(latents.device)
    return time.perf_counter()


def compressed(midway: Midway, plan: Plan, merge: Merge) -> tuple[Tensor, Merges]:
    """Merge what is alike in the video that is being made: the latents (1, C, M, H, W) that go on,
    at the present noise level, and the plan that they follow.

    Called between two steps, after the first at least. When the plan merges nothing, the latents
    come back as they are and the solver remembers all; else it has forgotten its steps.
    """
    # 1. What the video would be.
    clean = midway.solver.clean(midway.latents, midway.velocity)
    preview = midway.family.shown(clean, LEVEL)

    # 2. What is alike in it.
    merges = plan(preview[0].permute(1, 2, 3, 0).float().cpu().numpy())
    if merges.merges_nothing:
        return midway.latents, merges

    # 3. The latents of the shorter clip, at the present noise level.
    going_on = merge(midway, clean, preview, merges)
    midway.solver.forget()
    return going_on, merges


def pooled(midway: Midway, clean: Tensor, preview: Tensor, merges: Merges) -> Tensor:
    """The form `pooled` of a merge: see the module's text.

    A run of n latents has the sum of its noise over sqrt(n), which keeps the variance, as a mean
    would not. Of n latents that show the same a model sees the mean of their noise, and that is
    where the pooled noise points.
    """
    noise = in_runs(midway.noise, merges, 0.5)
    going_on = midway.solver.noised(in_runs(clean, merges, 1.0), noise)
    merged = {latent for run in merges.latent_runs for latent in run}
    places = [place for place, latent in enumerate(merges.latents) if latent not in merged]
    going_on[:, :, places] = midway.latents[:, :, [merges.latents[place] for place in places]]
    return going_on


def encoded(midway: Midway, clean: Tensor, preview: Tensor, merges: Merges) -> Tensor:
    """The form `paper` of a merge (VGDFR, equation 6): see the module's text. Noise is picked and
    not averaged, which would shrink its variance."""
    shorter = midway.family.latents_of(merged_frames(preview, merges), LEVEL)
    noise = midway.noise[:, :, list(merges.latents)]
    return midway.solver.noised(shorter.to(midway.latents), noise)


def merged_frames(frames: Tensor, merges: Merges) -> Tensor:
    """Of frames (1, 3, N, rows, columns) those that are left, each group as its mean."""
    left = frames[:, :, list(merges.frames)]
    places = {frame: place for place, frame in enumerate(merges.frames)}
    for group in merges.groups:
        left[:, :, places[group[0]]] = frames[:, :, list(group)].mean(2)
    return left


def in_runs(latents: Tensor, merges: Merges, power: float) -> Tensor:
    """Of latents (1, C, F, H, W) those that are left, a run of n as its sum over n^power."""
    left = latents[:, :, list(merges.latents)]
    places = {latent: place for place, latent in enumerate(merges.latents)}
    for run in merges.latent_runs:
        left[:, :, places[run[0]]] = latents[:, :, list(run)].sum(2) / len(run) ** power
    return left
