"""How much of a plain run's work is left under a method, and what that work costs beside its FLOPs.

Where a closed form exists it is used, so that other sizes than the measured one are counted right.
What depends on the video (which passes a cache skips) is taken from the model's profile; a method
that is in neither is counted at full work, so that no promise rests on a hope. The overhead of a
method, measured seconds over those of its FLOPs, is always the profile's. Closed forms are the
kinds' own (`kinds.MethodKind.share`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from vidplat.domain import OperatingPoint, VideoSpec
from vidplat.methods.kinds import PlannedRun, Share, StoreSizes
from vidplat.methods.language import parse, text
from vidplat.methods.model_shape import ModelShape, ProfilePoint


@dataclass(frozen=True)
class MethodWork:
    """Shares of a plain run of as many steps."""

    linear: float = 1.0  # of the FLOPs of projections and feed forward
    attention: float = 1.0  # of the FLOPs of self-attention
    overhead: float = 1.0  # seconds over those of these FLOPs


_PLAIN = MethodWork()


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
    per_frame = shape.tokens(spec, shape.patch[0])
    run = PlannedRun(point.steps, frames, per_frame, shape.layers, shape.block, kept)
    counted = _counted(point.accelerator, run)
    if counted is not None:
        return MethodWork(*counted, overhead)
    if measured is None:
        return _PLAIN
    return MethodWork(measured.linear_work, measured.attention_work, overhead)


@lru_cache(maxsize=4096)
def leaner(method: str) -> tuple[str, ...]:
    """The same methods with less of their stores on the device, in the order to be tried."""
    found = parse(method)
    return tuple(
        text((*found[:i], one.kind.chosen(values), *found[i + 1 :]))
        for i, one in enumerate(found)
        for values in one.kind.leaner(one.values)
    )


def stored_bytes(method: str, sizes: StoreSizes) -> int:
    """What methods keep of one video on the device."""
    return sum(one.kind.stored_bytes(one.values, sizes) for one in parse(method))


@lru_cache(maxsize=4096)
def _counted(method: str, run: PlannedRun) -> Share | None:
    """The shares of all methods together; None when one of them has no closed form."""
    chosen = parse(method)
    fewest = min((one.kind.passes(one.values, run.steps) for one in chosen), key=len)
    run = replace(run, passes=fewest)
    linear = attention = 1.0
    for one in chosen:
        share = one.kind.share(one.values, run)
        if share is None:
            return None
        linear, attention = linear * share.linear, attention * share.attention
    return Share(linear, attention)


@lru_cache(maxsize=256)
def _measured(profile: tuple[ProfilePoint, ...]) -> dict[str, ProfilePoint]:
    """By method; the leaner ways of one are like it, unless they were measured themselves."""
    told = {point.method: point for point in profile if point.method}
    return {less: point for method, point in told.items() for less in leaner(method)} | told
