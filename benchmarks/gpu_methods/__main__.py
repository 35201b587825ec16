"""Milliseconds per step of the token methods on a GPU, beside the work that they leave.

    python -m benchmarks.gpu_methods [--rounds 3] [--steps 40] [--equal-steps 3]
        [--paths flex gather lse] [--only hsa,sparse,both,lipar,frames,stream]
        [--compile none|rival|all] [--small] [--out FILE]

No weights are needed. Wan 2.1 1.3B as published, with random weights of seed 0 made on the device
in bfloat16; 832x480, 81 frames, guided (two passes a step), Euler. No text encoder and no VAE: text
states and latents are random too. A machine without CUDA, or `--small`, takes a shrunk model and
picture (float32 on a CPU): a rehearsal, whose ratios say nothing about a GPU.

hsa      HSA-75 (A and B), 50 and 25: whole runs of --steps, since their steps differ in cost
sparse   k = 1, 3, 5 by each of the paths; all steps cost the same, so --equal-steps are timed
both     HSA-50 and HSA-25 with k = 3
lipar    video to video, a synthetic source of which 32 % of the tokens are pruned, in four forms of
         recovery
frames   stock attention on K of the F latent frames, as a step of EcoVideo or VGDFR is after frames
         were left out: K = 6, 8, 11, 14, 16, 21 of 21
stream   LIPAR's block-causal form, 32 % pruned against the unpruned stream of the same window

Every timed run lies between two of stock dense attention, and `time` is its time per step over
their mean: the median over rounds. Before its first round a way runs once untimed. `FLOPs` is
likewise what was counted while it ran then (`vidplat.workers.survey.flops`: linear and
self-attention of the blocks), or what plans count where nothing can be counted (flex, compiled);
both are in the JSON line. `rival` is the same time over that of the dense model compiled as a whole
by torch.compile. `time` over `FLOPs` is marked when it is within 15 % of 1: the method's time is
the time of its work. With `--compile all` each method is run with its blocks compiled as
well, on a second copy of the model.

What a method does once per video (`begin`: LIPAR's mask) is told apart and not in a step's time.
Out of memory or a refusal is a row with its reason. After an interrupt, and after SIGTERM, what was
measured is printed; with `--out` every measurement is appended to a file of JSON lines as it is
made. A round takes the time of about 250 dense steps, the untimed runs about 150 more: --only,
--paths and --steps 24 make it shorter.
"""

from __future__ import annotations

import argparse
import json
import signal
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch

from benchmarks.common import answer, head, options, progress
from benchmarks.gpu_methods.bench import Bench, Lap, Plan
from benchmarks.gpu_methods.model import SEED, dtype
from benchmarks.gpu_methods.results import Found, card, rows_of
from benchmarks.gpu_methods.ways import FULL, PARTS, RIVAL, SMALL, Way, ways


@dataclass(frozen=True)
class Measuring:
    """Measures ways round by round, and writes each lap down as it is made."""

    rounds: int
    found: list[Found]
    say: Callable[[str], None]
    out: Path | None = None

    def eager(self, bench: Bench, asked: Sequence[Way]) -> None:
        self.found.extend(map(Found, asked))
        for number in range(self.rounds):
            for one in self.found:
                if number == 0:
                    self._tried(one, bench, partial(self._warm, one, bench))
                self._tried(one, bench, partial(self._lap, one, bench, number))

    def compiled(self, bench: Bench, asked: Sequence[Way]) -> None:
        """Methods with compiled blocks, on a second model: it stays as it is between rounds, so
        nothing compiles twice."""
        twin = Bench(bench.setting, bench.plan)
        for way in asked:
            one = Found(replace(way, compiled=True))
            self.found.append(one)
            self._tried(one, twin, partial(self._compiled, one, bench, twin))
            twin.clear()
            twin.forget_compiled()

    def _compiled(self, one: Found, bench: Bench, twin: Bench) -> None:
        made, eager = twin.run(one.way), bench.ends.get(one.way.method)
        if eager is not None:
            one.difference = float((made.latents.cpu() - eager).norm() / eager.norm())
        for number in range(self.rounds):
            self._lap(one, bench, number, twin)

    def _warm(self, one: Found, bench: Bench) -> None:
        one.work, one.kept = bench.warm(one.way)

    def _lap(self, one: Found, bench: Bench, number: int, on: Bench | None = None) -> None:
        lap: Lap = bench.lap(one.way, number, on)
        one.laps.append(lap)
        name = one.way.name
        self.say(f"round {number + 1}, {name}: {lap.ms:.1f} ms, {lap.ratio:.3f} of dense")
        if self.out:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            with self.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"way": name, **asdict(lap)}) + "\n")

    def _tried(self, one: Found, bench: Bench, action: Callable[[], object]) -> None:
        """Whatever goes wrong is this way's reason, and the others go on. A way that failed is not
        tried again."""
        if one.reason:
            return
        try:
            action()
        except Exception as problem:  # memory, compilers, kernels, refusals: all are results here
            out_of_memory = isinstance(problem, torch.OutOfMemoryError | MemoryError)
            told = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
            one.reason = f"{'out of memory: ' if out_of_memory else ''}{told}"
            self.say(f"{one.way.name}: {one.reason}")
        if one.reason:  # outside of the handler, where the traceback no longer holds tensors
            bench.clear()


def main() -> None:
    told, parts = options_told()
    setting = SMALL if told.small else FULL
    plan = Plan(told.steps or setting.steps, told.equal_steps, told.compile_mode)
    torch.set_num_threads(told.threads)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    spec = setting.shape.defaults
    about = f"{setting.name}, {spec.width}x{spec.height}, {spec.num_frames} frames; seed {SEED}"
    print(head(about, "gpu_methods", device=device))

    chosen = ways(parts, told.paths, setting.grid.frames)
    rival, is_interrupted = [] if told.compile == "none" else [RIVAL], False
    measuring = Measuring(told.rounds, [], progress(), told.out)
    with torch.inference_mode():
        try:
            bench = Bench(setting, plan)
            measuring.eager(bench, [*rival, *chosen])
            if told.compile == "all":
                with_method = [way for way in chosen if way.part not in ("frames", "stream")]
                measuring.compiled(bench, with_method)
        except KeyboardInterrupt:
            is_interrupted = True
            measuring.say("stopped: what follows was measured so far")
    rows = rows_of(measuring.found, setting, plan.steps)
    print("\n".join(card(rows, plan.steps, on_gpu=device == "cuda" and not told.small)))
    answer(
        "gpu_methods",
        device,
        **vars(told) | {"steps": plan.steps},
        setting=setting,
        dtype=str(dtype()).removeprefix("torch."),
        interrupted=is_interrupted,
        rows=rows,
        cuda=torch.version.cuda,
        seed=SEED,
    )


def options_told() -> tuple[argparse.Namespace, list[str]]:
    """What was typed, and the parts to measure."""
    has_cuda = torch.cuda.is_available()
    paths = ["flex", "gather", "lse"] if has_cuda else ["gather", "lse"]
    parser = options(__doc__, rounds=3, threads=1)
    parser.add_argument("--steps", type=int, help="of a whole run; HSA-25 needs 21 or more")
    parser.add_argument("--equal-steps", type=int, default=3)
    parser.add_argument("--paths", nargs="+", choices=("flex", "gather", "lse"), default=paths)
    parser.add_argument("--only", help=f"parts, separated by commas: {', '.join(PARTS)}")
    compiles, compiled = ("none", "rival", "all"), "rival" if has_cuda else "none"
    parser.add_argument("--compile", choices=compiles, default=compiled)
    parser.add_argument("--compile-mode", default="default", help="torch.compile's")
    parser.add_argument("--small", action="store_true", default=not has_cuda)
    parser.add_argument("--out", type=Path, help="a file of JSON lines, one per measurement")
    told = parser.parse_args()
    parts = told.only.split(",") if told.only else list(PARTS)
    if unknown := set(parts) - set(PARTS):
        parser.error(f"--only knows {', '.join(PARTS)}, not {', '.join(sorted(unknown))}")
    return told, parts


if __name__ == "__main__":
    main()
