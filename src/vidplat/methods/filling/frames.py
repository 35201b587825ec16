"""The edge's half of a split video: decoded keyframes become the whole clip. NumPy and OpenCV, no
network.

Depths, each on top of the one before (EcoVideo, arXiv 2606.30557, names a depth and does not define
it: our choice):

    0   cross-dissolve, the rival that knows no motion
    1   both neighbours warped along optical flow and blended where they are visible (`flow.py`);
        cuts are held
    2   flow estimated once more, from the frame so made to both ends
    3   each made frame steadied in time: where flow to both neighbours agrees, the median of the
        three, if that is another value and not the blur of warping

Timelines: `filled` makes the moments of `timeline.true_moments`; decoded frames come back as they
were. `inserted` is the released program's: the interval that differs most is halved until there are
enough frames, and made frames are ends of later intervals, so errors add up. Intervals are ranked
by `code_score`, as released without its flow network, or by `FourScore` (ours): density, motion,
structure and texture, each relative to the clip's own intervals.

Legend: frames (n, H, W, 3) uint8 RGB; places count decoded frames, whole for these and fractions
for those made.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby

import cv2
import numpy as np

from vidplat.methods.filling.flow import Floats, Image, Pair, contradiction, warp
from vidplat.methods.filling.moments import Moment, true_moments
from vidplat.methods.model_shape import decoded_frames

DEPTHS = (0, 1, 2, 3)
AGREES_PX = 1.0  # flow there and back may differ by this much where frames are steadied
# of 255: what warping a neighbour changes by itself; replacing that too cost 0.8 dB on slow scenes
BLUR = 8
CELL_PX, ORIENTATIONS = 8, 9
_EPS = 1e-6

Score = Callable[[Pair, Fraction, Fraction], float]


def reconstruct(
    decoded: Image,
    key: Sequence[int],
    num_frames: int,
    *,
    depth: int = 1,
    fps: float = 1,
    output_fps: float | None = None,
    factor: int = 4,
) -> Image:
    """The clip of `num_frames` frames at `fps` of which latents `key` were kept and decoded, at
    `output_fps`.

    Every moment is true (timeline.py). Raises `ValueError` when `decoded` is not what these latents
    decode to.
    """
    if len(decoded) != decoded_frames(len(key), factor):
        raise ValueError(
            f"{len(key)} keyframes decode to {decoded_frames(len(key), factor)} frames, not to "
            f"{len(decoded)}"
        )
    return filled(
        decoded, true_moments(key, num_frames, fps=fps, output_fps=output_fps, factor=factor), depth
    )


def filled(decoded: Image, moments: Sequence[Moment], depth: int = 1) -> Image:
    """One frame for each of `moments`, which ascend; decoded ones come back as they were.

    Raises `ValueError` when a moment needs a frame beyond the last.
    """
    _check(depth)
    last = max((moment.before + (not moment.is_decoded) for moment in moments), default=-1)
    if last >= len(decoded):
        raise ValueError(f"the moments need {last + 1} decoded frames, there are {len(decoded)}")
    frames: Image = np.empty((len(moments), *decoded.shape[1:]), np.uint8)
    for before, group in groupby(enumerate(moments), key=lambda item: item[1].before):
        pair = None
        for n, moment in group:
            if moment.is_decoded:
                frames[n] = decoded[before]
            else:
                pair = pair or Pair(decoded[before], decoded[before + 1])
                frames[n] = _between(pair, float(moment.part), depth)
    return steadied(frames, [not moment.is_decoded for moment in moments]) if depth == 3 else frames


def steadied(frames: Image, made: Sequence[bool]) -> Image:
    """`frames`, those `made` replaced by the median over time where flow to both neighbours agrees
    with the flow back.

    The first and the last frame, and those beside a cut, stay as they are.
    """
    steady = frames.copy()
    pairs: dict[int, Pair] = {}  # n: frames n and n + 1
    for n in range(1, len(frames) - 1):
        if not made[n]:
            continue
        for at in (n - 1, n):
            if at not in pairs:
                pairs[at] = Pair(frames[at], frames[at + 1])
        before, after = pairs[n - 1], pairs[n]
        pairs = {n: after}
        if not (before.is_small or before.is_cut or after.is_cut):
            steady[n] = _steadied(frames[n - 1 : n + 2], _flows(before)[::-1], _flows(after))
    return steady


def _steadied(three: Image, back: tuple[Floats, Floats], on: tuple[Floats, Floats]) -> Image:
    """The middle one; `back` and `on` are the flows from it to its neighbour and from there to
    it."""
    agree = (contradiction(*back) < AGREES_PX) & (contradiction(*on) < AGREES_PX)
    shown = [warp(three[0].astype(np.float32), back[0]), three[1].astype(np.float32)]
    shown.append(warp(three[2].astype(np.float32), on[0]))
    median = np.rint(np.median(np.stack(shown), axis=0))
    agree &= np.abs(median - shown[1]).max(axis=-1) > BLUR
    steady: Image = np.where(agree[..., None], median.astype(np.uint8), three[1])
    return steady


def _flows(pair: Pair) -> tuple[Floats, Floats]:
    if pair.is_still:
        still = np.zeros((*pair.first.shape[:2], 2), np.float32)
        return still, still
    return pair.flows


def _between(pair: Pair, part: float, depth: int) -> Image:
    if depth == 0:
        return pair.dissolved(part)
    return pair.at(part) if depth == 1 else pair.refined(part)


# --- the released timeline ------------------------------------------------------------------------


@dataclass(frozen=True)
class Inserted:
    """Frames and where each lies among the decoded ones, ascending."""

    frames: Image
    places: tuple[Fraction, ...]


def inserted(decoded: Image, length: int, score: Score | None = None, depth: int = 1) -> Inserted:
    """`decoded` with midpoints inserted, one at a time where `score` is largest, until there are
    `length` frames.

    Of equal scores the earlier interval is halved. One frame alone is repeated. Raises `ValueError`
    when `length` is below the frames that are there.
    """
    _check(depth)
    if length < len(decoded):
        raise ValueError(f"{len(decoded)} decoded frames do not fit into {length}")
    if len(decoded) == 1:
        return Inserted(np.repeat(decoded, length, axis=0), (Fraction(0),) * length)
    rank = score or code_score
    shown = {Fraction(n): frame for n, frame in enumerate(decoded)}
    waiting: list[
        tuple[float, Fraction, Fraction, Pair]
    ] = []  # each interval once; places differ, so pairs never compare

    def push(left: Fraction, right: Fraction) -> None:
        pair = Pair(shown[left], shown[right])
        heapq.heappush(waiting, (-rank(pair, left, right), left, right, pair))

    if length > len(decoded):
        for n in range(len(decoded) - 1):
            push(Fraction(n), Fraction(n + 1))
    while len(shown) < length:
        _, left, right, pair = heapq.heappop(waiting)
        middle = (left + right) / 2
        shown[middle] = _between(pair, 0.5, depth)
        push(left, middle)
        push(middle, right)
    places = tuple(sorted(shown))
    frames = np.stack([shown[place] for place in places])
    if depth == 3:
        frames = steadied(frames, [place.denominator > 1 for place in places])
    return Inserted(frames, places)


def code_score(pair: Pair, left: Fraction, right: Fraction) -> float:
    """0.8 clip(texture) + 0.8 clip(1 - mean cosine of colours), as released; the terms of its flow
    network left out.

    Without that network the released score has flow 0 and a constant 0.5 for confidence, which
    ranks nothing.
    """
    a, b = (frame.astype(np.float32) / 255 for frame in (pair.first, pair.second))
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    likeness = float(((np.sum(a * b, axis=-1) + _EPS) / (lengths + _EPS)).mean())
    return 0.8 * min(texture(pair), 1.0) + 0.8 * min(max(1 - likeness, 0.0), 1.0)


class FourScore:
    """sum_m w_m sigmoid((x_m - median_m) / (MAD_m + eps)) of density, motion, structure and
    texture. Our choice.

    Median and MAD (median distance from the median) are over the intervals between decoded frames.
    `entropy` is one value per decoded frame; at places between them it is interpolated; without it
    density is 0 everywhere.
    """

    def __init__(
        self,
        decoded: Image,
        entropy: Sequence[float] = (),
        weights: tuple[float, float, float, float] = (1, 1, 1, 1),
    ) -> None:
        if entropy and len(entropy) != len(decoded):
            raise ValueError(
                f"{len(decoded)} decoded frames have as many entropies, not {len(entropy)}"
            )
        self._entropy, self._weights = entropy, np.array(weights, float)
        terms = [
            self._terms(Pair(decoded[n], decoded[n + 1]), Fraction(n), Fraction(n + 1))
            for n in range(len(decoded) - 1)
        ]
        self._middle = np.median(terms, axis=0) if terms else np.zeros(4)
        self._spread = (
            np.median(np.abs(np.array(terms) - self._middle), axis=0) if terms else np.zeros(4)
        )

    def __call__(self, pair: Pair, left: Fraction, right: Fraction) -> float:
        away = (np.array(self._terms(pair, left, right)) - self._middle) / (self._spread + _EPS)
        return float(
            self._weights @ (0.5 + 0.5 * np.tanh(away / 2))
        )  # the logistic function, without overflow

    def _terms(
        self, pair: Pair, left: Fraction, right: Fraction
    ) -> tuple[float, float, float, float]:
        return (
            self._density(left, right),
            float(np.log1p(pair.motion_px)),
            structure(pair),
            texture(pair),
        )

    def _density(self, left: Fraction, right: Fraction) -> float:
        if not self._entropy:
            return 0.0
        places = range(len(self._entropy))
        return float(np.mean(np.interp([float(left), float(right)], places, self._entropy)))


def texture(pair: Pair) -> float:
    """Mean of the tenth of the pixels that differ most, in [0, 1]; a pixel's difference is its
    channels' mean."""
    differ = (
        np.abs(pair.first.astype(np.float32) - pair.second.astype(np.float32)).mean(axis=-1).ravel()
        / 255
    )
    most = max(1, differ.size // 10)
    return float(np.partition(differ, differ.size - most)[-most:].mean())


def structure(pair: Pair) -> float:
    """1 - cosine of the two frames' histograms of gradient directions, per cell of 8 x 8 pixels; in
    [0, 1]."""
    a, b = _gradients(pair.first), _gradients(pair.second)
    return 1 - float((a @ b + _EPS) / (np.linalg.norm(a) * np.linalg.norm(b) + _EPS))


def _gradients(frame: Image) -> Floats:
    """Gradient lengths summed by cell and direction (9 of half a turn), in one row."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    dx, dy = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    turn = np.mod(np.arctan2(dy, dx), np.pi) / np.pi
    direction = np.minimum((turn * ORIENTATIONS).astype(int), ORIENTATIONS - 1)
    rows, columns = grey.shape
    across = -(-columns // CELL_PX)
    cell = (np.arange(rows) // CELL_PX)[:, None] * across + np.arange(columns) // CELL_PX
    bins = -(-rows // CELL_PX) * across * ORIENTATIONS
    counted = np.bincount((cell * ORIENTATIONS + direction).ravel(), np.hypot(dx, dy).ravel(), bins)
    return counted.astype(np.float32)


def _check(depth: int) -> None:
    if depth not in DEPTHS:
        raise ValueError(f"depth must be one of {', '.join(map(str, DEPTHS))}, not {depth}")
