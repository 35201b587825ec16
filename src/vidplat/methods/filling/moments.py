"""When a decoded frame is shown: K kept latents decode to fewer frames than the video has, and each
has its own time.

Latent i of a full video stands for the frames 4 i - 3 .. 4 i (frame 0 alone for latent 0). The kept
latents i_0 < i_1 < ... are decoded as one clip, so its frame q = 4 j + r lies a fraction r / 4 of
the way between two neighbours that may be far apart. Two ways of playing it (the second as
EcoVideo's released program, arXiv 2606.30557; the first is our choice):

    true    frame q is shown at tau(q) = 4 i_j + r (i_{j+1} - i_j); the moments of the output grid
            that no decoded frame has are made from its two neighbours in time. Speed is as it was.
    code    the decoded frames are spaced evenly over the clip's duration, and frames are inserted
            where neighbours differ most, until there are enough. Duration is right, speed inside is
            not.

All times are exact: whole numbers and fractions of frames of the full video. Making pixels is
`workers/reconstruct.py`.

Legend: N frames of the full video, F its latents, K kept of them, q a decoded frame.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

from vidplat.methods.model_shape import decoded_frames


@dataclass(frozen=True)
class Moment:
    """An output frame: `part` of the way from decoded frame `before` to the next. 0: that frame
    itself."""

    before: int
    part: Fraction

    @property
    def is_decoded(self) -> bool:
        return self.part == 0


@dataclass(frozen=True)
class Filling:
    """How decoded frames become a whole video: plain numbers, so that another worker can do it."""

    moments: tuple[Moment, ...]  # one for each frame of the whole video
    depth: int = 1  # of `workers/reconstruct.py`

    @property
    def made(self) -> int:
        """Frames that are made, not decoded."""
        return sum(not moment.is_decoded for moment in self.moments)

    def document(self) -> dict[str, Any]:
        """As JSON; `filling_of` reads it back."""
        parts = [[each.before, each.part.numerator, each.part.denominator] for each in self.moments]
        return {"depth": self.depth, "moments": parts}


def filling_of(document: Mapping[str, Any]) -> Filling:
    """The reverse of `Filling.document`. Raises `ValueError` for what it could not have written."""
    try:
        moments = tuple(
            Moment(int(before), Fraction(int(n), int(of))) for before, n, of in document["moments"]
        )
        depth = int(document["depth"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as problem:
        raise ValueError(f"not a filling: {problem}") from problem
    if any(not 0 <= each.part < 1 or each.before < 0 for each in moments):
        raise ValueError("not a filling: a moment lies between a decoded frame and the next")
    return Filling(moments, depth)


def true_times(key: Sequence[int], factor: int = 4) -> tuple[int, ...]:
    """tau(q) of all `factor` (K - 1) + 1 decoded frames, in frames of the full video, strictly
    ascending."""
    _check(key)
    inside = [factor * i + r * (j - i) for i, j in pairwise(key) for r in range(factor)]
    return (*inside, factor * key[-1])


def true_moments(
    key: Sequence[int],
    num_frames: int,
    *,
    fps: float = 1,
    output_fps: float | None = None,
    factor: int = 4,
) -> tuple[Moment, ...]:
    """The output grid of a video of N frames at `fps`, shown at `output_fps` (its own where None).

    Output frame n has the time n fps / output_fps <= N - 1. Before the first decoded frame and
    after the last these are held: that happens only where a key does not cover both ends, or N - 1
    is no multiple of `factor`.
    """
    times = true_times(key, factor)
    step = Fraction(1) if output_fps is None else _rate(fps) / _rate(output_fps)
    moments = []
    for n in range(_output_frames(num_frames, step)):
        at = n * step
        before = bisect_right(times, at) - 1
        if before < 0 or before == len(times) - 1:
            moments.append(Moment(max(before, 0), Fraction(0)))
        else:
            moments.append(
                Moment(before, (at - times[before]) / (times[before + 1] - times[before]))
            )
    return tuple(moments)


def key_rate(num_frames: int, k: int, fps: float, factor: int = 4) -> float:
    """Decoded frames per second when they are spread over the whole video: 8 for 11 of 21 latents
    at 16."""
    return fps * (decoded_frames(k, factor) - 1) / (num_frames - 1)


def code_length(decoded: int, key_fps: float, output_fps: float) -> int:
    """Output frames of timeline "code": round((decoded - 1) / key_fps output_fps) + 1, at least all
    decoded ones."""
    return max(decoded, round((decoded - 1) / key_fps * output_fps) + 1)


def code_moments(decoded: int, length: int) -> tuple[Moment, ...]:
    """Timeline "code" where all neighbours differ alike: `length` even moments from the first to
    the last frame."""
    if length == 1 or decoded == 1:
        return (Moment(0, Fraction(0)),) * length
    places = [Fraction(n * (decoded - 1), length - 1) for n in range(length)]
    return tuple(Moment(int(place), place - int(place)) for place in places)


def _output_frames(num_frames: int, step: Fraction) -> int:
    return int((num_frames - 1) / step) + 1


def _rate(fps: float) -> Fraction:
    if not fps > 0:
        raise ValueError(f"frames per second must be positive, not {fps:g}")
    return Fraction(fps).limit_denominator(1001)  # 29.97 as 2997/100, not as its nearest float


def _check(key: Sequence[int]) -> None:
    if not key or key[0] < 0 or any(j <= i for i, j in pairwise(key)):
        raise ValueError(f"a key is ascending latent frames, not {tuple(key)}")
