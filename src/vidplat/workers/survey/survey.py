"""What every method costs on one loaded model, and what it loses.

A candidate is a way with one knob, from gentle to hard: a step count, a threshold, a share of work.
For each target cost the knob is tuned on a few prompts by measured denoising time (`tune`). Then,
prompt by prompt, all tuned points are made in one round, which begins and ends with the full-step
video of the same prompt, seed and solver: a made video is compared with that one, and its cost is a
ratio to the mean time of the two, so a busy machine slows both sides.

Left to others: what is drawn from the rows (`benchmarks/methods.py`, `vidplat bench methods`), and
which points a planner takes (`scheduler.profile`).
"""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from vidplat.domain import OperatingPoint, VideoSpec
from vidplat.errors import MethodRefused
from vidplat.methods.installed import Installed
from vidplat.methods.kinds import Candidate
from vidplat.quality import flicker, motion_energy, psnr_db, ssim
from vidplat.workers.generate import generate
from vidplat.workers.making import Ask, Made
from vidplat.workers.models.family import Family
from vidplat.workers.survey.flops import Flops, counted

if TYPE_CHECKING:
    import numpy as np

TARGETS = (0.75, 0.50, 0.25)
WITHIN = 0.02  # of the target: near enough
_TRIES = 8
_MOST_DB = 60.0  # equal frames have no finite PSNR; means need one
_MOVES = 1e-4  # motion energy below which a ratio says nothing


@dataclass(frozen=True)
class Subject:
    """One prompt of the survey."""

    prompt: str
    seed: int
    kind: str = ""  # a group that results are split by, e.g. the class of movement
    fit: Callable[[np.ndarray], float] | None = None  # frames -> share of the prompt that they show


@dataclass(frozen=True)
class Row:
    """One video of one candidate at one target."""

    method: str
    target: float
    label: str  # of the operating point
    point_method: str  # its accelerators, as text
    steps: int
    kind: str
    prompt: str
    seed: int
    cost: float  # denoising seconds over those of the full run
    cost_end_to_end: float  # denoising and decoding, likewise
    work: float  # FLOPs of the blocks over those of the full run, and of their two parts likewise
    linear_work: float
    attention_work: float
    psnr_db: float
    ssim: float
    fit: float | None
    fit_full: float | None
    flicker: float
    flicker_full: float
    motion_ratio: float | None  # motion energy over that of the full run; None where nothing moves
    peak_bytes: int  # most memory the process held while it was made


@dataclass
class Bench:
    """A loaded model that makes one video after another at any operating point."""

    family: Family
    spec: VideoSpec
    installed: Installed = field(init=False)

    def __post_init__(self) -> None:
        self.installed = Installed(self.family.transformers)

    def make(self, subject: Subject, point: OperatingPoint) -> Made:
        """One video. Raises `MethodRefused` when the point's method does not suit the model."""
        self.installed.use(point.accelerator)
        ask = Ask(subject.prompt, "", replace(self.spec, seed=subject.seed), point)
        return generate(self.family, ask, self.installed)

    def work(self, subject: Subject, point: OperatingPoint) -> Flops:
        """FLOPs of all blocks in one video at `point`. Slow: counting watches every operation."""
        self.installed.use(point.accelerator)
        model = self.family.transformers[0]
        with counted(model) as found:
            self.make(subject, point)
        return found

    @property
    def device(self) -> str:
        return str(next(self.family.transformers[0].parameters()).device)

    def close(self) -> None:
        self.installed.remove()


def full_point(spec: VideoSpec, solver: str = "") -> OperatingPoint:
    return OperatingPoint(spec.num_inference_steps, solver or "full")


class Costs:
    """Measured costs of a candidate's points on a few subjects: median denoising seconds divided by
    those of the full run.

    A point is measured once. The full runs are made anew for every fourth point, so that slow
    drifts of the machine's speed cancel. Before the first, one full run and one video at the point
    are made and not measured: what a first call prepares is no method's cost.
    """

    def __init__(self, bench: Bench, subjects: Sequence[Subject], solver: str = "") -> None:
        self._bench, self._subjects, self._solver = bench, subjects, solver
        self._wholes: list[float] = []
        self.known: dict[OperatingPoint, float] = {}

    def __call__(self, point: OperatingPoint) -> float:
        if point not in self.known:
            whole = full_point(self._bench.spec, self._solver)
            if not self.known:
                self._bench.make(self._subjects[0], whole)
                self._bench.make(self._subjects[0], point)
            if len(self.known) % 4 == 0:
                self._wholes = [self._seconds(subject, whole) for subject in self._subjects]
            pairs = zip(self._subjects, self._wholes, strict=True)
            self.known[point] = statistics.median(
                self._seconds(subject, point) / seconds for subject, seconds in pairs
            )
        return self.known[point]

    def _seconds(self, subject: Subject, point: OperatingPoint) -> float:
        return self._bench.make(subject, point).phases["denoise"]


def tune(candidate: Candidate, cost: Costs, target: float) -> tuple[OperatingPoint, float]:
    """The candidate's point whose measured cost is nearest to `target`, and that cost.

    A knob is searched by bisection until it is within 2 %, for at most 8 tries; a list by bisection
    as well, and both neighbours of the target are measured.
    """
    if candidate.point is not None:
        low, high = 0.0, 1.0
        for _ in range(_TRIES):
            middle = (low + high) / 2
            found = cost(candidate.point(middle))
            if abs(found - target) <= WITHIN * target:
                break
            low, high = (middle, high) if found < target else (low, middle)
    else:
        # costs fall along the list, so they rise with the sign turned
        place = bisect_left(candidate.settings, -target, key=lambda point: -cost(point))
        for point in candidate.settings[max(0, place - 1) : place + 1]:
            cost(point)
    best = min(cost.known, key=lambda point: abs(cost.known[point] - target))
    return best, cost.known[best]


def survey(
    bench: Bench,
    subjects: Sequence[Subject],
    candidates: Sequence[Candidate],
    targets: Sequence[float] = TARGETS,
    tuning: int = 3,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[Row]:
    """Every candidate at every target on every subject, as rows, as they are made.

    A candidate that the model refuses is said and passed over. A target that it cannot come near (a
    list that ends above it, say) is made at its nearest point; the row's `cost` tells.
    """
    tuned: list[Tuned] = []
    for candidate in candidates:
        cost = Costs(bench, subjects[:tuning], candidate.solver)
        for target in targets:
            try:
                point, near = tune(candidate, cost, target)
            except MethodRefused as refused:
                say(f"{candidate.name}: {refused}")
                break
            if any(point == other.point for other in tuned):
                say(
                    f"{candidate.name}: nothing nearer to {target:.0%} than {point.label} at "
                    f"{near:.1%}"
                )
                continue
            whole = full_point(bench.spec, candidate.solver)
            work, of = bench.work(subjects[0], point), bench.work(subjects[0], whole)
            tuned.append(Tuned(candidate, target, point, work, of))
            say(f"{candidate.name} at {target:.0%}: {point.label}, {near:.1%} of the time")
    for number, subject in enumerate(subjects, start=1):
        yield from _round(bench, subject, tuned)
        say(f"{number} of {len(subjects)} prompts")


@dataclass(frozen=True)
class Tuned:
    """A candidate's point for one target, its FLOPs, and those of the full run."""

    candidate: Candidate
    target: float
    point: OperatingPoint
    work: Flops
    of: Flops


def _round(bench: Bench, subject: Subject, tuned: Sequence[Tuned]) -> Iterator[Row]:
    """All tuned points of one prompt, between two makings of each reference."""
    solvers = sorted({one.candidate.solver for one in tuned})
    before = {solver: bench.make(subject, full_point(bench.spec, solver)) for solver in solvers}
    made: list[tuple[Tuned, Made, int]] = []
    for one in tuned:
        with peak_memory(bench.device) as peak:
            video = bench.make(subject, one.point)
        made.append((one, video, peak.bytes))
    after = {solver: bench.make(subject, full_point(bench.spec, solver)) for solver in solvers}
    for one, video, peak_bytes in made:
        wholes = (before[one.candidate.solver], after[one.candidate.solver])
        yield _row(subject, one, video, wholes, peak_bytes)


def _row(
    subject: Subject, one: Tuned, made: Made, wholes: tuple[Made, Made], peak_bytes: int
) -> Row:
    frames = wholes[0].frames
    moved = motion_energy(frames)
    return Row(
        method=one.candidate.name,
        target=one.target,
        label=one.point.label,
        point_method=one.point.accelerator,
        steps=one.point.steps,
        kind=subject.kind,
        prompt=subject.prompt,
        seed=subject.seed,
        cost=made.phases["denoise"] / statistics.mean(whole.phases["denoise"] for whole in wholes),
        cost_end_to_end=_rendering(made.phases)
        / statistics.mean(_rendering(whole.phases) for whole in wholes),
        work=one.work.total / one.of.total,
        linear_work=one.work.linear / one.of.linear,
        attention_work=one.work.attention / one.of.attention,
        psnr_db=min(_MOST_DB, psnr_db(made.frames, frames)),
        ssim=ssim(made.frames, frames),
        fit=subject.fit(made.frames) if subject.fit else None,
        fit_full=subject.fit(frames) if subject.fit else None,
        flicker=flicker(made.frames),
        flicker_full=flicker(frames),
        motion_ratio=motion_energy(made.frames) / moved if moved > _MOVES else None,
        peak_bytes=peak_bytes,
    )


def _rendering(phases: Mapping[str, float]) -> float:
    return sum(seconds for phase, seconds in phases.items() if phase != "encode")


# --- memory --------------------------------------------------------------------------------------


@dataclass
class Peak:
    """Filled when the context ends."""

    bytes: int = 0


@contextmanager
def peak_memory(device: str) -> Iterator[Peak]:
    """Most memory held within the context: of the CUDA device, of the process on Linux, else 0."""
    peak = Peak()
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        yield peak
        peak.bytes = int(torch.cuda.max_memory_allocated(device))
        return
    with suppress(OSError):
        # forget the high-water mark
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    yield peak
    with suppress(OSError):
        status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        peak.bytes = next(
            (int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM")), 0
        )
