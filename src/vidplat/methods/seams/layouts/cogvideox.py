"""`CogVideoXTransformer3DModel`: CogVideoX 1.0 and 1.5.

Latents are (B, F, C, H, W). Blocks are called by keyword and attend jointly over [text; video], the
text first. Rotary tables are cos and sin, each (N, D), for the video alone; the 2B model has none
and adds its positions when it patches. Its output is the v of a variance-preserving process, not a
velocity. Guidance puts both branches into one batch, in one call named "cond_uncond". The stock
processor asks torch for attention directly, so diffusers' choice of attention backends does not
reach it, nor this one.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor

from vidplat.methods.protocol import Grid
from vidplat.methods.seams.attention import AttentionCall, SeamProcessor, masked_attention
from vidplat.methods.seams.layouts import Args, Arguments, Kwargs, Layout


class CogVideoXSeamProcessor(SeamProcessor):
    """The stock `CogVideoXAttnProcessor2_0` and its fused form, attention made replaceable."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        text = encoder_hidden_states.shape[1]
        joined = torch.cat([encoder_hidden_states, hidden_states], dim=1)
        batch, tokens, _ = joined.shape
        if attention_mask is not None:
            attention_mask = attn.prepare_attention_mask(attention_mask, tokens, batch)
            attention_mask = attention_mask.view(batch, attn.heads, -1, attention_mask.shape[-1])
        if attn.fused_projections:
            query, key, value = attn.to_qkv(joined).chunk(3, dim=-1)
        else:
            query, key, value = attn.to_q(joined), attn.to_k(joined), attn.to_v(joined)
        # Heads before tokens, as in the stock one, up to torch's kernel: equal strides, equal sums.
        query, key, value = (
            x.unflatten(2, (attn.heads, -1)).transpose(1, 2) for x in (query, key, value)
        )
        query = query if attn.norm_q is None else attn.norm_q(query)
        key = key if attn.norm_k is None else attn.norm_k(key)
        query, key, value = (x.transpose(1, 2) for x in (query, key, value))
        call = AttentionCall(
            self.layer,
            query,
            key,
            value,
            image_rotary_emb,
            partial(rotated, text=text),
            masked_attention,
            mask=attention_mask,
            text=text,
            text_first=True,
        )
        attended = self.attend(call).flatten(2, 3)
        attended = attn.to_out[1](attn.to_out[0](attended))
        return attended[:, text:], attended[:, :text]


def rotated(x: Tensor, tables: tuple[Tensor, Tensor], *, text: int) -> Tensor:
    """x (B, text + n, h, D) with its video part turned by tables cos and sin (n, D)."""
    heads_first = x.transpose(1, 2).clone()
    heads_first[:, :, text:] = apply_rotary_emb(heads_first[:, :, text:], tables)
    return heads_first.transpose(1, 2)


class CogVideoXLayout(Layout):
    velocity = False
    branches_in_batch = True
    processor = CogVideoXSeamProcessor
    table_axis = 0

    def grid(self, model: Any, args: Args, kwargs: Kwargs) -> Grid:
        frames, _, height, width = self.hidden(args, kwargs).shape[1:]
        cell, span = model.config.patch_size, model.config.patch_size_t or 1
        return Grid(-(-frames // span), height // cell, width // cell)

    def gathered(self, args: Args, kwargs: Kwargs, rows: Tensor, *, first: bool) -> Arguments:
        changed = dict(kwargs)
        if first:
            changed["hidden_states"] = kwargs["hidden_states"].index_select(1, rows)
        if kwargs["image_rotary_emb"] is not None:
            tables = (table.to(rows.device) for table in kwargs["image_rotary_emb"])
            changed["image_rotary_emb"] = self.selected(tables, rows)
        return args, changed

    def per_token(self, model: Any, args: Args, kwargs: Kwargs) -> Tensor:
        """The latents of a call as (B, N, values per token), in the order of the output's values.
        Channels given beside the latents, those of an image to start from, are left out."""
        cell, span = model.config.patch_size, model.config.patch_size_t or 1
        latents = self.hidden(args, kwargs)[:, :, : model.config.out_channels]
        videos, frames, channels, height, width = latents.shape
        cubes = latents.reshape(
            videos, frames // span, span, channels, height // cell, cell, width // cell, cell
        )
        return cubes.permute(0, 1, 4, 6, 3, 2, 5, 7).flatten(4).flatten(1, 3)

    def passed(self, args: Args, kwargs: Kwargs, tokens: Tensor) -> Any:
        return tokens, kwargs["encoder_hidden_states"]

    def time_signal(self, model: Any, args: Args, kwargs: Kwargs) -> Tensor:
        """The time embedding (B, time_embed_dim)."""
        signal: Tensor = kwargs["temb"]
        return signal

    def times_refusal(self, model: Any) -> str:
        if model.config.use_rotary_positional_embeddings:
            return (
                "its rotary tables come with each call, from whoever makes it: give the rows of "
                "the kept frames"
            )
        return "it adds its positions when it patches, counted anew in every call"
