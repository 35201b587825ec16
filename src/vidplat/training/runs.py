"""A resumable training run: a checkpoint, written aside and renamed, and a line of log per minute.

A run is a count of steps and a learner, which gives its state and takes it back. Killed at any
moment it goes on from its last checkpoint; finished, it is not run again. Checkpoints hold tensors
only and are read with `weights_only=True`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch

from vidplat.training import ranks

Say = Callable[[str], None]


class Learner(Protocol):
    """What is trained."""

    def state(self) -> dict[str, Any]:
        """Tensors, lists and numbers; no key is "step"."""

    def restore(self, saved: dict[str, Any]) -> None: ...


def say(line: str) -> None:
    """A line of a training run's log, with the time of day, on stderr."""
    print(time.strftime("%H:%M:%S"), line, file=sys.stderr, flush=True)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def needed_checkpoint(path: Path, maker: str) -> dict[str, Any]:
    """Raises FileNotFoundError that names what must be run before."""
    saved = load_checkpoint(path)
    if saved is None:
        raise FileNotFoundError(f"no {path.name} in {path.parent}: {maker} first")
    return saved


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".part")
    torch.save(state, aside)
    aside.replace(path)


def run_steps(
    name: str,
    learner: Learner,
    *,
    steps: int,
    path: Path,
    one_step: Callable[[int], dict[str, float]],
    say: Say,
    every_s: float = 60.0,
) -> None:
    """Run `one_step(step)`, which teaches `learner`, up to `steps`, resuming from `path`."""
    saved = load_checkpoint(path)
    step = 0
    if saved is not None:
        step = int(saved.pop("step"))
        learner.restore(saved)
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
            save_checkpoint(path, {**learner.state(), "step": step})
            last, sums, count = now, {}, 0
