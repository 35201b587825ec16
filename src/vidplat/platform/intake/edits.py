"""What intake checks of a row that starts from a video, beside what it checks of every row.

Arithmetic and words on facts: which methods such a row may have, whether its source lasts long
enough for the spec, and what the spec will make of a source of another length or shape. What the
source holds was found by `source_videos.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from vidplat.domain import VideoSpec


@dataclass(frozen=True)
class Source:
    """An input video that can be used."""

    sha256: str
    width: int  # as shown
    height: int
    seconds: float
    notes: tuple[str, ...] = ()  # what will be converted; read on from "with"


def too_short(source: Source, spec: VideoSpec) -> str:
    """What is wrong with a source that ends before the last frame asked for; "": nothing."""
    needed_s = (spec.num_frames - 1) / spec.fps
    if needed_s <= source.seconds + 1 / spec.fps:
        return ""
    fits = int(source.seconds * spec.fps) + 1
    return (
        f"lasts {source.seconds:.2f} s, {needed_s:.2f} s are needed for {spec.num_frames} "
        f"frames at {spec.fps} fps: "
        f"ask for at most {fits} frames, or give a longer one"
    )


def conversions(source: Source, spec: VideoSpec) -> list[str]:
    """What this spec makes of a source that has another length or shape."""
    found = []
    if source.seconds > spec.num_frames / spec.fps + 0.5:
        found.append("more seconds than are asked for: its beginning is used")
    if abs(source.width * spec.height / (source.height * spec.width) - 1) > 0.02:
        found.append("another shape than is asked for: its middle is used")
    return found
