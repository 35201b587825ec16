"""Runs on a model of random weights: timed between two dense ones, or counted."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_methods.model import SEED, a_source, dtype, family_for, normal, share_of
from benchmarks.gpu_methods.ways import GUIDANCE, STRENGTH, Setting, Way, Work
from vidplat.methods.installed import Installed
from vidplat.methods.lipar.mask import MaskRule
from vidplat.methods.protocol import Grid, Run
from vidplat.workers.blocks.stream import StreamPlan, stream
from vidplat.workers.making import Source
from vidplat.workers.models.family import Condition
from vidplat.workers.survey.flops import Flops, counted
from vidplat.workers.survey.survey import peak_memory


@dataclass(frozen=True)
class Plan:
    """How long runs are, and how they are compiled."""

    steps: int  # of a whole run
    equal_steps: int  # timed where all steps cost the same
    compile_mode: str = "default"

    def timed(self, way: Way) -> int:
        """How many steps of a way are timed."""
        whole = max(1, int(self.steps * STRENGTH)) if way.edits else self.steps
        return whole if way.whole else min(whole, self.equal_steps)


@dataclass(frozen=True)
class Made:
    ms: float  # per step
    begin_ms: float
    peak_bytes: int
    latents: Tensor


@dataclass(frozen=True)
class Lap:
    """One timed run between two dense ones."""

    round: int
    ms: float  # per step
    dense_ms: float  # mean of the two
    begin_ms: float
    peak_bytes: int

    @property
    def ratio(self) -> float:
        return self.ms / self.dense_ms


class Bench:
    """A model of random weights, and runs on it."""

    def __init__(self, setting: Setting, plan: Plan) -> None:
        self.setting, self.plan = setting, plan
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.family = family_for(setting, self.device)
        self.model: Any = self.family.transformer
        self.installed = Installed(self.family.transformers)
        texts = (1, setting.shape.text_tokens, setting.text_width)
        text, negative = (normal(texts, SEED + n).to(self.device, dtype()) for n in (1, 2))
        self.condition = Condition(text, negative, GUIDANCE)
        self.noise = normal((1, 16, *setting.latents), SEED).to(self.device)
        self.source, self.keep = self._source(MaskRule(), 1)
        block = StreamPlan().block
        self.streamed_source, self.streamed_keep = self._source(
            MaskRule(block=block, causal=True), block
        )
        self.ends: dict[str, Tensor] = {}  # method -> where its last eager run ended, on the CPU
        self._dense: dict[bool, Made] = {}  # the dense run just made, of an edit or not
        self._calls: dict[str, list[Any]] = {}  # way -> compiled calls of its modules

    def run(self, way: Way, steps: int | None = None) -> Made:
        """The first `steps` of a run, by default as many as are timed."""
        self.installed.use(way.method)
        solver = self.family.solver(self.plan.steps)
        latents = self.noise[:, :, : way.frames or None].clone()
        if way.edits:
            solver.skip(Source(self.source, STRENGTH).skipped(solver.total))
            latents = solver.noised(self.source, latents)
        count = min(solver.remaining, steps or self.plan.timed(way))
        grid = Grid(*self.family.grid(latents))
        run = Run(solver, grid, 2, GUIDANCE, self.source if way.edits else None)
        with self._compiled(way), peak_memory(str(self.device)) as peak:
            with Timer(self.device) as begin:
                self.installed.begin(run)
                latents = self.installed.started(latents)
            with Timer(self.device) as timer:
                for _ in range(count):
                    velocity = self.family.velocity(latents, solver, self.condition)
                    latents = solver.advance(velocity, latents)
        if not bool(torch.isfinite(latents).all()):
            raise ValueError(f"the latents are not finite after {count} steps")
        return Made(timer.ms / count, begin.ms, peak.bytes, latents)

    def streamed(self, keep: Tensor | None) -> Made:
        """A block-causal edit without guidance, of three steps and one more pass for each block of
        three frames."""
        self.installed.use("")
        plan, condition = StreamPlan(), Condition(self.condition.text, None, 1.0)
        source = self.streamed_source
        with peak_memory(str(self.device)) as peak, Timer(self.device) as timer:
            blocks = list(stream(self.model, condition, source, plan, seed=SEED, keep=keep))
        return Made(timer.ms / len(plan.steps), 0.0, peak.bytes, torch.cat(blocks, dim=2))

    def warm(self, way: Way) -> tuple[Work | None, float]:
        """A run before those that are timed: what it takes, where that can be counted, and the
        share of tokens that LIPAR keeps."""
        if way.part == "stream":
            whole = self._counted(lambda: self.streamed(None))
            work = self._counted(lambda: self.streamed(self.streamed_keep))
            return _over(work, whole, 1), share_of(self.streamed_keep)
        if not way.is_counted:
            self.run(way)
            return None, 1.0
        taken = self.plan.timed(way) if way.whole else 1
        whole = self._counted(lambda: self.run(Way(way.part, ""), 1))
        work = self._counted(lambda: self.run(way, taken))
        return _over(work, whole, taken), share_of(self.keep) if way.edits else 1.0

    def lap(self, way: Way, number: int, on: Bench | None = None) -> Lap:
        """One timed run, on another model if told, between two dense ones here."""
        if way.part == "stream":
            laps = [self.streamed(keep) for keep in (None, self.streamed_keep, None)]
        else:
            base = Way(way.part, "")
            # the run after the last way serves for both
            before = self._dense.pop(way.edits, None) or self.run(base)
            self._dense.clear()
            if way.compiled and not way.method:
                self.run(way, 1)
            laps = [before, (on or self).run(way), self.run(base)]
            self._dense[way.edits] = laps[2]
        before, made, after = laps
        if not way.compiled:
            self.ends[way.method] = made.latents.cpu()
        has_second = on is not None and self.device.type == "cuda"
        second = sum(weight.nbytes for weight in self.model.parameters()) if has_second else 0
        dense_ms = (before.ms + after.ms) / 2
        return Lap(number, made.ms, dense_ms, made.begin_ms, made.peak_bytes - second)

    def clear(self) -> None:
        """The stock model, and as much memory as can be had."""
        self.installed.remove()
        self._dense.clear()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def forget_compiled(self) -> None:
        self._calls.clear()

    def _source(self, rule: MaskRule, first: int) -> tuple[Tensor, Tensor]:
        source, keep = a_source(self.setting.latents, rule, first)
        return source.to(self.device), keep.to(self.device)

    def _counted(self, action: Callable[[], object]) -> Flops:
        with counted(self.model) as found:
            action()
        return found

    @contextmanager
    def _compiled(self, way: Way) -> Iterator[None]:
        """Within this context the model, or with a method each of its blocks, is compiled.

        A method's hooks at the root decide from data which rows run, so they stay outside.
        """
        if not way.compiled:
            yield
            return
        parts: list[Any] = list(self.model.blocks) if way.method else [self.model]
        if way.name not in self._calls:
            for part in parts:
                part.compile(mode=self.plan.compile_mode)
            self._calls[way.name] = [part._compiled_call_impl for part in parts]
        for part, call in zip(parts, self._calls[way.name], strict=True):
            part._compiled_call_impl = call
        a_graph_for_each_layer = {"recompile_limit": 512, "accumulated_recompile_limit": 4096}
        try:
            with torch._dynamo.config.patch(a_graph_for_each_layer):
                yield
        finally:
            for part in parts:
                part._compiled_call_impl = None


class Timer:
    """Milliseconds of a context: of the device on CUDA, of this process on a CPU, where others may
    work."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self.ms = math.nan

    def __enter__(self) -> Timer:
        if self._cuda:
            torch.cuda.synchronize()
            self._first = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            self._last = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            self._first.record()
        else:
            self._since = time.process_time()
        return self

    def __exit__(self, *problem: object) -> None:
        if self._cuda:
            self._last.record()
            torch.cuda.synchronize()
            self.ms = self._first.elapsed_time(self._last)
        else:
            self.ms = 1e3 * (time.process_time() - self._since)


def _over(work: Flops, whole: Flops, times: int) -> Work:
    """Over so many times the whole."""
    return Work(
        work.linear / (whole.linear * times),
        work.attention / (whole.attention * times),
        work.total / (whole.total * times),
    )
