"""Expected seconds of a video, learnt from every stage that was timed.

One linear model per (model, device class, stage) on the features of `work`, fitted as it goes
(`stage_cost`). Every stage is also learnt under the model name "*", which serves models not yet
seen on that device class.

How quantiles add. The p90 of a sum is not the sum of p90s. With spread = p90 - p50 of each part and
a common correlation rho = 0.25 between parts (one slow machine or one wrong slope delays them all),
the spread of a sum is sqrt((1 - rho) sum s_i^2 + rho (sum s_i)^2): the standard deviation of
equally correlated variables. Independent luck averages out, shared bias does not: a long chain
keeps half of one part's relative spread.

An edit's stage `source` starts from what is known of decoding, since the VAE's two halves do about
the same work per pixel (1.0 to 1.3 times on flipbook, less on Wan); the first timing sets its
level. What `lipar` leaves of an edit is learnt beside the seconds (`kept_share`).

A CostModel is a frozen value: `observe` returns a new one, `to_dict` and `from_dict` carry it as
JSON. Left to others: features (`work`), per-worker speed (`updated_speed` here, kept by the
platform), storage. Not promised: contention of workers on one machine, other than in their speed.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import astuple, dataclass, field, replace
from typing import Any

from vidplat.domain import OperatingPoint, VideoSpec
from vidplat.methods.model_shape import ModelShape
from vidplat.scheduler.kept_share import KeptShare, chooser, expected
from vidplat.scheduler.stage_cost import StageCost, prior
from vidplat.scheduler.work import StageFeatures, features
from vidplat.stages import LOAD, SOURCE, STAGES, STARTUP

CORRELATION = 0.25
ANY_MODEL = "*"

_VERSION = 1
_KEY = ("model", "device", "stage")


@dataclass(frozen=True)
class Observation:
    """One timed stage, in seconds as measured, whatever the worker's speed."""

    model_id: str
    device_class: str
    stage: str
    features: StageFeatures
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """Predicted seconds of one video on a worker of speed 1."""

    p50_s: float
    p90_s: float
    per_stage: Mapping[str, float] = field(default_factory=dict)  # p50 seconds

    @property
    def spread_s(self) -> float:
        """Distance from p50 to p90: what `spread_of_sum` adds."""
        return self.p90_s - self.p50_s


def common_spread(total: float, squares: float) -> float:
    """Spread (p90 - p50) of a sum, by the sum of its parts' spreads and that of their squares."""
    return math.sqrt((1 - CORRELATION) * squares + CORRELATION * total * total)


def spread_of_sum(spreads: Iterable[float]) -> float:
    """Spread (p90 - p50) of a sum of parts, each with its own spread."""
    parts = list(spreads)
    return common_spread(sum(parts), sum(s * s for s in parts))


def updated_speed(speed: float, predicted_s: float, actual_s: float, weight: float = 0.3) -> float:
    """EWMA of a worker's speed, in [0.05, 20]; `predicted_s` is for speed 1."""
    if predicted_s <= 0 or actual_s <= 0:
        return speed
    latest = min(20.0, max(0.05, predicted_s / actual_s))
    return (1 - weight) * speed + weight * latest


@dataclass(frozen=True)
class CostModel:
    """Everything learnt about seconds. `CostModel()` knows only its priors."""

    # By (model id, device class, stage), and by (model id, `kept_share.chooser`).
    stages: Mapping[tuple[str, str, str], StageCost] = field(default_factory=dict)
    kept: Mapping[tuple[str, str], KeptShare] = field(default_factory=dict)

    def predict(
        self,
        model_id: str,
        shape: ModelShape,
        device_class: str,
        spec: VideoSpec,
        point: OperatingPoint,
        is_edit: bool = False,
        stages: Collection[str] = STAGES,
    ) -> Estimate:
        """Seconds of one video, from source or text to the stored file, on a loaded worker.

        `stages`: these alone, "denoise" among them.
        """
        learnt = {key[1]: share for key, share in self.kept.items() if key[0] == model_id}
        share = expected(shape, point, learnt)
        counted = features(shape, spec, point, is_edit, share.mean if share else None)
        parts = {stage: counted[stage] for stage in stages}
        if share is None or share.p90 <= share.mean:
            return self._sum(model_id, device_class, parts)
        more = features(shape, spec, point, is_edit, share.p90)["denoise"]
        known = self._known(model_id, device_class, "denoise")
        spread_s = max(0.0, known.p50(more) - known.p50(parts["denoise"]))
        return self._sum(model_id, device_class, parts, spread_s)

    def startup(self, model_id: str, shape: ModelShape, device_class: str) -> Estimate:
        """Seconds of start-up and of loading the model, until a worker can take its first job."""
        load = features(shape, shape.defaults, OperatingPoint(1))[LOAD]
        return self._sum(model_id, device_class, {STARTUP: StageFeatures(calls=1), LOAD: load})

    def stage(self, model_id: str, device_class: str, stage: str, x: StageFeatures) -> Estimate:
        """Seconds of one stage."""
        return self._sum(model_id, device_class, {stage: x})

    def samples(self, model_id: str, device_class: str, stage: str = "denoise") -> int:
        """Timings behind a prediction; 0 means it rests on a prior or on other models."""
        known = self.stages.get((model_id, device_class, stage))
        return known.samples if known else 0

    def observe(self, seen: Observation) -> CostModel:
        """This model with one more timing; one that cannot be (zero, negative, NaN) is ignored."""
        if not (math.isfinite(seen.seconds) and seen.seconds > 0) or not any(seen.features.vector):
            return self
        stages = dict(self.stages)
        for model_id in (seen.model_id, ANY_MODEL):
            key = (model_id, seen.device_class, seen.stage)
            stages[key] = self._known(*key).after(seen.features, seen.seconds)
        return replace(self, stages=stages)

    def observe_kept(self, model_id: str, point: OperatingPoint, share: float) -> CostModel:
        """This model with one more share of tokens that ran; one that cannot be is ignored."""
        key = (model_id, chooser(point))
        if not key[1] or not 0.0 < share <= 1.0:
            return self
        return replace(self, kept={**self.kept, key: self.kept.get(key, KeptShare()).after(share)})

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` reads it back to an equal model."""
        stages, kept = sorted(self.stages.items()), sorted(self.kept.items())
        return {
            "version": _VERSION,
            "stages": [dict(zip(_KEY, key, strict=True)) | seen.to_dict() for key, seen in stages],
            "kept": [[*key, *astuple(share)] for key, share in kept],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CostModel:
        """The model `to_dict` wrote. One that is damaged, or of another version, is forgotten."""
        try:
            if data["version"] != _VERSION:
                return cls()
            rows, shares = data["stages"], data.get("kept", ())
            return cls(
                {tuple(row[part] for part in _KEY): StageCost.from_dict(row) for row in rows},
                {(model, method): KeptShare(*numbers) for model, method, *numbers in shares},
            )
        except (KeyError, TypeError, ValueError):
            return cls()

    def _known(self, model_id: str, device_class: str, stage: str) -> StageCost:
        """Own experience, else slopes from other models on this device class, else the prior. A
        source's slopes come from decoding instead, whose autoencoder is the model's own."""
        own = self.stages.get((model_id, device_class, stage))
        if own is not None:
            return own
        if stage == SOURCE:
            return self._known(model_id, device_class, "decode").borrowed()
        others = self.stages.get((ANY_MODEL, device_class, stage))
        return others.borrowed() if others else prior(device_class, stage)

    def _sum(
        self,
        model_id: str,
        device_class: str,
        parts: Mapping[str, StageFeatures],
        spread_s: float = 0.0,
    ) -> Estimate:
        """`spread_s`: of what is uncertain in the features themselves."""
        per_stage: dict[str, float] = {}
        spreads = [spread_s]
        for stage, x in parts.items():
            known = self._known(model_id, device_class, stage)
            per_stage[stage] = known.p50(x)
            spreads.append(per_stage[stage] * (known.p90_factor() - 1))
        p50 = sum(per_stage.values())
        return Estimate(p50, p50 + spread_of_sum(spreads), per_stage)
