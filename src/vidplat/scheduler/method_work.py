"""How much of a plain run's work is left under a method, and what that work costs beside its FLOPs.

Where a closed form exists it is used, so that other sizes than the measured one are counted right. What depends on
the video (which passes a cache skips) is taken from the model's profile; a method that is in neither is counted
at full work, so that no promise rests on a hope. The overhead of a method, measured seconds over those of its
FLOPs, is always the profile's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from vidplat.domain import ModelShape, OperatingPoint, ProfilePoint, VideoSpec


@dataclass(frozen=True)
class MethodWork:
    """Shares of a plain run of as many steps."""

    linear: float = 1.0  # of the FLOPs of projections and feed forward
    attention: float = 1.0  # of the FLOPs of self-attention
    overhead: float = 1.0  # seconds over those of these FLOPs


_PLAIN = MethodWork()


def method_work(shape: ModelShape, spec: VideoSpec, point: OperatingPoint) -> MethodWork:
    """The work of `point`'s method for a video of `spec` on this model."""
    if not point.accelerator:
        return _PLAIN
    measured = _measured(shape.profile).get(point.accelerator)
    if measured is None:
        return _PLAIN
    return MethodWork(measured.linear_work, measured.attention_work, measured.overhead)


@lru_cache(maxsize=256)
def _measured(profile: tuple[ProfilePoint, ...]) -> dict[str, ProfilePoint]:
    return {point.method: point for point in profile if point.method}
