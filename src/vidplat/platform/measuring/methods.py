"""What every method costs and loses on a model, measured on this machine, and kept for plans.

    measured = measure_methods(Wanted("flipbook"), listener)
    keep(measured)                      plans of this model choose from it from then on

Left to others: how methods are tuned and compared (`workers.survey`), what their rows come to
(findings.py), and how it is shown (the command line).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vidplat import measured as measured_files
from vidplat.domain import ModelRef, Prompt
from vidplat.errors import InputError, UsageError
from vidplat.files import write_whole
from vidplat.platform.measuring.findings import Finding, findings, profile_points, step_points

if TYPE_CHECKING:
    from vidplat.methods.kinds import Candidate
    from vidplat.methods.model_shape import ProfilePoint
    from vidplat.workers.survey.survey import Row, Subject

_PROMPTS = (
    "a large red circle moves fast right on a plain gray background",
    "a small green triangle stays still on a striped navy background",
    "a large white square orbits clockwise on a plain black background",
    "a small yellow cross on a checkered maroon background, the camera pans left",
)
_TUNING = 2  # prompts on which each method's knob is turned


class Listener(Protocol):
    """Hears how a measurement goes on."""

    def said(self, line: str) -> None:
        """One line, worth keeping on screen."""

    def warn(self, text: str) -> None: ...


@dataclass(frozen=True)
class Wanted:
    """What to measure."""

    model: str
    prompts: Path | None = None  # a prompt file, whose first rows are used; None: our own sentences
    count: int = 4  # prompts
    only: tuple[str, ...] = ()  # names of methods; none: all
    device: str = "cpu"
    threads: int = 1


@dataclass(frozen=True)
class Measured:
    """What was found: a row per video, a finding per method and target, and points for plans."""

    model: ModelRef
    prompts: int
    rows: tuple[Row, ...]
    findings: tuple[Finding, ...]
    points: tuple[ProfilePoint, ...]

    @property
    def is_comparable(self) -> bool:
        """True when plain steps are there, which plans compare methods with."""
        return any(not point.method for point in self.points)


def measure_methods(wanted: Wanted, listener: Listener) -> Measured:
    """Make videos by every method, beside the full run. Raises UsageError for an unknown method,
    InputError for prompts that cannot be used, ModelError for the model."""
    import torch

    from vidplat.methods.candidates import candidates
    from vidplat.workers import describe_model
    from vidplat.workers.models.catalogue import locate
    from vidplat.workers.models.loading import load_family
    from vidplat.workers.survey.survey import Bench, survey

    ref, shape = describe_model(wanted.model)
    spec = shape.defaults
    subjects = _subjects(wanted, listener)
    ways = _chosen(
        candidates(spec, shape.latent_frames(spec.num_frames), shape.solver), wanted.only
    )
    torch.set_num_threads(wanted.threads)
    bench = Bench(load_family(locate(wanted.model), wanted.device), spec)
    tuning = min(_TUNING, len(subjects))
    rows = tuple(survey(bench, subjects, ways, tuning=tuning, say=listener.said))
    bench.close()
    found, steps = tuple(findings(rows)), spec.num_inference_steps
    points = (*step_points(found, steps), *profile_points(found, steps))
    return Measured(ref, len(subjects), rows, found, points)


def keep(measured: Measured) -> Path:
    """Let plans on this machine choose from what was found; returns the file."""
    path = measured_files.folder(measured.model.revision) / "profile.json"
    points = [asdict(point) for point in measured.points]
    text = json.dumps({"model": measured.model.id, "points": points}, indent=1) + "\n"
    write_whole(path, [text.encode()])
    return path


def _subjects(wanted: Wanted, listener: Listener) -> list[Subject]:
    from vidplat.workers.survey.survey import Subject

    texts = (_PROMPTS * wanted.count)[: wanted.count]
    if wanted.prompts is not None:
        texts = _first_prompts(wanted.prompts, wanted.count, listener)
    return [Subject(text, seed=seed) for seed, text in enumerate(texts)]


def _first_prompts(file: Path, count: int, listener: Listener) -> tuple[str, ...]:
    from vidplat.storage import read_prompts

    texts: list[str] = []
    rows = chain.from_iterable(read_prompts(str(file), warn=listener.warn))
    for row in islice(rows, count):
        if not isinstance(row, Prompt):
            raise InputError(f"{file} cannot be used", [str(row)])
        texts.append(row.text)
    return tuple(texts)


def _chosen(ways: Sequence[Candidate], only: Sequence[str]) -> list[Candidate]:
    """Those of these names. `eco 5` and `eco 6` are asked for as eco."""
    known = list(dict.fromkeys(way.name.split()[0] for way in ways))
    for name in only:
        if name not in known:
            raise UsageError(f"--only {name!r} is not known; there are {', '.join(known)}")
    return [way for way in ways if not only or way.name.split()[0] in only]
