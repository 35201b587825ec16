"""The normal form: what the denoising loop, and later every method, sees of any model family.

A family turns text into embeddings, seeds into noise, (latents, time) into velocity, and latents
into frames. The loop over steps is ours (`generate.py`), the solver's arithmetic is that of
`solver.py`; so a method may change latents, positions or solver state between two steps without
knowing a model by name.

Legend: C latent channels, F/H/W latent frames, rows and columns, L text tokens, D embedding width.

A new family is a module with this shape, a line in `FAMILIES` of model_files.py and in loading.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from vidplat.domain import VideoSpec
from vidplat.methods.model_shape import Blocks

if TYPE_CHECKING:
    import numpy as np
    import torch

    from vidplat.methods.solver import Solver


@dataclass(frozen=True)
class Condition:
    """What steers a video: its text, and the text it should move away from when it is guided."""

    text: torch.Tensor  # (1, L, D), in the transformer's dtype and on its device
    negative: torch.Tensor | None  # the same; None when guidance_scale <= 1
    guidance_scale: float


class Family(Protocol):
    """One loaded model in normal form. Not safe for use by two threads at once."""

    name: str
    temporal_factor: int  # frames per latent frame, see `methods.model_shape.latent_frames`
    scheduler: Any  # the diffusers scheduler it was loaded with
    in_tiles: bool  # whether the last video was decoded in tiles, for want of memory

    @property
    def transformers(self) -> tuple[Any, ...]:
        """The networks that denoise; methods are installed on them."""

    def grid(self, latents: torch.Tensor) -> tuple[int, int, int]:
        """Tokens per axis of such latents: frames, rows, columns."""

    def encode(self, text: str) -> torch.Tensor:
        """Embeddings (1, L, D) of one cleaned text, zero beyond its last token.

        Texts met before are remembered: the same tensor may come back, so nobody may write into it.
        """

    @property
    def spare_bytes(self) -> int:
        """What `spare` would give back of the device's memory."""

    def spare(self) -> bool:
        """Take less memory from now on, at the cost of time and of no pixel; False: there is
        nothing left to give back."""

    def noise(self, spec: VideoSpec) -> torch.Tensor:
        """Start latents (1, C, F, H, W) float32 by `spec.seed` alone, equal on every device."""

    def solver(self, steps: int, scheduler: Any = None) -> Solver:
        """A fresh solver for one video of `steps` steps, after `scheduler` or the family's own."""

    def velocity(self, latents: torch.Tensor, solver: Solver, condition: Condition) -> torch.Tensor:
        """The answer, shaped as `latents`, at the solver's present step, guidance included."""

    def decode(self, latents: torch.Tensor) -> np.ndarray:
        """Frames (4(F-1)+1, rows, columns, 3) uint8 RGB. `JobError` for non-finite values."""


@runtime_checkable
class TakesVideo(Family, Protocol):
    """A family that can start from a video as well."""

    def encode_video(self, frames: np.ndarray) -> torch.Tensor:
        """Clean normalised latents (1, C, F, H, W) float32 of frames (4(F-1)+1, rows, columns, 3)
        uint8 RGB."""


@runtime_checkable
class MakesBlocks(TakesVideo, Protocol):
    """A family whose videos are made block by block (`workers/blocks`): it has no solver over
    all frames, so `solver` and `velocity` raise `SpecError`."""

    @property
    def blocks(self) -> Blocks:
        """How it makes them."""
