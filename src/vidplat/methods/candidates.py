"""Every way of spending less that a survey compares: fewer steps, and what each kind offers.

Each is one knob, see `kinds.Candidate`. Thresholds run over the whole range in which a cache goes
from never to nearly always skipping; where in it a model lies is for the tuning to find.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from vidplat.domain import OperatingPoint, VideoSpec
from vidplat.methods.kinds import Candidate
from vidplat.methods.model_shape import EULER
from vidplat.methods.table import KINDS


def candidates(spec: VideoSpec, latent_frames: int, solver: str = EULER) -> list[Candidate]:
    """All of them, for videos of `spec` on a model of this `solver`; a model refuses those that do
    not suit it. What needs Euler is tried with it, against the full run of the model's own."""
    full = spec.num_inference_steps
    fewer = tuple(OperatingPoint(n, method="steps") for n in range(full - 1, 0, -1))
    found = [Candidate("steps", fewer)]
    for kind in KINDS.values():
        if kind.solver == solver:
            continue  # its fewer steps are the model's
        with_euler = bool(kind.needs_euler) and solver != EULER
        ways = kind.candidates(full, latent_frames)
        found += map(_with_euler, ways) if with_euler else ways
    return found


def _with_euler(way: Candidate) -> Candidate:
    settings = tuple(_euler(point) for point in way.settings)
    return replace(way, settings=settings, point=way.point and _then_euler(way.point))


def _then_euler(point: Callable[[float], OperatingPoint]) -> Callable[[float], OperatingPoint]:
    return lambda share: _euler(point(share))


def _euler(point: OperatingPoint) -> OperatingPoint:
    return replace(point, method=f"{point.method}+euler")
