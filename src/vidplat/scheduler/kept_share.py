"""Which share of an edit's tokens run where a method goes by the source (`MethodKind.by_source`):
learnt from videos that were made, or measured in a profile.

The share depends on the source, and a plan is made before anybody has read it. So until one was
measured all tokens are counted: no promise rests on a hope. From the first one on, the mean of the
shares seen with the same thresholds is the median's, and their spread joins the p90; a share seen
less than twenty times is trusted in part only.

A KeptShare is a frozen value: `after` returns a new one. Left to others: the work that goes with a
share (`method_work`), how spreads add (`cost`). Not promised: that the next source is alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from vidplat.domain import OperatingPoint
from vidplat.methods.language import chosen, text
from vidplat.methods.model_shape import ModelShape, ProfilePoint

_TRUSTED_SAMPLES = 20  # as for timings
_P90_DEVIATIONS = 1.2816  # from the mean to the 90 % quantile of a normal distribution


@dataclass(frozen=True)
class KeptShare:
    """Shares seen so far, by Welford: number, mean, sum of squared deviations from it."""

    samples: int = 0
    mean: float = 1.0
    squares: float = 0.0

    def after(self, share: float) -> KeptShare:
        """With one more share, in (0, 1]."""
        samples, before = self.samples + 1, self.mean if self.samples else 0.0
        away = share - before
        mean = before + away / samples
        return KeptShare(samples, mean, self.squares + away * (share - mean))

    @property
    def deviation(self) -> float:
        """Standard deviation between videos; 0 while there is one video."""
        return math.sqrt(self.squares / (self.samples - 1)) if self.samples > 1 else 0.0

    @property
    def p90(self) -> float:
        """The share that nine in ten videos stay below; with few samples drawn towards 1."""
        trust = min(1.0, self.samples / _TRUSTED_SAMPLES)
        return trust * min(1.0, self.mean + _P90_DEVIATIONS * self.deviation) + (1 - trust)

    @classmethod
    def measured(cls, point: ProfilePoint) -> KeptShare:
        """What a profile's point says of it, as if learnt from its samples."""
        squares = point.work_spread**2 * max(0, point.samples - 1)
        return cls(point.samples, point.linear_work, squares)


def chooser(point: OperatingPoint) -> str:
    """The part of a point's methods that goes by the source, as canonical text; "" for none."""
    return text(tuple(one for one in chosen(point) if one.kind.by_source))


def expected(
    shape: ModelShape, point: OperatingPoint, learnt: Mapping[str, KeptShare]
) -> KeptShare | None:
    """The share of a video at `point`: of those learnt (by `chooser`) and the profile's, the one
    with more samples.

    None where no method chooses by the source, or where nothing was measured.
    """
    name = chooser(point)
    if not name:
        return None
    found = [learnt[name]] if name in learnt else []
    found += [KeptShare.measured(p) for p in shape.profile if p.method == point.accelerator]
    return max(found, key=lambda share: share.samples, default=None)
