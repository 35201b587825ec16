"""Which layers `vgdfr` should tell the original times: whether a probe of single layers finds better ones.

    python benchmarks/rope_probe.py [--frames 33 65] [--calibrate 8] [--captions 16 8] [--alone] [--minutes 20]
                                    [--out FILE]

Held-out captions, the classes of movement in turn, seeds from 9,700,400,000 on; flipbook, its own full step count and
solver. theta = 0.9 after a third of the steps, all else `vgdfr`'s defaults; captions in which that merges nothing are
passed over.

calibration   on the first captions that are merged in: the ratios of `workers/acceleration/rope_probe.py`, each
              layer's squared distance to what it answers in the whole video, original over consecutive times. The
              layers chosen of them are G.
comparison    on other captions: consecutive times in all layers, original ones in all, original ones in G alone, and
              in all that qualify for G but for its cap (15 % of six layers are one). All go on from the same merge of
              the same run, so videos are compared in pairs: PSNR and SSIM to the full run of the same seed, and motion
              energy over the full run's, which should be 1.
`--alone`     original times in each single layer too, and whether low ratios foretell a gain: Spearman, over layers,
              of the mean ratio and the mean PSNR gained over consecutive times (-1 would be perfect).

`--minutes` begins no further caption after that long. Prints a card and ends with one JSON line. Per-prompt rows go to
<out>.parquet where `--out` is given. A caption takes as long as three full runs, with `--alone` five.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from frame_rate import MOVES
from keyframes import CLASSES, Maker, Row, Subject, each, mean_of, near, rounded, subjects, with_all_names
from torch import Tensor

from vidplat.domain import VideoSpec
from vidplat.frame_merges import Merges, moments
from vidplat.keyframes import rank_correlation
from vidplat.methods import parse
from vidplat.workers.acceleration.frame_rope import Times, timed
from vidplat.workers.acceleration.layouts import layout_of
from vidplat.workers.acceleration.rope_probe import chosen_layers, ratios
from vidplat.workers.acceleration.vgdfr import BEFORE, Vgdfr, compress
from vidplat.workers.generate import conditioned
from vidplat.workers.models.family import Condition
from vidplat.workers.models.solver import Solver
from vidplat.workers.quality import motion_energy
from vidplat.workers.reconstruct import filled

FIRST_SEED = 9_700_400_000  # captions from here on; training drew below 3e9
METHOD = "vgdfr:theta=0.9,k=8,alike=whole"
ALIKE = 0.05  # dB; a gap below it is a tie of PSNR
LOCAL, GLOBAL, PROBED, UNCAPPED = "all local", "all global", "probed", "probed, no cap"
PAIRS = ((PROBED, LOCAL), (PROBED, GLOBAL), (GLOBAL, LOCAL), (UNCAPPED, LOCAL), (UNCAPPED, GLOBAL))
NAMES = ("kept_latents", "psnr_db", "ssim", "motion_ratio", "motion_off")
MEASURES = ("psnr_db", "ssim", "motion_off")


@dataclass(frozen=True)
class Fork:
    """A run at the step where some of its frames were merged."""

    solver: Solver
    condition: Condition
    whole: Tensor  # latents (1, C, F, H, W) that would go on
    left: Tensor  # those (1, C, M, H, W) that do
    merges: Merges


class Forks:
    """Runs of one length that stop where `METHOD` merges, and go on from there in more than one way."""

    def __init__(self, maker: Maker, spec: VideoSpec) -> None:
        self._maker, self._spec = maker, spec
        self._method = Vgdfr(parse(METHOD)[0].values)
        self.steps = maker.shape.defaults.num_inference_steps
        self.before = max(1, round(BEFORE * self.steps))

    @torch.inference_mode()
    def of(self, subject: Subject) -> Fork | None:
        """None: nothing is merged in it."""
        maker, family, spec = self._maker, self._maker.family, replace(self._spec, seed=subject.seed)
        condition = conditioned(maker.texts, subject.caption, "", spec.guidance_scale)
        latents = noise = family.noise(spec, maker.shape.latent_frames(spec.num_frames))
        solver = family.solver(self.steps)
        for _ in range(self.before):
            velocity = family.velocity(latents, solver, condition)
            latents = solver.advance(velocity, latents)
        forgetful = copy.deepcopy(solver)
        found = compress(family, forgetful, latents, velocity, noise, self._method.choose, self._method.how)
        if found.merges.merges_nothing:
            return None
        return Fork(solver, condition, latents, found.latents, found.merges)

    @torch.inference_mode()
    def full(self, fork: Fork) -> np.ndarray:
        """The full run's frames."""
        return self._ended(copy.deepcopy(fork.solver), fork.condition, fork.whole)

    @torch.inference_mode()
    def told(self, fork: Fork, layers: frozenset[int] | None) -> np.ndarray:
        """The frames where these layers are told the original times; None: all of them."""
        solver = copy.deepcopy(fork.solver)
        solver.forget()
        with ExitStack() as stack:
            for model in self._maker.family.transformers:
                stack.enter_context(timed(model, layout_of(model), Times(fork.merges.latents, layers)))
            decoded = self._ended(solver, fork.condition, fork.left)
        return filled(decoded, moments(fork.merges, self._method.anchor), self._method.depth)

    def _ended(self, solver: Solver, condition: Condition, latents: Tensor) -> np.ndarray:
        family = self._maker.family
        while solver.remaining:
            latents = solver.advance(family.velocity(latents, solver, condition), latents)
        frames: np.ndarray = family.decode(latents)
        return frames


def compared(
    forks: Forks, subject: Subject, fork: Fork, frames: int, ways: dict[str, frozenset[int] | None]
) -> Iterator[Row]:
    """A row for each way to go on; one that equals another way is not run twice."""
    whole = forks.full(fork)
    moved = motion_energy(whole)
    videos: dict[frozenset[int] | None, np.ndarray] = {}
    for way, layers in ways.items():
        if layers not in videos:
            videos[layers] = forks.told(fork, layers)
        made = videos[layers]
        motion = motion_energy(made) / moved if moved > MOVES else None
        yield {
            "frames": frames,
            "kind": subject.kind,
            "seed": subject.seed,
            "caption": subject.caption,
            "way": way,
            "layers": "all" if layers is None else ",".join(map(str, sorted(layers))),
            "kept_latents": len(fork.merges.latents) / fork.merges.all_latents,
            **near(made, whole),
            "motion_ratio": motion,
            "motion_off": None if motion is None else abs(motion - 1),
        }


# --- what was found ---------------------------------------------------------------------------------


def wins(rows: Sequence[Row], one: str, other: str) -> dict[str, Any]:
    """Of pairs of one video: how often either way is nearer to the full run, and how much `one` gains in the mean."""
    pairs = [{r["way"]: r for r in rows if r["seed"] == seed} for seed in dict.fromkeys(r["seed"] for r in rows)]
    found: dict[str, Any] = {}
    for measure in MEASURES:
        sign = -1 if measure == "motion_off" else 1
        tie = ALIKE if measure == "psnr_db" else 0.001
        gaps = [sign * (pair[one][measure] - pair[other][measure]) for pair in pairs if pair[one][measure] is not None]
        found[measure] = {
            one: sum(gap > tie for gap in gaps),
            other: sum(gap < -tie for gap in gaps),
            "alike": sum(abs(gap) <= tie for gap in gaps),
            "mean_gain": statistics.mean(gaps) if gaps else math.nan,
        }
    return found


def summary(rows: Sequence[Row], measured: Sequence[Sequence[float]], layers: frozenset[int]) -> dict[str, Any]:
    means = [statistics.mean(column) for column in zip(*measured, strict=True)]
    ways = list(dict.fromkeys(row["way"] for row in rows))
    by_way = {
        way: {
            "layers": next(row["layers"] for row in rows if row["way"] == way),
            **{name: mean_of([row for row in rows if row["way"] == way], name) for name in NAMES},
        }
        for way in ways
    }
    alone = [way for way in ways if way.startswith("layer ")]
    gains = [by_way[way]["psnr_db"] - by_way[LOCAL]["psnr_db"] for way in alone]
    return {
        "calibrated_on": len(measured),
        "ratios": [list(column) for column in zip(*measured, strict=True)],
        "mean_ratios": means,
        "layers": sorted(layers),
        "captions": len({row["seed"] for row in rows}),
        "ways": by_way,
        "wins": {f"{one} over {other}": wins(rows, one, other) for one, other in PAIRS} if rows else {},
        "spearman": rank_correlation(means, gains) if len(gains) > 1 else None,
    }


def card(frames: int, found: dict[str, Any]) -> Iterator[str]:
    yield ""
    yield f"{frames} frames; ratios of {found['calibrated_on']} captions, original over consecutive times"
    yield f"  {'layer':<10}{'mean':>7}{'least':>7}{'most':>7}   below 0.95 on"
    for layer, column in enumerate(found["ratios"]):
        below = f"{sum(ratio < 0.95 for ratio in column)} of {len(column)}"
        yield f"  {layer:<10}{statistics.mean(column):>7.3f}{min(column):>7.3f}{max(column):>7.3f}   {below}"
    yield f"  G = {{{', '.join(map(str, found['layers']))}}}"
    if not found["captions"]:
        return
    yield f"  {found['captions']} other captions, {found['ways'][LOCAL]['kept_latents']:.2f} of the latents left"
    yield f"  {'told original times':<32}{'PSNR':>7}{'SSIM':>7}{'motion':>8}{'off 1 by':>10}"
    for way, f in found["ways"].items():
        name = f"{way} ({f['layers']})" if way.startswith(PROBED) else way
        yield (f"  {name:<32}{f['psnr_db']:>7.2f}{f['ssim']:>7.3f}{f['motion_ratio']:>8.3f}{f['motion_off']:>10.3f}")
    for pair, by_measure in found["wins"].items():
        one, other = pair.split(" over ")
        told = (
            f"{measure} {f[one]} to {f[other]}, {f['alike']} alike ({f['mean_gain']:+.3f})"
            for measure, f in by_measure.items()
        )
        yield f"  {pair}: " + "; ".join(told)
    if found["spearman"] is not None:
        yield f"  Spearman of ratio and PSNR gained, over layers: {found['spearman']:.2f}"


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--model", default="flipbook")
    words.add_argument("--frames", type=int, nargs="+", default=[33, 65])
    words.add_argument("--calibrate", type=int, default=8, help="captions of each length")
    words.add_argument("--captions", type=int, nargs="+", default=[16, 8], help="others of each length")
    words.add_argument("--alone", action="store_true", help="each single layer too")
    words.add_argument("--minutes", type=float, default=math.inf)
    words.add_argument("--threads", type=int, default=1)
    words.add_argument("--out", type=Path)
    told = words.parse_args()
    torch.set_num_threads(told.threads)
    cv2.setNumThreads(1)
    maker = Maker(told.model)
    began = time.perf_counter()

    def say(line: str) -> None:
        print(f"{time.perf_counter() - began:6.0f} s  {line}", file=sys.stderr, flush=True)

    def is_late() -> bool:
        return time.perf_counter() - began > 60 * told.minutes

    lengths: dict[str, Any] = {}
    every: list[Row] = []
    steps = maker.shape.defaults.num_inference_steps
    print(f"{told.model} {maker.ref.revision[:12]}, {METHOD}, against {steps} steps of the same seed", flush=True)
    for frames, count in zip(told.frames, each(told.captions, len(told.frames), "--captions"), strict=True):
        forks = Forks(maker, maker.spec(frames))
        waiting = iter(subjects(2 * len(CLASSES) + 2 * (told.calibrate + count), FIRST_SEED))

        def merged(most: int, forks: Forks = forks, waiting: Iterator[Subject] = waiting) -> Iterator[Any]:
            """The next captions in which something is merged, `most` of them."""
            for _ in range(most):
                pair = next(((one, fork) for one in waiting if (fork := forks.of(one))), None)
                if pair is None or is_late():
                    return
                yield pair

        measured: list[tuple[float, ...]] = []
        for subject, fork in merged(told.calibrate):
            measured.append(
                ratios(maker.family, fork.solver, fork.condition, fork.whole, fork.left, fork.merges.latents)
            )
            say(f"{frames} frames ({subject.kind}): " + " ".join(f"{ratio:.3f}" for ratio in measured[-1]))
        if not measured:
            break
        layers = chosen_layers(measured)
        ways: dict[str, frozenset[int] | None] = {LOCAL: frozenset(), GLOBAL: None, PROBED: layers}
        ways[UNCAPPED] = chosen_layers(measured, cap=1.0)
        if told.alone:
            ways |= {f"layer {layer}": frozenset({layer}) for layer in range(len(measured[0]))}
        rows: list[Row] = []
        for number, (subject, fork) in enumerate(merged(count)):
            made = list(compared(forks, subject, fork, frames, ways))
            rows += made
            ours = ", ".join(f"{row['psnr_db']:.1f}" for row in made)
            say(f"{frames} frames, {number + 1} of {count} ({subject.kind}): {ours} dB")
        found = summary(rows, measured, layers)
        print("\n".join(card(frames, found)), flush=True)
        lengths[str(frames)] = found
        every += rows
    if told.out and every:
        told.out.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(with_all_names(every)), told.out.with_suffix(".parquet"))
    answer = {
        "benchmark": "rope_probe",
        "model": told.model,
        "revision": maker.ref.revision,
        "method": METHOD,
        "full_steps": steps,
        "seeds": f"{FIRST_SEED}..",
        "lengths": lengths,
        "seconds": time.perf_counter() - began,
        "threads": told.threads,
        "machine": platform.processor() or platform.machine(),
        "versions": {name: version(name) for name in ("torch", "diffusers", "vidplat")},
    }
    print(json.dumps(rounded(answer)))


if __name__ == "__main__":
    main()
