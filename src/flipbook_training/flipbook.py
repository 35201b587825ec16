"""Trains the embedded models from nothing and writes them as diffusers directories.

Order: autoencoder, text encoder, large transformer, small transformer; each goes on from its
checkpoint. `assemble` may be called at any time after a checkpoint of each exists, so a run in
progress can be looked at. `flipbook` is a whole `WanPipeline` directory; `flipbook-edge` has its
own transformer and shares the rest. Weights are stored as float16 safetensors.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline
from torch import nn

from flipbook_training import denoiser, text, vae
from flipbook_training.denoiser import CLOUD, EDGE, Size
from vidplat.training.runs import Say

#: Of the sampling sigmas. Without a last one of their own they run down to the least of training,
#: 0.009, and the last step does next to nothing (docs/decisions/0006-flipbook.md).
SIGMAS = {"shift": 3.0, "shift_terminal": 0.3}
DEFAULTS = {
    "width": 64,
    "height": 64,
    "num_frames": 33,
    "fps": 16,
    "num_inference_steps": 24,
    "guidance_scale": 6.0,
}
STEPS = {"vae": 1480, "text": 1500, CLOUD.name: 19_800, EDGE.name: 4000}


def train(
    folder: Path, *, say: Say, steps: dict[str, int] | None = None, bfloat16: bool = False
) -> None:
    """Train all four parts, each resumed from its checkpoint in `folder`."""
    steps = STEPS | (steps or {})
    vae.train_vae(folder, steps=steps["vae"], say=say)
    text.train_text(folder, steps=steps["text"], say=say)
    for size in (CLOUD, EDGE):
        train_size(size, folder, steps=steps[size.name], say=say, bfloat16=bfloat16)


def train_size(size: Size, folder: Path, *, steps: int, say: Say, bfloat16: bool = False) -> None:
    """Train one transformer on the finished autoencoder and text encoder of `folder`."""
    coder = vae.trained_vae(folder)
    vae.set_latent_scale(coder, folder)
    denoiser.train_denoiser(
        size,
        coder,
        text.new_tokenizer(),
        text.trained_text(folder),
        folder,
        steps=steps,
        say=say,
        bfloat16=bfloat16,
    )


def assemble(checkpoints: Path, target: Path) -> None:
    """Write `target`/flipbook and `target`/flipbook-edge from the checkpoints; the edge model only
    if it is trained."""
    coder = vae.trained_vae(checkpoints)
    vae.set_latent_scale(coder, checkpoints)
    pipeline = WanPipeline(
        tokenizer=text.new_tokenizer(),
        text_encoder=_half(text.trained_text(checkpoints)),
        vae=_half(coder),
        scheduler=FlowMatchEulerDiscreteScheduler(**SIGMAS),
        transformer=_half(denoiser.trained_denoiser(CLOUD, checkpoints)),
    )
    cloud = target / CLOUD.name
    _save(pipeline, cloud)
    if not (checkpoints / f"{EDGE.name}.pt").exists():
        return
    pipeline.register_modules(transformer=_half(denoiser.trained_denoiser(EDGE, checkpoints)))
    edge = target / EDGE.name
    _save(pipeline, edge)
    shared = ("vae", "text_encoder", "tokenizer")
    for part in shared:
        shutil.rmtree(edge / part)
    write_json(edge / "shares.json", {part: f"../{CLOUD.name}/{part}" for part in shared})


def _half(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for weight in model.parameters():
            weight.data = weight.data.half()
    return model


def _save(pipeline: WanPipeline, folder: Path) -> None:
    """Write the pipeline, keeping what else lies in `folder` (its profile and its card)."""
    pipeline.save_pretrained(folder, safe_serialization=True)
    write_json(folder / "defaults.json", DEFAULTS)


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
