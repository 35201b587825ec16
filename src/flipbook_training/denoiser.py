"""Trains flipbook's transformers by flow matching on latents of world videos.

x_sigma = (1 - sigma) x_0 + sigma * noise; the network learns noise - x_0 (as in Wan 2.1), its time
input is 1000 sigma. A tenth of the captions is empty, for classifier-free guidance. Most steps see
32x32 videos, the last part 64x64; in both a part has 65 frames. Latents are encoded once, at the
start of each stage, and kept on disk. What is saved is an exponential moving average of the
weights.

Axes: B clips, C latent channels, F latent frames, H and W latent rows and columns.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

from flipbook_training import world
from flipbook_training.text import WIDTH, embed, embed_all
from flipbook_training.vae import CHANNELS
from vidplat.training import ranks
from vidplat.training.runs import (
    Say,
    load_checkpoint,
    needed_checkpoint,
    run_steps,
    save_checkpoint,
)
from vidplat.training.student import Student

FIRST_SEED = 2_000_000_000  # away from the autoencoder's clips
TRAIN_SHIFT = 2.5
EMPTY_SHARE = 0.1
#: How often clips of a motion class are drawn, relative to others: paths that turn are learnt last.
OFTEN = {"orbit": 3.0, "bounce": 1.5, "dash": 1.5}
OFTEN_TWO = 2.0  # times that for two things, which must each keep their own words


@dataclass(frozen=True)
class Size:
    """One of the two transformers."""

    name: str
    layers: int
    heads: int


CLOUD = Size("flipbook", layers=6, heads=6)
EDGE = Size("flipbook-edge", layers=4, heads=4)


@dataclass(frozen=True)
class Part:
    """Clips of one length: `frames` long, `clips` in the data set, `batch` at a time, `often` in
    ten steps.

    With `first`, only so many latent frames from the start: the autoencoder is causal, so they are
    the latents of the shorter clip. More scenes fit into a step, which is what colours and shapes
    are learnt from. `hard` clips are those with an orbit or two things alone: a tenth and a sixth
    of all scenes, too few of them to learn more than by heart.
    """

    frames: int
    clips: int
    batch: int
    often: int
    first: int | None = None
    hard: bool = False


@dataclass(frozen=True)
class Stage:
    """Up to which share of the run, how large the videos are, and which lengths are mixed."""

    until: float
    side: int
    parts: tuple[Part, ...]


STAGES = (
    Stage(0.20, 32, (Part(33, 6000, 16, 8), Part(65, 1200, 8, 2))),
    Stage(0.60, 64, (Part(33, 3600, 6, 4), Part(33, 8000, 20, 5, first=3), Part(65, 600, 3, 1))),
    Stage(
        1.00,
        64,
        (
            Part(33, 8000, 8, 6, hard=True),
            Part(33, 3600, 6, 2),
            Part(33, 8000, 20, 1, first=3),
            Part(65, 600, 3, 1),
        ),
    ),
)


def new_transformer(size: Size) -> WanTransformer3DModel:
    return WanTransformer3DModel(
        patch_size=(1, 1, 1),
        num_attention_heads=size.heads,
        attention_head_dim=32,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        text_dim=WIDTH,
        freq_dim=128,
        ffn_dim=size.heads * 32 * 4,
        num_layers=size.layers,
        rope_max_seq_len=64,
    )


# --- data --------------------------------------------------------------------------------------


def latent_scale(vae: AutoencoderKLWan) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per channel, each (C, 1, 1, 1)."""
    mean, spread = (
        torch.tensor(x).view(-1, 1, 1, 1) for x in (vae.config.latents_mean, vae.config.latents_std)
    )
    return mean, spread


@dataclass(frozen=True)
class Clips:
    """A data set: normalised latents (clips, C, F, H, W), text embeddings (clips, tokens, width),
    both float16, and the chance of each clip to be drawn."""

    latents: Tensor
    states: Tensor
    chances: NDArray[np.float64]


@torch.no_grad()
def encoded(
    vae: AutoencoderKLWan,
    tokenizer: PreTrainedTokenizerFast,
    encoder: UMT5EncoderModel,
    folder: Path,
    *,
    part: Part,
    side: int,
    say: Say,
) -> Clips:
    """The clips of a part, kept on disk; encoded now where they are not there yet."""
    first = f"-first-{part.first}" if part.first else ""
    name = f"{side}-{part.frames}{first}{'-hard' if part.hard else ''}"
    path = folder / f"latents-{name}.pt"
    shown = part.frames if part.first is None else 4 * (part.first - 1) + 1  # pixel frames
    saved = load_checkpoint(path)
    latents = [] if saved is None else [*saved["latents"]]
    captions = [] if saved is None else saved["captions"]
    mean, spread = latent_scale(vae)
    group = 8 if side * shown <= 32 * 33 else 2
    seeds = _seeds(part, part.clips + group)
    while len(latents) < part.clips:
        texts, videos = [], []
        for number in range(len(latents), len(latents) + group):
            text, video = world.example(
                seeds[number], num_frames=part.frames, height=side, width=side
            )
            texts.append(text)
            videos.append(video[:shown])
        pixels = torch.from_numpy(np.stack(videos)).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
        found = vae.encode(pixels).latent_dist.mode()
        latents.extend(((found - mean) / spread).half())
        captions = [*captions, *texts]
        if len(latents) % 1000 < group:
            say(f"latents {name}: {len(latents)} of {part.clips}")
            save_checkpoint(path, {"latents": torch.stack(latents), "captions": captions})
    if ranks.rank() == 0:
        save_checkpoint(path, {"latents": torch.stack(latents), "captions": captions})
    states = embed_all(tokenizer, encoder, captions).half()
    shares = np.array([_often(world.parse(caption)) for caption in captions[: part.clips]])
    return Clips(torch.stack(latents)[: part.clips], states[: part.clips], shares / shares.sum())


def _seeds(part: Part, count: int) -> list[int]:
    """The first `count` seeds of the scenes of a part."""
    seeds: Iterable[int] = itertools.count(FIRST_SEED)
    if part.hard:
        seeds = (s for s in seeds if _hard(world.draw_scene(np.random.default_rng(s))))
    return list(itertools.islice(seeds, count))


def _hard(scene: world.Scene) -> bool:
    return any(
        len(shot.things) > 1 or shot.things[0].motion.kind == "orbit" for shot in scene.shots
    )


def _often(scene: world.Scene) -> float:
    many = any(len(shot.things) > 1 for shot in scene.shots)
    return OFTEN.get(scene.motion_class, 1.0) * (OFTEN_TWO if many else 1.0)


# --- training ----------------------------------------------------------------------------------


def shifted(even: Tensor) -> Tensor:
    """Levels of noise of evenly drawn numbers in [0, 1): more time at high noise, where motion is
    decided."""
    return TRAIN_SHIFT * even / (1 + (TRAIN_SHIFT - 1) * even)


def train_denoiser(
    size: Size,
    vae: AutoencoderKLWan,
    tokenizer: PreTrainedTokenizerFast,
    encoder: UMT5EncoderModel,
    folder: Path,
    *,
    steps: int,
    say: Say,
    lr: float = 2e-3,
    seed: int = 0,
    bfloat16: bool = False,
) -> WanTransformer3DModel:
    """Train or go on training; returns the averaged model. `folder` keeps <name>.pt and the encoded
    clips."""
    torch.manual_seed(seed)
    student = Student(new_transformer(size), lr, bfloat16=bfloat16)
    with torch.no_grad():
        empty = embed(tokenizer, encoder, [""])[0]
    data: dict[tuple[int, Part], Clips] = {}

    def one_step(step: int) -> dict[str, float]:
        rng = np.random.default_rng([seed, 11, step, ranks.rank()])
        torch.manual_seed((seed * 1_000_003 + step) * 64 + ranks.rank())
        stage = next(stage for stage in STAGES if step < stage.until * steps)
        turn = step % 10
        part = [part for part in stage.parts for _ in range(part.often)][turn]
        if (stage.side, part) not in data:
            with ranks.rank_0_first():
                data[stage.side, part] = encoded(
                    vae, tokenizer, encoder, folder, part=part, side=stage.side, say=say
                )
        clips, batch = data[stage.side, part], part.batch
        picked = torch.from_numpy(rng.choice(len(clips.chances), size=batch, p=clips.chances))
        clean, text = clips.latents[picked].float(), clips.states[picked].float()
        text = torch.where(torch.rand(batch, 1, 1) < EMPTY_SHARE, empty, text)
        sigma = shifted(torch.rand(batch))
        noise = torch.randn_like(clean)
        at = sigma.view(-1, 1, 1, 1, 1)
        with student.products():
            made = student.model((1 - at) * clean + at * noise, sigma * 1000, text).sample
        loss = (made.float() - (noise - clean)).pow(2).mean()
        student.learn(loss, step, steps)
        return {"loss": loss.item()}

    path = folder / f"{size.name}.pt"
    run_steps(size.name, student, steps=steps, path=path, one_step=one_step, say=say)
    return student.average.eval()


def trained_denoiser(size: Size, folder: Path) -> WanTransformer3DModel:
    """The averaged model of the last checkpoint, finished or not."""
    saved = needed_checkpoint(folder / f"{size.name}.pt", "run its training")
    model = new_transformer(size)
    model.load_state_dict(saved["average"])
    return model.eval()
