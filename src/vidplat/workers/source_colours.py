"""The colours of somebody else's video: brought to those of ours, BT.709, or refused.

Files name them by the numbers of ITU-T H.273, in four parts:

    matrix      YUV becomes RGB by the one that is named, else by BT.709's from 720 rows up and by
                BT.601's below
    range       as named, else limited
    primaries   those of BT.601 and Display P3 are converted, in light; what BT.709 cannot show is
                clipped. A file that names none has BT.709's.
    transfer    all curves of standard displays count as one, since such a display shows them alike

HDR and BT.2020 are refused, since every way from there is a look, and so are kinds that cameras do
not write and swscale cannot read (docs/decisions/0010-input-videos.md).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from vidplat.errors import InputError

BT709, LIMITED = 1, 1
_BT2020 = (9, 10)
_UNNAMED = (0, 2, 3)  # as a matrix 0 is RGB, which needs none
_MATRICES = {1: "ITU709", 4: "FCC", 5: "ITU601", 6: "ITU601", 7: "SMPTE240M"}
#: x and y of red, green and blue; all are white at D65
_PRIMARIES = {
    1: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    5: ((0.640, 0.330), (0.290, 0.600), (0.150, 0.060)),  # BT.601 with 625 lines
    6: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),  # BT.601 with 525 lines
    7: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),  # SMPTE 240M
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),  # Display P3
}
_WHITE = (0.3127, 0.3290)
_NOT_STANDARD = {8: "linear light", 9: "logarithmic", 10: "logarithmic", 17: "cinema, SMPTE 428"}
_HDR = {16: "PQ (SMPTE 2084)", 18: "HLG (ARIB B67)"}
_GAMMA = 2.4  # of a standard display, BT.1886


def check_colours(told: Any) -> None:
    """Raise InputError (the rest of a sentence) for those that are not brought to ours. `told` is
    PyAV's frame or codec context."""
    matrix, primaries, transfer = (
        int(number) for number in (told.colorspace, told.color_primaries, told.color_trc)
    )
    if transfer in _HDR:
        what = f"HDR, {_HDR[transfer]}"
    elif primaries == _BT2020[0] or matrix in _BT2020:
        what = "wide gamut, BT.2020"
    elif transfer in _NOT_STANDARD:
        what = _NOT_STANDARD[transfer]
    elif primaries not in (*_UNNAMED, *_PRIMARIES):
        what = f"in colours that are not read (primaries {primaries} of ITU-T H.273)"
    elif matrix not in (*_UNNAMED, *_MATRICES):
        what = f"in colours that are not read (matrix {matrix} of ITU-T H.273)"
    else:
        return
    raise InputError(
        f"is {what}: convert it to standard colours (BT.709) first, as the look you want"
    )


def matrix_of(frame: Any) -> str:
    """PyAV's word for the matrix that turns the frame's YUV into RGB."""
    return _MATRICES.get(int(frame.colorspace), "ITU709" if frame.height >= 720 else "ITU601")


def in_bt709(pixels: np.ndarray, frame: Any) -> np.ndarray:
    """`pixels` (rows, columns, 3) uint8 RGB of the frame, from its primaries to BT.709's."""
    primaries = int(frame.color_primaries)
    if primaries == BT709 or primaries in _UNNAMED:
        return pixels
    light = (np.arange(256) / 255.0) ** _GAMMA
    mixed = np.clip(light[pixels] @ _mix(primaries).T, 0.0, 1.0)
    levels: np.ndarray = np.rint(255.0 * mixed ** (1 / _GAMMA))
    return levels.astype(np.uint8)


@cache
def _mix(primaries: int) -> np.ndarray:
    """(3, 3): light of BT.709's primaries from that of these."""
    mix: np.ndarray = np.linalg.solve(_to_xyz(BT709), _to_xyz(primaries))
    return mix


def _to_xyz(primaries: int) -> np.ndarray:
    """(3, 3): CIE XYZ of red, green and blue light, which together are white of luminance 1."""
    (*colours, white) = (
        np.array([x, y, 1 - x - y]) / y for x, y in (*_PRIMARIES[primaries], _WHITE)
    )
    columns = np.stack(colours, axis=1)
    return np.asarray(columns * np.linalg.solve(columns, white))
