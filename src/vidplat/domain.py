"""The words of vidplat: plain frozen values shared by every room.

They hold no behaviour beyond small facts about themselves, do no I/O and import only the standard
library. A change is a new value (`dataclasses.replace`). Times called `*_at` are seconds since the
Unix epoch (UTC); durations end in `_s`, sizes in `_bytes`. Frames and sizes count pixels unless a
name says latent.

One job's journey is a walk through this file:
row -> Prompt -> Job -> OpenJob -> OperatingPoint -> Outcome with an Artifact -> JobRecord.
What one room alone speaks of is there: Snapshot and Plan in `scheduler.decision`, ModelShape in
`methods.model_shape`, Draft in `workers.draft`, Claim and PlanRecord in `storage.catalog_words`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

_quoted = json.encoder.encode_basestring_ascii  # what json.dumps does to a string

# --- what is asked for -------------------------------------------------------------------------

DEFAULT_STRENGTH = 0.6  # of rows with an input video that say nothing


@dataclass(frozen=True)
class VideoSpec:
    """What to make. Filled by intake: the row's values, else the batch's, else the model's."""

    width: int
    height: int
    num_frames: int
    fps: int
    num_inference_steps: int  # the full-quality step count; a plan may spend fewer
    guidance_scale: float
    seed: int

    @property
    def seconds(self) -> float:
        """Playing time of the video."""
        return self.num_frames / self.fps


@dataclass(frozen=True)
class Prompt:
    """One input row: its text, and whatever the row overrides. Filled by `storage.prompts`."""

    row: int  # 1-based row of the input, as a person would count (a header is not a row)
    text: str
    negative_prompt: str = ""
    external_id: str | None = None  # the user's own id: data only, never part of a path
    overrides: Mapping[str, Any] = field(default_factory=dict)  # VideoSpec fields the row sets
    priority: int | None = None  # higher goes first; None: the batch's
    deadline: str | None = None  # as written ("60s", "06:00", ISO 8601); None: the batch's
    model: str | None = None  # None: the batch's
    method: str | None = None  # None: the planner chooses
    input_video: str | None = None  # where it lies: an absolute path or a URL, without any secret
    strength: float | None = None  # in (0, 1]; None: DEFAULT_STRENGTH where there is an input video


@dataclass(frozen=True)
class ModelRef:
    """Which weights, exactly."""

    id: str  # "flipbook", a hub id, or a local directory
    revision: str  # hash of the weight files (local, embedded) or the hub commit


@dataclass(frozen=True)
class Job:
    """A Prompt with its VideoSpec and model."""

    # 32 hex digits: a hash of all that decides the pixels at full quality, see `around_seed`
    id: str
    prompt: str
    negative_prompt: str
    spec: VideoSpec
    model: ModelRef
    row: int
    external_id: str | None = None
    priority: int = 0
    deadline_at: float | None = None
    method: str | None = None
    # Video-to-video: where the source was at submit; None: made from text alone.
    input_video: str | None = None
    input_sha256: str | None = None  # of its bytes, which the output prefix keeps (storage.inputs)
    strength: float | None = None  # in (0, 1]: how much of it is noised away


def around_seed(
    prompt: str,
    negative_prompt: str,
    spec: VideoSpec,
    model: ModelRef,
    input_sha256: str | None = None,
    strength: float | None = None,
    masks_sha256: str = "",
) -> tuple[str, str]:
    """Canonical JSON of everything that decides the pixels at full quality, before and after the
    seed: a job's id is `id_at_seed` of it.

    A source video counts by its content, not by its place, and so do the searched masks of a method
    that reads them: a method's text does not change when they do. Jobs without either have the ids
    they always had. Spelled out: intake builds a million of them, an encoder takes twice as long.
    """
    before = (
        f"[{_quoted(prompt)},{_quoted(negative_prompt)},{spec.width},{spec.height},"
        f"{spec.num_frames},{spec.fps},{spec.num_inference_steps},{spec.guidance_scale!r},"
    )
    after = f",{_quoted(model.id)},{_quoted(model.revision)}"
    if input_sha256 is not None:
        after += f",{_quoted(input_sha256)},{json.dumps(strength)}"
    if masks_sha256:
        after += f",{_quoted(masks_sha256)}"
    return before, f"{after}]"


def id_at_seed(around: tuple[str, str], seed: int) -> str:
    """The id of what `around_seed` was told, at this seed: 32 hex digits of its SHA-256."""
    before, after = around
    return hashlib.sha256(f"{before}{seed}{after}".encode("ascii")).hexdigest()[:32]


class OnInfeasible(StrEnum):
    """What submit does when not every job can meet its deadline even at its cheapest point."""

    REJECT = "reject"  # generate nothing, exit 3 with the earliest feasible time
    DEGRADE = "degrade"  # below the quality floor if need be; still reject when nothing fits
    BEST_EFFORT = "best-effort"  # run anyway; late videos are kept and counted as missed


@dataclass(frozen=True)
class Batch:
    """The jobs of one submit."""

    # "b" and 11 hex digits, a hash of its rows and prefix: submitting the same again resumes
    id: str
    source: str  # what the user typed: a path, URL or "-"
    output_prefix: str  # URL or absolute path under which batches/<id>/... is written
    model: ModelRef
    submitted_at: float
    deadline_at: float | None = None
    priority: int = 0
    quality_floor: float = 0.0  # least acceptable predicted quality, in [0, 1]
    on_infeasible: OnInfeasible = OnInfeasible.DEGRADE
    total: int = 0  # number of jobs
    method: str | None = None


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"  # gave up: wrong request, or out of attempts
    QUARANTINED = "quarantined"  # poison: it took several workers down
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self not in (JobState.QUEUED, JobState.RUNNING)

    @property
    def is_lost(self) -> bool:
        """It could not be made. One that was cancelled could have been."""
        return self in (JobState.FAILED, JobState.QUARANTINED)


# --- how it is made ----------------------------------------------------------------------------


PLAIN_METHODS = ("full", "steps")


@dataclass(frozen=True, order=True)
class OperatingPoint:
    """How a job is made: the methods and their parameters. Chosen by the planner."""

    steps: int  # denoising steps actually spent
    # full, steps, or a canonical text of `vidplat.methods.language`: "hsa:preset=25"
    method: str = "full"

    @property
    def accelerator(self) -> str:
        """The methods to be installed around the model, as text; "" for none."""
        return "" if self.method in PLAIN_METHODS else self.method

    @property
    def label(self) -> str:
        """Short text for tables: `24 steps`, `24 steps, hsa:preset=25`."""
        text = f"{self.steps} step{'' if self.steps == 1 else 's'}"
        return f"{text}, {self.accelerator}" if self.accelerator else text


def quality_in_words(quality: float) -> str:
    """`0.92`; what is below full quality is not rounded up to it: `0.996`, never `1.00`."""
    text = f"{quality:.2f}"
    return text if text != "1.00" or quality > 1 - 1e-6 else f"{min(quality, 0.999):.3f}"


# --- what the platform sees and decides ----------------------------------------------------------


@dataclass(frozen=True)
class WorkerState:
    """One worker at the moment of a snapshot. Filled by the dispatcher."""

    id: str
    pool: str  # cloud, edge, ...
    device_class: str  # e.g. "cpu-1" (one thread), "NVIDIA H200": equal text, equal speed expected
    free_bytes: int
    ready_at: float  # when it can take its next job: now, or the expected end of what it does
    speed: float = 1.0  # measured over expected speed of its device class, an EWMA
    running: str | None = None  # job id
    price_per_s: float = 1.0
    alive: bool = True
    suspect: bool = False  # several different jobs failed here: last choice


@dataclass(frozen=True)
class OpenJob:
    """A queued job in a snapshot."""

    job: Job
    attempt: int = 0  # attempts made so far
    not_before: float = 0.0  # back-off after a failure
    avoid: frozenset[str] = frozenset()  # workers that failed it
    rung_down: int = 0  # how many rungs of memory less than planned it may take (out of memory)


# --- what happened --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Artifact:
    """Where a finished video is, and what proves it."""

    video_uri: str
    poster_uri: str
    meta_uri: str
    sha256: str  # of the video bytes
    size_bytes: int
    attempt: int  # the attempt that won the commit


class FailureKind(StrEnum):
    REQUEST = "request"  # the request is wrong: no retry can help
    JOB = "job"  # this job failed
    OUT_OF_MEMORY = "out-of-memory"  # one rung lower may fit
    INFRASTRUCTURE = "infrastructure"  # the surroundings failed
    WORKER_LOST = "worker-lost"  # the worker died with the job in hand
    METHOD = "method"  # the loaded model refuses the method, which a plan may have chosen


@dataclass(frozen=True)
class Failure:
    kind: FailureKind
    message: str  # one sentence for people, without secrets or control characters


@dataclass(frozen=True)
class Outcome:
    """One attempt's end: an artifact or a failure, and the seconds each phase took."""

    job_id: str
    attempt: int
    worker_id: str
    point: OperatingPoint
    started_at: float
    finished_at: float
    phases: Mapping[str, float] = field(default_factory=dict)  # seconds, by name (stages.py)
    artifact: Artifact | None = None
    failure: Failure | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)  # measured on the finished video
    steps_done: int = 0
    # Predicted for `point`, when less was spent than planned; filled by the platform.
    quality: float | None = None
    # The worker that denoised, where `worker_id` only filled in what was left out.
    drafted_by: str = ""

    @property
    def ok(self) -> bool:
        return self.artifact is not None


@dataclass(frozen=True)
class Progress:
    """A heartbeat: sent after each finished denoising step and at each change of phase."""

    job_id: str
    attempt: int
    worker_id: str
    phase: str
    step: int
    steps: int
    at: float


@dataclass(frozen=True)
class JobRecord:
    """A job as the catalog tells it: the job, its state, and what came of it."""

    batch_id: str
    job: Job
    state: JobState
    attempt: int = 0
    point: OperatingPoint | None = None
    predicted_p50_s: float | None = None
    predicted_p90_s: float | None = None
    predicted_quality: float | None = None
    worker_id: str | None = None
    pool: str | None = None
    started_at: float | None = None
    finished_at: float | None = None
    artifact: Artifact | None = None
    failure: Failure | None = None
    phases: Mapping[str, float] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    not_before: float = 0.0
    reused_from: str | None = None  # batch that already had this video
