"""Where each transformer class keeps what the seams need: one module per family, one line each
below.

A layout is asked by the seams, never by a method's arithmetic. What a class cannot do is a sentence
in its layout.

Legend: B batch, N video tokens, d model width.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from vidplat.errors import SpecError
from vidplat.methods.kinds import Seam
from vidplat.methods.protocol import Grid
from vidplat.methods.seams.attention import SeamProcessor

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class Layout(Protocol):
    """One transformer class, seen by the seams."""

    # the output is a flow-matching velocity (else v-prediction of a variance-preserving process)
    velocity: bool
    # guidance puts both branches into one batch (else it calls the model twice)
    branches_in_batch: bool

    def refusal(self, model: Any, seam: Seam) -> str:
        """Why no method can touch this seam of this model, as a sentence; "" when one can."""

    def blocks(self, model: Any) -> Sequence[nn.Module]:
        """The transformer blocks, in the order they run."""

    def attentions(self, model: Any) -> Sequence[nn.Module]:
        """The self-attention module of each block, same order."""

    def processor(self, layer: int) -> SeamProcessor:
        """A processor for `attentions()[layer]` that equals the stock one bit for bit when its
        chain is empty."""

    def output(self, model: Any) -> nn.Module:
        """The module whose output (B, N, values per token) is the answer per token, before
        unpatchifying."""

    def grid(self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Grid:
        """The token grid of a call of the whole transformer."""

    def hidden(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """The video tokens (B, N, d) in a block's arguments."""

    def gathered(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], rows: Tensor, *, first: bool
    ) -> Arguments:
        """A block's arguments for the token `rows` (n,) alone: positions and per-token modulation
        always, the video tokens only for the `first` block, since the others receive gathered ones.
        """

    def scattered(self, output: Any, rows: Tensor, tokens: int) -> Any:
        """The last block's output with its video tokens put back into (B, tokens, d), zero
        elsewhere."""

    def video(self, output: Any) -> Tensor:
        """The video tokens (B, N, d) in a block's output."""

    def passed(self, args: tuple[Any, ...], kwargs: dict[str, Any], tokens: Tensor) -> Any:
        """What a block would answer that left everything as it is, but for video `tokens` (B, N,
        d)."""

    def time_signal(self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """From the first block's arguments, what TeaCache compares between steps: the tokens
        modulated by time, or the time embedding itself, whichever the published constants of this
        family were fitted for."""

    def times_refusal(self, model: Any) -> str:
        """Why frames that are left of a longer video cannot keep their own times, as a sentence; ""
        when they can."""

    def rope(self, model: Any) -> nn.Module:
        """The module that makes the rotary tables of a call; asked where `times_refusal` is silent,
        as all below."""

    def longer(self, args: tuple[Any, ...], kwargs: dict[str, Any], frames: int) -> Arguments:
        """The arguments of `rope` as for a video of `frames` token frames, of the same rows and
        columns."""

    def table_rows(self, tables: Any, frames: Sequence[int], of: int) -> Any:
        """The rows of these token `frames` in rotary tables of `of` frames, in this order."""


#: transformer class -> module and class of this room, loaded when such a model is met.
LAYOUTS = {
    "WanTransformer3DModel": "wan:WanLayout",
    "LTXVideoTransformer3DModel": "ltx:LtxLayout",
    "HunyuanVideoTransformer3DModel": "hunyuan:HunyuanLayout",
    "CogVideoXTransformer3DModel": "cogvideox:CogVideoXLayout",
}


def layout_of(model: Any) -> Layout:
    """The layout of a transformer, found by its class. Raises `SpecError` for a class that has
    none."""
    name = type(model).__name__
    if name not in LAYOUTS:
        raise SpecError(f"no method can be installed on {name}; known are {', '.join(LAYOUTS)}")
    module, _, layout = LAYOUTS[name].partition(":")
    made: Layout = getattr(import_module(f"{__name__}.{module}"), layout)()
    return made


def frame_rows(table: Tensor, frames: Sequence[int], of: int, axis: int) -> Tensor:
    """Of a table with the tokens of `of` frames along `axis`, frame-major, the rows of these
    `frames`."""
    rows = torch.arange(table.shape[axis], device=table.device).view(of, -1)[list(frames)]
    return table.index_select(axis, rows.flatten())


def as_long_as(latents: Tensor, frames: int) -> Tensor:
    """Latents (B, C, `frames`, H, W) of the same kind, for those who ask for their shape alone;
    takes no memory."""
    return latents[:, :, :1].expand(-1, -1, frames, -1, -1)
