"""Figures about frames: how near two videos are, how one moves. NumPy and OpenCV's filters only.

Videos are (frames, rows, columns, 3) uint8 RGB.

psnr_db        10 log10(255^2 / mean squared error) over all pixels; equal videos: infinity
ssim           Wang et al. 2004 on luma, 11x11 Gaussian window of sigma 1.5, K1 = 0.01, K2 = 0.03,
               L = 255; mean over windows inside the frame and over frames; in [-1, 1], equal: 1
flicker        mean |I[t+1] - 2 I[t] + I[t-1]| / 255: change that does not go on, 0 for steady
               motion of brightness; under 3 frames: 0
motion_energy  mean |I[t+1] - I[t]| / 255: how much changes from frame to frame; one frame: 0
"""

from __future__ import annotations

import cv2
import numpy as np

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # BT.601, as SSIM is customarily computed
_K1, _K2 = 0.01, 0.03


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB; infinity for equal videos."""
    error = float(np.mean((a.astype(np.float32) - b.astype(np.float32)) ** 2, dtype=np.float64))
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Mean structural similarity over frames."""
    pairs = zip(_float(a), _float(b), strict=True)
    return float(np.mean([float(ssim_map(x @ _LUMA, y @ _LUMA, 255.0).mean()) for x, y in pairs]))


def flicker(frames: np.ndarray) -> float:
    """Mean absolute second difference over time, in [0, 2]."""
    if len(frames) < 3:
        return 0.0
    x = _float(frames)
    return float(np.abs(x[2:] - 2 * x[1:-1] + x[:-2]).mean()) / 255


def motion_energy(frames: np.ndarray) -> float:
    """Mean absolute difference of neighbouring frames, in [0, 1]."""
    if len(frames) < 2:
        return 0.0
    return float(np.abs(np.diff(_float(frames), axis=0)).mean()) / 255


def _float(frames: np.ndarray) -> np.ndarray:
    return frames.astype(np.float32)


def ssim_map(x: np.ndarray, y: np.ndarray, peak: float) -> np.ndarray:
    """SSIM at each window position in images (rows, columns[, channels]), float32 up to `peak`.

    Images smaller than the window use all of it.
    """
    c1, c2 = (_K1 * peak) ** 2, (_K2 * peak) ** 2

    def blurred(image: np.ndarray) -> np.ndarray:
        out: np.ndarray = cv2.GaussianBlur(image, (11, 11), 1.5, borderType=cv2.BORDER_REFLECT)
        return out[5:-5, 5:-5] if min(out.shape[:2]) > 10 else out

    mean_x, mean_y = blurred(x), blurred(y)
    var_x, var_y = blurred(x * x) - mean_x**2, blurred(y * y) - mean_y**2
    covariance = blurred(x * y) - mean_x * mean_y
    likeness = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    made: np.ndarray = likeness / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return made
