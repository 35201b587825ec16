"""Trains flipbook-causal: flipbook that makes three latent frames from those before them.

    python -m flipbook_training.causal CLIPS CHECKPOINTS TARGET [--steps 600] [--bfloat16]
    [--threads 1]

Starts from flipbook's finished transformer and goes on with teacher forcing over blocks: one
sequence holds the clean frames of a clip and its noisy frames. A clean block sees itself and its
window of clean frames; a noisy block sees itself and the same window of clean frames, with a noise
level of its own. That is what the sampler of `workers/blocks` does with its memory, so windows
and places in time are taken from there. A clean token's time is 0, as in the sampler's remember
pass.

Axes: B clips, C latent channels, F latent frames, P tokens per frame, N = F P.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import WanTransformer3DModel
from torch import Tensor
from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

from flipbook_training.denoiser import EMPTY_SHARE, shifted
from flipbook_training.flipbook import write_json
from flipbook_training.malloc import keep_freed_memory
from flipbook_training.text import embed, embed_all
from vidplat.methods.blocks import document
from vidplat.methods.model_shape import Blocks
from vidplat.methods.protocol import Grid
from vidplat.methods.seams.attention import Attend, AttentionCall, linked
from vidplat.methods.seams.layouts import layout_of
from vidplat.methods.seams.layouts.wan_tables import Tables, tables_of
from vidplat.training.runs import Say, needed_checkpoint, run_steps, say
from vidplat.training.student import Student
from vidplat.workers.blocks.memory import Window
from vidplat.workers.models.catalogue import locate
from vidplat.workers.models.loading import load_family
from vidplat.workers.models.model_files import CAUSAL

NAME = "flipbook-causal"
BLOCK = 3
CLIP_FRAMES = 9  # latent frames of the clips: positions in time beyond them are not trained
STEPS = 6  # of a block; 12 show no more of a prompt
GUIDANCE = 3.0  # at twice the passes of 1, which leaves prompts less well shown: see the model card
BATCH = 4


def groups(frames: int, block: int, window: Window) -> list[tuple[list[int], list[int]]]:
    """Who sees whom, of 2F frames, clean ones first then noisy: per block the frames that ask and
    those they see."""
    found: list[tuple[list[int], list[int]]] = []
    for first in (0, frames):
        for start in range(0, frames, block):
            own = [first + frame for frame in range(start, min(start + block, frames))]
            found.append((own, window.held(start, len(own)) + own))
    return found


@contextmanager
def teacher_forced(model: Any, grid: Grid, window: Window, block: int = BLOCK) -> Iterator[None]:
    """Within this context a call with 2F frames is one of F clean and F noisy ones; `grid` is that
    of the F."""
    tables: Tables = tables_of(model, grid)
    both = (torch.cat([tables[0]] * 2, dim=1), torch.cat([tables[1]] * 2, dim=1))
    place = torch.arange(grid.per_frame)
    rows = [
        tuple((torch.tensor(frames)[:, None] * grid.per_frame + place).flatten() for frames in pair)
        for pair in groups(grid.frames, block, window)
    ]

    def link(call: AttentionCall, rest: Attend) -> Tensor:
        turned = replace(call, rotary=both).rotated()
        parts = [
            rest(
                replace(
                    turned,
                    query=turned.query[:, asks],
                    key=turned.key.index_select(1, sees),
                    value=turned.value.index_select(1, sees),
                    rows=asks,
                )
            )
            for asks, sees in rows
        ]
        return torch.cat(parts, dim=1)  # the groups follow each other as the frames do

    layout = layout_of(model)
    with linked(layout.attentions(model), layout.processor, link):
        yield


def velocity(model: Any, clean: Tensor, noisy: Tensor, sigma: Tensor, text: Tensor) -> Tensor:
    """The answer for the noisy frames, (B, C, F, H, W); `sigma` (B, F) is their noise. Needs
    `teacher_forced`."""
    per_frame = (clean.shape[3] // model.config.patch_size[1]) * (
        clean.shape[4] // model.config.patch_size[2]
    )
    times = torch.cat([torch.zeros_like(sigma), 1000 * sigma], dim=1).repeat_interleave(
        per_frame, 1
    )
    both = torch.cat([clean, noisy], dim=2)
    answer: Tensor = model(
        hidden_states=both, timestep=times, encoder_hidden_states=text, return_dict=False
    )[0]
    return answer[:, :, clean.shape[2] :]


def train_causal(
    start: WanTransformer3DModel,
    tokenizer: PreTrainedTokenizerFast,
    encoder: UMT5EncoderModel,
    clips: Path,
    folder: Path,
    *,
    steps: int,
    say: Say,
    lr: float = 5e-4,
    seed: int = 0,
    bfloat16: bool = False,
) -> WanTransformer3DModel:
    """Go on training `start`, or from the checkpoint in `folder`; returns the averaged model.

    Data are the encoded 64x64 clips of 33 frames that flipbook's own training keeps in `clips`.
    """
    torch.manual_seed(seed)
    student = Student(deepcopy(start).train().requires_grad_(True), lr, bfloat16=bfloat16)
    saved = needed_checkpoint(clips / "latents-64-33.pt", "train flipbook")
    latents, captions = saved["latents"], saved["captions"]
    with torch.no_grad():
        texts = embed_all(tokenizer, encoder, captions)
        empty = embed(tokenizer, encoder, [""])[0]
    frames = latents.shape[2]
    blocks = -(-frames // BLOCK)
    grid = Grid(frames, latents.shape[3], latents.shape[4])

    def one_step(step: int) -> dict[str, float]:
        rng = np.random.default_rng([seed, 17, step])
        torch.manual_seed(seed * 1_000_003 + step)
        picked = torch.from_numpy(rng.integers(0, len(latents), size=BATCH))
        clean, text = latents[picked].float(), texts[picked]
        text = torch.where(torch.rand(BATCH, 1, 1) < EMPTY_SHARE, empty, text)
        sigma = shifted(torch.rand(BATCH, blocks)).repeat_interleave(BLOCK, 1)[:, :frames]
        noise = torch.randn_like(clean)
        at = sigma.view(BATCH, 1, frames, 1, 1)
        with student.products():
            made = velocity(student.model, clean, (1 - at) * clean + at * noise, sigma, text)
        loss = (made.float() - (noise - clean)).pow(2).mean()
        student.learn(loss, step, steps)
        return {"loss": loss.item()}

    path = folder / f"{NAME}.pt"
    with teacher_forced(student.model, grid, Window()):
        run_steps(NAME, student, steps=steps, path=path, one_step=one_step, say=say)
    return student.average.eval()


def settings(scheduler: Any) -> Blocks:
    """What the sampler must know of a model trained here: `STEPS` even steps over the schedule of
    `scheduler`."""
    window = Window()
    even = tuple(float(round(1000 * (STEPS - step) / STEPS)) for step in range(STEPS))
    return Blocks(
        BLOCK, even, float(scheduler.config.shift), window.sink, window.recent, CLIP_FRAMES
    )


def write(model: WanTransformer3DModel, flipbook: Path, target: Path, blocks: Blocks) -> None:
    """A pipeline directory with its own transformer in float16, and `causal.json`, by which it is
    known as causal.

    Beside flipbook's, where embedded models lie, the other parts are shared with it; elsewhere they
    are copied.
    """
    target.mkdir(parents=True, exist_ok=True)
    shipped = deepcopy(model).half()
    # Else the place on this machine that it was read from.
    shipped.register_to_config(_name_or_path=flipbook.name)
    shipped.save_pretrained(target / "transformer", safe_serialization=True)
    shutil.copy(flipbook / "model_index.json", target / "model_index.json")
    shutil.copytree(flipbook / "scheduler", target / "scheduler", dirs_exist_ok=True)
    defaults = json.loads((flipbook / "defaults.json").read_text("utf-8"))
    defaults |= {"num_inference_steps": len(blocks.steps), "guidance_scale": GUIDANCE}
    write_json(target / "defaults.json", defaults)
    write_json(target / CAUSAL, document(blocks))
    parts = ("vae", "text_encoder", "tokenizer")
    if target.resolve().parent == flipbook.resolve().parent:
        write_json(
            target / "shares.json", {part: f"../{flipbook.resolve().name}/{part}" for part in parts}
        )
        return
    for part in parts:
        shutil.copytree(flipbook / part, target / part, dirs_exist_ok=True)


def main() -> None:
    words = argparse.ArgumentParser(
        prog="python -m flipbook_training.causal", description="train flipbook-causal"
    )
    words.add_argument(
        "clips", type=Path, help="folder with latents-64-33.pt, flipbook's training clips"
    )
    words.add_argument(
        "checkpoints",
        type=Path,
        help="folder of this run's checkpoint; a stopped run goes on from it",
    )
    words.add_argument("target", type=Path, help="directory that receives the trained pipeline")
    words.add_argument("--steps", type=int, default=600)
    words.add_argument(
        "--bfloat16", action="store_true", help="bfloat16 products, where the processor has them"
    )
    words.add_argument("--threads", type=int, default=1)
    told = words.parse_args()
    torch.set_num_threads(told.threads)
    keep_freed_memory()

    located = locate("flipbook")
    family: Any = load_family(located, "cpu")

    trained = train_causal(
        family.transformer,
        family.tokenizer,
        family.text_encoder,
        told.clips,
        told.checkpoints,
        steps=told.steps,
        say=say,
        bfloat16=told.bfloat16,
    )
    write(trained, located.root, told.target, settings(family.scheduler))


if __name__ == "__main__":
    main()
