"""Frames made between frames: how near the truth, and how many per second on one core.

    python -m benchmarks.interpolate [--clips 48] [--keyframes 3 5] [--no-speed]

Quality: held-out clips of flipbook's world, 33 frames of 64 x 64; K evenly spaced latents are kept.
Decoded frames are the true ones at their true times, so that only what is filled in differs from
the truth; PSNR is over the made frames alone. Rivals: hold (the nearer decoded frame) and dissolve,
which know no motion. Speed: one frame made in the middle of each pair.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from benchmarks.common import CLASSES, FIRST_SEEDS, MOST_DB, answer, head, options
from flipbook_training import world
from vidplat.methods.eco.keyframes import uniform
from vidplat.methods.filling.flow import Pair
from vidplat.methods.filling.frames import filled
from vidplat.methods.filling.moments import Moment, true_moments, true_times
from vidplat.methods.model_shape import latent_frames
from vidplat.quality import flicker, psnr_db

FIRST_SEED = FIRST_SEEDS["interpolate"]
FRAMES = 33
MIN_TIMED_S = 1.5
SIZES = ((64, 64), (832, 480))  # width, height


def a_clip(
    seed: int, height: int = 64, width: int = 64, frames: int = FRAMES
) -> tuple[str, np.ndarray]:
    """The class of movement of a held-out scene, and its true video."""
    rng = np.random.default_rng(seed)
    scene = world.draw_scene(rng)
    layout = world.draw_layout(scene, rng)
    shown = world.render(scene, layout, num_frames=frames, height=height, width=width)
    return scene.motion_class, shown


def held(decoded: np.ndarray, moments: tuple[Moment, ...]) -> np.ndarray:
    return np.stack([decoded[moment.before + (moment.part >= 0.5)] for moment in moments])


def dissolved(decoded: np.ndarray, moments: tuple[Moment, ...]) -> np.ndarray:
    made = []
    for moment in moments:
        after = decoded[moment.before + (not moment.is_decoded)]
        made.append(Pair(decoded[moment.before], after).dissolved(float(moment.part)))
    return np.stack(made)


WAYS: dict[str, Callable[[np.ndarray, tuple[Moment, ...]], np.ndarray]] = {
    "hold": held,
    "dissolve": dissolved,
    "flow": filled,
}


def quality(clips: int, keyframes: int) -> dict[str, Any]:
    """Of each way: PSNR by class of movement, and flicker. Still clips, which every way gives back,
    are left out."""
    key = uniform(latent_frames(FRAMES, 4), keyframes)
    moments, times = true_moments(key, FRAMES), true_times(key)
    made = [not moment.is_decoded for moment in moments]
    psnr: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in WAYS}
    flickers: dict[str, list[float]] = defaultdict(list)
    for seed in range(FIRST_SEED, FIRST_SEED + clips):
        kind, truth = a_clip(seed)
        if kind == "still":
            continue
        flickers["truth"].append(flicker(truth))
        for name, way in WAYS.items():
            video = way(truth[list(times)], moments)
            psnr[name][kind].append(min(MOST_DB, psnr_db(video[made], truth[made])))
            flickers[name].append(flicker(video))
    return {
        "keyframes": keyframes,
        "made": sum(made),
        "clips": {kind: len(psnr["flow"][kind]) for kind in CLASSES if kind in psnr["flow"]},
        "psnr_db": {
            name: {kind: float(np.mean(by[kind])) for kind in CLASSES if kind in by}
            | {"all": float(np.mean([db for group in by.values() for db in group]))}
            for name, by in psnr.items()
        },
        "flicker": {name: float(np.mean(values)) for name, values in flickers.items()},
    }


def tell(found: dict[str, Any]) -> None:
    told = f"{found['made']} of {FRAMES} frames made; PSNR of these in dB"
    print(f"\nK = {found['keyframes']} of {latent_frames(FRAMES, 4)} latents, {told}")
    heads = (f"{kind} ({count})" for kind, count in found["clips"].items())
    print(f"  {'':<10}" + "".join(f"{one:>12}" for one in (*heads, "all")))
    for name, by in found["psnr_db"].items():
        print(f"  {name:<10}" + "".join(f"{db:12.2f}" for db in by.values()))
    steady = (f"{name} {value:.4f}" for name, value in found["flicker"].items())
    print("  flicker   " + ", ".join(steady))


def speed(width: int, height: int) -> float:
    """Made frames per second, each between its own pair."""
    _, clip = a_clip(FIRST_SEED + 1, height, width, frames=9)
    moments = true_moments((0, 2, 4), 17)
    made = sum(not moment.is_decoded for moment in moments)
    filled(clip, moments)
    rounds, since = 0, time.process_time()
    while time.process_time() - since < MIN_TIMED_S:
        filled(clip, moments)
        rounds += 1
    return made * rounds / (time.process_time() - since)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--keyframes", type=int, nargs="+", default=[3, 5])
    parser.add_argument("--no-speed", action="store_true")
    told = parser.parse_args()
    cv2.setNumThreads(1)
    print(head(f"{told.clips} clips", "interpolate"))
    qualities = []
    for keyframes in told.keyframes:
        qualities.append(quality(told.clips, keyframes))
        tell(qualities[-1])
    speeds = {} if told.no_speed else {f"{w}x{h}": speed(w, h) for w, h in SIZES}
    for size, rate in speeds.items():
        print(f"  {size:<8} {rate:9.1f} made frames per second of one core's time")
    answer(
        "interpolate",
        clips=told.clips,
        quality=qualities,
        frames_per_s=speeds,
    )


if __name__ == "__main__":
    main()
