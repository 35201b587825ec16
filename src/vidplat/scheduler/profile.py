"""Which operating points a job may be made at, and what quality each is expected to have.

A measured profile (`ModelShape.profile`) gives quality at fractions of the full steps and of the
keyframes. It is read at every whole number of steps between the measured ones (straight lines
between them, running maximum so that more steps are never worse), then `hull` keeps the points that
no mix of others beats. A model without a profile gets steps alone, on a guessed curve;
`Choices.measured` says so and plans carry a note. Methods were measured one by one; only `eco`,
whose K is another share of each length, is read between measured shares, and goes with fewer steps:
what both lose is multiplied.

Left to others: seconds (`cost`), which of the points to take (`planner`).
Not promised: quality of an unmeasured model. The guess is only monotone and concave, so that plans
are sane.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from vidplat.domain import OperatingPoint, VideoSpec
from vidplat.errors import UsageError, printable
from vidplat.methods import language as methods
from vidplat.methods.frames import kept_latents, with_budgets
from vidplat.methods.model_shape import ModelShape, ProfilePoint

_MOST_STEP_COUNTS = 12  # offered per number of keyframes, beside the measured ones
_LEAST_STEPS = 4  # of a model without a profile
_UNMEASURED = (
    0.9  # quality of a method that was never measured on this model: a guess, and said to be one
)
_GUESS_EXPONENT = 0.15  # quality = (steps / full steps) ^ 0.15: 0.90 at a half, 0.81 at a quarter


@dataclass(frozen=True)
class Choices:
    """Points a job may be made at, by rising quality; the last is the best it may get."""

    points: tuple[OperatingPoint, ...]
    qualities: tuple[float, ...]
    measured: bool


def choices(shape: ModelShape, spec: VideoSpec, method: str | None = None) -> Choices:
    """The points of `spec` on this model under `method` (see `check_method`). At least one, never a
    UsageError for a method that `check_method` accepts."""
    return _choices(shape, replace(spec, seed=0), method or "auto")


def check_method(method: str) -> None:
    """Raise UsageError unless `method` is `auto`, `full`, `steps`, `keyframes`, `steps:N`,
    `keyframes:K`, both, or a text of `vidplat.methods.language` such as `hsa:50`.

    `steps` and `keyframes` leave the number to the planner; a number fixes it.
    `keyframes:5,steps:12` fixes both.
    """
    _parse(method)


def hull(seconds: Sequence[float], qualities: Sequence[float]) -> list[int]:
    """Indices of the upper convex hull of (seconds, quality), cheapest first; points on an edge are
    kept.

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
            cross = (qualities[b] - qualities[a]) * (seconds[i] - seconds[a]) - (
                qualities[i] - qualities[a]
            ) * (seconds[b] - seconds[a])
            if cross >= -1e-9 * max(1e-9, seconds[i] - seconds[a]):
                break
            kept.pop()
        if kept and seconds[i] <= seconds[kept[-1]]:
            kept.pop()
        kept.append(i)
    return kept


def quality_of(shape: ModelShape, spec: VideoSpec, point: OperatingPoint) -> float:
    """Expected quality of any point, on the profile's grid or off it, in [0, 1]."""
    steps = min(1.0, point.steps / spec.num_inference_steps)
    latent = shape.latent_frames(spec.num_frames)
    frames = 1.0 if point.keyframes is None else min(1.0, point.keyframes / latent)
    if point.accelerator:
        plain = replace(point, method="steps")
        return quality_of(shape, spec, plain) * _quality_of_method(shape, point.accelerator, latent)
    curves = _curves(tuple(p for p in shape.profile if not p.method))
    if not curves:
        return math.pow(steps * frames, _GUESS_EXPONENT)
    fractions = sorted(curves)
    values = np.maximum.accumulate([_along(steps, *curves[f]) for f in fractions])
    return _along(frames, tuple(fractions), tuple(values.tolist()))


def _along(at: float, fractions: tuple[float, ...], values: tuple[float, ...]) -> float:
    """A straight line between measured fractions; below the least of them the guessed curve takes
    over."""
    inside = float(np.interp(at, fractions, values))
    return inside * math.pow(min(1.0, at / fractions[0]), _GUESS_EXPONENT)


# --- inside ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Method:
    name: str  # auto, full, steps, keyframes, or "" for the methods of `accelerator`
    steps: int | None = None
    keyframes: int | None = None
    accelerator: str = ""


@lru_cache(maxsize=1024)
def _parse(method: str) -> _Method:
    text = method.strip().lower()
    if text in ("", "auto"):
        return _Method("auto")
    if text in ("full", "steps", "keyframes"):
        return _Method(text)
    if not text.startswith(("steps", "keyframes")):
        return _Method("", accelerator=methods.text(methods.parse(text)))
    fixed: dict[str, int] = {}
    for part in text.split(","):
        found = re.fullmatch(r"\s*(steps|keyframes):(\d{1,5})\s*", part)
        if found is None or int(found[2]) < (1 if found[1] == "steps" else 2) or found[1] in fixed:
            raise UsageError(
                f"method {printable(method)!r} is not known; use auto, full, steps, keyframes, "
                "steps:N (N >= 1), "
                "keyframes:K (K >= 2) or keyframes:K,steps:N"
            )
        fixed[found[1]] = int(found[2])
    return _Method(
        "keyframes" if "keyframes" in fixed else "steps", fixed.get("steps"), fixed.get("keyframes")
    )


@lru_cache(maxsize=4096)
def _choices(shape: ModelShape, spec: VideoSpec, method: str) -> Choices:
    asked = _parse(method)
    full = spec.num_inference_steps
    latent = shape.latent_frames(spec.num_frames)
    measured = bool(shape.profile)
    if asked.name == "full":
        return Choices((OperatingPoint(full),), (1.0,), True)
    if asked.accelerator:
        texts = with_budgets(asked.accelerator, latent)
        counts = _step_counts(_plain_curve(shape, full), full) if len(texts) > 1 else [full]
        offered = {OperatingPoint(steps, None, text): 0.0 for text in texts for steps in counts}
        for point in offered:
            offered[point] = quality_of(shape, spec, point)
        return _ranked(offered, latent, all(_is_measured(shape, text) for text in texts))
    if asked.steps is not None or asked.keyframes is not None:
        keyframes = (
            asked.keyframes if asked.keyframes is not None and asked.keyframes < latent else None
        )
        steps = min(full, asked.steps or full)
        point = OperatingPoint(steps, keyframes, _name(steps, keyframes, full))
        return Choices((point,), (quality_of(shape, spec, point),), measured)
    found: dict[OperatingPoint, float] = {OperatingPoint(full): 1.0}
    curves = _curves(tuple(p for p in shape.profile if not p.method)) or {
        1.0: ((_LEAST_STEPS / full, 1.0), ())
    }
    for fraction, (fractions, _) in curves.items():
        keyframes = None if fraction >= 1.0 else max(2, round(fraction * latent))
        if (keyframes is not None and keyframes >= latent) or (
            keyframes is not None and asked.name == "steps"
        ):
            continue
        if keyframes is None and asked.name == "keyframes":
            continue
        for steps in _step_counts(fractions, full):
            point = OperatingPoint(steps, keyframes, _name(steps, keyframes, full))
            quality = quality_of(shape, spec, point)
            if point not in found and quality < 1.0:
                found[point] = quality
    if asked.name == "auto":
        for method in _accelerated(shape.profile):
            if _is_eco(method):
                continue
            point = OperatingPoint(full, None, method)
            found[point] = quality_of(shape, spec, point)
        if _eco_curve(shape):
            found |= dict(_pairs(_choices(shape, spec, "eco")))
    return _ranked(found, latent, measured)


def _pairs(offered: Choices) -> Iterable[tuple[OperatingPoint, float]]:
    return zip(offered.points, offered.qualities, strict=True)


def _ranked(found: Mapping[OperatingPoint, float], latent: int, measured: bool) -> Choices:
    ranked = sorted(
        found.items(), key=lambda item: (item[1], item[0].steps, item[0].keyframes or latent)
    )
    return Choices(tuple(p for p, _ in ranked), tuple(q for _, q in ranked), measured)


def _plain_curve(shape: ModelShape, full: int) -> tuple[float, ...]:
    """The measured fractions of steps of whole videos."""
    curves = _curves(tuple(p for p in shape.profile if not p.method))
    return curves[1.0][0] if curves else (_LEAST_STEPS / full, 1.0)


def _name(steps: int, keyframes: int | None, full: int) -> str:
    if keyframes is not None:
        return "keyframes"
    return "full" if steps >= full else "steps"


def _step_counts(fractions: Sequence[float], full: int) -> list[int]:
    """The measured step counts, and others evenly spread between the least of them and `full`."""
    measured = {min(full, max(1, math.ceil(f * full - 1e-9))) for f in fractions}
    least = min(measured)
    spread = np.linspace(least, full, min(_MOST_STEP_COUNTS, full - least + 1))
    return sorted({full, *measured, *(round(s) for s in spread)})


@lru_cache(maxsize=256)
def _accelerated(profile: tuple[ProfilePoint, ...]) -> dict[str, float]:
    """Quality of each measured method at full steps."""
    return {point.method: min(1.0, max(0.0, point.quality)) for point in profile if point.method}


def _is_eco(method: str) -> bool:
    return any(one.kind.name == "eco" for one in methods.parse(method))


def _is_measured(shape: ModelShape, method: str) -> bool:
    """Whether its quality rests on the profile: its own line, or for `eco` with nothing but a K the
    lines of others."""
    is_plain_eco = method.startswith("eco:k=") and method.removeprefix("eco:k=").isdecimal()
    return method in _accelerated(shape.profile) or (is_plain_eco and bool(_eco_curve(shape)))


def _quality_of_method(shape: ModelShape, method: str, latent: int) -> float:
    """Quality at full steps. Leaving frames out loses by the share of them that is kept, whatever
    the length."""
    if not _is_eco(method):
        return _accelerated(shape.profile).get(method, _UNMEASURED)
    share = kept_latents(method, latent) / latent
    curve = _eco_curve(shape)
    return _along(share, *curve) if curve else math.pow(share, _GUESS_EXPONENT)


@lru_cache(maxsize=256)
def _eco_curve(shape: ModelShape) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """(share of latent frames kept, rising; quality, never falling), as measured at the model's
    default length."""
    whole = shape.latent_frames(shape.defaults.num_frames)
    found = {
        kept_latents(method, whole) / whole: quality
        for method, quality in _accelerated(shape.profile).items()
        if _is_eco(method) and len(methods.parse(method)) == 1
    }
    if not found:
        return None
    found[1.0] = 1.0
    shares = sorted(found)
    return tuple(shares), tuple(
        float(q) for q in np.maximum.accumulate([found[share] for share in shares])
    )


@lru_cache(maxsize=256)
def _curves(
    profile: tuple[ProfilePoint, ...],
) -> dict[float, tuple[tuple[float, ...], tuple[float, ...]]]:
    """Per keyframes fraction: (steps fractions rising, qualities never falling). Full quality is 1
    by definition."""
    by_frames: dict[float, dict[float, float]] = {}
    for p in profile:
        curve = by_frames.setdefault(min(1.0, p.keyframes_fraction), {})
        steps = min(1.0, p.steps_fraction)
        curve[steps] = max(curve.get(steps, 0.0), min(1.0, max(0.0, p.quality)))
    if by_frames:
        by_frames.setdefault(1.0, {})[1.0] = 1.0
    curves = {}
    for frames, curve in sorted(by_frames.items()):
        steps_rising = sorted(curve)
        rising = np.maximum.accumulate([curve[s] for s in steps_rising])
        curves[frames] = (tuple(steps_rising), tuple(float(q) for q in rising))
    return curves
