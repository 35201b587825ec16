"""`WanTransformer3DModel`: Wan 2.1, Wan 2.2 and flipbook.

Blocks are called positionally with (tokens, text, time modulation, rotary tables). Rotary tables
are cos and sin, each (1, N, 1, D). Wan 2.2 5B has a modulation per token, 4-D instead of 3-D.
Guidance calls the model twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vidplat.methods.protocol import Grid
from vidplat.methods.seams.attention import AttentionCall, SeamProcessor
from vidplat.methods.seams.layouts import Args, Arguments, Kwargs, Layout


class WanSeamProcessor(SeamProcessor):
    """The stock `WanAttnProcessor` for self-attention, with its attention made replaceable."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        if attn.fused_projections:
            query, key, value = attn.to_qkv(hidden_states).chunk(3, dim=-1)
        else:
            query, key, value = (to(hidden_states) for to in (attn.to_q, attn.to_k, attn.to_v))
        query, key = attn.norm_q(query), attn.norm_k(key)
        query, key, value = (x.unflatten(2, (attn.heads, -1)) for x in (query, key, value))
        call = AttentionCall(
            self.layer, query, key, value, rotary_emb, rotated, self.dense, mask=attention_mask
        )
        attended = self.attend(call).flatten(2, 3).type_as(query)
        result: Tensor = attn.to_out[1](attn.to_out[0](attended))
        return result


def rotated(x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    """x (B, n, h, D) turned by tables cos and sin (1, n, 1, D), pairs of channels side by side."""
    first, second = x.reshape(*x.shape[:-1], -1, 2).unbind(-1)
    cos, sin = tables[0][..., 0::2], tables[1][..., 1::2]
    out = torch.empty_like(x)
    out[..., 0::2] = first * cos - second * sin
    out[..., 1::2] = first * sin + second * cos
    return out.type_as(x)


class WanLayout(Layout):
    processor = WanSeamProcessor

    def blocks(self, model: Any) -> Sequence[nn.Module]:
        return list(model.blocks)

    def grid(self, model: Any, args: Args, kwargs: Kwargs) -> Grid:
        sizes = self.hidden(args, kwargs).shape[2:]
        return Grid(*(size // p for size, p in zip(sizes, model.config.patch_size, strict=True)))

    def gathered(self, args: Args, kwargs: Kwargs, rows: Tensor, *, first: bool) -> Arguments:
        tokens, text, modulation, tables, *rest = args
        if first:
            tokens = tokens.index_select(1, rows)
        if modulation.ndim == 4:  # per token: (B, N, 6, d)
            modulation = modulation.index_select(1, rows)
        return (tokens, text, modulation, self.selected(tables, rows), *rest), kwargs

    def time_signal(self, model: Any, args: Args, kwargs: Kwargs) -> Tensor:
        """The projected time embedding (B, 6, d), or (B, N, 6, d) with a time per token."""
        signal: Tensor = args[2]
        return signal

    def times_refusal(self, model: Any) -> str:
        return "" if model.config.patch_size[0] == 1 else "its tokens span several latent frames"
