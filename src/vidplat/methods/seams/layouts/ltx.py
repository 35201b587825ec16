"""`LTXVideoTransformer3DModel`: LTX-Video.

Tokens arrive packed, (B, N, values per token), so the grid is told by the call's own num_frames,
height and width. Blocks are called by keyword. Rotary tables are cos and sin, each (B, N, d): they
act on the whole width, before it is split into heads. Modulation is (B, 1, 6 d), or (B, N, 6 d)
when tokens have times of their own. Guidance puts both branches into one batch, in one call named
"cond_uncond".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffusers.models.transformers.transformer_ltx import apply_rotary_emb
from torch import Tensor, nn

from vidplat.errors import SpecError
from vidplat.methods.kinds import Seam
from vidplat.methods.protocol import Grid
from vidplat.methods.seams.attention import AttentionCall, SeamProcessor
from vidplat.methods.seams.layouts import Arguments, frame_rows


class LtxLayout:
    velocity = True
    branches_in_batch = True

    def refusal(self, model: Any, seam: Seam) -> str:
        return ""

    def blocks(self, model: Any) -> Sequence[nn.Module]:
        return list(model.transformer_blocks)

    def attentions(self, model: Any) -> Sequence[nn.Module]:
        return [block.attn1 for block in model.transformer_blocks]

    def processor(self, layer: int) -> SeamProcessor:
        return LtxSeamProcessor(layer)

    def output(self, model: Any) -> nn.Module:
        found: nn.Module = model.proj_out
        return found

    def grid(self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Grid:
        """Raises `SpecError` when the call's tokens are no plain grid, as with images or frames as
        conditions."""
        frames, rows, columns = (
            kwargs.get(name) or 0 for name in ("num_frames", "height", "width")
        )
        latents: Tensor = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        grid = Grid(frames, rows, columns)
        if latents.shape[1] != grid.tokens:
            raise SpecError(
                f"{latents.shape[1]} tokens are no grid of {frames} frames, {rows} rows, "
                f"{columns} columns"
            )
        return grid

    def hidden(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        tokens: Tensor = kwargs["hidden_states"]
        return tokens

    def gathered(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], rows: Tensor, *, first: bool
    ) -> Arguments:
        cos, sin = kwargs["image_rotary_emb"]
        changed = {
            **kwargs,
            "image_rotary_emb": (cos.index_select(1, rows), sin.index_select(1, rows)),
        }
        if first:
            changed["hidden_states"] = kwargs["hidden_states"].index_select(1, rows)
        if kwargs["temb"].shape[1] == cos.shape[1] > 1:  # a modulation per token
            changed["temb"] = kwargs["temb"].index_select(1, rows)
        return args, changed

    def scattered(self, output: Any, rows: Tensor, tokens: int) -> Any:
        whole = output.new_zeros(output.shape[0], tokens, output.shape[2])
        return whole.index_copy_(1, rows, output)

    def video(self, output: Any) -> Tensor:
        tokens: Tensor = output
        return tokens

    def passed(self, args: tuple[Any, ...], kwargs: dict[str, Any], tokens: Tensor) -> Any:
        return tokens

    def time_signal(self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """The first block's normalised and modulated tokens (B, N, d): what enters its
        self-attention."""
        block, temb = model.transformer_blocks[0], kwargs["temb"]
        table = block.scale_shift_table
        modulation = table[None, None].to(temb.device) + temb.reshape(
            *temb.shape[:2], table.shape[0], -1
        )
        shift, scale = modulation[:, :, 0], modulation[:, :, 1]
        signal: Tensor = block.norm1(kwargs["hidden_states"]) * (1 + scale) + shift
        return signal

    def times_refusal(self, model: Any) -> str:
        return ""

    def rope(self, model: Any) -> nn.Module:
        found: nn.Module = model.rope
        return found

    def longer(self, args: tuple[Any, ...], kwargs: dict[str, Any], frames: int) -> Arguments:
        """Raises `SpecError` where the call tells every token's place itself: its times are then
        the caller's."""
        hidden, _, rows, columns, scale, coordinates = args
        if coordinates is not None:
            raise SpecError(
                "a call with video_coords places its tokens itself: give it those of the kept "
                "frames"
            )
        return (hidden, frames, rows, columns, scale, None), kwargs

    def table_rows(self, tables: Any, frames: Sequence[int], of: int) -> Any:
        cos, sin = tables
        return frame_rows(cos, frames, of, 1), frame_rows(sin, frames, of, 1)


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
