"""Which operating points a job may be made at, and what quality each is expected to have.

A measured profile (`ModelShape.profile`) gives quality at fractions of the full steps. It is read
at every whole number of steps between the measured ones (straight lines between them, running
maximum so that more steps are never worse), then `hull` keeps the points that no mix of others
beats. Methods were measured one by one; only where a plan chooses how many latent frames are kept
(`MethodKind.left_to_plan`), quality is read between measured shares of them, and goes with fewer
steps: what both lose is multiplied.

What was not measured is guessed, and `Choices.guess` says so, for plans to carry as a note: a model
without a profile gets steps alone, on a monotone and concave curve; a method between or beyond the
measured ones of its kind, or as good as plain steps of as much work. A video of fewer full steps
than were measured loses more by each that is left out: 2 of 4 steps are not 12 of 24.

Left to others: seconds (`cost`), which of the points to take (`planner`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import compress

import numpy as np

from vidplat.domain import Job, OperatingPoint, VideoSpec
from vidplat.methods.frames import is_planned, kept_latents, texts_to_plan
from vidplat.methods.kinds import MethodKind, Task
from vidplat.methods.language import asked, is_known, parse, text, unsuited
from vidplat.methods.model_shape import ModelShape, ProfilePoint
from vidplat.methods.table import KINDS
from vidplat.methods.work import leaner, method_work
from vidplat.scheduler.work import forward_gflop

_MOST_STEP_COUNTS = 12  # offered beside the measured ones
_LEAST_STEPS = 4  # of a model without a profile
_UNMEASURED = 0.9  # the most that is guessed of a method of whose kind nothing was measured
_NO_PROFILE = "no profile for model {model}: step counts alone, quality is a guess"
_GUESS_EXPONENT = 0.15  # quality = (steps / full steps) ^ 0.15: 0.90 at a half, 0.81 at a quarter

_Curve = tuple[tuple[float, ...], tuple[float, ...]]  # shares, qualities


@dataclass(frozen=True)
class Choices:
    """Points a job may be made at, by rising quality; the last is the best it may get."""

    points: tuple[OperatingPoint, ...]
    qualities: tuple[float, ...]
    guess: str = ""  # what of the qualities is none of the profile's, of a "{model}"


def choices(
    shape: ModelShape, spec: VideoSpec, method: str | None = None, is_edit: bool = False
) -> Choices:
    """The points of `spec` under `method`, any text that `language.asked` takes. At least one, and
    none of which the methods' words say that it cannot be made so, unless that leaves none."""
    return _suited(shape, replace(spec, seed=0), method or "auto", is_edit)


def planned_method(job: Job) -> str | None:
    """The job's method; "auto" for one that a later version has let go, "steps" for an edit's."""
    method = job.method if job.method is None or is_known(job.method) else "auto"
    is_auto = asked(method or "auto").name == "auto"
    return "steps" if is_auto and job.input_video is not None else method


def hull(seconds: Sequence[float], qualities: Sequence[float]) -> list[int]:
    """Indices of the upper convex hull of (seconds, quality), cheapest first, with points on edges.

    Seconds and qualities rise strictly along it and the gain per second never rises, so that a
    greedy walk by gain per second is optimal up to one edge.
    """
    order = sorted(range(len(seconds)), key=lambda i: (seconds[i], -qualities[i]))
    kept: list[int] = []
    for i in order:
        if kept and qualities[i] <= qualities[kept[-1]] + 1e-12:
            continue
        while len(kept) >= 2:
            a, b = kept[-2], kept[-1]
            more_s, more = seconds[i] - seconds[a], qualities[i] - qualities[a]
            cross = (qualities[b] - qualities[a]) * more_s - more * (seconds[b] - seconds[a])
            if cross >= -1e-9 * max(1e-9, more_s):
                break
            kept.pop()
        if kept and seconds[i] <= seconds[kept[-1]]:
            kept.pop()
        kept.append(i)
    return kept


def quality_of(shape: ModelShape, spec: VideoSpec, point: OperatingPoint) -> float:
    """Expected quality of any point, on the profile's grid or off it, in [0, 1]."""
    full = spec.num_inference_steps
    plain = _quality_of_steps(shape, point.steps, full)
    if not point.accelerator:
        return plain
    return plain * _quality_of_method(shape, replace(spec, seed=0), point.accelerator)


def _quality_of_steps(shape: ModelShape, steps: float, full: int) -> float:
    """Of so many steps against all, which may be fewer than were measured."""
    fraction, curve = min(1.0, steps / full), _steps_curve(shape.profile)
    if curve is None:
        return math.pow(fraction, _GUESS_EXPONENT)
    quality, measured_at = _along(fraction, *curve), shape.defaults.num_inference_steps
    if full >= measured_at or fraction >= 1.0:
        return quality
    both = (_along(min(steps, full) / measured_at, *curve), _along(full / measured_at, *curve))
    return min(quality, both[0] / both[1])


def _along(at: float, fractions: tuple[float, ...], values: tuple[float, ...]) -> float:
    """A straight line between measured fractions; below the least the guessed curve goes on."""
    inside = float(np.interp(at, fractions, values))
    return inside * math.pow(min(1.0, at / fractions[0]), _GUESS_EXPONENT)


@lru_cache(maxsize=4096)
def _suited(shape: ModelShape, spec: VideoSpec, method: str, is_edit: bool) -> Choices:
    offered = _choices(shape, spec, method)
    suited = [
        not unsuited(point.method, Task.of(shape, spec, point.steps, is_edit))
        for point in offered.points
    ]
    if all(suited) or not any(suited):
        return offered
    points, qualities = compress(offered.points, suited), compress(offered.qualities, suited)
    return Choices(tuple(points), tuple(qualities), offered.guess)


@lru_cache(maxsize=4096)
def _choices(shape: ModelShape, spec: VideoSpec, method: str) -> Choices:
    ask = asked(method)
    full = spec.num_inference_steps
    latent = shape.latent_frames(spec.num_frames)
    guess = "" if shape.profile else _NO_PROFILE
    if ask.name == "full":
        return Choices((OperatingPoint(full),), (1.0,))
    if ask.chosen:
        texts = texts_to_plan(text(ask.chosen), latent)
        counts = _step_counts(shape, full) if len(texts) > 1 else [full]
        forms = (*texts, *(each for method in texts for each in leaner(method)))
        points = [OperatingPoint(steps, each) for each in forms for steps in counts]
        offered = {point: quality_of(shape, spec, point) for point in points}
        return _ranked(offered, _guess(shape, full, texts))
    if ask.steps is not None:
        point = _plain(min(full, ask.steps), full)
        return Choices((point,), (quality_of(shape, spec, point),), guess)
    found: dict[OperatingPoint, float] = {OperatingPoint(full): 1.0}
    for steps in _step_counts(shape, full):
        point = _plain(steps, full)
        quality = quality_of(shape, spec, point)
        if point not in found and quality < 1.0:
            found[point] = quality
    if ask.name == "auto":
        for method in _accelerated(shape.profile):
            if _planned_kind(method) is None:
                point = OperatingPoint(full, method)
                found[point] = quality_of(shape, spec, point)
        for kind in KINDS.values():
            if _frames_curve(shape, kind):
                kept = _choices(shape, spec, kind.name)
                found |= dict(zip(kept.points, kept.qualities, strict=True))
    return _ranked(found, guess)


def _guess(shape: ModelShape, full: int, texts: Sequence[str]) -> str:
    """What is guessed of the qualities of methods; "" when they rest on the profile."""
    measured_at = shape.defaults.num_inference_steps
    if unmeasured := [each for each in texts if not _is_measured(shape, each)]:
        return (
            f"{unmeasured[0]} was not measured on model {{model}}: its quality is a "
            "guess; `vidplat bench methods {model}` measures"
        )
    if full < measured_at:
        return (
            f"{texts[0]} was measured on model {{model}} at {measured_at} steps, not at "
            f"{full}: its quality is a guess"
        )
    return ""


def _ranked(found: Mapping[OperatingPoint, float], guess: str) -> Choices:
    ranked = sorted(found.items(), key=lambda item: (item[1], item[0].steps))
    return Choices(tuple(p for p, _ in ranked), tuple(q for _, q in ranked), guess)


def _plain(steps: int, full: int) -> OperatingPoint:
    return OperatingPoint(steps, "full" if steps >= full else "steps")


def _step_counts(shape: ModelShape, full: int) -> list[int]:
    """The measured step counts, and others evenly spread between the least of them and `full`."""
    curve = _steps_curve(shape.profile)
    fractions = curve[0] if curve else (_LEAST_STEPS / full,)
    measured = {min(full, max(1, math.ceil(f * full - 1e-9))) for f in fractions}
    least = min(measured)
    spread = np.linspace(least, full, min(_MOST_STEP_COUNTS, full - least + 1))
    return sorted({full, *measured, *(round(s) for s in spread)})


@lru_cache(maxsize=256)
def _accelerated(profile: tuple[ProfilePoint, ...]) -> dict[str, float]:
    """Quality of each measured method at full steps, and of its ways that take less memory."""
    told = {
        point.method: min(1.0, max(0.0, point.quality))
        for point in profile
        if point.method and point.steps_fraction >= 1.0
    }
    less = {each: quality for method, quality in told.items() for each in leaner(method)}
    return told | {method: quality for method, quality in less.items() if method not in told}


def _planned_kind(method: str) -> MethodKind | None:
    """The kind of which plans choose how many latent frames it keeps; None: no such method."""
    return next((one.kind for one in parse(method) if one.kind.left_to_plan), None)


def _is_measured(shape: ModelShape, method: str) -> bool:
    """Whether its quality rests on the profile: its own line or, where plans choose how many
    frames are kept, a curve of others."""
    if method in _accelerated(shape.profile):
        return True
    kind = _planned_kind(method)
    return kind is not None and is_planned(method) and bool(_frames_curve(shape, kind))


@lru_cache(maxsize=4096)
def _quality_of_method(shape: ModelShape, spec: VideoSpec, method: str) -> float:
    """Quality at full steps; where frames are left out, by the share of them that is kept."""
    kind, latent = _planned_kind(method), shape.latent_frames(spec.num_frames)
    if kind is not None:
        share = kept_latents(method, latent) / latent
        curve = _frames_curve(shape, kind)
        return _along(share, *curve) if curve else math.pow(share, _GUESS_EXPONENT)
    full, measured_at = spec.num_inference_steps, shape.defaults.num_inference_steps
    share = _work_share(shape, spec, method)
    quality = _accelerated(shape.profile).get(method)
    if quality is None:
        quality = _guessed_quality(shape, spec, method, share)
    if full >= measured_at or not shape.profile:
        return quality
    # Its lead over plain steps of as much work, which is less where there are few to choose from.
    there = _quality_of_steps(shape, share * measured_at, measured_at)
    here = _quality_of_steps(shape, share * full, full)
    return min(quality, max(0.0, here + (quality - there) * full / measured_at))


def _guessed_quality(shape: ModelShape, spec: VideoSpec, method: str, share: float) -> float:
    """Of a method never measured on this model: along its kin, else as plain steps of its work."""
    names = [one.kind.name for one in parse(method)]
    kin = {
        _work_share(shape, spec, other): quality
        for other, quality in _accelerated(shape.profile).items()
        if [one.kind.name for one in parse(other)] == names
    }
    if share >= 1.0:  # nobody knows its work
        return min(kin.values(), default=_UNMEASURED)
    curve = _rising(kin)
    if curve is not None:
        return _along(share, *curve)
    full = spec.num_inference_steps
    return min(_UNMEASURED, _quality_of_steps(shape, share * full, full))


def _work_share(shape: ModelShape, spec: VideoSpec, method: str) -> float:
    """Of the FLOPs of all steps; 1 where nobody knows."""
    work = method_work(shape, spec, OperatingPoint(spec.num_inference_steps, method))
    linear, attention = forward_gflop(shape, shape.tokens(spec))
    left = work.linear * linear + work.attention * attention
    return min(1.0, left / (linear + attention))


@lru_cache(maxsize=256)
def _frames_curve(shape: ModelShape, kind: MethodKind) -> _Curve | None:
    """(share of latent frames kept, quality) of a kind alone, as measured at the default length."""
    whole = shape.latent_frames(shape.defaults.num_frames)
    found = {
        kept_latents(method, whole) / whole: quality
        for method, quality in _accelerated(shape.profile).items()
        if _planned_kind(method) is kind and len(parse(method)) == 1
    }
    return _rising(found)


@lru_cache(maxsize=256)
def _steps_curve(profile: tuple[ProfilePoint, ...]) -> _Curve | None:
    """(share of the steps, quality) of plain steps, as measured."""
    found: dict[float, float] = {}
    for point in profile:
        if not point.method:
            steps = min(1.0, point.steps_fraction)
            found[steps] = max(found.get(steps, 0.0), min(1.0, max(0.0, point.quality)))
    return _rising(found)


def _rising(found: Mapping[float, float]) -> _Curve | None:
    """A curve through what was found: shares rise, quality never falls and is 1 at all of it."""
    if not found:
        return None
    shares = sorted({*found, 1.0})
    qualities = np.maximum.accumulate([1.0 if share == 1.0 else found[share] for share in shares])
    return tuple(shares), tuple(qualities.tolist())
