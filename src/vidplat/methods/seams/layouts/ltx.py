"""`LTXVideoTransformer3DModel`: LTX-Video.

Tokens arrive packed, (B, N, values per token), so the grid is told by the call's own num_frames,
height and width. Blocks are called by keyword. Rotary tables are cos and sin, each (B, N, d): they
act on the whole width, before it is split into heads. Modulation is (B, 1, 6 d), or (B, N, 6 d)
when tokens have times of their own. Guidance makes one batch of both branches, "cond_uncond".
"""

from __future__ import annotations

from typing import Any

from diffusers.models.transformers.transformer_ltx import apply_rotary_emb
from torch import Tensor

from vidplat.errors import MethodRefused
from vidplat.methods.protocol import Grid
from vidplat.methods.seams.attention import AttentionCall, SeamProcessor
from vidplat.methods.seams.layouts import Args, Arguments, Kwargs, Layout


class LtxSeamProcessor(SeamProcessor):
    """The stock `LTXVideoAttnProcessor` for self-attention, with its attention made replaceable."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        query, key = attn.norm_q(attn.to_q(hidden_states)), attn.norm_k(attn.to_k(hidden_states))
        value = attn.to_v(hidden_states)
        query, key, value = (x.unflatten(2, (attn.heads, -1)) for x in (query, key, value))
        call = AttentionCall(
            self.layer,
            query,
            key,
            value,
            image_rotary_emb,
            rotated,
            self.dense,
            mask=attention_mask,
        )
        attended = self.attend(call).flatten(2, 3).to(query.dtype)
        result: Tensor = attn.to_out[1](attn.to_out[0](attended))
        return result


def rotated(x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    """x (B, n, h, D) turned by its positions; tables cos and sin (B, n, h D)."""
    turned: Tensor = apply_rotary_emb(x.flatten(2), tables).unflatten(2, (x.shape[2], -1))
    return turned


class LtxLayout(Layout):
    branches_in_batch = True
    processor = LtxSeamProcessor

    def grid(self, model: Any, args: Args, kwargs: Kwargs) -> Grid:
        """Raises `MethodRefused` where tokens are no plain grid, as with images as conditions."""
        grid = Grid(*(kwargs.get(name) or 0 for name in ("num_frames", "height", "width")))
        tokens = self.hidden(args, kwargs).shape[1]
        if tokens != grid.tokens:
            raise MethodRefused(
                f"{tokens} tokens are no grid of {grid.frames} frames, {grid.rows} rows, "
                f"{grid.columns} columns"
            )
        return grid

    def gathered(self, args: Args, kwargs: Kwargs, rows: Tensor, *, first: bool) -> Arguments:
        tables = kwargs["image_rotary_emb"]
        changed = {**kwargs, "image_rotary_emb": self.selected(tables, rows)}
        if first:
            changed["hidden_states"] = kwargs["hidden_states"].index_select(1, rows)
        if kwargs["temb"].shape[1] == tables[0].shape[1] > 1:  # a modulation per token
            changed["temb"] = kwargs["temb"].index_select(1, rows)
        return args, changed

    def time_signal(self, model: Any, args: Args, kwargs: Kwargs) -> Tensor:
        """The first block's modulated tokens (B, N, d): what enters its self-attention."""
        block, temb = model.transformer_blocks[0], kwargs["temb"]
        table = block.scale_shift_table
        times = temb.reshape(*temb.shape[:2], table.shape[0], -1)
        modulation = table[None, None].to(temb.device) + times
        shift, scale = modulation[:, :, 0], modulation[:, :, 1]
        signal: Tensor = block.norm1(kwargs["hidden_states"]) * (1 + scale) + shift
        return signal

    def longer(self, args: Args, kwargs: Kwargs, frames: int) -> Arguments:
        """Raises `MethodRefused` where the call itself tells the places of its tokens."""
        hidden, _, rows, columns, scale, coordinates = args
        if coordinates is not None:
            raise MethodRefused(
                "a call with video_coords places its tokens itself: give it those of the kept "
                "frames"
            )
        return (hidden, frames, rows, columns, scale, None), kwargs
