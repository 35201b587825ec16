"""Frames made between frames: how near the truth, and how many per second on one core.

    python benchmarks/interpolate.py [--clips 48] [--keyframes 3 5] [--no-speed]

Quality: held-out clips of flipbook's world (seeds from 9,500,000,000), 33 frames of 64 x 64; K
evenly spaced latents are kept. Decoded frames are the true ones at their true times, so that only
what is filled in differs from the truth; PSNR is over the made frames alone. Rivals: hold (the
nearer decoded frame) and dissolve, which know no motion. Speed: one frame made in the middle of
each pair. Prints a card and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections import defaultdict
from importlib.metadata import version
from typing import Any

import cv2
import numpy as np

from flipbook_training import world
from vidplat.methods.eco.keyframes import uniform
from vidplat.methods.filling.flow import Pair
from vidplat.methods.filling.frames import filled
from vidplat.methods.filling.moments import Moment, true_moments, true_times
from vidplat.methods.model_shape import latent_frames
from vidplat.quality import flicker, psnr_db

FIRST_SEED = 9_500_000_000
FRAMES = 33
MIN_TIMED_S = 1.5


def a_clip(
    seed: int, height: int = 64, width: int = 64, frames: int = FRAMES
) -> tuple[str, np.ndarray]:
    """The motion class of a held-out scene and its true video."""
    rng = np.random.default_rng(seed)
    scene = world.draw_scene(rng)
    layout = world.draw_layout(scene, rng)
    return scene.motion_class, world.render(
        scene, layout, num_frames=frames, height=height, width=width
    )


def held(decoded: np.ndarray, moments: tuple[Moment, ...]) -> np.ndarray:
    return np.stack([decoded[moment.before + (moment.part >= 0.5)] for moment in moments])


def dissolved(decoded: np.ndarray, moments: tuple[Moment, ...]) -> np.ndarray:
    made = []
    for moment in moments:
        after = decoded[moment.before + (not moment.is_decoded)]
        made.append(Pair(decoded[moment.before], after).dissolved(float(moment.part)))
    return np.stack(made)


def quality(clips: int, keyframes: int) -> dict[str, Any]:
    key = uniform(latent_frames(FRAMES, 4), keyframes)
    moments, times = true_moments(key, FRAMES), true_times(key)
    made = [not moment.is_decoded for moment in moments]
    ways: dict[str, Any] = {"hold": held, "dissolve": dissolved, "flow": filled}
    found: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in ways}
    flickers: dict[str, list[float]] = defaultdict(list)
    classes: dict[str, int] = defaultdict(int)
    for seed in range(FIRST_SEED, FIRST_SEED + clips):
        kind, truth = a_clip(seed)
        if kind == "still":
            continue  # every way gives it back
        classes[kind] += 1
        flickers["truth"].append(flicker(truth))
        for name, way in ways.items():
            video = way(truth[list(times)], moments)
            db = min(
                60.0, psnr_db(video[made], truth[made])
            )  # a clip with nothing to make differs by nothing
            found[name][kind].append(db)
            found[name]["all"].append(db)
            flickers[name].append(flicker(video))
    kinds = [kind for kind in world.MOTION_CLASSES if kind in classes] + ["all"]
    told = {
        name: {kind: round(float(np.mean(found[name][kind])), 2) for kind in kinds} for name in ways
    }
    print(
        f"\nK = {keyframes} of {len(uniform(9, 9))} latents, {sum(made)} of {FRAMES} frames "
        "made; PSNR of these in dB"
    )
    print(
        f"  {'':<10}"
        + "".join(f"{f'{kind} ({classes[kind]})' if kind != 'all' else kind:>12}" for kind in kinds)
    )
    for name in ways:
        print(f"  {name:<10}" + "".join(f"{told[name][kind]:12.2f}" for kind in kinds))
    steady = {name: round(float(np.mean(values)), 5) for name, values in flickers.items()}
    print("  flicker     " + ", ".join(f"{name} {value:.4f}" for name, value in steady.items()))
    worst = {name: round(float(np.percentile(found[name]["all"], 10)), 2) for name in ways}
    print("  worst tenth " + ", ".join(f"{name} {value:.2f} dB" for name, value in worst.items()))
    return {
        "keyframes": keyframes,
        "psnr_db": told,
        "flicker": steady,
        "tenth_percentile_db": worst,
    }


def speed(height: int, width: int) -> float:
    """Made frames per second, each between its own pair."""
    _, clip = a_clip(FIRST_SEED + 1, height, width, frames=9)
    moments = true_moments((0, 2, 4), 17)
    made = sum(not moment.is_decoded for moment in moments)
    filled(clip, moments)
    rounds, since = 0, time.process_time()
    while time.process_time() - since < MIN_TIMED_S:
        filled(clip, moments)
        rounds += 1
    rate = round(made * rounds / (time.process_time() - since), 1)
    print(f"  {f'{width} x {height}':<12}{rate:9.1f}")
    return rate


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--clips", type=int, default=48)
    words.add_argument("--keyframes", type=int, nargs="+", default=[3, 5])
    words.add_argument("--no-speed", action="store_true")
    told = words.parse_args()
    cv2.setNumThreads(1)

    qualities = [quality(told.clips, keyframes) for keyframes in told.keyframes]
    speeds = {}
    if not told.no_speed:
        print("\nmade frames per second of one core's time")
        speeds = {
            f"{width}x{height}": speed(height, width) for width, height in ((64, 64), (832, 480))
        }
    print(
        json.dumps(
            {
                "benchmark": "interpolate",
                "clips": told.clips,
                "first_seed": FIRST_SEED,
                "quality": qualities,
                "frames_per_s": speeds,
                "threads": 1,
                "machine": platform.processor() or platform.machine(),
                "versions": {
                    "opencv": cv2.__version__,
                    "numpy": np.__version__,
                    "vidplat": version("vidplat"),
                },
            }
        )
    )


if __name__ == "__main__":
    main()
