"""Builders for the platform's tests: the fake model, prompts, and a listener that remembers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

from vidplat.config import PoolConfig
from vidplat.domain import (
    Batch,
    JobState,
    ModelRef,
    OperatingPoint,
    Outcome,
    Progress,
    Prompt,
)
from vidplat.methods.model_shape import ModelShape
from vidplat.platform.dispatch.dispatcher import Seat, WorkerSpec
from vidplat.platform.intake.source_videos import Source
from vidplat.platform.intake.take_in import Taken, take_in
from vidplat.platform.interface import BatchResult, Listener, Wishes
from vidplat.scheduler.decision import Assignment, Plan
from vidplat.testing import describe_fake

NOW = 1_900_000_000.0


@dataclass
class FakeModels:
    """What intake must know of models, for the fake one. `masks`: SHA-256 by latent frames."""

    masks: Mapping[int, str] = field(default_factory=dict)

    def describe(self, model_id: str) -> tuple[ModelRef, ModelShape]:
        return describe_fake(model_id)

    def searched_masks(self, model_id: str, latent_frames: int) -> str:
        return self.masks.get(latent_frames, "")


@dataclass
class FakeSources:
    """Input videos that intake may ask for, by place; a text is what is wrong with one. Remembers
    what was asked."""

    known: Mapping[str, Source | str] = field(default_factory=dict)
    asked: list[Sequence[str]] = field(default_factory=list)

    def look(self, places: Sequence[str]) -> Mapping[str, Source | str]:
        self.asked.append(places)
        return {place: self.known[place] for place in places}


def a_source(letter: str = "a", seconds: float = 2.1, **changed: Any) -> Source:
    return replace(Source(letter * 64, 64, 64, seconds), **changed)


def an_assignment(
    job_id: str, *, worker_id: str = "w1", pool: str = "cloud", steps: int = 24, quality: float = 1
) -> Assignment:
    """Ten seconds of work from second 0, twelve at p90."""
    point = OperatingPoint(steps, method="full" if steps == 24 else "steps")
    return Assignment(
        job_id, worker_id, pool, point, 0.0, 10.0, 12.0, quality, 10.0, 12.0, "full quality"
    )


def a_prompt(row: int = 1, text: str = "a red circle", **fields: Any) -> Prompt:
    """`a_prompt(3, seed=7, deadline="60s")`: names of Prompt fields, anything else is an
    override."""
    own = {name: fields.pop(name) for name in list(fields) if name in Prompt.__dataclass_fields__}
    return Prompt(row, text, overrides=fields, **own)


def taken(
    prompts: Iterable[Any],
    prefix: str = "/out",
    now: float = NOW,
    sources: FakeSources | None = None,
    warn: Callable[[str], None] = lambda text: None,
    masks: Mapping[int, str] | None = None,
    **wishes: Any,
) -> Taken:
    """The intake of these prompts, with its jobs in a list instead of a spool."""
    spooled = take_in(
        [list(prompts)],
        source="prompts.csv",
        output_prefix=prefix,
        wishes=Wishes(**{"model": "fake", **wishes}),
        models=FakeModels(masks or {}),
        look=(sources or FakeSources()).look,
        now=now,
        warn=warn,
    )
    with closing(spooled):
        return replace(spooled, jobs=list(spooled.jobs))


def a_seat(
    worker_id: str = "w1", *, pool: str = "cloud", light: bool = False, **known: Any
) -> Seat:
    """Its worker is up, of class cpu-1, unless `known` says otherwise."""
    where = PoolConfig(pool, light=light)
    spec = WorkerSpec(worker_id, where, "b1", ModelRef("fake", "1"), "memory://")
    return replace(Seat(spec, "cpu-1", since=0.0, up=True, free_bytes=2**34), **known)


@dataclass
class Memory(Listener):
    """A listener that remembers everything it heard."""

    phases: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    plans: list[Plan] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)
    steps: list[Progress] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    results: list[BatchResult] = field(default_factory=list)

    def phase(self, text: str) -> None:
        self.phases.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def begun(self, batch: Batch, counts: Mapping[JobState, int]) -> None: ...

    def planned(self, plan: Plan, answer: Any) -> None:
        self.plans.append(plan)
        if answer is not None:
            self.answers.append(answer)

    def progress(self, progress: Progress) -> None:
        self.steps.append(progress)

    def outcome(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    def finished(self, result: BatchResult) -> None:
        self.results.append(result)
