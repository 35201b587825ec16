"""Expected seconds of a video, learnt from every stage that was timed.

One linear model per (model, device class, stage) on the features of `work`: seconds = theta . features.
  prior      FLOP/s guessed from the device class's name, so that the very first plan has numbers;
  level      the first observation scales the prior, so a guess that is tenfold off costs one sample;
  fit        recursive least squares on *relative* error with forgetting; a lone straggler is clipped;
  residual   an EWMA of log(observed / fitted) per cell of work-per-call: kernel and cache cliffs;
  p90        the conformal 90 % quantile of log(observed / predicted) over the last 200 samples; a default of
             1.5 fades out linearly over the first 20.
Every stage is also learnt under the model name "*", which serves models not yet seen on that device class.

How quantiles add. The p90 of a sum is not the sum of p90s. With spread = p90 - p50 of each part and a common
correlation rho = 0.25 between parts (one slow machine or one wrong slope delays them all), the spread of a
sum is sqrt((1 - rho) sum s_i^2 + rho (sum s_i)^2): the standard deviation of equally correlated variables.
Independent luck averages out, shared bias does not: a long chain keeps half of one part's relative spread.

A CostModel is a frozen value: `observe` returns a new one, `to_dict` and `from_dict` carry it as JSON.
Left to others: features (`work`), per-worker speed (`updated_speed` here, kept by the platform), storage.
Not promised: contention between workers on one machine, other than as the speed that was measured.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidplat.domain import ModelShape, OperatingPoint, Outcome, VideoSpec
from vidplat.scheduler.work import LOAD, STAGES, STARTUP, StageFeatures, features

__all__ = [
    "CORRELATION",
    "CostModel",
    "Estimate",
    "Observation",
    "StageFeatures",
    "features",
    "spread_of_sum",
    "updated_speed",
]

CORRELATION = 0.25
ANY_MODEL = "*"

_VERSION = 1
_DEFAULT_P90 = 1.5  # p90 over p50 without samples
_TRUSTED_SAMPLES = 20
_WINDOW = 200
_FORGETTING = 0.99
_NOISE = 0.1  # relative standard deviation of one timing
_USUAL_FROM = 10  # samples before a timing can be called unusual
_CELL_MEMORY = 0.2  # weight of the newest residual in a cell
_CELL_DOUBT = 3.0  # a cell counts n / (n + doubt)
_LEAST_SPREAD = 0.02
_LEAST_SECONDS = 1e-3  # shorter stages are all the same to a plan (a cached embedding)

# Dense GFLOP/s reached in practice (about 40 % of the peak), by a word in the device's name.
_GPU_GFLOPS = {
    "B200": 900_000, "H200": 400_000, "H100": 400_000, "A100": 125_000, "L40": 70_000, "4090": 66_000,
    "A10": 50_000, "L4": 45_000, "T4": 25_000,
}  # fmt: skip
_OTHER_GPU_GFLOPS = 40_000.0
_CPU_THREAD_GFLOPS = 25.0


@dataclass(frozen=True)
class Observation:
    """One timed stage. `seconds` of a worker whose measured speed is not 1 are passed as they were measured."""

    model_id: str
    device_class: str
    stage: str
    features: StageFeatures
    seconds: float


def observations(
    outcome: Outcome, model_id: str, shape: ModelShape, spec: VideoSpec, device_class: str
) -> list[Observation]:
    """The timed stages of a finished job, counted at the steps it really did."""
    point = replace(outcome.point, steps=outcome.steps_done or outcome.point.steps)
    counted = features(shape, spec, point)
    return [
        Observation(model_id, device_class, stage, counted[stage], seconds)
        for stage, seconds in outcome.phases.items()
        if stage in STAGES
    ]


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


def spread_of_sum(spreads: Iterable[float]) -> float:
    """Spread (p90 - p50) of a sum of parts, each with its own spread; see the module's docstring."""
    parts = list(spreads)
    total = sum(parts)
    return math.sqrt((1 - CORRELATION) * sum(s * s for s in parts) + CORRELATION * total * total)


def updated_speed(speed: float, predicted_s: float, actual_s: float, weight: float = 0.3) -> float:
    """EWMA of a worker's measured over expected speed. `predicted_s` is for speed 1; kept within [0.05, 20]."""
    if predicted_s <= 0 or actual_s <= 0:
        return speed
    latest = min(20.0, max(0.05, predicted_s / actual_s))
    return (1 - weight) * speed + weight * latest


# --- what is known of one stage on one device class ---------------------------------------------------


@dataclass(frozen=True)
class _Stage:
    theta: tuple[float, ...]  # seconds per unit of each feature, never negative
    covariance: tuple[tuple[float, ...], ...]
    samples: int = 0
    ratios: tuple[float, ...] = ()  # log(observed / predicted), newest last
    cells: Mapping[int, tuple[float, int]] = field(default_factory=dict)  # work-per-call octave: (EWMA, samples)

    def p50(self, x: StageFeatures) -> float:
        return self._linear(x) * math.exp(self._residual(x))

    def p90_factor(self) -> float:
        """p90 over p50."""
        n = len(self.ratios)
        if n == 0:
            return _DEFAULT_P90
        rank = min(n, math.ceil((n + 1) * 0.9))
        learnt = math.exp(max(sorted(self.ratios)[rank - 1], _LEAST_SPREAD))
        trust = min(1.0, n / _TRUSTED_SAMPLES)
        return trust * learnt + (1 - trust) * _DEFAULT_P90

    def after(self, x: StageFeatures, seconds: float) -> _Stage:
        if self.samples == 0:
            return self._levelled(x, seconds)
        ratio = math.log(seconds / max(self.p50(x), 1e-9))
        clip = self._clip(ratio)
        theta, covariance = self._fitted(x, seconds, clip)
        cell = _cell(x)
        mean, count = self.cells.get(cell, (0.0, 0))
        residual = math.log(seconds / max(_dot(theta, x.vector), 1e-9))
        weight = max(_CELL_MEMORY, 1 / (count + 1))
        mean += weight * min(clip, max(-clip, residual - mean))
        cells = {**self.cells, cell: (mean, count + 1)}
        return _Stage(theta, covariance, self.samples + 1, (*self.ratios, ratio)[-_WINDOW:], cells)

    def _clip(self, ratio: float) -> float:
        """How far one timing may pull: three robust deviations, once it is known what is usual. A straggler comes
        alone; a third in a row on one side is a change and pulls in full."""
        usual = self.ratios[-50:]
        if len(usual) < _USUAL_FROM:
            return math.inf
        clip = 3 * max(_NOISE, _deviation(usual))
        last = (*usual[-2:], ratio)
        return math.inf if min(last) > clip or max(last) < -clip else clip

    def _linear(self, x: StageFeatures) -> float:
        return _dot(self.theta, x.vector)

    def _residual(self, x: StageFeatures) -> float:
        mean, count = self.cells.get(_cell(x), (0.0, 0))
        return mean * count / (count + _CELL_DOUBT)

    def _levelled(self, x: StageFeatures, seconds: float) -> _Stage:
        """The first observation: the prior's slopes keep their proportions and take the observed level."""
        scale = seconds / max(self._linear(x), 1e-12)
        theta = tuple(t * scale for t in self.theta)
        return _Stage(theta, _doubt(theta), 1)

    def _fitted(
        self, x: StageFeatures, seconds: float, clip: float
    ) -> tuple[tuple[float, ...], tuple[tuple[float, ...], ...]]:
        """One step of recursive least squares on the row divided by the observed time."""
        row: NDArray[np.float64] = np.array(x.vector) / seconds
        theta = np.array(self.theta)
        covariance = np.array(self.covariance)
        limit = np.diag(np.array(_doubt(self.theta)))
        if np.all(np.diag(covariance) / _FORGETTING <= limit + 1e-18):  # forget, but never beyond the prior's doubt
            covariance = covariance / _FORGETTING
        gain = covariance @ row / (_NOISE**2 + row @ covariance @ row)
        error = 1.0 - float(row @ theta)
        theta = np.maximum(theta + gain * min(clip, max(-clip, error)), 0.0)
        covariance = covariance - np.outer(gain, row @ covariance)
        covariance = (covariance + covariance.T) / 2
        return tuple(theta.tolist()), tuple(tuple(r) for r in covariance.tolist())


def _dot(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    return sum(p * q for p, q in zip(a, b, strict=True))


def _doubt(theta: tuple[float, ...]) -> tuple[tuple[float, ...], ...]:
    """Prior covariance: each slope may be as wrong as it is large; a slope of zero stays zero."""
    return tuple(tuple(t * t if i == j else 0.0 for j in range(len(theta))) for i, t in enumerate(theta))


def _deviation(ratios: tuple[float, ...]) -> float:
    """Robust standard deviation (1.4826 MAD) of log ratios."""
    middle = float(np.median(ratios))
    return 1.4826 * float(np.median(np.abs(np.array(ratios) - middle)))


def _cell(x: StageFeatures) -> int:
    """Octave of the work of one call. It depends on size and keyframes, never on steps: more steps cost more."""
    work = x.linear_gflop + x.attention_gflop + x.megapixels + x.megabytes
    return round(math.log2(work / x.calls)) if work > 0 and x.calls > 0 else 0


# --- the guess before anything was timed --------------------------------------------------------------


def device_gflops(device_class: str) -> float:
    """Guessed GFLOP/s of a device class: `cpu-<threads>`, or the name of a GPU."""
    cpu = re.fullmatch(r"cpu(?:-(\d+))?", device_class)
    if cpu:
        return _CPU_THREAD_GFLOPS * max(1, int(cpu[1] or 1))
    return next((float(v) for k, v in _GPU_GFLOPS.items() if k in device_class), _OTHER_GPU_GFLOPS)


@lru_cache(maxsize=1024)
def _prior(device_class: str, stage: str) -> _Stage:
    rate = device_gflops(device_class)
    cpu = device_class.startswith("cpu")
    threads = rate / _CPU_THREAD_GFLOPS if cpu else 1.0
    per_call, per_gflop, per_megapixel, per_megabyte = {
        STARTUP: (6.0 if cpu else 12.0, 0.0, 0.0, 0.0),
        LOAD: (1.0, 0.0, 0.0, 1 / 400),
        "encode": (0.02, 0.0, 0.0, 0.0),
        "denoise": (0.004, 1 / rate, 0.0, 0.0),
        "decode": (0.01, 0.0, 2.0 / threads if cpu else 0.1, 0.0),
        "interpolate": (0.01, 0.0, 0.4, 0.0),
        "mp4": (0.03, 0.0, 0.05, 0.0),
        "store": (0.02, 0.0, 0.0, 1 / 50),
    }.get(stage, (0.05, 1 / rate, 0.05, 1 / 50))
    theta = (per_call, per_gflop, per_gflop, per_megapixel, per_megabyte)
    return _Stage(theta, _doubt(theta))


# --- the model ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CostModel:
    """Everything learnt about seconds. `CostModel()` knows only its priors."""

    stages: Mapping[tuple[str, str, str], _Stage] = field(default_factory=dict)  # (model id, device class, stage)

    def predict(
        self, model_id: str, shape: ModelShape, device_class: str, spec: VideoSpec, point: OperatingPoint
    ) -> Estimate:
        """Seconds of one video from encoding to the stored file, on a loaded worker of speed 1."""
        counted = features(shape, spec, point)
        return self._sum(model_id, device_class, {stage: counted[stage] for stage in STAGES})

    def startup(self, model_id: str, shape: ModelShape, device_class: str) -> Estimate:
        """Seconds from asking for a worker until it can take its first job: start-up and loading the model."""
        counted = features(shape, shape.defaults, OperatingPoint(1))
        return self._sum(model_id, device_class, {STARTUP: StageFeatures(calls=1), LOAD: counted[LOAD]})

    def tail(
        self, model_id: str, shape: ModelShape, device_class: str, spec: VideoSpec, point: OperatingPoint
    ) -> Estimate:
        """Seconds that follow the last denoising step: decode, interpolate, mp4, store."""
        counted = features(shape, spec, point)
        return self._sum(model_id, device_class, {stage: counted[stage] for stage in STAGES[2:]})

    def stage(self, model_id: str, device_class: str, stage: str, x: StageFeatures) -> Estimate:
        """Seconds of one stage."""
        return self._sum(model_id, device_class, {stage: x})

    def samples(self, model_id: str, device_class: str, stage: str = "denoise") -> int:
        """Timings behind a prediction; 0 means it rests on a prior or on other models."""
        known = self.stages.get((model_id, device_class, stage))
        return known.samples if known else 0

    def observe(self, seen: Observation) -> CostModel:
        """This model with one more timing. Timings that cannot be (zero, negative, NaN) are passed over."""
        if not (math.isfinite(seen.seconds) and seen.seconds > 0) or not any(seen.features.vector):
            return self
        seconds = max(seen.seconds, _LEAST_SECONDS)
        stages = dict(self.stages)
        for model_id in (seen.model_id, ANY_MODEL):
            known = self._known(model_id, seen.device_class, seen.stage)
            stages[model_id, seen.device_class, seen.stage] = known.after(seen.features, seconds)
        return CostModel(stages)

    def observe_all(self, seen: Iterable[Observation]) -> CostModel:
        model = self
        for one in seen:
            model = model.observe(one)
        return model

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` reads it back to an equal model."""
        rows = [
            {
                "model": model, "device": device, "stage": stage, "theta": list(s.theta),
                "covariance": [list(r) for r in s.covariance], "samples": s.samples, "ratios": list(s.ratios),
                "cells": [[cell, mean, count] for cell, (mean, count) in sorted(s.cells.items())],
            }
            for (model, device, stage), s in sorted(self.stages.items())
        ]  # fmt: skip
        return {"version": _VERSION, "stages": rows}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CostModel:
        """The model `to_dict` wrote. One of another version is forgotten: costs are learnt again in a few jobs."""
        if data.get("version") != _VERSION:
            return cls()
        return cls(
            {
                (row["model"], row["device"], row["stage"]): _Stage(
                    theta=tuple(row["theta"]),
                    covariance=tuple(tuple(r) for r in row["covariance"]),
                    samples=row["samples"],
                    ratios=tuple(row["ratios"]),
                    cells={int(cell): (mean, count) for cell, mean, count in row["cells"]},
                )
                for row in data["stages"]
            }
        )

    def _known(self, model_id: str, device_class: str, stage: str) -> _Stage:
        """Own experience, else slopes from other models on this device class, else the prior."""
        own = self.stages.get((model_id, device_class, stage))
        if own is not None:
            return own
        others = self.stages.get((ANY_MODEL, device_class, stage))
        if others is None:
            return _prior(device_class, stage)
        return replace(others, samples=0, ratios=(), covariance=_doubt(others.theta), cells={})

    def _sum(self, model_id: str, device_class: str, parts: Mapping[str, StageFeatures]) -> Estimate:
        per_stage: dict[str, float] = {}
        spreads = []
        for stage, x in parts.items():
            known = self._known(model_id, device_class, stage)
            per_stage[stage] = known.p50(x)
            spreads.append(per_stage[stage] * (known.p90_factor() - 1))
        p50 = sum(per_stage.values())
        return Estimate(p50, p50 + spread_of_sum(spreads), per_stage)
