"""What the platform is asked, what it tells meanwhile, and what it answers.

`SubmitRequest` goes in, a `Listener` hears the story as it happens, `BatchResult` comes out. Who
speaks to the platform does so in these words and those of `domain.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

from vidplat.domain import Batch, JobState, OnInfeasible, Outcome, Progress
from vidplat.errors import ExitCode

if TYPE_CHECKING:
    from vidplat.scheduler.admission import Answer
    from vidplat.scheduler.decision import Plan
    from vidplat.storage.catalog_words import PlanRecord


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What a submit asks for; of model, method and size, for rows that say nothing themselves."""

    model: str = ""  # "": the configured one
    spec: Mapping[str, Any] = field(default_factory=dict)  # VideoSpec fields, or `seconds`
    seed: int = 0  # of the first of identical rows without a seed
    priority: int = 0
    deadline: str | None = None  # as written: 60s, 06:00, ISO 8601
    method: str | None = None  # None: the planner chooses
    quality_floor: float = 0.0  # in [0, 1]
    on_infeasible: OnInfeasible = OnInfeasible.DEGRADE


@dataclass(frozen=True)
class SubmitRequest(Wishes):
    """One submit, as typed. Everything but the source has a default."""

    source: str  # path, URL, or "-" for standard input
    format: str | None = None  # None: by extension, else by content
    ignore_columns: tuple[str, ...] = ()  # of the prompt file, whatever they mean
    stdin: BinaryIO | None = None  # what "-" reads
    # When the person pressed enter; None: now. The deadline counts from here.
    submitted_at: float | None = None


@dataclass(frozen=True)
class Miss:
    """A video that came after its deadline, and the cause found for it."""

    job_id: str
    row: int
    late_s: float
    cause: str  # infeasible, start-up, worker lost, retry, estimate


@dataclass(frozen=True)
class Score:
    """Predicted against actual, over the jobs of one run."""

    jobs: int = 0  # made in this run
    predicted_p50_at: float = 0.0  # finish of the batch, as the plan said before anything started
    predicted_p90_at: float = 0.0
    finished_at: float = 0.0
    startup_s: float = 0.0  # submit to first dispatch
    predicted_startup_s: float = 0.0
    median_error: float = 0.0  # median over jobs of actual/p50 - 1; positive: slower than said
    within_p90: float = 1.0  # share of jobs that took no longer than their p90
    busy_share: float = 0.0  # model seconds over (wall - start-up) x workers, in [0, 1]
    model_seconds: float = 0.0
    mean_quality: float = 1.0  # predicted, over the jobs done
    misses: tuple[Miss, ...] = ()


@dataclass(frozen=True)
class BatchResult:
    """How a run ended. `exit_code` is what the command line ends with."""

    batch: Batch
    exit_code: ExitCode
    counts: Mapping[JobState, int]
    inserted: int = 0  # jobs new to the catalog
    reused: int = 0  # jobs whose video was there already
    computed: int = 0  # jobs made by this run
    plan: Plan | None = None  # the promise, made before anything started
    answer: Answer | None = None
    asked_at: float = 0.0  # when this run was asked for; the batch may be older
    score: Score = Score()
    wall_s: float = 0.0
    message: str = ""  # one sentence for people


def finish_s(foreseen: Plan | PlanRecord, asked_at: float) -> tuple[float, float]:
    """Seconds that a person waits from asking to the end, p50 and p90: wherever a finish is told as
    a duration, it is this one."""
    return foreseen.finish_p50_at - asked_at, foreseen.finish_p90_at - asked_at


@dataclass(frozen=True)
class PlanAnswer:
    """What `plan` answers: nothing is stored, nothing is started."""

    batch: Batch  # as it would be submitted
    plan: Plan
    answer: Answer
    jobs: int
    reused: int  # of them, already made


class Listener:
    """Hears a run as it happens, in its thread. Must not raise and should not dawdle. This one does
    nothing: whoever listens overrides what they care about."""

    def phase(self, text: str) -> None:
        """A new part of the story begins: "reading prompts.parquet", "starting 2 workers"."""

    def begun(self, batch: Batch, counts: Mapping[JobState, int]) -> None:
        """The batch is stored and this run works on it; `counts` are its jobs by now."""

    def planned(self, plan: Plan, answer: Answer | None) -> None:
        """A plan was made: the first with the answer to the user, later ones with None."""

    def progress(self, progress: Progress) -> None: ...

    def outcome(self, outcome: Outcome) -> None: ...

    def finished(self, result: BatchResult) -> None: ...

    def warn(self, text: str) -> None: ...
