"""What lies beside a video as JSON: from what, by whom, with what software; what was measured."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

from vidplat.domain import Job, ModelRef, OperatingPoint

if TYPE_CHECKING:
    from vidplat.workers.making import Made

_PACKAGES = ("vidplat", "torch", "diffusers", "transformers", "av", "numpy")


def sidecar(
    job: Job, model: ModelRef, point: OperatingPoint, made: Made, worker: Mapping[str, Any]
) -> dict[str, Any]:
    """All there is to tell of a video before it is compressed; `worker` says who made it."""
    source = {"video": job.input_video, "sha256": job.input_sha256, "strength": job.strength}
    return {
        "job_id": job.id,
        "external_id": job.external_id,
        "prompt": job.prompt,
        "negative_prompt": job.negative_prompt,
        "model": asdict(model),
        "spec": asdict(job.spec),
        **({} if job.input_video is None else {"input": source}),
        "point": asdict(point) | {"steps_done": made.steps_done},
        **({"method_files": list(made.files)} if made.files else {}),
        "sigmas": [round(sigma, 6) for sigma in made.sigmas],
        "worker": worker,
        "versions": _versions(),
    }


def measured(phases: Mapping[str, float], metrics: Mapping[str, float]) -> dict[str, Any]:
    """What the sidecar tells of seconds and metrics."""
    return {
        "phases_s": {phase: round(seconds, 4) for phase, seconds in phases.items()},
        "metrics": {name: round(value, 6) for name, value in metrics.items()},
    }


@cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "unknown"
    return found
