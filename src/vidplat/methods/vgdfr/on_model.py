"""VGDFR: a video's quiet passages are merged in mid-run, and fewer latent frames go on (arXiv
2504.12259).

After k steps the model's present idea of the video is decoded at a low resolution. Where its frames
are alike, latents are merged into their mean, and noised again to where the run stands with the
noise that they began with, pooled. The remaining steps run on fewer latents. Once they are decoded
every frame is put back into its time and the missing ones are interpolated (`Filling`, made by
`workers/reconstruct.py`). Which frames are merged is decided by `frame_merges.py`; what the model
is told of their times by `frame_rope.py`.

The paper merges the frames themselves, encodes the shorter clip, and gives each of its latents the
noise of one that it stands for: `merge=mean,noise=selected`. Ours is nearer to the whole run and
encodes nothing (docs/decisions/0015).

What goes on is another trajectory, so the solver forgets its past steps. Where nothing is merged
nothing is touched: the video is the plain run's, bit for bit.

How many latents are left is known after k steps and not before. Until then every step counts as a
full one; from then on as M / F of one, which is more than it takes since attention's part falls
with the square.

A run that is late is shortened, as any is. With `late=merge` it keeps its steps and merges further
instead, as far as the time left asks for (deadline mode, our choice): then steps after the preview
count before it as those of the shortest video that could be left, and what the frames do not allow
after all is made up for by fewer steps.

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

from vidplat.methods.filling.moments import Filling
from vidplat.methods.protocol import Run
from vidplat.methods.seams.frame_times import Times, timed
from vidplat.methods.seams.layouts import layout_of
from vidplat.methods.solver import Solver
from vidplat.methods.vgdfr.likeness import likeness, spans
from vidplat.methods.vgdfr.merge_costs import Costs, merges_by_deadline
from vidplat.methods.vgdfr.merges import (
    Blocks,
    Lattice,
    Merges,
    least_latents,
    merges_above,
    merges_of_ratio,
    moments,
)

BEFORE = (
    1 / 10
)  # share of the steps before the preview, where k is not given; see docs/decisions/0015


@runtime_checkable
class Previews(Protocol):
    """A family that decodes and encodes at lower resolutions, 1 / 2^level of the height and
    width."""

    temporal_factor: int

    def shown(self, latents: Tensor, level: int = 0) -> Tensor:
        """Frames (1, 3, N, rows, columns) in [0, 1] of latents (1, C, F, H, W)."""

    def latents_of(self, frames: Tensor, level: int = 0) -> Tensor:
        """The reverse: clean normalised latents, float32."""


@dataclass(frozen=True)
class How:
    """Choices of the step. All but `quads` are ours by default (docs/decisions/0015)."""

    alike_by: str = (
        "span"  # of a run's first frame and others of the run; or of neighbours: whole, min-tile
    )
    quads: bool = True  # whether likeness four by four is measured too
    strict: bool = False  # see `Blocks`
    # their mean; or of frames, which are then encoded: their mean, or the first of a group
    merge: str = "latents"
    noise: str = "pooled"  # of all latents of a run; or selected: of its first
    preview_level: int = 1
    encode_level: int = 1  # another than `preview_level` costs a decoding more
    unmerged: str = "own"  # latents of frames that are not merged go on as they are; or encoded

    def __post_init__(self) -> None:
        for name, options in (
            ("merge", ("latents", "mean", "first")),
            ("noise", ("pooled", "selected")),
            ("unmerged", ("encoded", "own")),
        ):
            if getattr(self, name) not in options:
                raise ValueError(f"{name} is {' or '.join(options)}, not {getattr(self, name)!r}")

    @property
    def encodes(self) -> bool:
        return self.merge != "latents"


class Vgdfr:
    """The method `vgdfr`; see the module's text."""

    name = "vgdfr"

    def __init__(self, values: Mapping[str, Any], layers: frozenset[int] | None = None) -> None:
        """`layers`: those that are told the original times of what is left, instead of all or none
        of them."""
        self.given_before: int | None = values["k"]
        self.anchor, self.depth = str(values["anchor"]), int(values["d"])
        quads, ratio = values["quads"] == "on", values["ratio"]
        self.choose: Callable[[Lattice], Merges] = (
            partial(merges_above, theta=float(values["theta"]), quads=quads)
            if ratio is None
            else partial(merges_of_ratio, ratio=float(ratio))
        )
        self.how = How(
            alike_by=str(values["alike"]),
            quads=quads,
            merge=str(values["merge"]),
            noise=str(values["noise"]),
            unmerged=str(values["unmerged"]),
        )
        told = None if values["rope"] == "global" else frozenset[int]()
        self._times = Times(layers=told if layers is None else layers)
        self._merges_when_late = values["late"] == "merge"
        self._run: Run | None = None
        self._merges: Merges | None = None
        self._before = 0  # k, of the present video
        self._least = 1.0  # M / F of the shortest video that could be left
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
        if (before := self._steps_before(run.solver)) >= run.solver.total:
            return (
                f"its preview is made after {before} of the steps, and the whole run has "
                f"{run.solver.total}"
            )
        return layout_of(model).times_refusal(model) if self._tells_times else ""

    def begin(self, run: Run) -> None:
        self._run, self._merges, self._times.frames = run, None, None
        self._before = self._steps_before(run.solver)
        if self._merges_when_late:
            t = run.family.temporal_factor
            frames = t * (run.grid.frames - 1) + 1
            self._least = least_latents(frames, t, quads=self.how.quads) / run.grid.frames
        self._compression, self._since = 0.0, time.perf_counter()

    @contextmanager
    def applied_to(self, model: Any) -> Iterator[None]:
        if not self._tells_times:  # the model counts the frames that it is given, as ever
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
        choose = partial(self._in_time, run, began) if self._merges_when_late else self.choose
        found = compress(run.family, run.solver, latents, velocity, run.noise, choose, self.how)
        self._merges = found.merges
        if not found.merges.merges_nothing:
            self._times.frames = found.merges.latents
        step_s = (began - self._since) / run.solver.index
        self._compression = (_now(latents) - began) / max(step_s, 1e-9)
        return found.latents

    def filling(self) -> Filling | None:
        if self._merges is None or self._merges.merges_nothing:
            return None
        return Filling(moments(self._merges, self.anchor), self.depth)

    @property
    def kept_latents(self) -> float:
        """M / F of the present video; 1 before its preview."""
        return 1.0 if self._merges is None else len(self._merges.latents) / self._merges.all_latents

    def facts(self) -> dict[str, float]:
        return {"kept_latents": self.kept_latents}

    def share(self, step: int, steps: int) -> float:
        """1 until the merge is done; then of the step that ended in it what it took, of later ones
        M / F."""
        if self._merges is None or step < self._before - 1:
            return self._least if self._before <= step and self._before < steps else 1.0
        return 1.0 + self._compression if step < self._before else self.kept_latents

    def _in_time(self, run: Run, began: float, blocks: Lattice) -> Merges:
        """What is alike enough, or as much more as the time left asks for; `began`: when the last
        step was done.

        Encoding, where there is any, is taken to need as long as the preview did.
        """
        wanted = self.choose(blocks)
        if (left_s := run.left_s()) is None:
            return wanted
        now, of = time.perf_counter(), wanted.all_latents
        step_s = (began - self._since) / run.solver.index
        encode_s = now - began if self.how.encodes else 0.0
        costs = Costs(
            lambda latents: step_s * latents / of, run.solver.remaining, 0, compress_s=encode_s
        )
        if costs.seconds(len(wanted.latents), wanted.num_frames, wanted.temporal_factor) <= left_s:
            return wanted
        in_time = merges_by_deadline(blocks, costs, left_s)
        return min(wanted, in_time, key=lambda plan: len(plan.latents))

    @property
    def _tells_times(self) -> bool:
        return self._times.layers != frozenset()

    def _steps_before(self, solver: Solver) -> int:
        """k of a run that begins; one that is shortened later keeps it."""
        return self.given_before or max(1, round(BEFORE * solver.total))


def _now(latents: Tensor) -> float:
    """Seconds, once the device has done what it was asked for."""
    if latents.is_cuda:
        torch.cuda.synchronize(latents.device)
    return time.perf_counter()


@dataclass(frozen=True)
class Compressed:
    """What goes on: latents (1, C, M, H, W) at the present noise level, and the plan that they
    follow."""

    latents: Tensor
    merges: Merges


def compress(
    family: Previews,
    solver: Solver,
    latents: Tensor,
    velocity: Tensor,
    noise: Tensor,
    choose: Callable[[Lattice], Merges],
    how: How = How(),
) -> Compressed:
    """Merge what is alike in the video that is being made. Called between two steps, after the
    first at least.

    `latents` (1, C, F, H, W) are those after the last step, `velocity` the answer that it took,
    guidance included, `noise` what the run started from. `choose` makes a plan of how alike the
    frames are (`frame_merges.merges_above` and its siblings with their parameters filled in). When
    the plan merges nothing, `latents` come back as they are and the solver remembers all; else it
    has forgotten its steps.
    """
    # 1. What the video would be.
    clean = solver.clean(latents, velocity)
    preview = family.shown(clean, how.preview_level)

    # 2. What is alike in it.
    pictures = preview[0].permute(1, 2, 3, 0).float().cpu().numpy()
    merges = choose(_alike(pictures, how, family.temporal_factor))
    if merges.merges_nothing:
        return Compressed(latents, merges)

    # 3. The latents of the shorter clip.
    if how.encodes:
        frames = (
            preview
            if how.encode_level == how.preview_level
            else family.shown(clean, how.encode_level)
        )
        shorter = family.latents_of(merged(frames, merges, how.merge), how.encode_level).to(latents)
    else:
        shorter = in_runs(clean, merges, 1.0)

    # 4. Back to the present noise level, each latent with the noise it began with.
    going_on = renoised(solver, shorter, noise, merges, how.noise)
    if how.unmerged == "own":
        touched = {latent for run in merges.latent_runs for latent in run}
        places = [place for place, latent in enumerate(merges.latents) if latent not in touched]
        going_on[:, :, places] = latents[:, :, [merges.latents[place] for place in places]]
    solver.forget()
    return Compressed(going_on, merges)


def _alike(pictures: np.ndarray, how: How, temporal_factor: int) -> Lattice:
    if how.alike_by == "span":
        return spans(pictures, temporal_factor, quads=how.quads)
    return Blocks(likeness(pictures, by=how.alike_by, quads=how.quads), temporal_factor, how.strict)


def merged(frames: Tensor, merges: Merges, how: str = "mean") -> Tensor:
    """Of frames (1, 3, N, rows, columns) those that are left, each group as its mean or its `first`
    frame."""
    left = frames[:, :, list(merges.frames)]
    if how == "mean":
        places = {frame: place for place, frame in enumerate(merges.frames)}
        for group in merges.groups:
            left[:, :, places[group.first]] = frames[:, :, list(group.frames)].mean(2)
    return left


def in_runs(latents: Tensor, merges: Merges, power: float) -> Tensor:
    """Of latents (1, C, F, H, W) those that are left, a run of n as the sum of all its latents over
    n^power."""
    left = latents[:, :, list(merges.latents)]
    places = {latent: place for place, latent in enumerate(merges.latents)}
    for run in merges.latent_runs:
        left[:, :, places[run[0]]] = latents[:, :, list(run)].sum(2) / len(run) ** power
    return left


def renoised(
    solver: Solver, clean: Tensor, noise: Tensor, merges: Merges, how: str = "pooled"
) -> Tensor:
    """(1 - sigma) clean + sigma noise at the present sigma (VGDFR, equation 6), of latents (1, C,
    M, H, W).

    `noise` (1, C, F, H, W) is that of all latents. `selected`: those that are left keep their own,
    as in the paper, and what the others' noise said of the video is lost. `pooled` (ours): a run of
    n has the sum of its noise over sqrt(n), which keeps the variance, as a mean would not. Of n
    latents that show the same a model sees the mean of their noise, and that is where the pooled
    noise points.
    """
    left = in_runs(noise, merges, 0.5) if how == "pooled" else noise[:, :, list(merges.latents)]
    return solver.noised(clean, left)
