"""What `vgdfr` saves and loses: quiet frames merged in mid-run, against fewer steps and half the
frame rate.

    python benchmarks/frame_rate.py [--frames 33 65] [--captions 16 8] [--classes still slow ...]
                                    [--minutes 30] [--out FILE]

Held-out captions, the first seeds from 9,700,200,000 of each class of movement; flipbook, its own
full step count and solver. Of each caption: the full run, one before and one after all others;
`vgdfr` with its defaults; as the bar asks, theta = 0.5 after a tenth of the steps, by pairs, with
quads, and in the paper's form; and the rivals

fewer steps    plain runs of a third to five sixths of the steps
half rate      every second latent from noise on, told its own time, the others interpolated; also
               with half as many steps again

each interpolated to the very time (end to end) that a `vgdfr` video took. Times are processor
seconds of one thread over those of the full runs, so others on the machine count little. End to end
is all but encoding the text.

The bar: at theta = 0.5 2.5 times as fast in denoising and twice end to end where there are slow
passages (still scenes, slow drifts, dashes, cuts between still shots), nearer to the full run than
fewer steps and than half the rate at equal time; nothing merged in fast and panning scenes, at
under 5 % more time. Speeds are of sums over all videos of these classes; PSNR and SSIM are means
over the videos in which something is merged. The card says of each part whether it is met, and how
fast the lattice of latents lets any plan be.

`--minutes` begins no further caption after that long. Per-prompt rows go to <out>.parquet. Prints a
card and ends with one JSON line. A caption takes as long as eight full runs.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from keyframes import (
    Maker,
    Row,
    Subject,
    between,
    each,
    mean_of,
    near,
    rounded,
    subjects,
    with_all_names,
)

from flipbook_training import world
from flipbook_training.prompt_fit import prompt_fit
from vidplat.domain import OperatingPoint, VideoSpec
from vidplat.methods.eco.keyframes import uniform
from vidplat.methods.filling.frames import filled
from vidplat.methods.filling.moments import true_moments
from vidplat.methods.pass_size import BlockSize
from vidplat.methods.seams.frame_times import Times, timed
from vidplat.methods.seams.layouts import layout_of
from vidplat.methods.vgdfr.merges import Lattice, merges_above, slot_starts
from vidplat.quality import motion_energy
from vidplat.workers.making import conditioned

FIRST_SEED = 9_700_200_000  # captions from here on; training drew below 3e9
CLASSES = world.MOTION_CLASSES
SLOW, QUICK = ("still", "slow", "dash", "cut"), ("fast", "pan")
DENOISING, END_TO_END, OVERHEAD = 2.5, 2.0, 0.05
FEWER = (1 / 3, 1 / 2, 2 / 3, 5 / 6)  # shares of the full step count
HALF_RATE = (1.0, 1.5)
MOVES = 1e-4  # motion energy below which a ratio says nothing
#: Name in the card -> method, of a full step count; and whether it is what the bar speaks of.
WAYS: dict[str, tuple[Callable[[int], str], bool]] = {
    "default": (lambda steps: "vgdfr", False),
    "theta 0.5, pairs": (lambda steps: f"vgdfr:theta=0.5,k={tenth(steps)},quads=off", True),
    "theta 0.5, quads": (lambda steps: f"vgdfr:theta=0.5,k={tenth(steps)},quads=on", True),
    "the paper's, quads": (
        lambda steps: f"vgdfr:theta=0.5,k={tenth(steps)},quads=on,form=paper",
        True,
    ),
}


def tenth(steps: int) -> int:
    return max(1, round(steps / 10))


@torch.inference_mode()
def half_rate(
    maker: Maker, subject: Subject, spec: VideoSpec, steps: int, key: Sequence[int]
) -> tuple[np.ndarray, float, float]:
    """Frames, seconds of denoising, and seconds in all, of a run that no method has: the latents
    `key` alone from noise on, each at its own time, and the others interpolated."""
    family, spec = maker.family, replace(spec, seed=subject.seed)
    maker.installed.use("")
    condition = conditioned(maker.family, subject.caption, "", spec.guidance_scale)
    latents = family.noise(spec)[:, :, list(key)]
    began = time.process_time()
    solver, times = family.solver(steps), Times(tuple(key))
    with ExitStack() as told:
        for model in family.transformers:
            told.enter_context(timed(model, layout_of(model), times))
        while solver.remaining:
            latents = solver.advance(family.velocity(latents, solver, condition), latents)
    denoised = time.process_time()
    frames = filled(family.decode(latents), true_moments(key, spec.num_frames))
    return frames, denoised - began, time.process_time() - began


# --- one caption ----------------------------------------------------------------------------------


def of_caption(
    maker: Maker, spec: VideoSpec, subject: Subject, asked: Sequence[str]
) -> Iterator[Row]:
    steps, latents = (
        maker.shape.defaults.num_inference_steps,
        maker.shape.latent_frames(spec.num_frames),
    )
    full = maker.make(subject, spec, OperatingPoint(steps))
    whole = full.made.frames
    ways, looks = {}, {}
    for name in asked:
        ways[name] = maker.make(subject, spec, OperatingPoint(steps, WAYS[name][0](steps)))
        looks[name] = (
            max(maker.installed.share(step, steps) for step in range(steps)) - 1
        )  # in steps
    fewer = {
        count: maker.make(subject, spec, OperatingPoint(count))
        for count in (round(steps * share) for share in FEWER)
    }
    key = uniform(latents, latents // 2 + 1)
    halves = {
        count: half_rate(maker, subject, spec, count, key)
        for count in (round(steps * share) for share in HALF_RATE)
    }
    again = maker.make(subject, spec, OperatingPoint(steps))
    denoise_s, whole_s = (full.denoise_s + again.denoise_s) / 2, (full.whole_s + again.whole_s) / 2

    about = {
        "frames": spec.num_frames,
        "latents": latents,
        "kind": subject.kind,
        "seed": subject.seed,
        "caption": subject.caption,
        "full_denoise_s": denoise_s,
        "full_whole_s": whole_s,
        "fit_full": prompt_fit(whole, subject.caption, spec.fps).share,
    }
    rivals: dict[str, tuple[list[float], list[dict[str, float]]]] = {
        "steps": ([], []),
        "half": ([], []),
    }
    for name, count, frames, seconds, all_s in (
        *(
            ("steps", count, video.made.frames, video.denoise_s, video.whole_s)
            for count, video in fewer.items()
        ),
        *(("half", count, *video) for count, video in halves.items()),
    ):
        distance = near(frames, whole)
        rivals[name][0].append(all_s)
        rivals[name][1].append(distance)
        prices = {
            "denoise_s": seconds,
            "whole_s": all_s,
            "time": seconds / denoise_s,
            "time_whole": all_s / whole_s,
        }
        label = f"{count} steps" if name == "steps" else f"half rate, {count} steps"
        yield about | {"way": label} | distance | prices
    moved = motion_energy(whole)
    for name, video in ways.items():
        frames = video.made.frames
        steps_at, half_at = (between(*rivals[rival], video.whole_s) for rival in ("steps", "half"))
        left = video.facts["kept_latents"]
        yield {
            **about,
            "way": name,
            "method": WAYS[name][0](steps),
            "kept_latents": left,
            "is_merged": left < 1,
            "look_share": looks[name]
            / steps,  # of a full run's denoising: preview, likeness, encoding
            "denoise_s": video.denoise_s,
            "whole_s": video.whole_s,
            "time": video.denoise_s / denoise_s,
            "time_whole": video.whole_s / whole_s,
            **near(frames, whole),
            **{f"steps_{measure}": value for measure, value in steps_at.items()},
            **{f"half_{measure}": value for measure, value in half_at.items()},
            "fit": prompt_fit(frames, subject.caption, spec.fps).share,
            "motion_ratio": motion_energy(frames) / moved if moved > MOVES else None,
        }


# --- what was found -------------------------------------------------------------------------------


def figures(rows: Sequence[Row]) -> dict[str, Any]:
    """Of one way's videos: speeds of all, distances of those in which something is merged."""
    merged = [row for row in rows if row["is_merged"]]
    plain = [row["time_whole"] - 1 for row in rows if not row["is_merged"]]
    return {
        "videos": len(rows),
        "merged": len(merged),
        "kept_latents": mean_of(merged, "kept_latents"),
        "denoising_speed": sum(row["full_denoise_s"] for row in rows)
        / sum(row["denoise_s"] for row in rows),
        "end_to_end_speed": sum(row["full_whole_s"] for row in rows)
        / sum(row["whole_s"] for row in rows),
        **{
            name: mean_of(merged, name)
            for side in ("", "steps_", "half_")
            for name in (f"{side}psnr_db", f"{side}ssim")
        },
        "nearer_than_steps": sum(row["psnr_db"] > row["steps_psnr_db"] for row in merged),
        "nearer_than_half": sum(row["psnr_db"] > row["half_psnr_db"] for row in merged),
        "fit": mean_of(merged, "fit"),
        "fit_full": mean_of(merged, "fit_full"),
        "motion_ratio": mean_of(merged, "motion_ratio"),
        "overhead": statistics.mean(plain) if plain else math.nan,
        "look_share": mean_of(rows, "look_share"),
    }


def fastest(maker: Maker, spec: VideoSpec, quads: bool) -> tuple[int, float]:
    """Latents that are left where all that can be is merged, and the speed of denoising then, the
    preview for free."""
    n, model = spec.num_frames, maker.family.transformers[0]
    t = maker.family.temporal_factor
    slots = len(slot_starts(n, t))
    fours = (1.0,) * max(0, slots - 1) if quads else ()
    left = len(merges_above(Lattice(n, (1.0,) * slots, fours, t), 0.5).latents)
    config, noise = model.config, maker.family.noise(replace(spec, num_frames=1))
    _, rows, columns = maker.family.grid(noise)
    width = config.num_attention_heads * config.attention_head_dim
    block = BlockSize(width, config.ffn_dim, int(getattr(maker.family, "text_length", 0)))
    steps = maker.shape.defaults.num_inference_steps
    before = tenth(steps)
    share = block.share(left * rows * columns, maker.shape.latent_frames(n) * rows * columns)
    return left, steps / (before + (steps - before) * share)


def bar(rows: Sequence[Row]) -> dict[str, Any]:
    """Each part of the bar, of one way and length: what was found, and whether it is met."""
    slow, quick = ([row for row in rows if row["kind"] in kinds] for kinds in (SLOW, QUICK))
    found: dict[str, Any] = {}
    if slow:
        f = figures(slow)
        found |= {
            f"denoising {DENOISING} times as fast": (
                f["denoising_speed"],
                f["denoising_speed"] >= DENOISING,
            ),
            f"end to end {END_TO_END} times as fast": (
                f["end_to_end_speed"],
                f["end_to_end_speed"] >= END_TO_END,
            ),
            "dB over fewer steps": (gap := f["psnr_db"] - f["steps_psnr_db"], gap > 0),
            "dB over half the rate": (gap := f["psnr_db"] - f["half_psnr_db"], gap > 0),
        }
    if quick:
        f = figures(quick)
        found |= {
            "share of fast and panning scenes merged in": (
                f["merged"] / f["videos"],
                not f["merged"],
            ),
            "more time where these are declined": (f["overhead"], f["overhead"] < OVERHEAD),
        }
    return {name: {"found": value, "is_met": bool(met)} for name, (value, met) in found.items()}


def summary(rows: list[Row]) -> dict[str, Any]:
    """Of one length."""
    found: dict[str, Any] = {}
    for name in WAYS:
        mine = [row for row in rows if row["way"] == name]
        if not mine:
            continue
        kinds = {kind: [row for row in mine if row["kind"] == kind] for kind in CLASSES}
        by_class = {kind: figures(group) for kind, group in kinds.items() if group}
        slow = [row for row in mine if row["kind"] in SLOW]
        found[name] = {
            "all": figures(mine),
            "by_class": by_class,
            "slow_classes": figures(slow) if slow else None,
            "bar": bar(mine),
        }
    others = Counter(row["way"] for row in rows if row["way"] not in WAYS)
    found["rivals"] = {
        way: {
            name: mean_of([row for row in rows if row["way"] == way], name)
            for name in ("time", "psnr_db", "ssim")
        }
        for way in others
    }
    return found


def card(maker: Maker, spec: VideoSpec, rows: list[Row], found: dict[str, Any]) -> Iterator[str]:
    steps = maker.shape.defaults.num_inference_steps
    captions = len({row["seed"] for row in rows})
    yield ""
    yield (
        f"{spec.num_frames} frames, {rows[0]['latents']} latents, {captions} captions; "
        "distance to the full run"
    )
    yield f"  {'rival':<24}{'time':>7}{'PSNR':>8}{'SSIM':>8}"
    for way, f in found["rivals"].items():
        yield f"  {way:<24}{f['time']:>7.2f}{f['psnr_db']:>8.2f}{f['ssim']:>8.3f}"
    for name, (method, is_the_bars) in WAYS.items():
        if name not in found:
            continue
        ours = found[name]
        yield f"  {name}: {method(steps)}"
        yield (
            f"    {'':<14}{'merged':>9}{'kept':>6}{'denoise':>9}{'e2e':>7}{'PSNR':>8}{'SSIM':>7}"
            f"{'steps':>9}{'':>7}{'half rate':>11}{'':>7}{'motion':>8}{'not merged':>12}"
        )
        for kind, f in (
            *ours["by_class"].items(),
            ("slow classes", ours["slow_classes"]),
            ("all", ours["all"]),
        ):
            if f is not None:
                yield f"    {kind:<14}" + line(f)
        a = ours["all"]
        yield (
            f"    looking for what is alike, and encoding it, takes {a['look_share']:.1%} of "
            "a full run's denoising"
        )
        if a["merged"]:
            wins = (
                f"than steps in {a['nearer_than_steps']} of {a['merged']}, than half rate "
                "in "
                f"{a['nearer_than_half']}"
            )
            yield f"    nearer {wins}; prompt fit {a['fit']:.3f}, full runs {a['fit_full']:.3f}"
        if is_the_bars:
            left, speed = fastest(maker, spec, "quads=on" in method(steps))
            yield (
                f"    the lattice leaves {left} latents at least: {speed:.2f} times as fast, "
                "the preview for free"
            )
        for part, one in ours["bar"].items():
            figure = f"{one['found']:.3f}" if math.isfinite(one["found"]) else "nothing to measure"
            yield f"    bar: {part}: {figure}, {'met' if one['is_met'] else 'not met'}"


def line(f: dict[str, Any]) -> str:
    def of(name: str, form: str) -> str:
        width = int(form.split(".")[0])
        return f"{f[name]:{form}}" if math.isfinite(f[name]) else f"{'-':>{width}}"

    shape = (("kept_latents", "6.2f"), ("denoising_speed", "8.2f"), ("end_to_end_speed", "6.2f"))
    told = [of(name, form) + ("x" if "speed" in name else "") for name, form in shape]
    told += [
        of(name, form)
        for name, form in (("psnr_db", "8.2f"), ("ssim", "7.3f"), ("steps_psnr_db", "9.2f"))
    ]
    told += [of(name, form) for name, form in (("steps_ssim", "7.3f"), ("half_psnr_db", "11.2f"))]
    told += [
        of(name, form)
        for name, form in (("half_ssim", "7.3f"), ("motion_ratio", "8.2f"), ("overhead", "12.3f"))
    ]
    return f"{f['merged']:>4} of {f['videos']:>2}" + "".join(told)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--model", default="flipbook")
    words.add_argument("--frames", type=int, nargs="+", default=[33, 65])
    words.add_argument("--captions", type=int, nargs="+", default=[8])
    words.add_argument("--classes", nargs="+", default=CLASSES, choices=CLASSES)
    words.add_argument(
        "--ways", nargs="+", default=list(WAYS), choices=list(WAYS), help="as the card names them"
    )
    words.add_argument("--minutes", type=float, default=math.inf)
    words.add_argument("--threads", type=int, default=1)
    words.add_argument("--out", type=Path, default=Path("benchmarks/results/frame-rate"))
    told = words.parse_args()
    torch.set_num_threads(told.threads)
    cv2.setNumThreads(1)
    maker = Maker(told.model)
    began = time.perf_counter()

    def say(line: str) -> None:
        print(f"{time.perf_counter() - began:6.0f} s  {line}", file=sys.stderr, flush=True)

    def is_late() -> bool:
        return time.perf_counter() - began > 60 * told.minutes

    every: list[Row] = []
    lengths: dict[str, Any] = {}
    steps = maker.shape.defaults.num_inference_steps
    print(
        f"{told.model} {maker.ref.revision[:12]}, against {steps} steps of the same seed",
        flush=True,
    )
    told.out.parent.mkdir(parents=True, exist_ok=True)
    for frames, count in zip(
        told.frames, each(told.captions, len(told.frames), "--captions"), strict=True
    ):
        spec, rows = maker.spec(frames), []
        for number, subject in enumerate(subjects(count, FIRST_SEED, told.classes)):
            if is_late():
                break
            made = list(of_caption(maker, spec, subject, told.ways))
            rows += made
            ours = (
                f"{row['way']} {row['time_whole']:.2f}, {row['psnr_db']:.1f} dB"
                for row in made[-len(told.ways) :]
            )
            say(f"{frames} frames, {number + 1} of {count} ({subject.kind}): " + "; ".join(ours))
        if not rows:
            break
        found = summary(rows)
        print("\n".join(card(maker, spec, rows, found)), flush=True)
        lengths[str(frames)] = {"captions": len({row["seed"] for row in rows}), **found}
        every += rows
        pq.write_table(
            pa.Table.from_pylist(with_all_names(every)), told.out.with_suffix(".parquet")
        )
    maker.installed.remove()
    answer = {
        "benchmark": "frame_rate",
        "model": told.model,
        "revision": maker.ref.revision,
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
