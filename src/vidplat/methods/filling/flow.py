"""A frame at any moment between two others, by optical flow. Classic, no network.

Dense flows both ways (DIS, grey, on pixels) are computed once per pair A, B. At a fraction t of the
way from A to B:

    flow to the ends    F_tA = -(1-t) t f_AB + t^2 f_BA,   F_tB = (1-t)^2 f_AB - t (1-t) f_BA
                        (linear motion)
    warp                both frames are looked up there, bilinear; beyond the edge the edge goes on
    visibility          V = exp(-|f_AB + f_BA(x + f_AB)| / 4 px): how well going there and back ends
                        at the start
    blend               weights (1-t) V_A and t V_B; where neither end sees the pixel (both under
                        0.05), the nearer warp
    cut                 a pair that flow does not explain holds its nearer frame and never blends

Source: the linear flows of Super SloMo (arXiv 1712.00080) with visibility from the flows' own
contradiction; the blend and the cut are our choice.

Promises: the same pair gives the same frames (one thread). Not promised: large motion of small
things, flicker, water. Which moments are wanted is `moments.py`.

Legend: rows H, columns W; frames (H, W, 3) uint8 RGB; flows (H, W, 2) float32, x then y, in pixels.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vidplat.quality import ssim

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]

SMALLEST_PX = 16  # DIS needs this much; smaller frames are cross-faded
# from this shorter side on, flow is searched at half size, as DIS's preset says: faster, and nearer
# the truth
LARGE_PX = 256
VISIBLE_PX = 4.0  # the specification's 1 px gives 0.3 dB less on flipbook's world at 64 x 64
INVISIBLE = 0.05
CUT_FLOW = 0.2  # of the width: mean contradiction of the two flows
CUT_SSIM = 0.2  # likeness of a frame to the other one warped onto it
# of full scale, at the median pixel; cuts of flipbook's world: 0.23 or more, all else 0.01 or less
CUT_CHANGED = 0.1


class Pair:
    """Frames A and B. Everything is computed when it is first asked for."""

    def __init__(self, first: Image, second: Image) -> None:
        cv2.setNumThreads(1)
        self.first, self.second = first, second
        self._a, self._b = first.astype(np.float32), second.astype(np.float32)
        self.is_still = bool(np.array_equal(first, second))
        self.is_small = min(first.shape[:2]) < SMALLEST_PX

    def dissolved(self, part: float) -> Image:
        """A cross-fade, cut or not."""
        return as_pixels((1 - part) * self._a + part * self._b)

    def at(self, part: float) -> Image:
        """The frame at `part` of the way, 0 < part < 1."""
        if self.is_still:
            return self.first
        if self.is_small:
            return self.dissolved(part)
        if self.is_cut:
            return self.first if part < 0.5 else self.second
        return self._warped(part)

    @cached_property
    def flows(self) -> tuple[Floats, Floats]:
        """f_AB and f_BA: where a pixel of the one is in the other."""
        one, other = _grey(self.first), _grey(self.second)
        return dis(one, other), dis(other, one)

    @cached_property
    def is_cut(self) -> bool:
        """Whether B is another scene: flows contradict each other, or its warp is unlike A."""
        if self.is_still or self.is_small:
            return False
        if float(self._misses[0].mean()) > CUT_FLOW * self.first.shape[1]:
            return True
        warped = warp(self._b, self.flows[0])
        if float(np.median(np.abs(warped - self._a).max(axis=-1))) > CUT_CHANGED * 255:
            return True
        return ssim(_seen(self.first)[None], _seen(warped)[None]) < CUT_SSIM

    @cached_property
    def _misses(self) -> tuple[Floats, Floats]:
        """Pixels by which there and back misses the start, (H, W), from A and from B."""
        there, back = self.flows
        return contradiction(there, back), contradiction(back, there)

    @cached_property
    def _visible(self) -> tuple[Floats, Floats]:
        return np.exp(-self._misses[0] / VISIBLE_PX), np.exp(-self._misses[1] / VISIBLE_PX)

    def _warped(self, part: float) -> Image:
        there, back = self.flows
        t, s = np.float32(part), np.float32(1 - part)
        to_a, to_b = t * t * back - s * t * there, s * s * there - s * t * back
        seen_a, seen_b = warp(self._visible[0], to_a), warp(self._visible[1], to_b)
        weight_a, weight_b = (1 - part) * seen_a + 1e-4, part * seen_b + 1e-4
        share = weight_a / (weight_a + weight_b)
        share[(seen_a < INVISIBLE) & (seen_b < INVISIBLE)] = 1.0 if part < 0.5 else 0.0
        a, b = warp(self._a, to_a), warp(self._b, to_b)
        return as_pixels(b + share[..., None] * (a - b))


def dis(one: Image, other: Image) -> Floats:
    """Where each pixel of `one` is in `other`, both (H, W) grey: (H, W, 2)."""
    search: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    if min(one.shape) < LARGE_PX:
        search.setFinestScale(0)
    found: Floats = search.calc(one, other, None)
    return found


def warp(image: Floats, flow: Floats) -> Floats:
    """`image` (H, W[, C]) at each pixel displaced by `flow`, bilinear, edges repeated."""
    rows, columns = flow.shape[:2]
    x = flow[..., 0] + np.arange(columns, dtype=np.float32)
    y = flow[..., 1] + np.arange(rows, dtype=np.float32)[:, None]
    found: Floats = cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return found


def contradiction(there: Floats, back: Floats) -> Floats:
    """|there(x) + back(x + there(x))| in pixels, (H, W): how far off there and back ends."""
    miss: Floats = np.linalg.norm(there + warp(back, there), axis=-1)
    return miss


def as_pixels(values: Floats) -> Image:
    pixels: Image = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return pixels


def _seen(frame: Image | Floats) -> Floats:
    """What likeness is measured on: large frames at a quarter of their size, 15 times as fast."""
    if min(frame.shape[:2]) >= LARGE_PX:
        frame = cv2.resize(frame, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    return frame.astype(np.float32)


def _grey(frame: Image) -> Image:
    grey: Image = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    return grey
