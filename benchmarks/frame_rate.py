"""What `vgdfr` saves and loses, beside fewer steps and half the frame rate.

    python -m benchmarks.frame_rate [--frames 33 65] [--captions 16 8] [--classes still slow ...]
        [--ways default ...] [--minutes 30] [--out FILE]

Held-out captions of each class of movement; the model's own full step count and solver. Of each
caption: the full run, one before and one after all others; `vgdfr` with its defaults; with theta
0.5 after a tenth of the steps, by pairs, with quads, and in the paper's form; and the rivals

fewer steps    plain runs of a third to five sixths of the steps
half rate      every second latent from noise on, told its own time, the others interpolated; also
               with half as many steps again

each interpolated to the very time (end to end) that a `vgdfr` video took. Times are processor
seconds of one thread over those of the full runs, so others on the machine count little. End to end
is all but encoding the text. Speeds are of sums over all videos of a group; PSNR and SSIM are means
over the videos in which something is merged; slow classes are still scenes, slow drifts, dashes and
cuts between still shots. The card also says how fast the lattice of latents lets any plan be.

`--minutes` begins no further caption after that long. Rows of captions go to FILE, as parquet. A
caption takes as long as eight full runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from benchmarks import lengths
from benchmarks.common import CLASSES, Row, Subject, mean_of
from benchmarks.making import Maker, between, near
from benchmarks.rivals.half_rate import half_rate
from flipbook_training.prompt_fit import prompt_fit
from vidplat.domain import OperatingPoint, VideoSpec
from vidplat.methods.eco.keyframes import uniform
from vidplat.methods.vgdfr.merges import Lattice, merges_above, slot_starts
from vidplat.quality import motion_energy

SLOW = ("still", "slow", "dash", "cut")
FEWER = (1 / 3, 1 / 2, 2 / 3, 5 / 6)  # shares of the full step count
HALF_RATE = (1.0, 1.5)
MOVES = 1e-4  # motion energy below which a ratio says nothing
#: Name in the card -> what is told to `vgdfr`, beside k a tenth of the steps.
WAYS = {
    "default": "",
    "theta 0.5, pairs": "theta=0.5,quads=off",
    "theta 0.5, quads": "theta=0.5,quads=on",
    "the paper's, quads": "theta=0.5,quads=on,form=paper",
}


def tenth(steps: int) -> int:
    return max(1, round(steps / 10))


def method(way: str, steps: int) -> str:
    return f"vgdfr:{WAYS[way]},k={tenth(steps)}" if WAYS[way] else "vgdfr"


# --- one caption ----------------------------------------------------------------------------------


def of_caption(
    ways: Sequence[str], maker: Maker, spec: VideoSpec, subject: Subject
) -> Iterator[Row]:
    """Rows of the rivals, then of the ways, which are compared with rivals at their own time."""
    first = maker.full(subject, spec)
    ours = [of_way(maker, spec, subject, way, first.frames) for way in ways]
    rivals = rivals_of(maker, spec, subject, first.frames)
    last = maker.full(subject, spec)
    about = {
        "frames": spec.num_frames,
        "latents": maker.shape.latent_frames(spec.num_frames),
        "kind": subject.kind,
        "seed": subject.seed,
        "caption": subject.caption,
        "full_denoise_s": (first.denoise_s + last.denoise_s) / 2,
        "full_whole_s": (first.whole_s + last.whole_s) / 2,
        "fit_full": prompt_fit(first.frames, subject.caption, spec.fps).share,
    }
    for row in ours:
        for rival, rows in rivals.items():
            distances = [{name: one[name] for name in ("psnr_db", "ssim")} for one in rows]
            at = between([one["whole_s"] for one in rows], distances, row["whole_s"])
            row |= {f"{rival}_{name}": value for name, value in at.items()}
    for row in (*rivals["steps"], *rivals["half"], *ours):
        time_of = {
            part: row[f"{part}_s"] / about[f"full_{part}_s"] for part in ("denoise", "whole")
        }
        yield {**about, **row, "time": time_of["denoise"], "time_whole": time_of["whole"]}


def of_way(maker: Maker, spec: VideoSpec, subject: Subject, way: str, whole: np.ndarray) -> Row:
    steps, moved = maker.steps, motion_energy(whole)
    video = maker.make(subject, spec, OperatingPoint(steps, method(way, steps)))
    dearest = max(maker.installed.share(step, steps) for step in range(steps))
    left = video.facts["kept_latents"]
    return {
        **measured(way, video.frames, video.denoise_s, video.whole_s, whole),
        "method": method(way, steps),
        "kept_latents": left,
        "is_merged": left < 1,
        "look_share": (dearest - 1) / steps,  # of a full run: preview, likeness, encoding
        "fit": prompt_fit(video.frames, subject.caption, spec.fps).share,
        "motion_ratio": motion_energy(video.frames) / moved if moved > MOVES else None,
    }


def rivals_of(
    maker: Maker, spec: VideoSpec, subject: Subject, whole: np.ndarray
) -> dict[str, list[Row]]:
    rows: dict[str, list[Row]] = {"steps": [], "half": []}
    for count in (round(maker.steps * share) for share in FEWER):
        video = maker.make(subject, spec, OperatingPoint(count))
        made = video.frames, video.denoise_s, video.whole_s
        rows["steps"].append(measured(f"{count} steps", *made, whole))
    latents = maker.shape.latent_frames(spec.num_frames)
    key = uniform(latents, latents // 2 + 1)
    for count in (round(maker.steps * share) for share in HALF_RATE):
        made = half_rate(maker, subject, spec, count, key)
        rows["half"].append(measured(f"half rate, {count} steps", *made, whole))
    return rows


def measured(
    way: str, frames: np.ndarray, denoise_s: float, whole_s: float, whole: np.ndarray
) -> Row:
    return {"way": way, "denoise_s": denoise_s, "whole_s": whole_s, **near(frames, whole)}


# --- what was found -------------------------------------------------------------------------------


def figures(rows: Sequence[Row]) -> dict[str, Any]:
    """Of one way's videos: speeds of all, distances of those in which something is merged."""
    merged = [row for row in rows if row["is_merged"]]
    declined = [{"overhead": row["time_whole"] - 1} for row in rows if not row["is_merged"]]
    distances = [
        f"{side}{name}" for side in ("", "steps_", "half_") for name in ("psnr_db", "ssim")
    ]
    means = ("kept_latents", *distances, "fit", "fit_full", "motion_ratio")
    return {
        "videos": len(rows),
        "merged": len(merged),
        "denoising_speed": quotient(rows, "full_denoise_s", "denoise_s"),
        "end_to_end_speed": quotient(rows, "full_whole_s", "whole_s"),
        **{name: mean_of(merged, name) for name in means},
        "nearer_than_steps": sum(row["psnr_db"] > row["steps_psnr_db"] for row in merged),
        "nearer_than_half": sum(row["psnr_db"] > row["half_psnr_db"] for row in merged),
        "overhead": mean_of(declined, "overhead"),
        "look_share": mean_of(rows, "look_share"),
    }


def quotient(rows: Sequence[Row], above: str, below: str) -> float:
    return float(sum(row[above] for row in rows) / sum(row[below] for row in rows))


def fastest(maker: Maker, frames: int, quads: bool) -> tuple[int, float]:
    """Latents that are left where all that can be is merged, and the speed of denoising then, the
    preview for free."""
    shape, spec = maker.shape, maker.spec(frames)
    slots = len(slot_starts(frames, shape.temporal_factor))
    fours = (1.0,) * max(0, slots - 1) if quads else ()
    lattice = Lattice(frames, (1.0,) * slots, fours, shape.temporal_factor)
    left = len(merges_above(lattice, 0.5).latents)
    share = shape.block.share(shape.tokens(spec, left), shape.tokens(spec))
    before = tenth(maker.steps)
    return left, maker.steps / (before + (maker.steps - before) * share)


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Of one length."""
    found: dict[str, Any] = {"rivals": {}}
    for way in dict.fromkeys(row["way"] for row in rows):
        mine = [row for row in rows if row["way"] == way]
        if way not in WAYS:
            names = ("time", "psnr_db", "ssim")
            found["rivals"][way] = {name: mean_of(mine, name) for name in names}
            continue
        groups = {kind: [row for row in mine if row["kind"] == kind] for kind in CLASSES}
        groups["slow classes"] = [row for row in mine if row["kind"] in SLOW]
        groups["all"] = mine
        found[way] = {name: figures(group) for name, group in groups.items() if group}
    return found


#: Columns of the card: head, figure, its format.
COLUMNS = (
    ("kept", "kept_latents", "6.2f"),
    ("denoise", "denoising_speed", "9.2f"),
    ("e2e", "end_to_end_speed", "7.2f"),
    ("PSNR", "psnr_db", "8.2f"),
    ("SSIM", "ssim", "7.3f"),
    ("steps", "steps_psnr_db", "9.2f"),
    ("", "steps_ssim", "7.3f"),
    ("half rate", "half_psnr_db", "11.2f"),
    ("", "half_ssim", "7.3f"),
    ("motion", "motion_ratio", "8.2f"),
    ("not merged", "overhead", "12.3f"),
)


def card(maker: Maker, rows: Sequence[Row], found: dict[str, Any]) -> Iterator[str]:
    yield f"  {'rival':<24}{'time':>7}{'PSNR':>8}{'SSIM':>8}"
    for way, f in found["rivals"].items():
        yield f"  {way:<24}{f['time']:>7.2f}{f['psnr_db']:>8.2f}{f['ssim']:>8.3f}"
    heads = "".join(f"{name:>{form.split('.')[0]}}" for name, _, form in COLUMNS)
    for way in (way for way in WAYS if way in found):
        left, speed = fastest(maker, rows[0]["frames"], "quads=off" not in WAYS[way])
        most = f"at most {speed:.2f} times as fast, with {left} latents"
        yield f"  {way}: {method(way, maker.steps)}; {most}"
        yield f"    {'':<14}{'merged':>9}{heads}"
        for name, f in found[way].items():
            cells = "".join(cell(f[figure], form) for _, figure, form in COLUMNS)
            yield f"    {name:<14}{f['merged']:>4} of {f['videos']:>2}{cells}"
        f = found[way]["all"]
        yield f"    looking for what is alike takes {f['look_share']:.1%} of a full run's denoising"
        if f["merged"]:
            wins = f"steps in {f['nearer_than_steps']}, than half rate in {f['nearer_than_half']}"
            fit = f"prompt fit {f['fit']:.3f}, full runs {f['fit_full']:.3f}"
            yield f"    nearer than {wins} of {f['merged']}; {fit}"


def cell(value: float, form: str) -> str:
    return f"{value:{form}}" if math.isfinite(value) else f"{'-':>{form.split('.')[0]}}"


def main() -> None:
    parser = lengths.length_options(__doc__, "frame-rate")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    told = parser.parse_args()
    study = lengths.Study(partial(of_caption, told.ways), summary, card)
    lengths.run("frame_rate", told, study)


if __name__ == "__main__":
    main()
