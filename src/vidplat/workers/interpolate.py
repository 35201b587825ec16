"""Frames between frames: a short clip stretched to a longer one by optical flow. Classic, no
network.

For an output moment between input frames A and B at fraction t, dense flows A->B and B->A (DIS) are
computed once per pair, both frames are warped to the moment, and blended by nearness, each pixel
weighted down where its two flows contradict each other (forward-backward check: occluded there).
Where both disagree, the nearer frame's warp decides. A pair that warping does not explain at all is
a cut: the nearer frame is held, never blended.

Flows at the moment t are the linear approximation of Super SloMo: from the moment to A about -t
F_AB or t F_BA, to B about (1-t) F_AB.

Promises: input frames that fall on output moments come back unchanged; the same input gives the
same output (one thread). Not promised: large motion of small things, flicker or water; DIS cannot
see those.
"""

from __future__ import annotations

import cv2
import numpy as np

CUT_ERROR = 0.1  # mean absolute difference after warping, of 1; moving shapes stay under 0.03
OCCLUDED_PX = (
    1.0  # forward and backward flow may differ by this much plus a twentieth of their length
)
SMALLEST_PX = 16  # DIS needs this much; smaller frames are cross-faded


def stretch(frames: np.ndarray, count: int) -> np.ndarray:
    """`frames` (n, rows, columns, 3) uint8 at `count` >= 1 evenly spaced moments from first to
    last."""
    if len(frames) == 1 or count == 1:
        return np.repeat(frames[:1], count, axis=0)
    cv2.setNumThreads(1)
    moments = np.linspace(0, len(frames) - 1, count)
    made = np.empty((count, *frames.shape[1:]), np.uint8)
    pair = -1
    between = None
    for at, moment in enumerate(moments):
        before = min(int(moment + 1e-9), len(frames) - 2)
        part = float(moment - before)
        if part < 1e-6 or part > 1 - 1e-6:
            made[at] = frames[before + round(part)]
            continue
        if pair != before:
            pair, between = before, _Between(frames[before], frames[before + 1])
        assert between is not None
        made[at] = between.at(part)
    return made


class _Between:
    """Two neighbouring frames and the flows between them."""

    def __init__(self, first: np.ndarray, second: np.ndarray) -> None:
        self._first, self._second = first, second
        self._a, self._b = first.astype(np.float32), second.astype(np.float32)
        rows, columns = first.shape[:2]
        self._grid = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1).astype(
            np.float32
        )
        self._small = min(rows, columns) < SMALLEST_PX
        self._still = bool(np.array_equal(first, second))
        if self._small or self._still:
            return
        gray_a, gray_b = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (first, second))
        flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        flow.setFinestScale(0)
        self._ab = flow.calc(
            gray_a, gray_b, None
        )  # (rows, columns, 2): where a pixel of A goes, in pixels
        self._ba = flow.calc(gray_b, gray_a, None)
        self._seen_a = _consistent(
            self._ab, self._warp(self._ba, self._ab)
        )  # pixel of A also visible in B
        self._seen_b = _consistent(self._ba, self._warp(self._ab, self._ba))
        unexplained = float(np.abs(self._warp(self._b, self._ab) - self._a).mean()) / 255
        self._is_cut = unexplained > CUT_ERROR

    def at(self, part: float) -> np.ndarray:
        """The frame at `part` of the way from the first to the second, 0 < part < 1."""
        nearer = self._first if part < 0.5 else self._second
        if self._still:
            return nearer
        if self._small:
            return _as_pixels((1 - part) * self._a + part * self._b)
        if self._is_cut:
            return nearer
        to_a = -(1 - part) * part * self._ab + part * part * self._ba
        to_b = (1 - part) * (1 - part) * self._ab - part * (1 - part) * self._ba
        from_a, from_b = self._warp(self._a, to_a), self._warp(self._b, to_b)
        weight_a = (1 - part) * (self._warp(self._seen_a, to_a) + 1e-3)
        weight_b = part * (self._warp(self._seen_b, to_b) + 1e-3)
        share = (weight_a / (weight_a + weight_b))[..., None]
        return _as_pixels(share * from_a + (1 - share) * from_b)

    def _warp(self, image: np.ndarray, flow: np.ndarray) -> np.ndarray:
        """`image` looked up at each pixel displaced by `flow`; beyond the edge the edge goes on."""
        x, y = np.moveaxis(self._grid + flow, -1, 0)
        warped: np.ndarray = cv2.remap(
            image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        return warped


def _consistent(there: np.ndarray, back: np.ndarray) -> np.ndarray:
    """1.0 where going there and back ends near the start, else 0.0; (rows, columns) float32."""
    miss: np.ndarray = np.linalg.norm(there + back, axis=-1)
    length = np.linalg.norm(there, axis=-1) + np.linalg.norm(back, axis=-1)
    agrees: np.ndarray = miss <= OCCLUDED_PX + 0.05 * length
    return agrees.astype(np.float32)


def _as_pixels(values: np.ndarray) -> np.ndarray:
    pixels: np.ndarray = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return pixels
