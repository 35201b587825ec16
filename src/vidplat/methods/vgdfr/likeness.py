"""How alike the frames of a preview are: the tables that VGDFR's plan is made of
(`frame_merges.py`).

SSIM of RGB frames in [0, 1] with an 11-tap Gaussian window (`quality.py` has the formula), of
frames one, two and three apart. `whole` is the mean over the picture (VGDFR, arXiv 2504.12259). A
small thing that moves on a still ground hardly lowers that; `min-tile` is the mean of the tile, of
4 x 4, that is least alike (our choice). `spans` compares a run's first frame with others of the run
in the same way.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from vidplat.methods.vgdfr.merges import Similarity, Spans, span_frames
from vidplat.quality import ssim_map

TILES = 4


def likeness(frames: np.ndarray, *, by: str = "whole", quads: bool = True) -> Similarity:
    """The tables of `frames` (N, rows, columns, 3) float32 RGB in [0, 1]; those for `quads` only
    where asked for.

    Raises `ValueError` for frames that are not finite, and for an unknown `by`.
    """
    if by not in ("whole", "min-tile"):
        raise ValueError(f"frames are alike by whole or min-tile, not {by!r}")
    pictures = np.ascontiguousarray(frames, np.float32)
    tables = [
        [_alike(one, other, by) for one, other in zip(pictures[:-lag], pictures[lag:], strict=True)]
        for lag in ((1, 2, 3) if quads else (1,))
    ]
    return Similarity(*tables)


def spans(frames: np.ndarray, temporal_factor: int, *, quads: bool = True) -> Spans:
    """How far each run of `frames` (N, rows, columns, 3) float32 RGB in [0, 1] strays from its
    first frame, by the tile that is least alike; N - 1 is a multiple of `temporal_factor`. Raises
    `ValueError` as `likeness` does."""
    pictures = np.ascontiguousarray(frames, np.float32)

    def of(size: int) -> tuple[float, ...]:
        return tuple(
            min(_alike(pictures[first], pictures[last], "min-tile") for last in lasts)
            for first, lasts in span_frames(len(pictures), temporal_factor, size)
        )

    pairs = of(2)
    both = [min(halves) for halves in pairwise(pairs)]  # nor may it stray where a later half begins
    found = tuple(map(min, of(4), both)) if quads else ()
    return Spans(len(pictures), pairs, found, temporal_factor)


def _alike(one: np.ndarray, other: np.ndarray, by: str) -> float:
    places = ssim_map(one, other, 1.0)
    if by == "whole":
        return float(places.mean())
    tiles = (
        tile
        for band in np.array_split(places, TILES)
        for tile in np.array_split(band, TILES, axis=1)
    )
    return min(float(tile.mean()) for tile in tiles if tile.size)
