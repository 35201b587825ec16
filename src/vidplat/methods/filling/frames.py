"""Decoded frames become the whole clip: what lies between two of them is made from both.

Both neighbours are warped along optical flow and blended where they are visible (`flow.py`); cuts
are held. Which moments there are is `moments.py`. Deeper ways than this one, and a dissolve that
knows no motion, came within 0.2 dB of it or lost (docs/decisions/0018).

NumPy and OpenCV, no network: a worker without a model can do it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from vidplat.methods.filling.flow import Image, Pair
from vidplat.methods.filling.moments import Moment


def filled(decoded: Image, moments: Sequence[Moment]) -> Image:
    """One frame for each of `moments`, which ascend; `decoded` ones, (n, H, W, 3) uint8 RGB, stay
    as they were. Raises `ValueError` when a moment needs a frame beyond the last."""
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
                frames[n] = pair.at(float(moment.part))
    return frames
