"""Block-causal video: S latent frames after S latent frames, each made once from those before it.

For every block, from noise or from the block of a source video (SDEdit, arXiv 2108.01073):

1. noise: x = (1 - sigma) X + sigma eps at the first level of the plan's steps;
2. per step: velocity from the network, which reads finished frames from its memory; x0 = x - sigma
   v; unless it was the last, x = (1 - sigma') x0 + sigma' eps' with fresh noise;
3. remember: one pass over x0 at time 0 writes clean keys and values (`memory.py`).

So a block costs steps + 1 passes, and memory is bounded by the window however long the stream is.
This is how Self-Forcing (arXiv 2506.08009) runs its causal Wan 2.1; the models are diffusers'
`WanTransformer3DModel` throughout.

With a mask (`methods/lipar/mask.py`) this is LIPAR (arXiv 2603.05811): pruned tokens do not run,
attention gets their keys back from the memory, and their x0 is the x0 of the frame before. That is
the paper's copy of v and x: in the last step both have the same level, and what pruned places hold
in between is not read. A block that keeps nothing is copied without any pass. The first block, and
every `refresh`-th, is not pruned (our choice).

Legend: C channels, T latent frames (S in a block), H/W latent and h/w token rows and columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from vidplat.methods.lipar.mask import repeated
from vidplat.workers.blocks.memory import BlockMemory, Window
from vidplat.workers.models.family import Condition


@dataclass(frozen=True)
class StreamPlan:
    """How a stream is made. The defaults are those of Self-Forcing with LIPAR's editing steps."""

    block: int = 3  # S
    # Thousandths of the schedule, before the shift; 1000 first: from noise.
    steps: tuple[float, ...] = (400, 300, 250)
    shift: float = 5.0
    window: Window = field(default_factory=Window)
    refresh: int = 16  # blocks after which one is made whole, to stop drift

    def __post_init__(self) -> None:
        if self.block < 1 or not self.steps or list(self.steps) != sorted(self.steps, reverse=True):
            raise ValueError(
                f"a stream needs blocks of at least 1 frame and falling steps, not {self}"
            )
        if not 0 < self.steps[-1] <= self.steps[0] <= 1000:
            raise ValueError(f"steps lie above 0 and at most at 1000, not {self.steps}")

    @property
    def sigmas(self) -> tuple[float, ...]:
        """The levels of noise: shift t / (1 + (shift - 1) t)."""
        return tuple(
            self.shift * t / (1 + (self.shift - 1) * t)
            for t in (step / 1000 for step in self.steps)
        )


@torch.inference_mode()
def stream(
    model: Any,
    condition: Condition,
    source: Tensor,
    plan: StreamPlan = StreamPlan(),
    *,
    seed: int = 0,
    keep: Tensor | None = None,
    recovery: str = "noise-aware",
    next_steps: Callable[[], tuple[float, ...]] | None = None,
    on_passes: Callable[[int], None] = lambda count: None,
) -> Iterator[Tensor]:
    """Finished blocks, latents (1, C, S, H, W) float32 each; the last one may have fewer frames.

    `source` (1, C, T, H, W) clean normalised latents; with a first step of 1000 only its shape
    matters. `keep` (T, h, w) bool is the mask; None for no pruning. `recovery` is explained in
    memory.py. The same seed draws the same noise with and without a mask. `next_steps` is asked
    before each block for the steps it takes, in place of the plan's. `on_passes` hears after each
    pass, and how many a copied block was spared; what it raises ends the stream.
    """
    patch = model.config.patch_size
    rows, columns = source.shape[3] // patch[1], source.shape[4] // patch[2]
    memory = BlockMemory(model, rows, columns, plan.window, recovery)
    generator = torch.Generator("cpu").manual_seed(seed)
    last: Tensor | None = None  # the frame before the block, (1, C, H, W)
    with memory.installed():
        for start in range(0, source.shape[2], plan.block):
            if next_steps is not None:
                plan = replace(plan, steps=next_steps())
            part = source[:, :, start : start + plan.block]
            mask = _mask_of(keep, start, part.shape[2], plan)
            memory.begin(start, part.shape[2], None if recovery == "exact" else mask)
            # Drawn for copied blocks too, so that masks do not change later noise.
            noises = [
                torch.randn(part.shape, generator=generator).to(part.device) for _ in plan.steps
            ]
            if mask is not None and last is not None and not bool(mask.any()):
                done = last[:, :, None].expand_as(part).clone()
                memory.copy_on()
                on_passes(len(plan.steps) + 1)
            else:
                done = _denoised(model, condition, part, plan, noises, mask, last, on_passes)
                memory.mode = "remember"
                _velocity(model, condition, done, 0.0, step=len(plan.steps), remember=True)
                memory.finish()
                on_passes(1)
            last = done[:, :, -1]
            yield done


def _mask_of(keep: Tensor | None, start: int, frames: int, plan: StreamPlan) -> Tensor | None:
    """The block's part of the mask; None when all of it runs."""
    if keep is None or (start // plan.block) % plan.refresh == 0:
        return None
    mask = keep[start : start + frames]
    return None if bool(mask.all()) else mask


def _denoised(
    model: Any,
    condition: Condition,
    part: Tensor,
    plan: StreamPlan,
    noises: Sequence[Tensor],
    mask: Tensor | None,
    last: Tensor | None,
    on_passes: Callable[[int], None],
) -> Tensor:
    """The clean latents of one block."""
    clean = part
    for step, (sigma, noise) in enumerate(zip(plan.sigmas, noises, strict=True)):
        x = (1.0 - sigma) * clean + sigma * noise
        clean = x - sigma * _velocity(model, condition, x, sigma, step=step)
        if mask is not None:
            clean = repeated(clean, mask, last)
        on_passes(1)
    return clean


def _velocity(
    model: Any,
    condition: Condition,
    latents: Tensor,
    sigma: float,
    *,
    step: int,
    remember: bool = False,
) -> Tensor:
    """One pass per branch at time 1000 sigma; a remember pass needs no guided answer."""

    def made(branch: str, text: Tensor) -> Tensor:
        with model.cache_context(branch, step_index=step):
            times = torch.full((1,), 1000.0 * sigma, device=latents.device)
            answer: Tensor = model(
                hidden_states=latents.to(model.dtype),
                timestep=times,
                encoder_hidden_states=text,
                return_dict=False,
            )[0]
        return answer.float()

    told = made("cond", condition.text)
    if condition.negative is None:
        return told
    untold = made("uncond", condition.negative)
    return told if remember else untold + condition.guidance_scale * (told - untold)
