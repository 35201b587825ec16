"""A tile mask (`tiles.py`) laid over one sequence of tokens, and what computes attention under it.

Legend: B batch, Q query tokens, K key tokens, h heads, D head width, F frames, P tokens per frame,
k references, T text tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from vidplat.methods.vdit import tiles


@dataclass(frozen=True)
class Tiling:
    """A tile mask laid over F P video tokens, or as `key_counts` says, and T text tokens."""

    frames: int
    per_frame: int
    k: int
    text: int = 0
    text_first: bool = False
    #: keys of each frame, where not all tokens have some; None: P of each
    key_counts: tuple[int, ...] | None = None

    @property
    def references(self) -> tuple[int, ...]:
        return tiles.references(self.frames, self.k)

    @property
    def tokens(self) -> int:
        return self._video_before(self.frames) + self.text

    @property
    def video_at(self) -> int:
        """Where the video tokens begin."""
        return self.text if self.text_first else 0

    def columns(self, frame: int, frames: int = 1) -> slice:
        """The keys of consecutive frames."""
        return slice(
            self.video_at + self._video_before(frame),
            self.video_at + self._video_before(frame + frames),
        )

    def global_columns(self) -> list[slice]:
        """The keys that everything attends to: the text's, then those of the references."""
        end = self._video_before(self.frames)
        text = slice(0, self.text) if self.text_first else slice(end, end + self.text)
        return ([text] if self.text else []) + [self.columns(frame) for frame in self.references]

    def _video_before(self, frame: int) -> int:
        """Video keys of the frames before this one."""
        return frame * self.per_frame if self.key_counts is None else sum(self.key_counts[:frame])


Counts = Sequence[int] | None
Mask = Tensor | None
#: q (B, Q, h, D), k and v (B, K, h, D), tiling, counts, mask -> (B, Q, h, D). `counts` has the
#: queries of each frame when only some video rows are queries (text rows always are); else None. It
#: is given whenever the tiling has `key_counts`. `mask` is broadcastable to (B, h, Q, K) and comes
#: on top of the tiles.
Path = Callable[[Tensor, Tensor, Tensor, Tiling, Counts, Mask], Tensor]


def tile_mask(tiling: Tiling, device: Any = None) -> Tensor:
    """The mask itself, (K, K) bool: what every path must equal. For checks, as it saves nothing."""
    frame, is_global = frames_and_globals(tiling, device)
    return (frame[:, None] == frame[None, :]) | is_global[:, None] | is_global[None, :]


def frames_and_globals(tiling: Tiling, device: Any) -> tuple[Tensor, Tensor]:
    """For every token its frame (-1 for text), and whether it is global."""
    counts = torch.tensor(tiling.key_counts or [tiling.per_frame] * tiling.frames, device=device)
    frame = torch.arange(tiling.frames, device=device).repeat_interleave(counts)
    is_global = torch.isin(frame, torch.tensor(tiling.references, device=device))
    padding = (tiling.text, 0) if tiling.text_first else (0, tiling.text)
    return functional.pad(frame, padding, value=-1), functional.pad(is_global, padding, value=True)
