"""Frames become what a worker gives back: a finished video, or a draft for another worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vidplat.domain import VideoSpec
from vidplat.errors import JobError
from vidplat.stages import DECODE, MP4
from vidplat.workers.draft import Draft, Rendered
from vidplat.workers.making import Made, Stopwatch
from vidplat.workers.sidecar import measured

if TYPE_CHECKING:
    import numpy as np


def rendered(
    spec: VideoSpec,
    frames: np.ndarray,
    phases: Mapping[str, float],
    facts: Mapping[str, float],
    meta: Mapping[str, Any],
    steps_done: int,
) -> Rendered:
    """The whole video (num_frames, rows, columns, 3) uint8 RGB, compressed and measured; seconds
    are added to `phases`, metrics to `facts`, both to the sidecar `meta`. Raises `JobError`."""
    from vidplat.quality import flicker, motion_energy

    watch = Stopwatch()
    video, poster = _compressed(frames, spec)
    metrics = {"flicker": flicker(frames), "motion_energy": motion_energy(frames), **facts}
    watch.lap(MP4)
    phases = {**phases, **watch.phases}
    meta = {**meta, **measured(phases, metrics)}
    return Rendered(video, poster, meta, phases, metrics, steps_done)


def handed_over(made: Made, meta: Mapping[str, Any], spec: VideoSpec) -> Draft:
    """The draft of a video of which frames were left out; compressing counts as decoding."""
    from vidplat.workers.video import DRAFT_CRF, to_mp4

    assert made.filling is not None, "something was left out"
    watch = Stopwatch()
    video = to_mp4(made.frames, spec.fps, crf=DRAFT_CRF)
    watch.lap(DECODE)
    phases = {**made.phases, DECODE: made.phases[DECODE] + watch.phases[DECODE]}
    filling = made.filling.document()
    return Draft(video, len(video), filling, meta, phases, made.facts, made.steps_done)


def _compressed(frames: np.ndarray, spec: VideoSpec) -> tuple[bytes, bytes]:
    """mp4 and poster. Raises `JobError` when the file does not hold what `spec` promised."""
    from vidplat.workers.video import probe, to_mp4, to_poster

    video, poster = to_mp4(frames, spec.fps), to_poster(frames)
    found = tuple(probe(video))
    promised = (spec.width, spec.height, spec.num_frames, float(spec.fps))
    if found != promised:
        raise JobError(
            f"the file holds {found} (width, height, frames, fps), promised were {promised}"
        )
    return video, poster
