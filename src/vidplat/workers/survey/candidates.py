"""Every way of spending less that a survey compares: fewer steps, our methods, and the peers.

Each is one knob, see `survey.Candidate`. Thresholds run over the whole range in which a cache goes
from never to nearly always skipping, on a logarithmic scale; where in it a model lies is for the
tuning to find.
"""

from __future__ import annotations

from collections.abc import Callable

from vidplat.domain import OperatingPoint, VideoSpec
from vidplat.methods.eco.budget import budgets
from vidplat.methods.language import parse, text
from vidplat.workers.survey.survey import Candidate

#: Caches, and the thresholds between which they go from skipping nothing to skipping nearly all.
THRESHOLDS = {
    "teacache": (0.003, 3.0),
    "easycache": (0.003, 3.0),
    "magcache": (0.003, 3.0),
    "fbcache": (0.003, 3.0),
    "dbcache": (0.003, 3.0),
}


def candidates(spec: VideoSpec, latent_frames: int) -> list[Candidate]:
    """All of them, for videos of `spec`; a model refuses those that do not suit it."""
    full = spec.num_inference_steps
    found = [
        Candidate("steps", tuple(OperatingPoint(n, "steps") for n in range(full - 1, 0, -1))),
        Candidate("unipc", tuple(_at(n, "unipc") for n in range(full - 1, 0, -1)), solver="unipc"),
        Candidate("hsa", point=lambda share: _at(full, f"hsa:work={max(0.05, share):.3f}")),
        Candidate(
            "sparse", tuple(_at(full, f"sparse:k={k}") for k in range(latent_frames - 1, 0, -1))
        ),
        Candidate(
            "hsa+sparse",
            point=lambda share: _at(full, f"hsa:work={max(0.05, share):.3f}+sparse:k=3"),
        ),
    ]
    # Every K once, whatever the targets: who asks for `eco` leaves K to the plan, which needs to
    # know them all.
    found += [
        Candidate(f"eco {k}", (_at(full, f"eco:k={k}"),)) for k in reversed(budgets(latent_frames))
    ]
    found.append(
        Candidate("early", point=lambda share: _at(full, f"early:work={_whole(share, full):.4f}"))
    )
    for name, (low, high) in THRESHOLDS.items():
        found.append(Candidate(name, point=_threshold(full, name, low, high)))
    low, high = THRESHOLDS["dbcache"]
    found.append(
        Candidate("dbcache+taylor", point=_threshold(full, "dbcache", low, high, ",taylor=1"))
    )
    return found


def _at(steps: int, method: str) -> OperatingPoint:
    return OperatingPoint(steps, text(parse(method)))


def _whole(share: float, full: int) -> float:
    """The share of `full` steps nearest to `share` that is a whole number of them: other shares
    make the same video."""
    return max(1, round(share * full)) / full


def _threshold(
    full: int, name: str, low: float, high: float, more: str = ""
) -> Callable[[float], OperatingPoint]:
    """share 1: the lowest threshold, share 0: the highest."""

    def point(share: float) -> OperatingPoint:
        return _at(full, f"{name}:threshold={low * (high / low) ** (1 - share):.4g}{more}")

    return point
