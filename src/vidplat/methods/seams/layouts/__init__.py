"""Where each transformer class keeps what the seams need: one module per family, one line below.

A layout is asked by the seams, never by a method's arithmetic; it says what its class cannot do.

Legend: B batch, N video tokens, d model width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from vidplat.errors import MethodRefused
from vidplat.methods.kinds import Seam
from vidplat.methods.protocol import Grid
from vidplat.methods.seams.attention import SeamProcessor

Args = tuple[Any, ...]
Kwargs = dict[str, Any]
Arguments = tuple[Args, Kwargs]


class Layout(ABC):
    """One transformer class, seen by the seams. What stands here holds for most families."""

    #: The output is a flow-matching velocity, else v-prediction of a variance-preserving process.
    velocity = True
    #: Guidance puts both branches into one batch, else it calls the model twice.
    branches_in_batch = False
    #: Made for the layer of a block: a processor for its entry of `attentions` that equals the
    #: stock one bit for bit when its chain is empty.
    processor: type[SeamProcessor]
    #: The axis of the rotary tables, cos and sin, that tokens lie along.
    table_axis = 1

    def refusal(self, model: Any, seam: Seam) -> str:
        """Why no method can touch this seam of this model, as a sentence; "" when one can."""
        return ""

    def blocks(self, model: Any) -> Sequence[nn.Module]:
        """The transformer blocks, in the order they run."""
        return list(model.transformer_blocks)

    def attentions(self, model: Any) -> Sequence[nn.Module]:
        """The self-attention module of each block, same order."""
        blocks: Sequence[Any] = self.blocks(model)
        return [block.attn1 for block in blocks]

    def output(self, model: Any) -> nn.Module:
        """The module whose output (B, N, values) is the answer per token, not yet unpatchified."""
        found: nn.Module = model.proj_out
        return found

    @abstractmethod
    def grid(self, model: Any, args: Args, kwargs: Kwargs) -> Grid:
        """The token grid of a call of the whole transformer."""

    def hidden(self, args: Args, kwargs: Kwargs) -> Tensor:
        """The video tokens (B, N, d) in a block's arguments, the latents in the transformer's."""
        tokens: Tensor = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        return tokens

    @abstractmethod
    def gathered(self, args: Args, kwargs: Kwargs, rows: Tensor, *, first: bool) -> Arguments:
        """A block's arguments for the token `rows` (n,) alone: positions and per-token modulation
        always, the video tokens only for the `first` block, since the others receive gathered ones.
        """

    def scattered(self, output: Any, rows: Tensor, tokens: int) -> Any:
        """The last block's output, its video tokens put back into (B, tokens, d) of zeros."""
        video = self.video(output)
        whole = video.new_zeros(video.shape[0], tokens, video.shape[2]).index_copy_(1, rows, video)
        return (whole, *output[1:]) if isinstance(output, tuple) else whole

    def video(self, output: Any) -> Tensor:
        """The video tokens (B, N, d) in a block's output: all, or what stands before the text."""
        tokens: Tensor = output[0] if isinstance(output, tuple) else output
        return tokens

    def passed(self, args: Args, kwargs: Kwargs, tokens: Tensor) -> Any:
        """What a block would answer that only changed the video `tokens` (B, N, d)."""
        return tokens

    @abstractmethod
    def time_signal(self, model: Any, args: Args, kwargs: Kwargs) -> Tensor:
        """From the first block's arguments, what TeaCache compares between steps: the tokens
        modulated by time, or the time embedding itself, whichever the published constants of this
        family were fitted for."""

    def times_refusal(self, model: Any) -> str:
        """Why frames that are left cannot keep their times, as a sentence; "" when they can."""
        return ""

    def rope(self, model: Any) -> nn.Module:
        """What makes a call's rotary tables; asked where `times_refusal` is "", as all below."""
        found: nn.Module = model.rope
        return found

    def longer(self, args: Args, kwargs: Kwargs, frames: int) -> Arguments:
        """The arguments of `rope` as for a video of `frames` token frames, of the same rows and
        columns. It asks latents for their shape alone, so making them longer takes no memory."""
        latents = args[0][:, :, :1].expand(-1, -1, frames, -1, -1)
        return (latents, *args[1:]), kwargs

    def table_rows(self, tables: Any, frames: Sequence[int], of: int) -> Any:
        """The rows of these token `frames` in rotary tables of `of` frames, in this order."""
        numbers = torch.arange(tables[0].shape[self.table_axis], device=tables[0].device)
        return self.selected(tables, numbers.view(of, -1)[list(frames)].flatten())

    def selected(self, tables: Any, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Rotary tables of the token `rows` (n,) alone."""
        cos, sin = (table.index_select(self.table_axis, rows) for table in tables)
        return cos, sin


#: transformer class -> module and class of this room, loaded when such a model is met.
LAYOUTS = {
    "WanTransformer3DModel": "wan:WanLayout",
    "LTXVideoTransformer3DModel": "ltx:LtxLayout",
    "HunyuanVideoTransformer3DModel": "hunyuan:HunyuanLayout",
    "CogVideoXTransformer3DModel": "cogvideox:CogVideoXLayout",
}


def layout_of(model: Any) -> Layout:
    """The layout of a transformer, by its class. Raises `MethodRefused` where there is none."""
    name = type(model).__name__
    if name not in LAYOUTS:
        raise MethodRefused(f"no method can be installed on {name}; known are {', '.join(LAYOUTS)}")
    module, _, layout = LAYOUTS[name].partition(":")
    made: Layout = getattr(import_module(f"{__name__}.{module}"), layout)()
    return made
