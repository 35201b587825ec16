"""`HunyuanVideoTransformer3DModel`: HunyuanVideo.

Dual-stream blocks (video and text have weights of their own) are followed by single-stream ones
(shared weights); both attend jointly over [video; text] and are called positionally with (tokens,
text, time embedding, key mask, rotary tables, image time embedding, tokens of the first frame). The
mask (B, 1, 1, N + T) hides padding text only. Rotary tables are cos and sin, each (N, D), for the
video alone. Guidance is an input, not a second branch, unless the pipeline is asked for true
guidance, which calls the model twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor, nn

from vidplat.methods.kinds import Seam
from vidplat.methods.protocol import Grid
from vidplat.methods.seams.attention import AttentionCall, SeamProcessor
from vidplat.methods.seams.layouts import Args, Arguments, Kwargs, Layout


class HunyuanSeamProcessor(SeamProcessor):
    """The stock `HunyuanVideoAttnProcessor2_0`, with its attention made replaceable."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        video, text = hidden_states.shape[1], 0
        joined, beside = hidden_states, None
        if encoder_hidden_states is not None:
            text = encoder_hidden_states.shape[1]
            if attn.add_q_proj is None:  # single-stream: one set of weights for both
                joined = torch.cat([hidden_states, encoder_hidden_states], dim=1)
            else:
                beside = encoder_hidden_states
        query, key, value = _heads(
            attn, joined, attn.to_q, attn.to_k, attn.to_v, attn.norm_q, attn.norm_k
        )
        if beside is not None:
            projections = (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
            texts = _heads(attn, beside, *projections, attn.norm_added_q, attn.norm_added_k)
            query, key, value = (
                torch.cat(pair, dim=1) for pair in zip((query, key, value), texts, strict=True)
            )
        call = AttentionCall(
            self.layer,
            query,
            key,
            value,
            image_rotary_emb,
            partial(rotated, text=text),
            self.dense,
            mask=attention_mask,
            text=text,
        )
        attended = self.attend(call).flatten(2, 3).to(query.dtype)
        if encoder_hidden_states is None:
            return attended, None
        seen, told = attended[:, :video], attended[:, video:]
        if getattr(attn, "to_out", None) is not None:
            seen = attn.to_out[1](attn.to_out[0](seen))
        if getattr(attn, "to_add_out", None) is not None:
            told = attn.to_add_out(told)
        return seen, told


def _heads(
    attn: Any, x: Tensor, to_q: Any, to_k: Any, to_v: Any, norm_q: Any, norm_k: Any
) -> tuple[Tensor, ...]:
    """q, k and v (B, n, h, D) of x (B, n, d)."""
    query, key, value = (
        projection(x).unflatten(2, (attn.heads, -1)) for projection in (to_q, to_k, to_v)
    )
    return query if norm_q is None else norm_q(query), key if norm_k is None else norm_k(key), value


def rotated(x: Tensor, tables: tuple[Tensor, Tensor], *, text: int) -> Tensor:
    """x (B, n + text, h, D) with its video part turned by tables cos and sin (n, D)."""
    video = x.shape[1] - text
    turned: Tensor = apply_rotary_emb(x[:, :video], tables, sequence_dim=1)
    return torch.cat([turned, x[:, video:]], dim=1) if text else turned


class HunyuanLayout(Layout):
    processor = HunyuanSeamProcessor
    table_axis = 0

    def refusal(self, model: Any, seam: Seam) -> str:
        if seam is Seam.TOKENS and model.config.image_condition_type == "token_replace":
            return (
                "its blocks find the image's tokens by their place in the sequence, which "
                "fewer tokens would shift"
            )
        return ""

    def blocks(self, model: Any) -> Sequence[nn.Module]:
        return [*model.transformer_blocks, *model.single_transformer_blocks]

    def attentions(self, model: Any) -> Sequence[nn.Module]:
        blocks: Sequence[Any] = self.blocks(model)
        return [block.attn for block in blocks]

    def grid(self, model: Any, args: Args, kwargs: Kwargs) -> Grid:
        frames, height, width = self.hidden(args, kwargs).shape[2:]
        cell = model.config.patch_size
        return Grid(frames // model.config.patch_size_t, height // cell, width // cell)

    def gathered(self, args: Args, kwargs: Kwargs, rows: Tensor, *, first: bool) -> Arguments:
        tokens, text, temb, mask, tables, *rest = args
        if first:
            tokens = tokens.index_select(1, rows)
        mask = torch.cat([mask.index_select(-1, rows), mask[..., tables[0].shape[0] :]], dim=-1)
        return (tokens, text, temb, mask, self.selected(tables, rows), *rest), kwargs

    def passed(self, args: Args, kwargs: Kwargs, tokens: Tensor) -> Any:
        return tokens, args[1]

    def time_signal(self, model: Any, args: Args, kwargs: Kwargs) -> Tensor:
        """The first block's normalised and modulated video tokens (B, N, d)."""
        tokens, _, temb, _, _, image_temb, first_frame = args
        norm = model.transformer_blocks[0].norm1
        signal: Tensor
        if image_temb is None:
            signal, *_ = norm(tokens, emb=temb)
        else:
            signal, *_ = norm(tokens, temb, image_temb, first_frame)
        return signal

    def times_refusal(self, model: Any) -> str:
        return "" if model.config.patch_size_t == 1 else "its tokens span several latent frames"
