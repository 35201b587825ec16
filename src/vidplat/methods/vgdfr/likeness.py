"""How alike the frames of a preview are: the lattice that VGDFR's plan is made of (`merges.py`).

Two measures, both of SSIM of RGB frames in [0, 1] with an 11-tap Gaussian window (`quality.py` has
the formula). Each takes `frames` (N, rows, columns, 3) float32, N - 1 a multiple of
`temporal_factor`, measures four by four only with `quads`, and raises `ValueError` for frames that
are not finite.

    by_neighbours   frames that would be merged with each other, over the whole picture (VGDFR,
                    arXiv 2504.12259). They are alike in any video, and the more so in a blurred
                    preview.
    by_spans        a run's first frame and the last one of each of its latents, in the tile of
                    4 x 4 that is least alike (our choice): how far a run strays tells passages in
                    which something moves from quiet ones, however small it is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import combinations, pairwise

import numpy as np

from vidplat.methods.vgdfr.merges import Lattice, slot_starts
from vidplat.quality import ssim_map

TILES = 4

Alike = Callable[[int, int], float]  # of two frames, by their numbers


def by_neighbours(frames: np.ndarray, temporal_factor: int, *, quads: bool) -> Lattice:
    """A slot is as alike as the least of its pairs (i, i + 1), (i + 2, i + 3), ..., two in a row as
    the least of any two frames of one quad."""
    alike = _measured(frames, lambda places: float(places.mean()))
    starts, length = slot_starts(len(frames), temporal_factor), 2 * temporal_factor
    pairs = tuple(min(alike(i, i + 1) for i in range(start, start + length, 2)) for start in starts)

    def quad(start: int) -> float:
        firsts = range(start, start + length, 4)
        return min(alike(*two) for i in firsts for two in combinations(range(i, i + 4), 2))

    fours = [quad(start) for start in starts] if quads else []
    return Lattice(len(frames), pairs, tuple(map(min, pairwise(fours))), temporal_factor)


def by_spans(frames: np.ndarray, temporal_factor: int, *, quads: bool) -> Lattice:
    """A run is as alike as its first frame to the least like of its latents' last ones."""
    alike = _measured(frames, _worst_tile)
    starts = slot_starts(len(frames), temporal_factor)

    def span(first: int, latents: int) -> float:
        ends = (first + temporal_factor * n - 1 for n in range(1, latents + 1))
        return min(alike(first, end) for end in ends)

    pairs = tuple(span(first, 2) for first in starts)
    # nor may a run of four stray from where its later half begins
    halves = zip(starts, pairwise(pairs), strict=False) if quads else ()
    fours = tuple(min(span(first, 4), *both) for first, both in halves)
    return Lattice(len(frames), pairs, fours, temporal_factor)


def _measured(frames: np.ndarray, of: Callable[[np.ndarray], float]) -> Alike:
    """Likeness of two of `frames`, each asked for once: `of` their map of SSIM (rows, columns)."""
    pictures = np.ascontiguousarray(frames, np.float32)

    @cache
    def alike(one: int, other: int) -> float:
        return of(ssim_map(pictures[one], pictures[other], 1.0))

    return alike


def _worst_tile(places: np.ndarray) -> float:
    bands = np.array_split(places, TILES)
    tiles = (tile for band in bands for tile in np.array_split(band, TILES, axis=1))
    return min(float(tile.mean()) for tile in tiles if tile.size)
