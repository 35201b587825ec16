"""Pixels: from a job and an operating point to the bytes of one video.

torch, diffusers, transformers, PyAV and OpenCV are loaded when a `Worker` is, not before:
`list_models`, `describe_model` and `check_spec` read config files alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidplat.workers.draft import Rendered
    from vidplat.workers.models.catalogue import ModelListing, describe_model, list_models
    from vidplat.workers.models.limits import check_spec
    from vidplat.workers.worker import Worker

__all__ = ["ModelListing", "Rendered", "Worker", "check_spec", "describe_model", "list_models"]

_HOMES = {
    "ModelListing": "vidplat.workers.models.catalogue",
    "Rendered": "vidplat.workers.draft",
    "Worker": "vidplat.workers.worker",
    "check_spec": "vidplat.workers.models.limits",
    "describe_model": "vidplat.workers.models.catalogue",
    "list_models": "vidplat.workers.models.catalogue",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
