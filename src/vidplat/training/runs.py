"""A resumable training run: one checkpoint file, written aside and renamed, and one line of log per
minute.

A run is a count of steps and a state dictionary. Killed at any moment it goes on from its last
checkpoint; finished, it is not run again. Checkpoints hold tensors only and are read with
`weights_only=True`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from vidplat.training import ranks

Say = Callable[[str], None]


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".part")
    torch.save(state, aside)
    aside.replace(path)


def run_steps(
    name: str,
    *,
    steps: int,
    path: Path,
    state: Callable[[], dict[str, Any]],
    restore: Callable[[dict[str, Any]], None],
    one_step: Callable[[int], dict[str, float]],
    say: Say,
    every_s: float = 60.0,
) -> None:
    """Run `one_step(step)` up to `steps`, resuming from `path`; `state` must not contain the key
    "step"."""
    saved = load_checkpoint(path)
    step = 0
    if saved is not None:
        step = int(saved.pop("step"))
        restore(saved)
        say(f"{name}: resumed at step {step} of {steps}")
    since, last, sums, count = time.monotonic(), time.monotonic(), dict[str, float](), 0
    first = step
    while step < steps:
        for key, value in one_step(step).items():
            sums[key] = sums.get(key, 0.0) + value
        step, count = step + 1, count + 1
        now = time.monotonic()
        if ranks.rank() == 0 and (now - last >= every_s or step == steps):
            facts = ", ".join(f"{key} {value / count:.4f}" for key, value in sums.items())
            left = (now - since) / (step - first) * (steps - step)
            say(f"{name}: step {step} of {steps}, {facts}, {left / 60:.0f} min left")
            save_checkpoint(path, {**state(), "step": step})
            last, sums, count = now, {}, 0
