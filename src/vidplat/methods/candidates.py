"""Every way of spending less that a survey compares: fewer steps, and what each kind offers.

Each is one knob, see `kinds.Candidate`. Thresholds run over the whole range in which a cache goes
from never to nearly always skipping; where in it a model lies is for the tuning to find.
"""

from __future__ import annotations

from vidplat.domain import OperatingPoint, VideoSpec
from vidplat.methods.kinds import Candidate
from vidplat.methods.table import KINDS


def candidates(spec: VideoSpec, latent_frames: int) -> list[Candidate]:
    """All of them, for videos of `spec`; a model refuses those that do not suit it."""
    full = spec.num_inference_steps
    fewer = tuple(OperatingPoint(n, method="steps") for n in range(full - 1, 0, -1))
    found = [Candidate("steps", fewer)]
    for kind in KINDS.values():
        found += kind.candidates(full, latent_frames)
    return found
