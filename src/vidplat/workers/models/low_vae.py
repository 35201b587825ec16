"""A Wan VAE at a lower resolution with the same weights: quick previews, and latents of those.

Between a latent cell and its pixels lie spatial steps of two. Of a copy of the VAE the `level`
steps nearest to the latents are taken out, in decoder and encoder alike: latents of the same shape
then stand for frames of half the height and width (level 1) or a quarter (level 2). Steps in time
stay. Convolutions are used as they are (VGDFR, arXiv 2504.12259, which takes one step out of
HunyuanVideo's).

What is left of a step does what it would do to pictures without finer detail: doubling is followed
by the mean over 2 x 2 pixels, halving preceded by their repetition; likewise the copy of a block's
input that Wan 2.2's VAE adds beside the step. VGDFR's code keeps the convolution alone: flipbook's
latents came back at 7.4 and 8.0 of 255 from two clips that way, at 3.1 and 4.1 this way, at 1.8 and
2.2 through the VAE itself.

The 2 x 2 pixel patches of Wan 2.2's VAE are no such step and stay.

The copy shares all parameters and buffers with the VAE it is made of, which is left as it is.

`decoded` lets it take several latent frames in a pass: single ones mostly wait between kernels.
"""

from __future__ import annotations

import copy
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

# latent frames in a pass; flipbook takes 1, 0.81, 0.72 and 0.67 of the time with 1, 2, 4 and 16
AT_ONCE = 4


def decoded(vae: Any, latents: Tensor) -> Tensor:
    """`vae.decode` of latents (B, C, F, H, W), but for rounding: (B, 3, t (F - 1) + 1, s H, s W).

    An `AutoencoderKLWan` decodes one latent frame after the other, with what its causal
    convolutions must remember of those before in `_feat_map`. They take more than one as they come;
    only the first stands for a single frame and goes alone. Memory grows as many times. A VAE that
    decodes in tiles does so here too, one by one.
    """
    from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify

    if vae.use_tiling:
        tiled: Tensor = vae.decode(latents, return_dict=False)[0]
        return tiled
    vae.clear_cache()
    x = vae.post_quant_conv(latents)
    made: list[Tensor] = []
    for part in (x[:, :, :1], *x[:, :, 1:].split(AT_ONCE, 2)):
        if part.shape[2]:
            vae._conv_idx = [0]
            made.append(
                vae.decoder(
                    part, feat_cache=vae._feat_map, feat_idx=vae._conv_idx, first_chunk=not made
                )
            )
    vae.clear_cache()
    video = torch.cat(made, 2)
    if vae.config.patch_size is not None:
        video = unpatchify(video, patch_size=vae.config.patch_size)
    clamped: Tensor = video.clamp(-1.0, 1.0)
    return clamped


def lowered(vae: Any, level: int) -> Any:
    """A copy of an `AutoencoderKLWan` that works at 1 / 2^level of its resolution. Raises
    `ValueError` when it cannot.

    Decodes latents (B, C, F, H, W) to (B, 3, t (F - 1) + 1, s H, s W) with s the spatial factor
    over 2^level, and encodes such frames to latents of that shape.
    """
    steps = min(map(len, _steps(vae)))
    if not 0 <= level <= steps:
        raise ValueError(f"this VAE can work at level 0 to {steps}, not {level}")
    shared = chain(vae.parameters(), vae.buffers())
    low = copy.deepcopy(vae, {id(tensor): tensor for tensor in shared})
    ups, downs = _steps(low)
    for block, step in ups[:level]:
        step.resample.append(nn.AvgPool2d(2))
        if getattr(block, "avg_shortcut", None) is not None:
            block.avg_shortcut = _ThenHalved(block.avg_shortcut)
    for block, step in downs[::-1][:level]:
        step.resample.insert(0, _Doubled())
        if getattr(block, "avg_shortcut", None) is not None:
            block.avg_shortcut = nn.Sequential(_Doubled(), block.avg_shortcut)
    low.spatial_compression_ratio //= 2**level
    for name in ("min_height", "min_width", "stride_height", "stride_width"):
        # Tiles of as many latent cells.
        setattr(low, f"tile_sample_{name}", getattr(low, f"tile_sample_{name}") // 2**level)
    return low


def _steps(vae: Any) -> tuple[list[tuple[Any, Any]], list[tuple[Any, Any]]]:
    """The spatial steps of its decoder, and those of its encoder."""
    return (
        _resamplers(vae.decoder.up_blocks, "upsampler"),
        _resamplers(vae.encoder.down_blocks, "downsampler"),
    )


def _resamplers(blocks: Any, name: str) -> list[tuple[Any, Any]]:
    """The blocks that double or halve height and width, each with the module in it that does, an
    `upsampler` or a `downsampler`, in the order they run."""
    found = []
    for block in blocks:
        if getattr(block, name, None) is not None:  # Wan 2.2
            found.append((block, getattr(block, name)))
        elif getattr(block, f"{name}s", None) is not None:  # Wan 2.1's decoder
            found.append((block, getattr(block, f"{name}s")[0]))
        elif hasattr(block, "resample"):  # Wan 2.1's encoder: the step is a block of its own
            found.append((block, block))
    return found


class _ThenHalved(nn.Module):
    """A shortcut that doubles height and width, and the mean over 2 x 2 pixels of what it gives."""

    def __init__(self, shortcut: nn.Module) -> None:
        super().__init__()
        self.shortcut = shortcut

    def forward(self, x: Tensor, first_chunk: bool = False) -> Tensor:
        doubled = self.shortcut(x, first_chunk=first_chunk)
        return nn.functional.avg_pool3d(doubled, (1, 2, 2))


class _Doubled(nn.Module):
    """Each pixel 2 x 2 times, in the last two axes."""

    def forward(self, x: Tensor) -> Tensor:
        return x.repeat_interleave(2, -2).repeat_interleave(2, -1)
