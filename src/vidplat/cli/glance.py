"""One moment of a batch as plain values, and in one line: finished denoising steps of all, videos,
p50 and p90 finish.

Progress counts steps, not videos: a video half made is half done, and the number never goes back
except when a failed job starts anew.
"""

from __future__ import annotations

from dataclasses import dataclass

from vidplat.cli import phrases


@dataclass(frozen=True)
class Doing:
    """What one worker is at."""

    worker: str
    phase: str
    step: int
    steps: int
    about: str = ""  # the prompt, or the start of the job's id


@dataclass(frozen=True)
class Glance:
    """One moment of a batch."""

    now: float
    phase: str = ""
    steps_done: int = 0
    steps_total: int = 0
    made: int = 0
    lost: int = 0
    cancelled: int = 0
    total: int = 0
    finish_p50_at: float | None = None
    finish_p90_at: float | None = None
    deadline_at: float | None = None
    doing: tuple[Doing, ...] = ()

    @property
    def open_jobs(self) -> int:
        return self.total - self.made - self.lost - self.cancelled

    @property
    def is_on_time(self) -> bool:
        """True unless open videos are predicted (p90) to be late."""
        return (
            self.deadline_at is None
            or self.finish_p90_at is None
            or self.finish_p90_at <= self.deadline_at
            or self.open_jobs <= 0
        )


def sentence(glance: Glance) -> str:
    """`212 of 384 steps, 9 of 16 videos, finish in 21 s (p90 25 s), deadline in 33 s`."""
    parts = []
    if glance.steps_total:
        parts.append(f"{glance.steps_done:,} of {glance.steps_total:,} steps")
    if glance.total:
        parts.append(f"{glance.made:,} of {phrases.count(glance.total, 'video')}")
    if glance.lost:
        parts.append(f"{glance.lost:,} failed")
    if glance.cancelled:
        parts.append(f"{glance.cancelled:,} cancelled")
    return ", ".join([*parts, *times(glance)]) or glance.phase


def times(glance: Glance) -> list[str]:
    """The predicted finish and the deadline, where there are any."""
    parts = []
    if glance.open_jobs and glance.finish_p50_at is not None and glance.finish_p90_at is not None:
        p50_s = max(0.0, glance.finish_p50_at - glance.now)
        p90_s = max(0.0, glance.finish_p90_at - glance.now)
        finish = f"finish in {_whole(p50_s)} (p90 {_whole(p90_s)})"
        parts.append("finishing" if p90_s < 1 else finish)
    if glance.deadline_at is not None:
        left_s = glance.deadline_at - glance.now
        parts.append(
            f"deadline in {_whole(left_s)}" if left_s > 0 else f"deadline was {_whole(-left_s)} ago"
        )
    return parts


def _whole(seconds: float) -> str:
    """Nobody reads tenths of a second off a moving line."""
    return phrases.seconds(round(seconds)) if seconds >= 9.5 else f"{seconds:.0f} s"
