"""Builders with neutral defaults: a test names only what matters to it.

The world they build: now is second 0; the model's full quality is 24 steps; on device class "cpu-1"
of `knowledge()` one job at full quality takes 10 s at p50 (see there), so sums can be done in one's
head.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from vidplat.domain import (
    Job,
    ModelRef,
    OpenJob,
    OperatingPoint,
    VideoSpec,
    WorkerState,
    around_seed,
    id_at_seed,
)
from vidplat.methods.model_shape import ModelShape, ProfilePoint
from vidplat.scheduler.cost import CostModel, Observation
from vidplat.scheduler.decision import Policy, Snapshot
from vidplat.scheduler.menu import Knowledge
from vidplat.scheduler.work import (
    features,
)
from vidplat.stages import (
    STAGES,
)

FLIPBOOK = ModelRef("flipbook", "r1")

# Quality at an eighth, a quarter, a half and all of the steps: concave, as measured profiles are.
PROFILE = (
    ProfilePoint(1 / 8, 0.60),
    ProfilePoint(1 / 4, 0.80),
    ProfilePoint(1 / 2, 0.92),
    ProfilePoint(1.0, 1.0),
)


def a_spec(
    *,
    width: int = 64,
    height: int = 64,
    frames: int = 33,
    fps: int = 16,
    steps: int = 24,
    guidance: float = 5.0,
    seed: int = 0,
) -> VideoSpec:
    return VideoSpec(width, height, frames, fps, steps, guidance, seed)


def a_shape(*, profile: tuple[ProfilePoint, ...] = PROFILE) -> ModelShape:
    """Much like flipbook: 6 blocks of width 192, 8x8x4 VAE, patches of one cell."""
    return ModelShape(
        family="wan",
        layers=6,
        width=192,
        ffn_width=768,
        text_tokens=32,
        patch=(1, 1, 1),
        temporal_factor=4,
        spatial_factor=8,
        parameter_bytes=15_000_000,
        defaults=a_spec(),
        profile=profile,
    )


def job_id(
    text: str, negative: str, spec: VideoSpec, model: ModelRef, *more: object, **named: object
) -> str:
    """The id of this job; `more` as in `domain.around_seed`."""
    return id_at_seed(around_seed(text, negative, spec, model, *more, **named), spec.seed)  # type: ignore[arg-type]


def a_job(
    *,
    row: int = 1,
    prompt: str | None = None,
    spec: VideoSpec | None = None,
    model: ModelRef = FLIPBOOK,
    deadline_at: float | None = None,
    priority: int = 0,
    method: str | None = None,
) -> Job:
    text = f"prompt {row}" if prompt is None else prompt
    made = a_spec() if spec is None else spec
    return Job(
        job_id(text, "", made, model),
        text,
        "",
        made,
        model,
        row,
        None,
        priority,
        deadline_at,
        method,
    )


def an_open_job(
    job: Job | None = None,
    *,
    row: int = 1,
    deadline_at: float | None = None,
    attempt: int = 0,
    not_before: float = 0.0,
    avoid: Iterable[str] = (),
    rung_down: int = 0,
    priority: int = 0,
    method: str | None = None,
    spec: VideoSpec | None = None,
) -> OpenJob:
    what = job or a_job(
        row=row, deadline_at=deadline_at, priority=priority, method=method, spec=spec
    )
    return OpenJob(what, attempt, not_before, frozenset(avoid), rung_down)


def open_jobs(count: int, **same: object) -> tuple[OpenJob, ...]:
    """`count` open jobs in rows 1..count, alike but for their prompts."""
    return tuple(an_open_job(row=row, **same) for row in range(1, count + 1))  # type: ignore[arg-type]


def a_worker(
    worker_id: str = "w1",
    *,
    pool: str = "cloud",
    device_class: str = "cpu-1",
    free_gb: float = 16.0,
    ready_at: float = 0.0,
    speed: float = 1.0,
    alive: bool = True,
    suspect: bool = False,
) -> WorkerState:
    return WorkerState(
        worker_id,
        pool,
        device_class,
        int(free_gb * 1e9),
        ready_at,
        speed,
        alive=alive,
        suspect=suspect,
    )


def a_snapshot(
    *,
    jobs: Iterable[OpenJob] = (),
    workers: Iterable[WorkerState] = (a_worker(),),
    now: float = 0.0,
    deadline_at: float | None = None,
) -> Snapshot:
    return Snapshot(now, tuple(jobs), tuple(workers), deadline_at)


def a_policy(**changed: object) -> Policy:
    return replace(Policy(), **changed)  # type: ignore[arg-type]


def knowledge(
    *,
    shape: ModelShape | None = None,
    full_s: float = 10.0,
    fixed_s: float = 1.0,
    device_classes: dict[str, float] | None = None,
    timings: int = 40,
) -> Knowledge:
    """Costs learnt from `timings` exact timings, so that each stage's p90 is 1.02 x its p50 (the
    least spread).

    A default job takes `full_s` at its full steps; `fixed_s` of it does not depend on steps
    (decoding, mp4, ...). `device_classes` maps a device class to how many times slower it is
    (default: cpu-1 at 1, cpu-2 at 0.5).
    """
    shape = shape or a_shape()
    spec = shape.defaults
    costs = CostModel()
    for device_class, slower in (device_classes or {"cpu-1": 1.0, "cpu-2": 0.5}).items():
        small = 0.01 * fixed_s
        for steps in [4, 24, 12, 8, 16, 20, 6, 10] * max(1, timings // 8):
            counted = features(shape, spec, OperatingPoint(steps))
            took = {
                "denoise": (full_s - fixed_s) * steps / spec.num_inference_steps,
                "decode": fixed_s - 3 * small,
            }
            for stage in STAGES:
                if any(counted[stage].vector):
                    seconds = took.get(stage, small) * slower
                    costs = costs.observe(
                        Observation(FLIPBOOK.id, device_class, stage, counted[stage], seconds)
                    )
    return Knowledge({FLIPBOOK.id: shape}, costs)
