"""How much of a plain run's work is left under a method, and what that work costs beside its FLOPs.

Where a closed form exists it is used, so that other sizes than the measured one are counted right.
What depends on the video (which passes a cache skips) is taken from the model's profile; a method
that is in neither is counted at full work, so that no promise rests on a hope. The overhead of a
method, measured seconds over those of its FLOPs, is always the profile's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from vidplat.domain import OperatingPoint, VideoSpec
from vidplat.methods.early.grid import passes_of
from vidplat.methods.eco.budget import PassSize, kept_frames, warmup_steps
from vidplat.methods.hsa.schedule import schedule_for, schedule_of_work
from vidplat.methods.kinds import Seam, Value
from vidplat.methods.language import parse
from vidplat.methods.model_shape import ModelShape, ProfilePoint
from vidplat.methods.vdit.tiles import density, is_full


@dataclass(frozen=True)
class MethodWork:
    """Shares of a plain run of as many steps."""

    linear: float = 1.0  # of the FLOPs of projections and feed forward
    attention: float = 1.0  # of the FLOPs of self-attention
    overhead: float = 1.0  # seconds over those of these FLOPs


_PLAIN = MethodWork()


class _Size(NamedTuple):
    """What the shares depend on beside the method: of the video and the model."""

    frames: int  # token frames
    layers: int
    one_pass: PassSize


def method_work(
    shape: ModelShape, spec: VideoSpec, point: OperatingPoint, kept: float | None = None
) -> MethodWork:
    """The work of `point`'s methods for a video of `spec` on this model; `kept` is the share of
    tokens that a method which goes by the source lets run (`kept_share`), None while nobody knows.
    """
    if not point.accelerator:
        return _PLAIN
    measured = _measured(shape.profile).get(point.accelerator)
    overhead = 1.0 if measured is None else measured.overhead
    frames = shape.latent_frames(spec.num_frames) // shape.patch[0]
    one_pass = PassSize(
        shape.tokens(spec, shape.patch[0]), shape.width, shape.ffn_width, shape.text_tokens
    )
    counted = _counted(point.accelerator, point.steps, _Size(frames, shape.layers, one_pass), kept)
    if counted is not None:
        return MethodWork(*counted, overhead)
    if measured is None:
        return _PLAIN
    return MethodWork(measured.linear_work, measured.attention_work, overhead)


@lru_cache(maxsize=4096)
def _counted(
    method: str, steps: int, size: _Size, kept: float | None = None
) -> tuple[float, float] | None:
    """(linear, attention) shares by closed form; None when one of the methods has none."""
    linear = attention = 1.0
    running = _running(method, steps)
    for one in parse(method):
        if one.kind.name == "hsa":
            share = _hsa_share(one.values["work"], str(one.values["preset"]), steps)
            linear, attention = linear * share, attention * share
        elif one.kind.name == "lipar" and kept is not None:
            linear_share, attention_share = _lipar_shares(kept, str(one.values["recovery"]), steps)
            linear, attention = linear * linear_share, attention * attention_share
        elif one.kind.name == "early":
            linear, attention = linear * len(running) / steps, attention * len(running) / steps
        elif one.kind.name == "sparse" and one.values["masks"] == "uniform":
            attention *= _sparse_share(one.values, running, size.frames, size.layers)
        elif one.kind.name == "eco":
            linear_share, attention_share = _eco_shares(one.values, steps, size)
            linear, attention = linear * linear_share, attention * attention_share
        elif one.kind.seam is not Seam.SOLVER:
            return None
    return linear, attention


def _running(method: str, steps: int) -> Sequence[int]:
    """The steps whose passes run."""
    grids = [
        passes_of(float(one.values["work"] or 0), steps)
        for one in parse(method)
        if one.kind.name == "early"
    ]
    return grids[0] if grids else range(steps)


def _hsa_share(work: Value | None, preset: str, steps: int) -> float:
    """R: the mean share of running tokens. A run too short for the schedule counts full: the worker
    will refuse it."""
    try:
        schedule = (
            schedule_for(preset, steps) if work is None else schedule_of_work(float(work), steps)
        )
    except ValueError:
        return 1.0
    return schedule.relative_cost


def _lipar_shares(kept: float, recovery: str, steps: int) -> tuple[float, float]:
    """Kept tokens attend to all, recovered ones included; without recovery, or by a bias, to each
    other alone.

    `noise-aware` makes one more such pass over the source. Where `auto` comes to it depends on the
    transformer, which is not known here: that pass is then learnt with the seconds.
    """
    if recovery in ("none", "bias"):
        return kept, kept * kept
    passes = (steps + 1) / steps if recovery == "noise-aware" and kept < 1.0 else 1.0
    return kept * passes, kept * passes


def _eco_shares(values: Mapping[str, Value | None], steps: int, size: _Size) -> tuple[float, float]:
    """All frames in the warm-up, K afterwards. Watching attention is not counted: a few rows of one
    layer."""
    k, warmup = values["k"], warmup_steps(float(values["warmup"] or 0), steps)
    kept = kept_frames(None if k is None else int(k), size.frames)
    return size.one_pass.run_shares(kept, size.frames, warmup=warmup, steps=steps)


def _sparse_share(
    values: Mapping[str, Value | None], running: Sequence[int], frames: int, layers: int
) -> float:
    """rho where a step that is `running` and a layer are sparse, 1 elsewhere."""
    sparse_steps = sum(step >= int(values["dense_steps"] or 0) for step in running) / len(running)
    sparse_layers = max(0, layers - 2 * int(values["dense_ends"] or 0)) / layers
    share = sparse_steps * sparse_layers
    k = int(values["k"] or 1)
    return 1.0 if is_full(frames, k) else share * density(frames, k) + (1 - share)


@lru_cache(maxsize=256)
def _measured(profile: tuple[ProfilePoint, ...]) -> dict[str, ProfilePoint]:
    return {point.method: point for point in profile if point.method}
