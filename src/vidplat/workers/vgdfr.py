"""VGDFR's step in mid-run: a video's quiet passages are merged, and fewer latent frames go on.

After k steps the model's present idea of the video is decoded at a low resolution; frames that are alike are merged,
the shorter clip is encoded, and noised again to where the run stands with the very noise that these latents began with
(arXiv 2504.12259). The remaining steps run on fewer latents. After decoding, `restored` puts every frame back into its
time. Which frames are merged is decided by `frame_merges.py`; what the model is told of their
times by `acceleration/frame_rope.py`; when all this happens by the loop that calls it.

What goes on is another trajectory, so the solver forgets its past steps. Where nothing is merged nothing is touched.

Legend: B videos (1), C latent channels, F and M latent frames before and after, N output frames.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from vidplat.frame_merges import Blocks, Merges, restore_order
from vidplat.workers.frame_likeness import likeness
from vidplat.workers.models.solver import Solver


class Previews(Protocol):
    """A family that decodes and encodes at lower resolutions, 1 / 2^level of the height and width."""

    temporal_factor: int

    def shown(self, latents: Tensor, level: int = 0) -> Tensor:
        """Frames (1, 3, N, rows, columns) in [0, 1] of latents (1, C, F, H, W)."""

    def latents_of(self, frames: Tensor, level: int = 0) -> Tensor:
        """The reverse: clean normalised latents, float32."""


class Interpolates(Protocol):
    """Between two frames (rows, columns, 3) uint8 RGB."""

    def at(self, part: float) -> np.ndarray:
        """The frame at `part` of the way, 0 < part < 1."""


@dataclass(frozen=True)
class How:
    """Choices of the step. The defaults are the paper's but for `encode_level`: see there."""

    alike_by: str = "whole"  # or min-tile
    quads: bool = False  # whether likeness four by four is measured too
    strict: bool = False  # see `Blocks`
    merge: str = "mean"  # or first: the group's first frame stands for it
    anchor: str = "first"  # or centre: where a mean is placed in time; see `restore_order`
    preview_level: int = 1
    encode_level: int = 0  # the paper's is 1; flipbook's latents do not survive that, see `low_vae.py`
    unmerged: str = "encoded"  # or own: latents of frames that are not merged go on as they are (our choice)

    def __post_init__(self) -> None:
        for name, options in (("merge", ("mean", "first")), ("unmerged", ("encoded", "own"))):
            if getattr(self, name) not in options:
                raise ValueError(f"{name} is {' or '.join(options)}, not {getattr(self, name)!r}")
        if self.merge == "first" and self.anchor == "centre":
            raise ValueError("a group's first frame stands at its own time, not at the centre of its group")


@dataclass(frozen=True)
class Compressed:
    """What goes on: latents (1, C, M, H, W) at the present noise level, and the plan that they follow."""

    latents: Tensor
    merges: Merges


def compress(
    family: Previews,
    solver: Solver,
    latents: Tensor,
    velocity: Tensor,
    noise: Tensor,
    choose: Callable[[Blocks], Merges],
    how: How = How(),
) -> Compressed:
    """Merge what is alike in the video that is being made. Called between two steps, after the first at least.

    `latents` (1, C, F, H, W) are those after the last step, `velocity` the answer that it took, guidance included,
    `noise` what the run started from. `choose` makes a plan of how alike the frames are (`frame_merges.merges_above`
    and its siblings with their parameters filled in). When the plan merges nothing, `latents` come back as they are and
    the solver remembers all; else it has forgotten its steps.
    """
    # 1. What the video would be.
    clean = solver.clean(latents, velocity)
    preview = family.shown(clean, how.preview_level)

    # 2. What is alike in it.
    pictures = preview[0].permute(1, 2, 3, 0).float().cpu().numpy()
    tables = likeness(pictures, by=how.alike_by, quads=how.quads)
    merges = choose(Blocks(tables, family.temporal_factor, how.strict))
    if merges.merges_nothing:
        return Compressed(latents, merges)

    # 3. The shorter clip, and its latents.
    frames = preview if how.encode_level == how.preview_level else family.shown(clean, how.encode_level)
    shorter = family.latents_of(merged(frames, merges, how.merge), how.encode_level).to(latents)

    # 4. Back to the present noise level, each latent with the noise it began with.
    going_on = renoised(solver, shorter, noise, merges)
    if how.unmerged == "own":
        touched = {latent for run in merges.latent_runs for latent in run}
        places = [place for place, latent in enumerate(merges.latents) if latent not in touched]
        going_on[:, :, places] = latents[:, :, [merges.latents[place] for place in places]]
    solver.forget()
    return Compressed(going_on, merges)


def merged(frames: Tensor, merges: Merges, how: str = "mean") -> Tensor:
    """Of frames (1, 3, N, rows, columns) those that are left, each group as its mean or its `first` frame."""
    left = frames[:, :, list(merges.frames)]
    if how == "mean":
        places = {frame: place for place, frame in enumerate(merges.frames)}
        for group in merges.groups:
            left[:, :, places[group.first]] = frames[:, :, list(group.frames)].mean(2)
    return left


def renoised(solver: Solver, clean: Tensor, noise: Tensor, merges: Merges) -> Tensor:
    """(1 - sigma) clean + sigma noise at the present sigma (VGDFR, equation 6).

    Of the noise of all F latents those that are left are taken; means of several would have less variance.
    """
    return solver.noised(clean, noise[:, :, list(merges.latents)])


def restored(
    decoded: np.ndarray,
    merges: Merges,
    between: Callable[[np.ndarray, np.ndarray], Interpolates],
    anchor: str = "first",
) -> np.ndarray:
    """All N frames (N, rows, columns, 3) uint8 of the decoded ones. `between` two frames makes those that are missing.

    Frames that stand at a whole time come back as they were decoded. Raises `ValueError` for another number of frames
    than the plan leaves.
    """
    if len(decoded) != len(merges.frames):
        raise ValueError(f"{len(merges.latents)} latents decode to {len(merges.frames)} frames, not to {len(decoded)}")
    made = np.empty((merges.num_frames, *decoded.shape[1:]), decoded.dtype)
    pair, moving = -1, None
    for one in restore_order(merges, anchor):
        if one.part == 0:
            made[one.frame] = decoded[one.left]
            continue
        if moving is None or pair != one.left:
            pair, moving = one.left, between(decoded[one.left], decoded[one.right])
        made[one.frame] = moving.at(one.part)
    return made
