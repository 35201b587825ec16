"""A draft: what one worker leaves for another to finish. No torch here, so that the platform may
carry it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Draft:
    """A video of which frames are still to be filled in: what one worker leaves for another to
    finish."""

    video: Any  # mp4 bytes of the frames that were decoded, or where a dispatcher put them
    size_bytes: int  # of these
    filling: Mapping[str, Any]  # `timeline.Filling` as JSON
    meta: Mapping[str, Any]  # the sidecar so far
    phases: Mapping[str, float]  # seconds so far
    metrics: Mapping[str, float]
    steps_done: int
