"""The frames of a job's input video at its size and rate; the last ones are kept, since many jobs
may start from one video.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from vidplat.config import InputConfig
from vidplat.domain import Job
from vidplat.errors import InputError, JobError

if TYPE_CHECKING:
    import numpy as np


class SourceFrames:
    """Reads input videos within `limits`; `load` gives a job's bytes, checked by their SHA-256."""

    def __init__(self, load: Callable[[Job], bytes] | None, limits: InputConfig) -> None:
        self._load, self._limits = load, limits
        self._last: tuple[object, np.ndarray] | None = None

    def of(self, job: Job) -> np.ndarray:
        """(num_frames, height, width, 3) uint8 RGB, not to be written to. Raises `InputError`, and
        `JobError` without `load`."""
        spec = job.spec
        wanted = (job.input_sha256, spec.width, spec.height, spec.num_frames, spec.fps)
        if self._last is None or self._last[0] != wanted:
            self._last = (wanted, self._read(job))
        return self._last[1]

    def _read(self, job: Job) -> np.ndarray:
        from vidplat.workers.video import read_video

        if self._load is None:
            raise JobError("this worker was given no way to load input videos")
        spec, data = job.spec, self._load(job)
        try:
            return read_video(
                data, spec.width, spec.height, spec.num_frames, spec.fps, self._limits
            )
        except InputError as problem:
            raise InputError(f"the input video {problem}") from problem
