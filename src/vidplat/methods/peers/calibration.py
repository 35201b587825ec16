"""What methods learn of a model by watching one run, kept for as long as the model is loaded.

A method that must be calibrated (`Method.calibrating`) watches a rehearsal before its first video:
the same model, size, steps, solver and guidance, with a fixed prompt and seed, nothing skipped.
What is learned depends on these alone, never on which video came first, so that a video remains
decided by its job. It costs one full run without decoding in each worker; no file is written.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any
from weakref import WeakKeyDictionary

from vidplat.methods.protocol import Run

#: What a rehearsal shows, whatever the job's prompt is, and its seed.
REHEARSAL_PROMPT = "a large red circle moves slowly right on a plain green background"
REHEARSAL_SEED = 0

_learned: WeakKeyDictionary[Any, dict[Hashable, Any]] = WeakKeyDictionary()


def key_of(method: str, run: Run) -> Hashable:
    """All that a rehearsal of `run` depends on, but for the model."""
    solver = run.solver
    return (
        method,
        type(solver.scheduler).__name__,
        tuple(solver.sigmas),
        run.grid,
        run.branches,
        run.guidance_scale,
    )


def learned(model: Any, key: Hashable) -> Any:
    """What was remembered of this model under this key; None when nothing was."""
    return _learned.get(model, {}).get(key)


def remember(model: Any, key: Hashable, value: Any) -> None:
    _learned.setdefault(model, {})[key] = value
