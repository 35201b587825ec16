"""A run of this process, as a person follows it: what the platform tells becomes a glance, and the
glance is shown.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vidplat import times
from vidplat.cli.glance import Doing, Glance
from vidplat.cli.screen import Screen
from vidplat.domain import Batch, JobState, Outcome, Progress
from vidplat.platform.interface import BatchResult, Listener
from vidplat.stages import BESIDE

if TYPE_CHECKING:
    from vidplat.scheduler.admission import Answer
    from vidplat.scheduler.decision import Plan

FAILURES_SHOWN = 10


@dataclass
class _Story:
    """What was heard so far."""

    phase: str = ""
    steps_of: dict[str, int] = field(default_factory=dict)  # job -> steps planned, or spent
    made: set[str] = field(default_factory=set)  # jobs of this run that have a video
    running: dict[str, Progress] = field(default_factory=dict)  # job -> its latest heartbeat
    steps_total: int = 0  # of the jobs in steps_of
    steps_made: int = 0
    plan: Plan | None = None
    total: int = 0  # jobs of the batch
    made_before: int = 0  # by an earlier run, or by another batch
    lost_before: int = 0
    cancelled_before: int = 0
    deadline_at: float | None = None

    def count_steps(self, job_id: str, steps: int) -> None:
        """A job takes so many, or took them."""
        self.steps_total += steps - self.steps_of.get(job_id, 0)
        self.steps_of[job_id] = steps

    @property
    def steps_unplanned(self) -> int:
        """Of open jobs that no plan has named yet, at as many as the others on average."""
        ended = self.made_before + self.lost_before + self.cancelled_before
        unnamed = self.total - ended - len(self.steps_of)
        if not self.steps_of or unnamed <= 0:
            return 0
        return round(self.steps_total / len(self.steps_of) * unnamed)

    def planned_steps(self, beat: Progress) -> int:
        """How far a running job is, in steps of its plan: block by block, a step is several of
        those it counts."""
        planned = self.steps_of.get(beat.job_id, beat.steps)
        return beat.step if beat.steps <= planned else planned * beat.step // beat.steps


class RunDisplay(Screen, Listener):
    """A `Listener` that shows what it hears on stderr. `quiet` shows warnings only."""

    def __init__(self, *, quiet: bool = False, clock: Callable[[], float] = times.now) -> None:
        super().__init__(self.glance, quiet=quiet)
        self._clock = clock
        self._lock = threading.Lock()
        self._story = _Story()
        self._failures = 0

    # --- platform.Listener ---

    def phase(self, text: str) -> None:
        with self._lock:
            self._story.phase = text
        self.say(text)

    def begun(self, batch: Batch, counts: Mapping[JobState, int]) -> None:
        with self._lock:
            story = self._story
            story.total, story.deadline_at = sum(counts.values()), batch.deadline_at
            story.made_before = counts.get(JobState.DONE, 0)
            story.lost_before = sum(many for state, many in counts.items() if state.is_lost)
            story.cancelled_before = counts.get(JobState.CANCELLED, 0)

    def planned(self, plan: Plan, answer: Answer | None) -> None:
        with self._lock:
            self._story.plan = plan
            for one in plan.assignments:
                if one.job_id not in self._story.made:
                    self._story.count_steps(one.job_id, one.point.steps)
        if answer is not None and answer.admitted:  # a no is the end, which says it
            self.keep(answer.headline)
            for detail in answer.details:
                self.keep(f"  {detail}", style="dim")

    def progress(self, progress: Progress) -> None:
        with self._lock:
            self._story.running[progress.job_id] = progress
        self.tick()

    def outcome(self, outcome: Outcome) -> None:
        with self._lock:
            story = self._story
            story.running.pop(outcome.job_id, None)
            if outcome.ok and outcome.job_id not in story.made:
                story.count_steps(outcome.job_id, outcome.steps_done)
                story.steps_made += outcome.steps_done
                story.made.add(outcome.job_id)
        if outcome.failure is not None:
            self._failures += 1
            if self._failures <= FAILURES_SHOWN:
                which = f"job {outcome.job_id[:12]}, attempt {outcome.attempt}"
                self.warn(f"{which}: {outcome.failure.message}")
            elif self._failures == FAILURES_SHOWN + 1:
                self.warn("more failures are not shown here; see `vidplat logs`")
        self.tick()

    def finished(self, result: BatchResult) -> None:
        with self._lock:
            self._story.phase = result.message

    # --- what is shown ---

    def glance(self) -> Glance:
        with self._lock:
            story, plan = self._story, self._story.plan
            running = [beat for beat in story.running.values() if beat.job_id not in story.made]
            # a worker may store one video while it makes the next: that is what it is doing
            made_first = sorted(running, key=lambda beat: beat.phase not in BESIDE)
            doing = {beat.worker_id: beat for beat in made_first}
            return Glance(
                now=self._clock(),
                phase=story.phase,
                steps_done=story.steps_made + sum(story.planned_steps(beat) for beat in running),
                steps_total=story.steps_total + story.steps_unplanned,
                made=story.made_before + len(story.made),
                lost=story.lost_before,
                cancelled=story.cancelled_before,
                total=story.total,
                finish_p50_at=plan.finish_p50_at if plan else None,
                finish_p90_at=plan.finish_p90_at if plan else None,
                deadline_at=story.deadline_at,
                doing=tuple(
                    Doing(beat.worker_id, beat.phase, beat.step, beat.steps, beat.job_id[:12])
                    for _, beat in sorted(doing.items())
                ),
            )
