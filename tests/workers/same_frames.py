"""Clips, and what is made of them, told as hashes: a process to compare with others.

    python -m tests.workers.same_frames     one JSON object: what was made -> SHA-256

Made are (see `made_of_frames`) mp4 bytes at every size and of every clip, and from those the
decoded frames, the poster, the source brought to another size, and frames filled in by optical
flow. Loads av, NumPy, OpenCV and Pillow, never torch: two seconds of a core.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np

from vidplat.methods.filling.frames import filled
from vidplat.methods.filling.moments import Moment
from vidplat.workers.video import DRAFT_CRF, probe, read_video, to_frames, to_mp4, to_poster

# (rows, columns). x264 works in blocks of 16 pixels, eight or sixteen of them at a time: sides on
# both sides of 128, that are a multiple of it and that are not, wide and tall.
SIZES = (
    (32, 32),
    (48, 48),
    (64, 64),
    (80, 112),
    (112, 80),
    (96, 96),
    (64, 144),
    (128, 128),
)
FILLED = ((48, 48), (80, 112), (256, 272))  # optical flow is searched at half size from 256 on
FRAMES = 17
FPS = 16


def smooth(frames: int, rows: int, columns: int) -> np.ndarray:
    """Slow waves of colour that drift, (frames, rows, columns, 3) uint8, as are all clips here."""
    y, x = np.mgrid[:rows, :columns]
    shown = []
    for t in range(frames):
        red = 127 + 100 * np.sin(3 * (x + 2 * t) / columns)
        green = 127 + 100 * np.cos(4 * (y - t) / rows)
        blue = 127 + 80 * np.sin(5 * (x + y + 3 * t) / (rows + columns))
        shown.append(np.stack([red, green, blue], axis=-1))
    return np.stack(shown).astype(np.uint8)


def panned(frames: int, rows: int, columns: int) -> np.ndarray:
    """A view that moves to the right over blurred noise, two pixels a frame."""
    noise = np.random.default_rng(1).uniform(0, 255, (rows // 4 + 2, columns // 4 + frames, 3))
    field = noise.repeat(4, axis=0).repeat(4, axis=1)
    field = (field + np.roll(field, 2, axis=0) + np.roll(field, 2, axis=1)) / 3
    views = [field[:rows, 2 * t : 2 * t + columns] for t in range(frames)]
    return np.stack(views).astype(np.uint8)


def cut(frames: int, rows: int, columns: int) -> np.ndarray:
    """The one scene, and from the middle on the other."""
    half = frames // 2
    return np.concatenate(
        [smooth(half, rows, columns), panned(frames - half, rows, columns)], axis=0
    )


CLIPS: tuple[Callable[[int, int, int], np.ndarray], ...] = (smooth, panned, cut)


def made_of_frames() -> Iterator[tuple[str, bytes]]:
    """What is made, as (name, bytes)."""
    for rows, columns in SIZES:
        for clip in CLIPS:
            name = f"{clip.__name__} {columns}x{rows}"
            video = to_mp4(clip(FRAMES, rows, columns), FPS)
            yield f"mp4 of {name}", video
            yield f"decoded {name}", to_frames(video).tobytes()
        frames = cut(FRAMES, rows, columns)
        draft = to_mp4(frames, FPS, crf=DRAFT_CRF)
        yield f"draft {columns}x{rows}", draft
        yield f"facts {columns}x{rows}", repr(probe(draft)).encode()
        yield f"poster {columns}x{rows}", to_poster(frames)
        for side in (48, 144):  # smaller and larger, and cropped where the shape is another
            shown = read_video(draft, side, side, num_frames=8, fps=FPS / 2)
            yield f"source {columns}x{rows} at {side}", shown.tobytes()
    for rows, columns in FILLED:
        yield f"filled {columns}x{rows}", _filled(panned(3, rows, columns))
        yield f"filled across a cut {columns}x{rows}", _filled(cut(4, rows, columns)[1:])


def _filled(decoded: np.ndarray) -> bytes:
    """Three frames between each two of `decoded`."""
    last = len(decoded) - 1
    moments = [Moment(n, Fraction(part, 4)) for n in range(last) for part in range(4)]
    return filled(decoded, [*moments, Moment(last, Fraction(0))]).tobytes()


if __name__ == "__main__":
    hashes = {name: hashlib.sha256(made).hexdigest() for name, made in made_of_frames()}
    json.dump(hashes, sys.stdout)
