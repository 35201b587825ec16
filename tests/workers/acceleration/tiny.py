"""Tiny random transformers of the real diffusers classes, one per family, with an input each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class Twin:
    """A model and one call of it: `latents` are what a solver moves, `inputs` the rest of the call."""

    family: str
    model: Any
    latents: Tensor
    inputs: dict[str, Any] = field(default_factory=dict)


def a_tiny_transformer(family: str, *, frames: int = 5, rows: int = 4, columns: int = 6) -> Twin:
    """Frames, rows and columns count tokens. Weights are random but fixed."""
    return {"wan": _wan}[family](frames, rows, columns)


def answer(
    twin: Twin, *, branch: str = "cond", step: int = 0, latents: Tensor | None = None, time: float = 500.0
) -> Tensor:
    """The model's answer at a step of a branch, as the loop calls it."""
    given = twin.latents if latents is None else latents
    with torch.inference_mode(), twin.model.cache_context(branch, step_index=step):
        made: Tensor = twin.model(
            hidden_states=given, timestep=torch.full((len(given),), time), return_dict=False, **twin.inputs
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
    _randomise(model)
    latents = torch.randn(1, 4, frames, rows * 2, columns * 2)
    return Twin("wan", model, latents, {"encoder_hidden_states": torch.randn(1, 5, 16)})


def _randomise(model: torch.nn.Module) -> None:
    """Stock initialisation leaves gates near zero, where a wrong answer would hide: give every weight some size."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.copy_(torch.randn_like(weight) * weight[0].numel() ** -0.5)
            else:
                weight.add_(torch.randn_like(weight) * 0.1)
