"""What a worker gives back: a finished video, one whose frames are still to be compressed, or a
draft of it for another worker to finish.

No torch here, so that the platform may carry them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Draft:
    """A video of which frames are still to be filled in."""

    video: Any  # mp4 bytes of the frames that were decoded, or where a dispatcher put them
    size_bytes: int  # of these
    filling: Mapping[str, Any]  # `timeline.Filling` as JSON
    meta: Mapping[str, Any]  # the sidecar so far
    phases: Mapping[str, float]  # seconds so far
    metrics: Mapping[str, float]
    steps_done: int


@dataclass(frozen=True)
class Raw:
    """A finished video in memory; to compress and measure it needs no device."""

    compressed: Callable[[], Rendered]  # raises `JobError`
    steps_done: int


@dataclass(frozen=True)
class Rendered:
    """One finished video in memory, and all there is to tell about it."""

    video: bytes  # mp4
    poster: bytes  # jpeg
    meta: Mapping[str, Any]  # the sidecar, ready for JSON
    phases: Mapping[str, float]  # seconds by stage, see `vidplat.stages`
    metrics: Mapping[str, float]  # flicker, motion_energy, and what methods found (kept_share)
    steps_done: int
