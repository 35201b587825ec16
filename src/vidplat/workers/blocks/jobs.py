"""One video on a model that makes it block by block; for all others see `generate.py`.

The driver is stream.py. Of a job's point it gets `point.steps` of the model's own steps for each
block (`vidplat.methods.blocks.chosen_steps`); of an edit, the source's latents to start from, and
with the method `lipar` the mask of what the source repeats, in its causal form.

Progress counts passes: each block's steps, and the one that remembers it. Between passes the job
can be cancelled. Before each block the rest is counted against `finish_by`, at the pace of this
run's passes, and if it does not fit, the blocks to come take fewer steps; they never take more
again. A block under way is not shortened. The first blocks attend to less and are a little faster
than those to come, which the count does not know.

Left out: all blocks are decoded together at the end, since a job's video is one file.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from vidplat.domain import OperatingPoint
from vidplat.errors import MethodRefused, SpecError
from vidplat.methods.blocks import chosen_steps, spans, spread
from vidplat.methods.kinds import Task, Values
from vidplat.methods.language import parse, unsuited
from vidplat.methods.lipar.mask import MaskRule, keep_mask
from vidplat.methods.model_shape import Blocks, latent_frames
from vidplat.stages import DECODE, DENOISE, ENCODE
from vidplat.workers.blocks.memory import Window
from vidplat.workers.blocks.stream import StreamPlan, stream
from vidplat.workers.making import (
    Ask,
    Cancelled,
    Control,
    Made,
    Pace,
    Source,
    Stopwatch,
    check_finite,
    check_promise,
    conditioned,
    told_of_tiles,
)
from vidplat.workers.models.family import MakesBlocks


@torch.inference_mode()
def generate_blocks(family: MakesBlocks, ask: Ask) -> Made:
    """Make one video. What is raised is as in `generate`; `steps_done` is the mean of the blocks'
    steps, and `control.min_steps` holds for each block."""
    spec, source, tell, blocks = ask.spec, ask.source, ask.control.on_step, family.blocks
    plan = plan_of(blocks, ask.point, 1.0 if source is None else source.strength)
    frames = latent_frames(spec.num_frames, family.temporal_factor)
    pruning = _pruning(blocks, ask.point, source, frames)
    watch = Stopwatch()
    walk = _Walk(plan.steps, len(spans(blocks, frames)), ask.control)

    # 1. Encode.
    tell(ENCODE, 0, walk.total)
    condition = conditioned(family, ask.prompt, ask.negative_prompt, spec.guidance_scale)
    watch.lap(ENCODE)

    # 2. Denoise, block after block.
    model, keep, recovery = family.transformers[0], None, "noise-aware"
    clean = torch.zeros_like(family.noise(spec)) if source is None else source.latents
    if pruning is not None:
        keep, recovery = _mask(model, blocks, pruning, clean), pruning["recovery"]
        if recovery == "auto":  # the memory has clean keys: nothing speaks against them
            recovery = "noise-aware"
    walk.begin()
    made = stream(
        model,
        condition,
        clean,
        plan,
        seed=spec.seed,
        keep=keep,
        recovery=recovery,
        next_steps=walk.next_steps,
        on_passes=walk.passed,
    )
    latents = torch.cat(list(made), dim=2)
    check_finite(latents, f"{len(walk.taken)} blocks")
    watch.lap(DENOISE)

    # 3. Decode and check.
    tell(DECODE, walk.total, walk.total)
    pixels = family.decode(latents)
    watch.lap(DECODE)
    check_promise(pixels, spec)
    steps_done = max(1, round(mean(len(steps) for steps in walk.taken)))
    facts = {} if keep is None else {"kept_share": kept_share(keep, plan)}
    facts |= told_of_tiles(family)
    return Made(pixels, latents, steps_done, walk.sigmas(plan), watch.phases, walk.total, facts)


def plan_of(blocks: Blocks, point: OperatingPoint, strength: float = 1.0) -> StreamPlan:
    """How the driver makes a video at `point`. Raises `SpecError` for points that such a model does
    not have."""
    try:
        steps = chosen_steps(blocks, point.steps, strength)
    except ValueError as problem:
        raise SpecError(str(problem)) from problem
    window = Window(blocks.sink, blocks.recent, blocks.trained)
    return StreamPlan(block=blocks.frames, steps=steps, shift=blocks.shift, window=window)


def _pruning(
    blocks: Blocks, point: OperatingPoint, source: Source | None, frames: int
) -> Values | None:
    """The values of `lipar` where it is asked for. Raises `MethodRefused` for what cannot be."""
    if not point.accelerator:
        return None
    if why := unsuited(
        point.accelerator, Task(frames, point.steps, is_edit=source is not None, in_blocks=True)
    ):
        raise MethodRefused(why)
    if blocks.recent <= blocks.frames:
        raise MethodRefused(
            "lipar cannot be used here: no block sees the frame before it, whose keys pruned "
            "tokens get"
        )
    return parse(point.accelerator)[0].values


def _mask(model: Any, blocks: Blocks, pruning: Values, latents: Tensor) -> Tensor:
    """(F, h, w) bool of clean latents (1, C, F, H, W), True where tokens run; the first block is
    kept by the driver."""
    _, rows, columns = model.config.patch_size
    rule = MaskRule(
        pruning["tau1"], pruning["tau2"], blocks.frames, causal=True, min_keep=pruning["min_keep"]
    )
    return keep_mask(latents[0], (rows, columns), rule)


def kept_share(keep: Tensor, plan: StreamPlan) -> float:
    """Of all tokens, those that run under a mask (F, h, w): blocks that the driver makes whole
    count whole."""
    whole = keep.clone()
    for number, start in enumerate(range(0, len(keep), plan.block)):
        if number % plan.refresh == 0:
            whole[start : start + plan.block] = True
    return float(whole.float().mean())


class _Walk:
    """Counts a video's passes, tells of them, listens for a cancel, shortens blocks when late."""

    def __init__(self, steps: tuple[float, ...], blocks: int, control: Control) -> None:
        self._steps, self._blocks, self._control = steps, blocks, control
        self._pace: Pace  # from `begin` on
        self.done, self.total = 0, blocks * (len(steps) + 1)
        self.taken: list[tuple[float, ...]] = []  # the steps of each block that was begun

    def begin(self) -> None:
        """Denoising starts now: passes are timed from here."""
        self._pace = Pace(replace(self._control, min_steps=1))
        self._control.on_step(DENOISE, 0, self.total)
        self._look()

    def next_steps(self) -> tuple[float, ...]:
        """The steps of the next block; asked once for each."""
        left = self._blocks - len(self.taken)
        fit = self._pace.affordable(self.done, left * (len(self._steps) + 1)) // left - 1
        count = min(len(self._steps), max(fit, self._control.min_steps, 1))
        if count < len(self._steps):
            self._steps = spread(self._steps, count)
            self.total = self.done + left * (count + 1)
        self.taken.append(self._steps)
        return self._steps

    def passed(self, count: int) -> None:
        """After each pass, or after the passes that a copied block was spared."""
        self.done += count
        if count == 1:  # a copied block says nothing about the pace of a pass
            self._pace.step_done()
        self._control.on_step(DENOISE, self.done, self.total)
        if self.done < self.total:
            self._look()

    def sigmas(self, plan: StreamPlan) -> tuple[float, ...]:
        """The levels of a block and where it ends; of all in turn when they are not alike."""
        each = self.taken if len(set(self.taken)) > 1 else self.taken[:1]
        return tuple(sigma for steps in each for sigma in (*replace(plan, steps=steps).sigmas, 0.0))

    def _look(self) -> None:
        if self._control.is_cancelled():
            raise Cancelled(f"cancelled after {self.done} of {self.total} passes")
