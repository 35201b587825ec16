"""Milliseconds per step of the token methods on a GPU, beside the work that they leave. No weights
are needed.

    python benchmarks/gpu_methods.py [--rounds 3] [--steps 40] [--equal-steps 3] [--paths flex
    gather lse]
                                     [--only hsa,sparse,both,lipar,frames,stream] [--compile
                                     none|rival|all] [--small] [--out FILE]

Wan 2.1 1.3B as published, with random weights of seed 0 made on the device in bfloat16; 832x480, 81
frames, guided (two passes a step), Euler. No text encoder and no VAE: text states and latents are
random too. A machine without CUDA, or `--small`, takes a shrunk model and picture (float32 on a
CPU): a rehearsal, whose ratios say nothing about a GPU.

    hsa      HSA-75 (A and B), 50 and 25: whole runs of --steps, since their steps differ in cost
    sparse   k = 1, 3, 5 by each of the paths; all steps cost the same, so --equal-steps of them are
             timed
    both     HSA-50 and HSA-25 with k = 3
    lipar    video to video, a synthetic source of which 32 % of the tokens are pruned, in four
             forms of recovery
    frames   stock attention on K of the F latent frames, as a step of EcoVideo or VGDFR is after
             frames were left out: K = 6, 8, 11, 14, 16, 21 of 21
    stream   LIPAR's block-causal form, 32 % pruned against the unpruned stream of the same window

Every timed run lies between two of stock dense attention, and `time` is its time per step over
their mean: the median over rounds. Before its first round a way runs once untimed. `FLOPs` is
likewise what was counted while it ran then (`vidplat.workers.survey.flops`: linear and
self-attention of the blocks), or the closed form where nothing can be counted (flex, compiled);
both are in the JSON line. `rival` is the same time over that of the dense model compiled as a whole
by torch.compile. Each quotient over `FLOPs` is marked when it is within 15 % of 1: the method's
time is the time of its work. With `--compile all` each method is run with its blocks compiled as
well, on a second copy of the model.

What a method does once per video (`begin`: LIPAR's mask) is told apart and not in a step's time.
Out of memory or a refusal is a row with its reason. After an interrupt, and after SIGTERM, what was
measured is printed; with `--out` every measurement is appended to a file of JSON lines as it is
made. A round takes the time of about 250 dense steps, the untimed runs about 150 more: --only,
--paths and --steps 24 make it shorter.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import platform
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from vidplat.methods.hsa.schedule import Schedule, schedule_for
from vidplat.methods.installed import Installed
from vidplat.methods.kinds import Chosen
from vidplat.methods.language import parse
from vidplat.methods.lipar.mask import MaskRule, keep_mask
from vidplat.methods.protocol import Grid, Run
from vidplat.methods.seams.solver_choice import EulerScheduler
from vidplat.methods.vdit import tiles
from vidplat.workers.blocks.stream import StreamPlan, stream
from vidplat.workers.making import Source
from vidplat.workers.models.family import Condition
from vidplat.workers.models.wan import WanFamily
from vidplat.workers.survey.flops import Flops, counted
from vidplat.workers.survey.survey import peak_memory

WITHIN = 0.15  # of the FLOP ratio
LIPAR_BAR = 1.5  # times as fast as unpruned, on a GPU
PRUNED = 0.32  # of all tokens
PARTS = ("hsa", "sparse", "both", "lipar", "frames", "stream")
KEPT_OF_21 = (6, 8, 11, 14, 16, 21)  # latent frames
GUIDANCE, SHIFT, STRENGTH, SEED = 5.0, 3.0, 0.6, 0
RIVAL, STREAM = "dense compiled", "stream, pruned"


@dataclass(frozen=True)
class Setting:
    """A model and a video. `latents` are frames, rows and columns of latent cells; a token has 2x2
    of a frame."""

    name: str
    layers: int
    heads: int
    head_width: int
    ffn_width: int
    text_width: int
    text_tokens: int
    latents: tuple[int, int, int]
    steps: int

    @property
    def width(self) -> int:
        return self.heads * self.head_width

    @property
    def grid(self) -> Grid:
        frames, rows, columns = self.latents
        return Grid(frames, rows // 2, columns // 2)


FULL = Setting(
    "Wan 2.1 1.3B, random weights, 832x480, 81 frames",
    30,
    12,
    128,
    8960,
    4096,
    512,
    (21, 60, 104),
    40,
)
SMALL = Setting(
    "a small Wan, random weights, 128x96, 25 frames", 2, 4, 32, 512, 64, 16, (7, 12, 16), 24
)


@dataclass(frozen=True)
class Way:
    """One row. `whole`: its steps differ in cost, so a whole run is timed."""

    part: str
    method: str  # as `vidplat.methods.language` reads it; "" for stock attention
    whole: bool = False
    compiled: bool = False
    frames: int = 0  # latent frames; 0: all

    @property
    def edits(self) -> bool:
        """Whether it starts from the source."""
        return self.part == "lipar"

    @property
    def name(self) -> str:
        frames = f"{self.frames} latent frames" if self.frames else ""
        return (self.method or frames or "dense") + (" compiled" if self.compiled else "")

    @property
    def work_key(self) -> str:
        """Equal for ways that do the same work by different paths."""
        return "+".join(
            piece.partition(",path=")[0] for piece in (self.method or self.name).split("+")
        )

    @property
    def is_counted(self) -> bool:
        return not self.compiled and "path=flex" not in self.method


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


@dataclass
class Found:
    """All that is known of one way."""

    way: Way
    laps: list[Lap] = field(default_factory=list)
    work: tuple[float, float, float] | None = (
        None  # linear, attention and total FLOPs over those of dense, counted
    )
    kept: float = 1.0  # share of tokens that LIPAR keeps
    difference: float | None = None  # of compiled latents to eager ones, relative
    reason: str = ""


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument(
        "--steps", type=int, help="of a whole run; HSA-25 needs 21 or more. Default: 40, small 24"
    )
    words.add_argument(
        "--equal-steps", type=int, default=3, help="timed where all steps cost the same"
    )
    words.add_argument(
        "--paths", nargs="+", choices=("flex", "gather", "lse"), help="default: all on CUDA"
    )
    words.add_argument("--only", help=f"parts, separated by commas: {', '.join(PARTS)}")
    words.add_argument(
        "--compile", choices=("none", "rival", "all"), help="default: rival on CUDA, else none"
    )
    words.add_argument(
        "--compile-mode", default="default", help="torch.compile's, e.g. max-autotune-no-cudagraphs"
    )
    words.add_argument("--small", action="store_true", default=not torch.cuda.is_available())
    words.add_argument("--threads", type=int, default=1, help="on a CPU")
    words.add_argument("--out", type=Path, help="a file of JSON lines, one per measurement")
    told = words.parse_args()
    cuda = torch.cuda.is_available()
    told.compile = told.compile or ("rival" if cuda else "none")
    told.paths = told.paths or (["flex", "gather", "lse"] if cuda else ["gather", "lse"])
    setting = SMALL if told.small else FULL
    told.steps = told.steps or setting.steps
    parts = told.only.split(",") if told.only else list(PARTS)
    if unknown := set(parts) - set(PARTS):
        words.error(f"--only knows {', '.join(PARTS)}, not {', '.join(sorted(unknown))}")
    torch.set_num_threads(told.threads)
    signal.signal(signal.SIGTERM, _interrupted)
    print(
        f"{setting.name}; {_machine()}; torch {torch.__version__}, diffusers "
        f"{version('diffusers')}; seed {SEED}"
    )
    interrupted = False
    found: list[Found] = []
    with torch.inference_mode():
        try:
            _measure(Bench(setting, told), parts, told, found)
        except KeyboardInterrupt:
            interrupted = True
            _say("stopped: what follows was measured so far")
    rows = _rows(found, setting, told.steps)
    print("\n".join(_card(rows, told.steps, on_gpu=cuda and not told.small)))
    answer = {
        "benchmark": "gpu_methods",
        "setting": asdict(setting),
        "dtype": str(_dtype()).removeprefix("torch."),
        **{
            key: str(value) if isinstance(value, Path) else value
            for key, value in vars(told).items()
        },
        "interrupted": interrupted,
        "rows": rows,
        "seed": SEED,
        "machine": _machine(),
        "versions": {name: version(name) for name in ("torch", "diffusers", "vidplat")}
        | {"cuda": torch.version.cuda},
    }
    print(json.dumps(answer))


def ways(parts: Sequence[str], paths: Sequence[str], latents: int = 21) -> list[Way]:
    """All rows but the dense ones, in the order they are run."""
    made: list[Way] = []
    for part in parts:
        if part == "hsa":
            made += [
                Way(part, f"hsa:{preset}", whole=True) for preset in ("75A", "75B", "50", "25")
            ]
        if part == "sparse":
            made += [Way(part, f"sparse:k={k},path={path}") for k in (1, 3, 5) for path in paths]
        if part == "both":
            pairs = [(preset, path) for preset in ("50", "25") for path in paths]
            made += [
                Way(part, f"hsa:{preset}+sparse:k=3,path={path}", whole=True)
                for preset, path in pairs
            ]
        if part == "lipar":  # noise-aware makes a pass more, in the first step
            forms = ("noisy", "none", "bias", "noise-aware")
            made += [
                Way(part, f"lipar:recovery={form}", whole=form == "noise-aware") for form in forms
            ]
        if part == "frames":
            made += [
                Way(part, "", frames=k)
                for k in sorted({round(k * latents / 21) for k in KEPT_OF_21})
            ]
    return made


# --- measuring ----------------------------------------------------------------------------------


def _measure(
    bench: Bench, parts: Sequence[str], told: argparse.Namespace, found: list[Found]
) -> None:
    """Fill `found`, round by round."""
    chosen = ways(parts, told.paths, bench.setting.grid.frames)
    if told.compile != "none":
        found.append(Found(Way("dense", "", compiled=True)))
    found += [Found(way) for way in chosen]
    if "stream" in parts:
        found.append(Found(Way("stream", STREAM)))
    for number in range(told.rounds):
        for one in found:
            if number == 0:
                _tried(one, bench, partial(bench.warm, one))
            _tried(
                one,
                bench,
                lambda one=one, number=number: _keep(one, bench.lap(one.way, number), told),
            )  # type: ignore[misc]
    if told.compile == "all":
        _measure_compiled(bench, [way for way in chosen if way.method], told, found)


def _measure_compiled(
    bench: Bench, chosen: Sequence[Way], told: argparse.Namespace, found: list[Found]
) -> None:
    """Methods with compiled blocks, on a second model: it stays as it is between rounds, so nothing
    compiles twice."""
    twin = Bench(bench.setting, told)
    for way in chosen:
        one = Found(replace(way, compiled=True))
        found.append(one)

        def measured(one: Found = one) -> None:
            made, eager = twin.run(one.way), bench.ends.get(one.way.method)
            if eager is not None:
                one.difference = float((made.latents.cpu() - eager).norm() / eager.norm())
            for number in range(told.rounds):
                _keep(one, bench.lap(one.way, number, on=twin), told)

        _tried(one, twin, measured)
        twin.clear()
        twin.forget_compiled()


def _keep(one: Found, lap: Lap, told: argparse.Namespace) -> None:
    one.laps.append(lap)
    _say(
        f"round {lap.round + 1}, {one.way.name}: {lap.ms:.1f} ms per step, {lap.ratio:.3f} of dense"
    )
    if told.out:
        told.out.parent.mkdir(parents=True, exist_ok=True)
        with told.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"way": one.way.name, **asdict(lap)}) + "\n")


def _tried(one: Found, bench: Bench, action: Callable[[], object]) -> None:
    """Whatever goes wrong is this way's reason, and the others go on. A way that failed is not
    tried again."""
    if one.reason:
        return
    try:
        action()
    except Exception as problem:  # memory, compilers, kernels, refusals: all are results here
        kind = (
            "out of memory: " if isinstance(problem, torch.OutOfMemoryError | MemoryError) else ""
        )
        one.reason = kind + (str(problem).strip().splitlines() or [type(problem).__name__])[0]
        _say(f"{one.way.name}: {one.reason}")
    if one.reason:  # outside of the handler, where the traceback no longer holds tensors
        bench.clear()


@dataclass(frozen=True)
class Made:
    ms: float  # per step
    begin_ms: float
    peak_bytes: int
    latents: Tensor


class Bench:
    """A model of random weights, and runs on it."""

    def __init__(self, setting: Setting, told: argparse.Namespace) -> None:
        self.setting, self.told = setting, told
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.family = _family(setting, self.device)
        self.model: Any = self.family.transformer
        self.installed = Installed(self.family.transformers)
        shape = (1, setting.text_tokens, setting.text_width)
        text, negative = (
            _normal(shape, SEED + place).to(self.device, _dtype()) for place in (1, 2)
        )
        self.condition = Condition(text, negative, GUIDANCE)
        self.noise = _normal((1, 16, *setting.latents), SEED).to(self.device)
        self.source, self.keep = (x.to(self.device) for x in a_source(setting.latents, MaskRule()))
        rule = MaskRule(block=StreamPlan().block, causal=True)
        self.streaming = tuple(
            x.to(self.device) for x in a_source(setting.latents, rule, first=rule.block)
        )
        self.ends: dict[str, Tensor] = {}  # method -> where its last eager run ended, on the CPU
        self._dense: dict[
            bool, Made
        ] = {}  # the dense run just made, of an edit or of a video from text
        self._calls: dict[str, list[Any]] = {}  # way -> compiled calls of its modules

    def run(self, way: Way, steps: int | None = None) -> Made:
        """The first `steps` of a run, by default as many as are timed."""
        self.installed.use(way.method)
        solver, latents = (
            self.family.solver(self.told.steps),
            self.noise[:, :, : way.frames or None].clone(),
        )
        if way.edits:
            solver.skip(Source(self.source, STRENGTH).skipped(solver.total))
            latents = solver.noised(self.source, latents)
        count = min(solver.remaining, steps or self.steps(way))
        run = Run(
            solver,
            Grid(*self.family.grid(latents)),
            2,
            GUIDANCE,
            self.source if way.edits else None,
        )
        with self._compiled(way), peak_memory(str(self.device)) as peak:
            with Timer(self.device) as begin:
                self.installed.begin(run)
                latents = self.installed.started(latents)
            with Timer(self.device) as timer:
                for _ in range(count):
                    latents = solver.advance(
                        self.family.velocity(latents, solver, self.condition), latents
                    )
        if not bool(torch.isfinite(latents).all()):
            raise ValueError(f"the latents are not finite after {count} steps")
        return Made(timer.ms / count, begin.ms, peak.bytes, latents)

    def steps(self, way: Way) -> int:
        """How many steps of it are timed."""
        whole: int = max(1, int(self.told.steps * STRENGTH)) if way.edits else self.told.steps
        return whole if way.whole else min(whole, self.told.equal_steps)

    def warm(self, one: Found) -> None:
        """A run before those that are timed. What it takes is counted where it can be."""
        way = one.way
        if way.part == "stream":
            whole, work = (
                self._counted(lambda: self.streamed(None)),
                self._counted(lambda: self.streamed(self.streaming[1])),
            )
            one.kept = _share(self.streaming[1])
        elif way.is_counted:
            taken = self.steps(way) if way.whole else 1
            dense = self._counted(lambda: self.run(Way(way.part, ""), 1))
            work = self._counted(lambda: self.run(way, taken))
            whole = Flops(dense.linear * taken, dense.attention * taken)
            one.kept = _share(self.keep) if way.edits else 1.0
        else:
            self.run(way)
            return
        one.work = (
            work.linear / whole.linear,
            work.attention / whole.attention,
            work.total / whole.total,
        )

    def _counted(self, action: Callable[[], object]) -> Flops:
        with counted(self.model) as found:
            action()
        return found

    def lap(self, way: Way, number: int, on: Bench | None = None) -> Lap:
        """One timed run, on another model if told, between two dense ones here."""
        if way.part == "stream":
            laps = [self.streamed(keep) for keep in (None, self.streaming[1], None)]
        else:
            base = Way(way.part, "")
            before = self._dense.pop(way.edits, None) or self.run(
                base
            )  # the run after the last way serves for both
            self._dense.clear()
            if way.compiled and not way.method:
                self.run(way, 1)
            laps = [before, (on or self).run(way), self.run(base)]
            self._dense[way.edits] = laps[2]
        before, made, after = laps
        if not way.compiled:
            self.ends[way.method] = made.latents.cpu()
        second = _weight_bytes(self.model) if on and self.device.type == "cuda" else 0
        return Lap(
            number, made.ms, (before.ms + after.ms) / 2, made.begin_ms, made.peak_bytes - second
        )

    def streamed(self, keep: Tensor | None) -> Made:
        """A block-causal edit without guidance, of three steps and one more pass for each block of
        three frames."""
        self.installed.use("")
        plan, condition = StreamPlan(), Condition(self.condition.text, None, 1.0)
        with peak_memory(str(self.device)) as peak, Timer(self.device) as timer:
            blocks = list(
                stream(self.model, condition, self.streaming[0], plan, seed=SEED, keep=keep)
            )
        return Made(timer.ms / len(plan.steps), 0.0, peak.bytes, torch.cat(blocks, dim=2))

    def clear(self) -> None:
        """The stock model, and as much memory as can be had."""
        self.installed.remove()
        self._dense.clear()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def forget_compiled(self) -> None:
        self._calls.clear()

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
                part.compile(mode=self.told.compile_mode)
            self._calls[way.name] = [part._compiled_call_impl for part in parts]
        limits = {
            "recompile_limit": 512,
            "accumulated_recompile_limit": 4096,
        }  # a graph for each layer
        for part, call in zip(parts, self._calls[way.name], strict=True):
            part._compiled_call_impl = call
        try:
            with torch._dynamo.config.patch(limits):
                yield
        finally:
            for part in parts:
                part._compiled_call_impl = None


class Timer:
    """Milliseconds of a context: of the device on CUDA, of this thread's processor on a CPU, where
    others may work."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self.ms = math.nan

    def __enter__(self) -> Timer:
        if self._cuda:
            torch.cuda.synchronize()
            self._first, self._last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
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


# --- model and source ---------------------------------------------------------------------------


def _family(setting: Setting, device: torch.device) -> WanFamily:
    """The transformer and what a loop asks of a family; no text encoder, and of the VAE its factors
    alone.

    Made in the device's memory and in the type it will have, as a loaded one: some parts stay in
    float32. Rotary tables must not be made by `.to(bfloat16)`, which would round them.
    """
    from diffusers import WanTransformer3DModel

    before = torch.get_default_dtype()
    torch.manual_seed(SEED)
    torch.set_default_dtype(_dtype())
    try:
        with torch.device(device), torch.inference_mode(False):
            model = WanTransformer3DModel(
                patch_size=(1, 2, 2),
                num_attention_heads=setting.heads,
                attention_head_dim=setting.head_width,
                in_channels=16,
                out_channels=16,
                text_dim=setting.text_width,
                freq_dim=256,
                ffn_dim=setting.ffn_width,
                num_layers=setting.layers,
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
    return WanFamily(
        tokenizer=None,
        text_encoder=None,
        transformer=model.eval().requires_grad_(False),
        vae=SimpleNamespace(
            config=SimpleNamespace(scale_factor_temporal=4, scale_factor_spatial=8)
        ),
        scheduler=EulerScheduler(shift=SHIFT),
        text_length=setting.text_tokens,
    )


def a_source(
    latents: tuple[int, int, int], rule: MaskRule, first: int = 1
) -> tuple[Tensor, Tensor]:
    """Latents (1, 16, F, H, W) that stand still but for a band of columns drawn anew in every
    frame, and the mask (F, h, w) that LIPAR makes of them, its `first` frames whole. The band is as
    wide as prunes PRUNED of all tokens, as nearly as whole columns of tokens allow; it may be a
    column wider in the first frames."""
    frames, rows, columns = latents
    still = _normal((16, 1, rows, columns), SEED + 3)
    moving = _normal((16, frames, rows, columns), SEED + 4)

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
        return 1 - _share(made(cells)[1]) - PRUNED

    low, high = 0, (frames - 1) * (columns // 2)  # pruned falls along this
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if off(middle) > 0 else (low, middle)
    return made(min((low, high), key=lambda cells: abs(off(cells))))


def _share(keep: Tensor) -> float:
    return int(keep.sum()) / keep.numel()


def _normal(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _dtype() -> torch.dtype:
    return torch.bfloat16 if torch.cuda.is_available() else torch.float32


def _weight_bytes(model: torch.nn.Module) -> int:
    return sum(weight.nbytes for weight in model.parameters())


# --- what the work should be --------------------------------------------------------------------


def closed_form(way: Way, setting: Setting, steps: int, kept: float) -> tuple[float, float, float]:
    """Linear, attention and total FLOPs of a run over those of dense, by arithmetic.

    Per block with N tokens, M text tokens, width d and feed forward E: 12 N d^2 + 4 N M d + 4 N d E
    for the tokens, 4 M d^2 for the text's keys and values wherever a pass runs, 4 N^2 d
    self-attention. Exact for every way, but for `both`: there it assumes that the tokens that run
    are spread evenly over frames.
    """
    grid, d, text = setting.grid, setting.width, setting.text_tokens
    token = 12 * d * d + 4 * text * d + 4 * d * setting.ffn_width
    of_tokens, of_text, of_attention = token * grid.tokens, 4 * text * d * d, 4 * grid.tokens**2 * d
    tokens, attention, runs = (way.frames or grid.frames) / grid.frames, 1.0, 1.0
    attention *= tokens**2
    for one in parse(way.method) if way.method else ():
        share, passes, seen = _shares(one, grid, steps, kept)
        tokens, runs, attention = tokens * share, runs * passes, attention * seen
    linear = (tokens * of_tokens + runs * of_text) / (of_tokens + of_text)
    total = tokens * of_tokens + runs * of_text + attention * of_attention
    return linear, attention, total / (of_tokens + of_text + of_attention)


def _shares(one: Chosen, grid: Grid, steps: int, kept: float) -> tuple[float, float, float]:
    """Of tokens that run, of passes that run, and of self-attention, per step."""
    if one.kind.name == "hsa":
        schedule: Schedule = schedule_for(str(one.values["preset"]), steps)
        runs = sum(any(schedule.active(step)) for step in range(steps)) / steps
        share = float(schedule.exact_cost(grid.tokens))
        return share, runs, share
    if one.kind.name == "sparse":
        k = int(one.values["k"] or 1)
        return 1.0, 1.0, 1.0 if tiles.is_full(grid.frames, k) else tiles.density(grid.frames, k)
    form = one.values["recovery"]
    passes = 1 + 1 / max(1, int(steps * STRENGTH)) if form == "noise-aware" else 1.0
    keys = kept if form in ("none", "bias") else 1.0
    return kept * passes, passes, kept * keys * passes


# --- results ------------------------------------------------------------------------------------


def _rows(found: Sequence[Found], setting: Setting, steps: int) -> list[dict[str, Any]]:
    rival = {lap.round: lap.ratio for one in found if one.way.name == RIVAL for lap in one.laps}
    works = {one.way.work_key: one.work for one in found if one.work}
    return [_row(one, setting, steps, rival, works.get(one.way.work_key)) for one in found]


def _row(
    one: Found,
    setting: Setting,
    steps: int,
    rival: Mapping[int, float],
    counted_work: tuple[float, float, float] | None,
) -> dict[str, Any]:
    way = one.way
    closed = None
    if way.part != "stream":
        with suppress(ValueError):  # too few steps for its schedule: it was refused
            closed = closed_form(way, setting, steps, one.kept)
    work = counted_work or closed
    ratio = _median([lap.ratio for lap in one.laps])
    against = _median(
        [
            lap.ratio / rival[lap.round]
            for lap in one.laps
            if lap.round in rival and way.part != "stream"
        ]
    )
    off = None if ratio is None or work is None else ratio / work[2]
    off_rival = None if against is None or work is None else against / work[2]
    return {
        "way": way.name,
        "part": way.part,
        "ms_per_step": _median([lap.ms for lap in one.laps]),
        "dense_ms_per_step": _median([lap.dense_ms for lap in one.laps]),
        "time_ratio": ratio,
        "flop_ratio": None if work is None else work[2],
        "time_over_flops": off,
        "within": None if off is None else abs(off - 1) <= WITHIN,
        "ratio_to_rival": against,
        "rival_over_flops": off_rival,
        "within_of_rival": None if off_rival is None else abs(off_rival - 1) <= WITHIN,
        "flops_counted": None
        if one.work is None
        else dict(zip(("linear", "attention", "total"), one.work, strict=True)),
        "flops_closed": None
        if closed is None
        else dict(zip(("linear", "attention", "total"), closed, strict=True)),
        "begin_ms": _median([lap.begin_ms for lap in one.laps]),
        "peak_bytes": max((lap.peak_bytes for lap in one.laps), default=None),
        "kept_share": one.kept,
        "difference": one.difference,
        "rounds": len(one.laps),
        "reason": one.reason,
    }


def _card(rows: Sequence[Mapping[str, Any]], steps: int, *, on_gpu: bool) -> Iterator[str]:
    yield f"whole runs of {steps} steps; * marks a ratio within {WITHIN:.0%} of the FLOP ratio"
    yield (
        f"  {'':<44}{'ms/step':>9}{'dense':>9}{'time':>8}{'FLOPs':>8}{'time/FLOPs':>12}{'rival':>8}"
        f"{'rival/FLOPs':>12}{'peak GiB':>9}"
    )
    for row in rows:
        if row["ms_per_step"] is None:
            yield f"  {row['way']:<44}not measured: {row['reason'] or 'stopped before'}"
            continue
        yield (
            f"  {row['way']:<44}{row['ms_per_step']:>9.1f}"
            f"{row['dense_ms_per_step']:>9.1f}{row['time_ratio']:>8.3f}"
            f"{_shown(row['flop_ratio'], 8)}{_shown(row['time_over_flops'], 11)}"
            f"{_star(row['within'])}"
            f"{_shown(row['ratio_to_rival'], 8)}{_shown(row['rival_over_flops'], 11)}"
            f"{_star(row['within_of_rival'])}"
            f"{row['peak_bytes'] / 2**30:>9.2f}"
            + (f"  then: {row['reason']}" if row["reason"] else "")
        )
    judged = [
        row
        for row in rows
        if row["within"] is not None and row["part"] in ("hsa", "sparse", "both", "frames")
    ]
    near = sum(bool(row["within"]) for row in judged)
    fast = {
        row["way"]: 1 / row["time_ratio"]
        for row in rows
        if row["part"] in ("lipar", "stream") and row["rounds"]
    }
    yield (
        f"  {near} of {len(judged)} ways within {WITHIN:.0%} of their FLOP ratio against "
        "stock dense attention"
    )
    for name, times in fast.items():
        yield (
            f"  {name}: {times:.2f}x the unpruned run, the bar of {LIPAR_BAR}x "
            f"{_verdict(times, on_gpu)}"
        )
    if not on_gpu:
        yield (
            "  a rehearsal: at this size, or on a CPU, the ratios say nothing about a GPU at "
            "full size"
        )


def _verdict(times: float, on_gpu: bool) -> str:
    if not on_gpu:
        return "is for a GPU at full size"
    return "is met" if times >= LIPAR_BAR else "is missed"


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _shown(value: float | None, width: int) -> str:
    return f"{'-':>{width}}" if value is None else f"{value:>{width}.3f}"


def _star(within: bool | None) -> str:
    return "*" if within else " "


def _machine() -> str:
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        return (
            f"{torch.cuda.get_device_name()}, compute capability {major}.{minor}, {memory:.0f} GiB"
        )
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine()) + ", no CUDA"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _interrupted(number: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
