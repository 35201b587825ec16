"""Does a depth beyond flow help: a few low-noise steps of a small model over the interpolated clip?

    python benchmarks/refinement.py [--captions 8] [--refiners flipbook-edge flipbook] [--guidance 1
    6]
                                    [--strengths 0.1 0.2 0.35 0.5] [--steps 1 2 4] [--noise
                                    own|fresh] [--kept eco|full]

For each held-out caption (seeds from 9,700,300,000, the classes of movement in turn) flipbook makes
the full video and that of `eco:k=5`, whose decoded frames are filled in at D=1. That clip is
encoded, noised to sigma = strength as `workers/edit.py` does it, denoised in so many steps under
the same caption and decoded: once for all frames, once for the made ones alone, where decoded
frames stay as they were. The noise is the run's own, or fresh. `--kept full` fills between the full
run's own frames instead, so that nothing but the filling is wrong.

Controls: other depths; the autoencoder's round trip alone; the large model as refiner. PSNR, SSIM
and prompt fit are means; motion, flicker (first and second difference in time) and warp (what
optical flow between neighbours leaves, where it agrees with the flow back) are the full run's as 1.
Seconds are processor time: of encoding, steps and decoding, in D=1 fillings and in full denoisings.
Prints a card and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from itertools import cycle, pairwise, product
from typing import Any

import cv2
import numpy as np
import torch

from flipbook_training import world
from vidplat.domain import OperatingPoint, VideoSpec
from vidplat.methods.eco.keyframes import uniform
from vidplat.methods.filling.flow import Pair, contradiction, warp
from vidplat.methods.filling.frames import DEPTHS, filled
from vidplat.methods.filling.moments import Moment, true_moments, true_times
from vidplat.methods.installed import Installed
from vidplat.methods.solver import Solver
from vidplat.quality import flicker, motion_energy, psnr_db, ssim
from vidplat.training.prompt_fit import prompt_fit
from vidplat.workers.generate import Made, Wishes, conditioned, draft
from vidplat.workers.models.catalogue import describe_model, locate
from vidplat.workers.models.family import Condition, TakesVideo, load_family
from vidplat.workers.text_cache import TextCache

FIRST_SEED = 9_700_300_000  # captions from here on; training drew below 3e9
CLASSES = ("still", "slow", "fast", "orbit", "bounce", "dash", "pan", "cut")
METHOD, KEPT = "eco:k=5", 5
FRESH = 1_000_000  # added to a seed where noise is not the run's own
FINE = 200  # a schedule so long that some sigma of it is within 1 % of any strength
AGREES_PX = 1.0
MOST_DB = 60.0
SAYS_LITTLE = 0.001  # SSIM gained or lost


@dataclass(frozen=True)
class Model:
    """A loaded model and its texts."""

    family: TakesVideo
    texts: TextCache
    guidance: float

    def told(self, caption: str, guidance: float) -> Condition:
        return conditioned(self.texts, caption, "", guidance)


def a_model(name: str) -> Model:
    ref, shape = describe_model(name)
    family = load_family(locate(name), "cpu")
    assert isinstance(family, TakesVideo)
    return Model(family, TextCache(family, ref.revision), shape.defaults.guidance_scale)


def subjects(count: int) -> Iterator[tuple[str, str, int]]:
    """Class of movement, caption and seed, the classes in turn."""
    wanted, seed = cycle(CLASSES), FIRST_SEED
    for _ in range(count):
        kind = next(wanted)
        while True:
            rng = np.random.default_rng(seed)
            scene = world.draw_scene(rng)
            caption = world.describe(scene, rng)
            seed += 1
            if scene.motion_class == kind:
                break
        yield kind, caption, seed - FIRST_SEED


def low_noise(family: TakesVideo, strength: float, steps: int) -> Solver:
    """A solver whose first sigma is the nearest to `strength` of a fine schedule, with `steps`
    steps to the end."""
    solver = family.solver(FINE)
    away = [abs(sigma - strength) for sigma in solver.sigmas[:-1]]
    solver.skip(away.index(min(away)))
    solver.shorten(min(steps, solver.remaining))
    return solver


def warp_error(frames: np.ndarray) -> float:
    """Mean |I_t - I_{t+1} looked up along flow| / 255 where flow there and back agrees; a cut says
    nothing."""
    left = []
    for first, second in pairwise(frames):
        pair = Pair(first, second)
        if pair.is_still:
            left.append(0.0)
        elif not pair.is_cut:
            there, back = pair.flows
            miss = np.abs(warp(second.astype(np.float32), there) - first).mean(axis=-1)
            left.append(float(miss[contradiction(there, back) < AGREES_PX].mean()) / 255)
    return float(np.mean(left))


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    since = time.process_time()
    found = call()
    return found, time.process_time() - since


class Table:
    """Figures by way, one list entry per caption."""

    def __init__(self, fps: float) -> None:
        self.rows: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        self.kinds: list[str] = []
        self._fps = fps

    def add(
        self, way: str, frames: np.ndarray, full: np.ndarray, caption: str, seconds: float
    ) -> None:
        row = self.rows[way]
        row["psnr_db"].append(min(MOST_DB, psnr_db(frames, full)))
        row["ssim"].append(ssim(frames, full))
        row["fit"].append(prompt_fit(frames, caption, self._fps).share)
        row["motion"].append(motion_energy(frames))
        row["flicker"].append(flicker(frames))
        row["warp"].append(warp_error(frames))
        row["seconds"].append(seconds)

    def told(self, base: str, denoise_s: float) -> dict[str, dict[str, float]]:
        """Means by way; motion, flicker and warp relative to the full run; seconds likewise to
        filling and denoising.

        `better` counts captions whose SSIM rose above that of `base` by more than a thousandth,
        `worse` those whose fell by that.
        """
        sums = {
            way: {name: float(np.mean(values)) for name, values in row.items()}
            for way, row in self.rows.items()
        }
        full, filling_s = sums["full"], sums[base]["seconds"]
        told = {}
        for way, row in sums.items():
            gained = np.array(self.rows[way]["ssim"]) - np.array(self.rows[base]["ssim"])
            told[way] = {
                **{name: row[name] for name in ("psnr_db", "ssim", "fit")},
                **{name: row[name] / full[name] for name in ("motion", "flicker", "warp")},
                "in_fillings": row["seconds"] / filling_s,
                "in_denoisings": row["seconds"] / denoise_s,
                "better": float((gained > SAYS_LITTLE).sum()),
                "worse": float((gained < -SAYS_LITTLE).sum()),
            }
        return told


@dataclass(frozen=True)
class Refiner:
    """A model that goes over a clip's latents."""

    model: Model
    guidance: float
    strength: float
    steps: int

    def refined(self, clean: torch.Tensor, noise: torch.Tensor, caption: str) -> np.ndarray:
        """Frames of the latents `clean`, noised to sigma = strength and denoised in so many
        steps."""
        family, condition = self.model.family, self.model.told(caption, self.guidance)
        solver = low_noise(family, self.strength, self.steps)
        latents = solver.noised(clean, noise)
        while solver.remaining:
            latents = solver.advance(family.velocity(latents, solver, condition), latents)
        return family.decode(latents)


@dataclass
class Bench:
    """The large model, what refines after it, and what was found so far."""

    large: Model
    refiners: dict[str, Refiner]
    spec: VideoSpec
    own_noise: bool
    keeps_eco: bool
    table: Table
    denoise_s: list[float] = field(default_factory=list)
    eco_s: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.installed = Installed(self.large.family.transformers)

    def measure(self, kind: str, caption: str, seed: int) -> None:
        spec, family = replace(self.spec, seed=seed), self.large.family
        whole, seconds = self._made(caption, spec, "")
        self.denoise_s.append(seconds)
        self.table.kinds.append(kind)
        self.table.add("full", whole.frames, whole.frames, caption, 0.0)
        decoded, moments = self._start(whole.frames, caption, spec)
        for depth in DEPTHS:
            frames, seconds = timed(partial(filled, decoded, moments, depth))
            self.table.add(f"D={depth}", frames, whole.frames, caption, seconds)
        clip = filled(decoded, moments, 1)
        kept = np.array([moment.is_decoded for moment in moments])

        clean, encode_s = timed(partial(family.encode_video, clip))
        noise = family.noise(spec if self.own_noise else replace(spec, seed=seed + FRESH))
        ways = {"round trip": partial(family.decode, clean)}
        for name, refiner in self.refiners.items():
            refiner.model.told(caption, refiner.guidance)  # reading the text is no part of refining
            ways[name] = partial(refiner.refined, clean, noise, caption)
        for name, way in ways.items():
            frames, seconds = timed(way)
            made_only = np.where(kept[:, None, None, None], clip, frames)
            self.table.add(f"{name}, all", frames, whole.frames, caption, encode_s + seconds)
            self.table.add(f"{name}, made", made_only, whole.frames, caption, encode_s + seconds)

    def _start(
        self, whole: np.ndarray, caption: str, spec: VideoSpec
    ) -> tuple[np.ndarray, tuple[Moment, ...]]:
        """Decoded frames and the moments to be filled in."""
        if not self.keeps_eco:
            key = uniform((spec.num_frames - 1) // 4 + 1, KEPT)
            return whole[list(true_times(key))], true_moments(key, spec.num_frames)
        made, seconds = self._made(caption, spec, METHOD)
        self.installed.use("")
        self.eco_s.append(seconds)
        assert made.filling is not None
        return made.frames, made.filling.moments

    def _made(self, caption: str, spec: VideoSpec, method: str) -> tuple[Made, float]:
        """A draft, and the processor seconds of its denoising."""
        marks: dict[str, float] = {}

        def on_step(phase: str, step: int, steps: int) -> None:
            marks.setdefault(phase, time.process_time())

        point = OperatingPoint(spec.num_inference_steps, method or "full")
        self.installed.use(point.accelerator)
        large, wishes = self.large, Wishes(on_step=on_step)
        made = draft(large.family, large.texts, caption, "", spec, point, wishes, self.installed)
        return made, marks["decode"] - marks["denoise"]


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--captions", type=int, default=8)
    words.add_argument("--refiners", nargs="+", default=["flipbook-edge", "flipbook"])
    words.add_argument("--guidance", type=float, nargs="+", default=[1.0, 6.0])
    words.add_argument("--strengths", type=float, nargs="+", default=[0.1, 0.2, 0.35, 0.5])
    words.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4])
    words.add_argument("--noise", choices=("own", "fresh"), default="own")
    words.add_argument("--kept", choices=("eco", "full"), default="eco")
    told = words.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)

    large = a_model("flipbook")
    models = {name: large if name == "flipbook" else a_model(name) for name in told.refiners}
    refiners = {
        f"{name} g={guidance:g} s={strength:g} n={steps}": Refiner(
            models[name], guidance, strength, steps
        )
        for name, guidance, strength, steps in product(
            models, told.guidance, told.strengths, told.steps
        )
    }
    spec = describe_model("flipbook")[1].defaults
    table = Table(spec.fps)
    bench = Bench(large, refiners, spec, told.noise == "own", told.kept == "eco", table)
    with torch.inference_mode():
        for kind, caption, seed in subjects(told.captions):
            bench.measure(kind, caption, seed)
            print(
                f"  {len(table.kinds)} of {told.captions}: {caption}", file=sys.stderr, flush=True
            )
    found = table.told("D=1", float(np.mean(bench.denoise_s)))
    print("\n".join(card(told, found, table)))
    eco = float(np.sum(bench.eco_s) / np.sum(bench.denoise_s))
    if bench.eco_s:
        print(f"  denoising of {METHOD} in full denoisings: {eco:.2f}")
    print(
        json.dumps(
            {
                "benchmark": "refinement",
                "method": METHOD,
                "captions": told.captions,
                "seeds": f"{FIRST_SEED}..",
                "noise": told.noise,
                "kept": told.kept,
                "ways": {
                    way: {name: round(value, 4) for name, value in row.items()}
                    for way, row in found.items()
                },
                "psnr_db_by_caption": {
                    way: [round(value, 2) for value in row["psnr_db"]]
                    for way, row in table.rows.items()
                },
                "classes": table.kinds,
                "method_in_denoisings": round(eco, 3) if bench.eco_s else None,
                "threads": 1,
                "machine": platform.processor() or platform.machine(),
                "versions": {
                    name: version(name) for name in ("torch", "diffusers", "numpy", "vidplat")
                }
                | {"opencv": cv2.__version__},
            }
        )
    )


def card(
    told: argparse.Namespace, found: dict[str, dict[str, float]], table: Table
) -> Iterator[str]:
    source = f"decoded frames of {METHOD}" if told.kept == "eco" else "the full run's own frames"
    yield (
        f"\n{source} filled in and refined, {told.captions} captions, {told.noise} noise, "
        "against the full run"
    )
    yield (
        f"  {'':<34}{'PSNR':>7}{'SSIM':>8}{'fit':>8}{'motion':>8}{'flicker':>8}{'warp':>7}"
        f"{'fillings':>10}{'denoisings':>11}{'better':>7}{'worse':>6}"
    )
    for way, row in found.items():
        yield (
            f"  {way:<34}{row['psnr_db']:7.2f}{row['ssim']:8.4f}{row['fit']:8.1%}"
            f"{row['motion']:8.2f}"
            f"{row['flicker']:8.2f}{row['warp']:7.2f}{row['in_fillings']:10.1f}{row['in_denoisings']:11.3f}"
            f"{row['better']:7.0f}{row['worse']:6.0f}"
        )
    yield "  PSNR by class of movement, dB"
    kinds = list(dict.fromkeys(table.kinds))
    yield f"  {'':<34}" + "".join(f"{kind:>8}" for kind in kinds)
    best = sorted((way for way in found if " s=" in way), key=lambda way: -found[way]["ssim"])[:4]
    for way in ("D=1", "round trip, all", "round trip, made", *best):
        values = table.rows[way]["psnr_db"]
        cells = [
            np.mean([v for v, k in zip(values, table.kinds, strict=True) if k == kind])
            for kind in kinds
        ]
        yield f"  {way:<34}" + "".join(f"{cell:8.2f}" for cell in cells)


if __name__ == "__main__":
    main()
