"""Which latent frames of a video are kept as keyframes, and the scores that they are kept by.

EcoVideo (arXiv 2606.30557) denoises all latent frames for a few steps, gives each a score (the
entropy of its attention), finishes the K frames with the largest ones and interpolates the rest.
Here are the selectors and what joins the scores of several steps. Computing entropies is
`entropy.py`, when a kept frame is shown is `filling/moments.py`. No torch.

Legend: F latent frames, K kept of them; a key is K ascending indices in 0..F-1.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

EMA_WEIGHT = 0.6
#: entropy and motion keep the largest scores; uniform looks at none.
SELECTORS = ("entropy", "uniform", "motion")


def moving_average(scores: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """One score per frame from those of steps 0, 1, ... (steps x F): m = 0.6 new + 0.4 m, from m =
    the first. The two released programs weigh the two sides differently; this is our choice.

    Raises `ValueError` for no steps and for steps of unequal length.
    """
    if not scores or len({len(step) for step in scores}) != 1:
        raise ValueError(
            f"scores of {len(scores)} steps with {[len(step) for step in scores]} frames cannot "
            "be joined"
        )
    held = list(scores[0])
    for step in scores[1:]:
        pairs = zip(step, held, strict=True)
        held = [EMA_WEIGHT * new + (1 - EMA_WEIGHT) * old for new, old in pairs]
    return tuple(held)


def changes(frames: NDArray[np.floating]) -> tuple[float, ...]:
    """Motion per frame of `frames` (F, ...): mean |x_f - x_{f-1}|; the first's is the second's."""
    if len(frames) < 2:
        return (0.0,) * len(frames)
    steps = np.abs(np.diff(np.asarray(frames, np.float64), axis=0))
    means = steps.reshape(len(steps), -1).mean(1).tolist()
    return (means[0], *means)


def select(scores: Sequence[float], k: int, *, selector: str = "entropy") -> tuple[int, ...]:
    """The K frames that are kept, first and last among them; of `uniform` only the number of
    scores counts. Raises `ValueError` for a K below 2 or above F, and for an unknown selector."""
    if selector not in SELECTORS:
        raise ValueError(f"frames are selected by one of {', '.join(SELECTORS)}, not {selector!r}")
    return uniform(len(scores), k) if selector == "uniform" else top(scores, k)


def top(scores: Sequence[float], k: int) -> tuple[int, ...]:
    """First and last frame, and the K - 2 largest scores between; the lower index of equal ones."""
    last = _checked(len(scores), k) - 1
    ranked = sorted(range(1, last), key=lambda f: (-scores[f], f))
    return (0, *sorted(ranked[: k - 2]), last)


def uniform(frames: int, k: int) -> tuple[int, ...]:
    """K evenly spaced frames from first to last, rounded half to even."""
    _checked(frames, k)
    return tuple(round(Fraction(i * (frames - 1), k - 1)) for i in range(k))


def widest_gap(key: Sequence[int]) -> int:
    """The largest distance of two neighbours; worth logging, since top scores cluster."""
    return max((j - i for i, j in pairwise(key)), default=0)


def _checked(frames: int, k: int) -> int:
    if not 2 <= k <= frames:
        raise ValueError(f"{k} keyframes cannot be chosen from {frames} latent frames")
    return frames
