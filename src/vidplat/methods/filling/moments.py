"""When a decoded frame is shown: K kept latents decode to fewer frames than the video has.

Latent i of a full video stands for the frames 4 i - 3 .. 4 i (frame 0 alone for latent 0). The kept
latents i_0 < i_1 < ... are decoded as one clip, so its frame q = 4 j + r lies a fraction r / 4 of
the way between two neighbours that may be far apart. It is shown at tau(q) = 4 i_j + r (i_{j+1} -
i_j) (our choice; EcoVideo's released program spreads decoded frames evenly, arXiv 2606.30557), and
the moments of the whole video that no decoded frame has are made from its two neighbours in time.

All times are exact: whole numbers and fractions of frames. Making pixels is `frames.py`.

Legend: N frames of the full video, F its latents, K kept of them, q a decoded frame.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any


@dataclass(frozen=True)
class Moment:
    """An output frame: `part` of the way from decoded frame `before` (0: itself) to the next."""

    before: int
    part: Fraction

    @property
    def is_decoded(self) -> bool:
        return self.part == 0


@dataclass(frozen=True)
class Filling:
    """How decoded frames become a whole video: plain numbers, so that another worker can do it."""

    moments: tuple[Moment, ...]  # one for each frame of the whole video

    def document(self) -> dict[str, Any]:
        """As JSON; `filling_of` reads it back."""
        parts = [[each.before, each.part.numerator, each.part.denominator] for each in self.moments]
        return {"moments": parts}


def filling_of(document: Mapping[str, Any]) -> Filling:
    """The reverse of `Filling.document`. Raises `ValueError` for what it could not have written."""
    try:
        moments = tuple(
            Moment(int(before), Fraction(int(n), int(of))) for before, n, of in document["moments"]
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as problem:
        raise ValueError(f"not a filling: {problem}") from problem
    if any(not 0 <= each.part < 1 or each.before < 0 for each in moments):
        raise ValueError("not a filling: a moment lies between a decoded frame and the next")
    return Filling(moments)


def true_times(key: Sequence[int], factor: int = 4) -> tuple[int, ...]:
    """tau(q) of the `factor` (K - 1) + 1 decoded frames of latents `key`, strictly ascending."""
    if not key or key[0] < 0 or any(j <= i for i, j in pairwise(key)):
        raise ValueError(f"a key is ascending latent frames, not {tuple(key)}")
    inside = [factor * i + r * (j - i) for i, j in pairwise(key) for r in range(factor)]
    return (*inside, factor * key[-1])


def true_moments(key: Sequence[int], num_frames: int, factor: int = 4) -> tuple[Moment, ...]:
    """The N frames of a video of which the latents `key` are decoded, each at its true time."""
    return moments_among(true_times(key, factor), num_frames)


def moments_among(times: Sequence[int], num_frames: int) -> tuple[Moment, ...]:
    """Frames 0 .. N - 1 of a video whose decoded frames stand at `times`, which ascend. Before the
    first of these, and after the last, it is held."""
    return tuple(_moment(times, frame) for frame in range(num_frames))


def _moment(times: Sequence[int], frame: int) -> Moment:
    before = bisect_right(times, frame) - 1
    if before < 0 or before == len(times) - 1:
        return Moment(max(before, 0), Fraction(0))
    return Moment(before, Fraction(frame - times[before], times[before + 1] - times[before]))
