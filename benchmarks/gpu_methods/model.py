"""A Wan of random weights, and latents that move as an edit's source does."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from benchmarks.gpu_methods.ways import Setting
from vidplat.methods.lipar.mask import MaskRule, keep_mask
from vidplat.methods.seams.solver_choice import EulerScheduler
from vidplat.workers.models.wan import WanFamily

SEED, SHIFT = 0, 3.0
PRUNED = 0.32  # of all tokens of a source


def family_for(setting: Setting, device: torch.device) -> WanFamily:
    """The transformer and what a loop asks of a family; no text encoder, and of the VAE its factors
    alone.

    Made in the device's memory and in the type it will have, as a loaded one: some parts stay in
    float32. Rotary tables must not be made by `.to(bfloat16)`, which would round them.
    """
    from diffusers import WanTransformer3DModel

    shape, before = setting.shape, torch.get_default_dtype()
    torch.manual_seed(SEED)
    torch.set_default_dtype(dtype())
    try:
        with torch.device(device), torch.inference_mode(False):
            model = WanTransformer3DModel(
                patch_size=shape.patch,
                num_attention_heads=setting.heads,
                attention_head_dim=shape.width // setting.heads,
                in_channels=16,
                out_channels=16,
                text_dim=setting.text_width,
                freq_dim=256,
                ffn_dim=shape.ffn_width,
                num_layers=shape.layers,
                cross_attn_norm=True,
                qk_norm="rms_norm_across_heads",
                eps=1e-6,
                rope_max_seq_len=1024,
            )
    finally:
        torch.set_default_dtype(before)
    wide = set(model._keep_in_fp32_modules)
    for name, weight in model.named_parameters():
        if wide & set(name.split(".")):
            weight.data = weight.data.float()
    factors = SimpleNamespace(scale_factor_temporal=4, scale_factor_spatial=8)
    return WanFamily(
        tokenizer=None,
        text_encoder=None,
        transformer=model.eval().requires_grad_(False),
        vae=SimpleNamespace(config=factors),
        scheduler=EulerScheduler(shift=SHIFT),
        text_length=shape.text_tokens,
    )


def a_source(
    latents: tuple[int, int, int], rule: MaskRule, first: int = 1
) -> tuple[Tensor, Tensor]:
    """Latents (1, 16, F, H, W) that stand still but for a band of columns drawn anew in every
    frame, and the mask (F, h, w) that LIPAR makes of them, its `first` frames whole.

    The band is as wide as prunes PRUNED of all tokens, as nearly as whole columns of tokens allow;
    it may be a column wider in the first frames.
    """
    frames, rows, columns = latents
    still = normal((16, 1, rows, columns), SEED + 3)
    moving = normal((16, frames, rows, columns), SEED + 4)

    def made(cells: int) -> tuple[Tensor, Tensor]:
        """With `cells` moving columns of tokens, counted over frames 1.. ."""
        width, more = divmod(cells, frames - 1)
        widths = torch.tensor([0, *(width + (frame < more) for frame in range(frames - 1))])
        moves = torch.arange(columns // 2).repeat_interleave(2) < widths[:, None]  # (F, W)
        source = torch.where(moves[None, :, None, :], moving, still)
        keep = keep_mask(source, (2, 2), rule)
        keep[:first] = True
        return source[None], keep

    def off(cells: int) -> float:
        return 1 - share_of(made(cells)[1]) - PRUNED

    low, high = 0, (frames - 1) * (columns // 2)  # pruned falls along this
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if off(middle) > 0 else (low, middle)
    return made(min((low, high), key=lambda cells: abs(off(cells))))


def share_of(keep: Tensor) -> float:
    return int(keep.sum()) / keep.numel()


def normal(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def dtype() -> torch.dtype:
    return torch.bfloat16 if torch.cuda.is_available() else torch.float32
