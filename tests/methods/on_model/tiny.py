"""Tiny random transformers of the real diffusers classes, one per family, with an input each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

FAMILIES = (
    "wan",
    "wan-5b",
    "ltx",
    "hunyuan",
    "hunyuan-true-cfg",
    "cogvideox",
    "cogvideox-2b",
    "cogvideox-1.5",
)


@dataclass
class Twin:
    """A model and one call of it: `latents` are what a solver moves, `inputs` the rest of the call.

    `branches` are the calls of one guided step, by the names of their cache contexts.
    """

    family: str
    model: Any
    latents: Tensor
    inputs: dict[str, Any] = field(default_factory=dict)
    branches: tuple[str, ...] = ("cond", "uncond")
    times_per_video: int = 0  # Wan 2.2 5B: a time for each token; 0: one for all


def a_tiny_transformer(family: str, *, frames: int = 5, rows: int = 4, columns: int = 6) -> Twin:
    """Frames, rows and columns count tokens. Weights are random but fixed."""
    make = {"wan": _wan, "wan-5b": _wan_5b, "ltx": _ltx}
    if family.startswith("hunyuan"):
        return _hunyuan(family, frames, rows, columns)
    if family.startswith("cogvideox"):
        return _cogvideox(family, frames, rows, columns)
    return make[family](frames, rows, columns)


def a_tiny_pair() -> tuple[Twin, Twin]:
    """Wan 2.2 A14B: one transformer for the noisy steps, one of the same shape for the others."""
    noisy, clean = a_tiny_transformer("wan"), a_tiny_transformer("wan")
    with torch.no_grad():
        for weight in clean.model.parameters():
            weight.mul_(0.9)
    return noisy, clean


def answer(
    twin: Twin,
    *,
    branch: str = "cond",
    step: int = 0,
    latents: Tensor | None = None,
    time: float = 500.0,
) -> Tensor:
    """The model's answer at a step of a branch, as the loop calls it."""
    given = twin.latents if latents is None else latents
    shape = (len(given), twin.times_per_video) if twin.times_per_video else (len(given),)
    with torch.inference_mode(), twin.model.cache_context(branch, step_index=step):
        made: Tensor = twin.model(
            hidden_states=given, timestep=torch.full(shape, time), return_dict=False, **twin.inputs
        )[0]
    return made


def _wan(frames: int, rows: int, columns: int) -> Twin:
    from diffusers import WanTransformer3DModel

    torch.manual_seed(7)
    model = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=3,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=16,
        freq_dim=32,
        ffn_dim=48,
        num_layers=3,
        rope_max_seq_len=64,
    ).eval()
    randomise(model)
    latents = torch.randn(1, 4, frames, rows * 2, columns * 2)
    return Twin("wan", model, latents, {"encoder_hidden_states": torch.randn(1, 5, 16)})


def _wan_5b(frames: int, rows: int, columns: int) -> Twin:
    made = _wan(frames, rows, columns)
    return Twin(
        "wan-5b", made.model, made.latents, made.inputs, times_per_video=frames * rows * columns
    )


def _ltx(frames: int, rows: int, columns: int) -> Twin:
    """Both branches in one batch of two; the first text is shorter than the second."""
    from diffusers import LTXVideoTransformer3DModel

    torch.manual_seed(7)
    model = LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=3,
        attention_head_dim=12,
        cross_attention_dim=36,
        num_layers=3,
        caption_channels=16,
    ).eval()
    randomise(model)
    return Twin(
        "ltx",
        model,
        torch.randn(2, frames * rows * columns, 8),
        {
            "encoder_hidden_states": torch.randn(2, 5, 16),
            "encoder_attention_mask": torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]),
            "num_frames": frames,
            "height": rows,
            "width": columns,
            "rope_interpolation_scale": (8 / 25, 32, 32),
        },
        branches=("cond_uncond",),
    )


def _hunyuan(family: str, frames: int, rows: int, columns: int) -> Twin:
    """Two dual-stream blocks, then two single-stream ones; two of the seven text tokens are
    padding."""
    from diffusers import HunyuanVideoTransformer3DModel

    torch.manual_seed(7)
    distilled = family == "hunyuan"
    model = HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=3,
        attention_head_dim=12,
        num_layers=2,
        num_single_layers=2,
        num_refiner_layers=1,
        guidance_embeds=distilled,
        text_embed_dim=16,
        pooled_projection_dim=8,
        rope_axes_dim=(4, 4, 4),
    ).eval()
    randomise(model)
    return Twin(
        family,
        model,
        torch.randn(1, 4, frames, rows * 2, columns * 2),
        {
            "encoder_hidden_states": torch.randn(1, 7, 16),
            "encoder_attention_mask": torch.tensor([[1, 1, 1, 1, 1, 0, 0]]),
            "pooled_projections": torch.randn(1, 8),
            "guidance": torch.tensor([6000.0]) if distilled else None,
        },
        branches=("cond",) if distilled else ("cond", "uncond"),
    )


def _cogvideox(family: str, frames: int, rows: int, columns: int) -> Twin:
    """Both branches in one batch of two. 2B adds its positions, 5B turns by them, 1.5 patches pairs
    of frames."""
    from diffusers import CogVideoXTransformer3DModel

    torch.manual_seed(7)
    turned, span = family != "cogvideox-2b", 2 if family == "cogvideox-1.5" else None
    model = CogVideoXTransformer3DModel(
        num_attention_heads=4,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        time_embed_dim=16,
        text_embed_dim=16,
        num_layers=3,
        sample_width=columns * 2,
        sample_height=rows * 2,
        sample_frames=4 * (frames - 1) + 1,
        patch_size_t=span,
        patch_bias=span is None,
        max_text_seq_length=5,
        use_rotary_positional_embeddings=turned,
    ).eval()
    randomise(model)
    angles = torch.rand(frames * rows * columns, 6).repeat_interleave(2, dim=1)
    return Twin(
        family,
        model,
        torch.randn(2, frames * (span or 1), 4, rows * 2, columns * 2),
        {
            "encoder_hidden_states": torch.randn(2, 5, 16),
            "image_rotary_emb": (angles.cos(), angles.sin()) if turned else None,
        },
        branches=("cond_uncond",),
    )


def randomise(model: torch.nn.Module) -> None:
    """Stock initialisation leaves gates near zero, where a wrong answer would hide: give every
    weight some size."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.copy_(torch.randn_like(weight) * weight[0].numel() ** -0.5)
            else:
                weight.add_(torch.randn_like(weight) * 0.1)
