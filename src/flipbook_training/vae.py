"""Trains flipbook's video autoencoder on the synthetic world.

The network is diffusers' `AutoencoderKLWan` in its Wan 2.2 form (2x2 pixel patches and residual
down- and up-sampling), small: 8x in space, 4x in time, 48 channels. Lengths grow during the run
from single frames to 65, since a decoder that has seen only short clips drifts on long ones; a part
of every stage is 32x32, because the transformer learns there first.

Loss per value: |e| + 4 e^2 + 1e-4 KL(q(z|x) || N(0, 1)), e in [-2, 2]. The posterior is sampled, so
the decoder learns to bear small errors of the denoiser.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from flipbook_training import world
from vidplat.training.muon import Pair, warm_then_down
from vidplat.training.runs import Say, needed_checkpoint, run_steps

CHANNELS = 48
HELD_OUT = 10_000_000_000  # seeds from here on are never trained on

# (from this share of the run, ((frames, clips, side), ...) drawn with equal chance)
STAGES = (
    (0.00, ((1, 16, 64), (5, 4, 64), (5, 12, 32))),
    (0.30, ((5, 4, 64), (9, 3, 64), (17, 2, 64), (17, 6, 32))),
    (0.65, ((17, 2, 64), (33, 1, 64), (33, 4, 32))),
    (0.85, ((33, 2, 64), (65, 1, 64), (33, 4, 32))),
)


def new_vae() -> AutoencoderKLWan:
    return AutoencoderKLWan(
        base_dim=32,
        z_dim=CHANNELS,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=8,
        scale_factor_temporal=4,
        latents_mean=[0.0] * CHANNELS,
        latents_std=[1.0] * CHANNELS,
    )


def clips(frames: int, count: int, side: int, first_seed: int) -> Tensor:
    """Pieces of world videos, (count, 3, frames, side, side) float32 in [-1, 1], decided by the
    seeds alone."""
    pieces = []
    for seed in range(first_seed, first_seed + count):
        whole = 65 if frames > 33 else 33
        _, video = world.example(seed, num_frames=whole, height=side, width=side)
        start = int(np.random.default_rng([seed, 1]).integers(0, whole - frames + 1))
        pieces.append(video[start : start + frames])
    return torch.from_numpy(np.stack(pieces)).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def psnr_db(made: Tensor, true: Tensor) -> list[float]:
    """PSNR of each clip (peak 2, since values span [-1, 1])."""
    error = (made.clamp(-1, 1) - true).pow(2).flatten(1).mean(1)
    return [float(x) for x in 10 * torch.log10(4 / error)]


@torch.no_grad()
def held_out_psnr(
    vae: AutoencoderKLWan, *, frames: int = 33, count: int = 8, side: int = 64
) -> list[float]:
    true = clips(frames, count, side, HELD_OUT)
    return [
        psnr_db(vae.decode(vae.encode(x[None]).latent_dist.mode()).sample, x[None])[0] for x in true
    ]


def train_vae(
    folder: Path, *, steps: int, say: Say, lr: float = 2e-3, seed: int = 0
) -> AutoencoderKLWan:
    """Train or go on training; returns the finished model. `folder` keeps the checkpoint vae.pt."""
    torch.manual_seed(seed)
    vae = new_vae()
    pair = Pair(vae, lr)

    def one_step(step: int) -> dict[str, float]:
        torch.manual_seed(seed * 1_000_003 + step)
        sizes = [sizes for start, sizes in STAGES if step / steps >= start][-1]
        true = clips(*sizes[step % len(sizes)], first_seed=seed * 100_000_000 + step * 16)
        posterior = vae.encode(true).latent_dist
        error = vae.decode(posterior.sample()).sample - true
        kl = 0.5 * (posterior.mean.pow(2) + posterior.var - 1 - posterior.logvar).mean()
        loss = error.abs().mean() + 4 * error.pow(2).mean() + 1e-4 * kl
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        pair.step(warm_then_down(step, steps))
        facts = {"loss": loss.item(), "rmse": error.pow(2).mean().sqrt().item(), "kl": kl.item()}
        if step % 250 == 249:
            scores = held_out_psnr(vae, count=4)
            say(f"vae: step {step + 1}, held-out 33 frames {np.mean(scores):.2f} dB")
        return facts

    run_steps("vae", pair, steps=steps, path=folder / "vae.pt", one_step=one_step, say=say)
    return vae


def trained_vae(folder: Path) -> AutoencoderKLWan:
    """The model of the last checkpoint, finished or not."""
    vae = new_vae()
    vae.load_state_dict(needed_checkpoint(folder / "vae.pt", "run the VAE training")["model"])
    return vae.eval()


@torch.no_grad()
def set_latent_scale(vae: AutoencoderKLWan, folder: Path, *, count: int = 48) -> None:
    """Write mean and standard deviation per channel, over world clips, into the config; kept in
    latent-scale.json."""
    path = folder / "latent-scale.json"
    if not path.exists():
        found = [
            vae.encode(x[None]).latent_dist.mode()[0] for x in clips(33, count, 64, HELD_OUT - 1000)
        ]
        flat = torch.stack(found).permute(1, 0, 2, 3, 4).flatten(1)  # (C, values)
        spread = flat.std(1)
        # Unused channels stay small instead of becoming noise.
        spread = spread.clamp(min=float(spread.median()) * 0.1)
        path.write_text(
            json.dumps({"latents_mean": flat.mean(1).tolist(), "latents_std": spread.tolist()})
        )
    vae.register_to_config(**json.loads(path.read_text()))
