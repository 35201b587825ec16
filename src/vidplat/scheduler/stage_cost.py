"""What is known of one stage on one device class, and how a timing changes it.

seconds = theta . features, times a residual of their cell (octave of work per call)
  prior      FLOP/s guessed from the device class's name, so that the very first plan has numbers;
  level      the first observation scales the prior: a guess tenfold off costs one sample;
  fit        recursive least squares on *relative* error, forgetting; a lone straggler is clipped;
  residual   an EWMA of log(observed / fitted) per cell, for cliffs that a line does not follow;
  p90        the conformal 90 % quantile of log(observed / predicted) over the last 200 samples; a
             default of 1.5 fades out linearly over the first 20.

Left to others: which stage of which model on which device (`cost`). Not promised: times below 1 ms.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidplat.scheduler.work import StageFeatures
from vidplat.stages import DECODE, DENOISE, ENCODE, LOAD, MP4, NETWORK, RECONSTRUCT, STARTUP, STORE

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
    "B200": 900_000, "H200": 400_000, "H100": 400_000, "A100": 125_000, "L40": 70_000,
    "4090": 66_000, "A10": 50_000, "L4": 45_000, "T4": 25_000,
}  # fmt: skip
_OTHER_GPU_GFLOPS = 40_000.0
_CPU_THREAD_GFLOPS = 40.0  # float32; an AVX2 core of 2020 reaches 40 to 60


@dataclass(frozen=True)
class StageCost:
    """Seconds of one stage as a linear function of its features, and what was seen of errors."""

    theta: tuple[float, ...]  # seconds per unit of each feature, never negative
    level: tuple[float, ...]  # theta after the first timing: how wrong each slope may be
    covariance: tuple[tuple[float, ...], ...]
    samples: int = 0
    ratios: tuple[float, ...] = ()  # log(observed / predicted), newest last
    # By octave of work per call: EWMA of log(observed / fitted), samples.
    cells: Mapping[int, tuple[float, int]] = field(default_factory=dict)

    def p50(self, x: StageFeatures) -> float:
        mean, count = self.cells.get(_cell(x), (0.0, 0))
        return _dot(self.theta, x.vector) * math.exp(mean * count / (count + _CELL_DOUBT))

    def p90_factor(self) -> float:
        """p90 over p50."""
        n = len(self.ratios)
        if n == 0:
            return _DEFAULT_P90
        rank = min(n, math.ceil((n + 1) * 0.9))
        learnt = math.exp(max(sorted(self.ratios)[rank - 1], _LEAST_SPREAD))
        trust = min(1.0, n / _TRUSTED_SAMPLES)
        return trust * learnt + (1 - trust) * _DEFAULT_P90

    def after(self, x: StageFeatures, seconds: float) -> StageCost:
        """What is known after one more timing; `seconds` is positive."""
        seconds = max(seconds, _LEAST_SECONDS)
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
        ratios = (*self.ratios, ratio)[-_WINDOW:]
        return StageCost(theta, self.level, covariance, self.samples + 1, ratios, cells)

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "cells": [[cell, *seen] for cell, seen in sorted(self.cells.items())]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> StageCost:
        return cls(
            theta=tuple(data["theta"]),
            level=tuple(data["level"]),
            covariance=tuple(tuple(row) for row in data["covariance"]),
            samples=data["samples"],
            ratios=tuple(data["ratios"]),
            cells={int(cell): (mean, count) for cell, mean, count in data["cells"]},
        )

    def borrowed(self) -> StageCost:
        """The slopes alone, to start another model or stage from."""
        return StageCost(self.theta, self.theta, _doubt(self.theta))

    def _clip(self, ratio: float) -> float:
        """How far one timing may pull: three robust deviations (1.4826 MAD), once 10 are known. A
        straggler comes alone; a third in a row on one side is a change and pulls in full."""
        usual = self.ratios[-50:]
        if len(usual) < _USUAL_FROM:
            return math.inf
        away = np.abs(np.array(usual) - float(np.median(usual)))
        clip = 3 * max(_NOISE, 1.4826 * float(np.median(away)))
        last = (*usual[-2:], ratio)
        return math.inf if min(last) > clip or max(last) < -clip else clip

    def _levelled(self, x: StageFeatures, seconds: float) -> StageCost:
        """The first timing: the prior's slopes keep their proportions and take its level."""
        scale = seconds / max(_dot(self.theta, x.vector), 1e-12)
        theta = tuple(t * scale for t in self.theta)
        return StageCost(theta, theta, _doubt(theta), samples=1)

    def _fitted(
        self, x: StageFeatures, seconds: float, clip: float
    ) -> tuple[tuple[float, ...], tuple[tuple[float, ...], ...]]:
        """One step of recursive least squares on the row divided by the observed time. Forgetting
        widens the covariance again, but no slope is ever doubted by more than its level."""
        row: NDArray[np.float64] = np.array(x.vector) / seconds
        theta = np.array(self.theta)
        covariance = np.array(self.covariance) / _FORGETTING
        variance = np.maximum(np.diag(covariance), 1e-300)
        shrink = np.sqrt(np.minimum(1.0, np.array(self.level) ** 2 / variance))
        covariance = covariance * np.outer(shrink, shrink)
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
    each = range(len(theta))
    return tuple(tuple(theta[i] * theta[i] if i == j else 0.0 for j in each) for i in each)


def _cell(x: StageFeatures) -> int:
    """Octave of the work of one call: of the video's size, not of its steps, which are linear."""
    work = x.linear_gflop + x.attention_gflop + x.megapixels + x.megabytes
    return round(math.log2(work / x.calls)) if work > 0 and x.calls > 0 else 0


def device_gflops(device_class: str) -> float:
    """Guessed, of `cpu-<threads>` or the name of a GPU; a light worker's class ends in `light`."""
    cpu = re.fullmatch(r"cpu(?:-(\d+))?( light)?", device_class)
    if cpu:
        return _CPU_THREAD_GFLOPS * max(1, int(cpu[1] or 1))
    return next((float(v) for k, v in _GPU_GFLOPS.items() if k in device_class), _OTHER_GPU_GFLOPS)


@lru_cache(maxsize=1024)
def prior(device_class: str, stage: str) -> StageCost:
    """The guess before anything was timed."""
    rate = device_gflops(device_class)
    cpu = device_class.startswith("cpu")
    threads = rate / _CPU_THREAD_GFLOPS if cpu else 1.0
    per_call, per_gflop, per_megapixel, per_megabyte = {
        STARTUP: (6.0 if cpu else 12.0, 0.0, 0.0, 0.0),
        LOAD: (1.0, 0.0, 0.0, 1 / 400),
        ENCODE: (0.02, 0.0, 0.0, 0.0),
        DENOISE: (0.004, 1 / rate, 0.0, 0.0),
        DECODE: (0.01, 0.0, 3.0 / threads if cpu else 0.1, 0.0),
        NETWORK: (0.01, 0.0, 0.0, 1 / 12),
        RECONSTRUCT: (0.01, 0.0, 0.6, 0.0),
        MP4: (0.03, 0.0, 0.5 if cpu else 0.05, 0.0),
        STORE: (0.02, 0.0, 0.0, 1 / 50),
    }.get(stage, (0.05, 1 / rate, 0.05, 1 / 50))
    theta = (per_call, per_gflop, per_gflop, per_megapixel, per_megabyte)
    return StageCost(theta, theta, _doubt(theta))
