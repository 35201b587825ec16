"""Progress as a person sees it: finished denoising steps of all, videos, p50 and p90 finish, what
each worker does.

    Glance        one moment of a batch, as plain values
    RunDisplay    a platform.Listener that keeps the glance of a run of this process and shows it
    LiveScreen    draws a glance in place on a terminal (`submit`, `watch`)
    sentence      the same in one line, for pipes and logs

Everything goes to stderr, so that stdout stays data. Progress counts steps, not videos: a video
half made is half done, and the number never goes back except when a failed job starts anew.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

from vidplat.cli import phrases, render
from vidplat.domain import Batch, JobState, Outcome, Progress
from vidplat.errors import printable

if TYPE_CHECKING:
    from rich.console import RenderableType

    from vidplat.platform.interface import BatchResult
    from vidplat.scheduler.admission import Answer
    from vidplat.scheduler.decision import Plan

LINE_EVERY_S = 5.0  # in a pipe
WORKERS_SHOWN = 12
FAILURES_SHOWN = 10


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
    total: int = 0
    finish_p50_at: float | None = None
    finish_p90_at: float | None = None
    deadline_at: float | None = None
    doing: tuple[Doing, ...] = ()


def sentence(glance: Glance) -> str:
    """`212 of 384 steps, 9 of 16 videos, finish in 21 s (p90 25 s), deadline in 33 s`."""
    parts = []
    if glance.steps_total:
        parts.append(f"{glance.steps_done:,} of {glance.steps_total:,} steps")
    if glance.total:
        parts.append(f"{glance.made:,} of {phrases.count(glance.total, 'video')}")
    if glance.lost:
        parts.append(f"{glance.lost:,} failed")
    return ", ".join([*parts, *_times(glance)]) or glance.phase


def _times(glance: Glance) -> list[str]:
    parts = []
    open_jobs = glance.total - glance.made - glance.lost
    if open_jobs and glance.finish_p50_at is not None and glance.finish_p90_at is not None:
        p50_s, p90_s = (
            max(0.0, glance.finish_p50_at - glance.now),
            max(0.0, glance.finish_p90_at - glance.now),
        )
        soon = p90_s < 1
        parts.append("finishing" if soon else f"finish in {_whole(p50_s)} (p90 {_whole(p90_s)})")
    if glance.deadline_at is not None:
        left_s = glance.deadline_at - glance.now
        parts.append(
            f"deadline in {_whole(left_s)}" if left_s > 0 else f"deadline was {_whole(-left_s)} ago"
        )
    return parts


def _whole(seconds: float) -> str:
    """Nobody reads tenths of a second off a moving line."""
    return phrases.seconds(round(seconds)) if seconds >= 9.5 else f"{seconds:.0f} s"


# --- a run of this process ------------------------------------------------------------------------


@dataclass
class _Story:
    """What was heard so far."""

    phase: str = ""
    steps_of: dict[str, int] = field(
        default_factory=dict
    )  # job -> steps planned, or spent once done
    ended: dict[str, bool] = field(default_factory=dict)  # job -> whether it has a video
    running: dict[str, Progress] = field(default_factory=dict)  # worker -> its latest heartbeat
    steps_total: int = 0  # of the jobs in steps_of
    steps_ended: int = 0
    plan: Plan | None = None
    total: int = 0  # jobs of the batch
    made_before: int = 0  # by an earlier run, or by another batch
    lost_before: int = 0
    deadline_at: float | None = None

    @property
    def steps_unplanned(self) -> int:
        """Steps of open jobs that no plan has named yet, if they get as many as the named ones on
        average."""
        unnamed = self.total - self.made_before - self.lost_before - len(self.steps_of)
        return (
            round(self.steps_total / len(self.steps_of) * unnamed)
            if self.steps_of and unnamed > 0
            else 0
        )

    def planned_steps(self, beat: Progress) -> int:
        """How far a running job is, in steps of its plan: block by block, a step is several of
        those it counts."""
        planned = self.steps_of.get(beat.job_id, beat.steps)
        return beat.step if beat.steps <= planned else planned * beat.step // beat.steps


class RunDisplay:
    """Listens to a run and shows it on stderr: live on a terminal, now and then a line elsewhere.

    A context manager; at the end the moving part is cleared away. `quiet` shows warnings only.
    """

    def __init__(self, *, quiet: bool = False, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._quiet = quiet
        self._lock = threading.Lock()
        self._story = _Story()
        self._screen = LiveScreen(self.glance) if sys.stderr.isatty() and not quiet else None
        self._said_at = 0.0
        self._failures = 0

    def __enter__(self) -> RunDisplay:
        if self._screen:
            self._screen.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._screen:
            self._screen.__exit__(kind, error, trace)

    # --- platform.Listener ---

    def phase(self, text: str) -> None:
        with self._lock:
            self._story.phase = text
        self._say(text)

    def begun(self, batch: Batch, counts: Mapping[JobState, int]) -> None:
        with self._lock:
            story = self._story
            story.total, story.deadline_at = sum(counts.values()), batch.deadline_at
            story.made_before = counts.get(JobState.DONE, 0)
            story.lost_before = sum(
                many
                for state, many in counts.items()
                if state.is_final and state is not JobState.DONE
            )

    def planned(self, plan: Plan, answer: Answer | None) -> None:
        with self._lock:
            story = self._story
            story.plan = plan
            for one in plan.assignments:
                if one.job_id not in story.ended:
                    story.steps_total += one.point.steps - story.steps_of.get(one.job_id, 0)
                    story.steps_of[one.job_id] = one.point.steps
        if answer is not None:
            self._announce(answer.headline)
            for detail in answer.details:
                self._announce(f"  {detail}", style="dim")

    def progress(self, progress: Progress) -> None:
        with self._lock:
            self._story.running[progress.worker_id] = progress
        self._say_progress()

    def outcome(self, outcome: Outcome) -> None:
        with self._lock:
            story = self._story
            now_running = story.running.get(outcome.worker_id)
            if now_running is not None and now_running.job_id == outcome.job_id:
                del story.running[outcome.worker_id]
            if outcome.ok and not story.ended.get(outcome.job_id):
                story.steps_total += outcome.steps_done - story.steps_of.get(outcome.job_id, 0)
                story.steps_of[outcome.job_id] = outcome.steps_done
                story.steps_ended += outcome.steps_done
                story.ended[outcome.job_id] = True
        if outcome.failure is not None:
            self._failures += 1
            if self._failures <= FAILURES_SHOWN:
                self.warn(
                    f"job {outcome.job_id[:12]}, attempt {outcome.attempt}: "
                    f"{outcome.failure.message}"
                )
            elif self._failures == FAILURES_SHOWN + 1:
                self.warn("more failures are not shown here; see `vidplat logs`")
        self._say_progress()

    def finished(self, result: BatchResult) -> None:
        with self._lock:
            self._story.phase = result.message

    def warn(self, text: str) -> None:
        if self._screen:
            self._screen.print_above(text, style="yellow")
        else:
            render.warn(text)

    # --- what is shown ---

    def glance(self) -> Glance:
        with self._lock:
            story, plan = self._story, self._story.plan
            running = [beat for beat in story.running.values() if beat.job_id not in story.ended]
            return Glance(
                now=self._clock(),
                phase=story.phase,
                steps_done=story.steps_ended + sum(story.planned_steps(beat) for beat in running),
                steps_total=story.steps_total + story.steps_unplanned,
                made=story.made_before + len(story.ended),
                lost=story.lost_before,
                total=story.total,
                finish_p50_at=plan.finish_p50_at if plan else None,
                finish_p90_at=plan.finish_p90_at if plan else None,
                deadline_at=story.deadline_at,
                doing=tuple(
                    Doing(beat.worker_id, beat.phase, beat.step, beat.steps, beat.job_id[:12])
                    for beat in sorted(running, key=lambda beat: beat.worker_id)
                ),
            )

    def _announce(self, text: str, style: str = "") -> None:
        """Something to keep on screen, above what moves."""
        if self._screen:
            self._screen.print_above(text, style)
        else:
            self._say(text)

    def _say(self, text: str) -> None:
        if not self._screen and not self._quiet and text:
            print(render.clean(text), file=sys.stderr, flush=True)

    def _say_progress(self) -> None:
        if self._screen or self._quiet:
            return
        now = time.monotonic()
        if now - self._said_at >= LINE_EVERY_S:
            self._said_at = now
            self._say(sentence(self.glance()))


# --- a terminal -----------------------------------------------------------------------------------


class LiveScreen:
    """Draws a glance in place, four times a second, on stderr."""

    def __init__(self, look: Callable[[], Glance]) -> None:
        self._look = look
        self._live: Any = None

    def __enter__(self) -> LiveScreen:
        from rich.live import Live

        self._live = Live(
            get_renderable=lambda: draw(self._look()),
            console=render.console(sys.stderr),
            refresh_per_second=4,
            redirect_stdout=False,
            redirect_stderr=True,
            transient=True,
        )
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def print_above(self, text: str, style: str = "") -> None:
        from rich.text import Text

        self._live.console.print(Text(render.clean(text), style=style), soft_wrap=True)


def draw(glance: Glance) -> RenderableType:
    """Phase, bar, times, and a line per worker."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    lines: list[RenderableType] = []
    if glance.steps_total:
        head = Table.grid(padding=(0, 2))
        head.add_column(width=32)
        head.add_column(no_wrap=True)
        bar = ProgressBar(
            total=glance.steps_total,
            completed=min(glance.steps_done, glance.steps_total),
            width=32,
            complete_style="cyan",
            finished_style="green",
        )
        head.add_row(bar, Text(sentence(replace(glance, finish_p50_at=None, deadline_at=None))))
        lines.append(head)
        if times := " · ".join(_times(glance)):
            on_time = (
                glance.deadline_at is None
                or glance.finish_p90_at is None
                or glance.finish_p90_at <= glance.deadline_at
                or glance.made + glance.lost >= glance.total
            )
            lines.append(Text(times, style="" if on_time else "yellow"))
    if glance.phase and not glance.doing:
        lines.append(Text(printable(glance.phase, 160), style="dim"))
    table = Table.grid(padding=(0, 2))
    for doing in glance.doing[:WORKERS_SHOWN]:
        step = f"{doing.step}/{doing.steps}" if doing.steps else ""
        table.add_row(
            Text(printable(doing.worker, 24), style="cyan"),
            Text(printable(doing.phase, 14)),
            Text(step),
            Text(printable(doing.about, 60), style="dim", no_wrap=True, overflow="ellipsis"),
        )
    if len(glance.doing) > WORKERS_SHOWN:
        table.add_row(Text(f"and {len(glance.doing) - WORKERS_SHOWN} more workers", style="dim"))
    if glance.doing:
        lines.append(table)
    return Group(*lines)
