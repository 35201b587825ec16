"""Solvers a job may ask for instead of the model's own: flow-match Euler and UniPC.

`FlowMatchEulerDiscreteScheduler(shift=s)` runs its default grid down to the least sigma of
training, shifted once when it is made and again with the grid (0.009 at shift 3), however few the
steps are. So the last step has next to nothing to do, unless a `shift_terminal` says where the grid
ends. Here the grid is given, sigma_j = s u / (1 + (s - 1) u) at u = 1, (T-1)/T, ..., 1/T: the shift
acts once, as in UniPC's. A model whose own solver is of the asked kind keeps its own, unless
another shift is asked for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler


class EulerScheduler(FlowMatchEulerDiscreteScheduler):  # type: ignore[misc]
    """Flow-match Euler on the grid of the module's text."""

    def set_timesteps(self, num_inference_steps: int, device: Any = None, **_: Any) -> None:
        grid = np.linspace(1.0, 1.0 / num_inference_steps, num_inference_steps)
        super().set_timesteps(sigmas=grid, device=device)


def euler(shift: float | None, own: Any) -> Any:
    """Flow-match Euler with this sigma shift; None: that of the model's `own` scheduler."""
    if shift is None and is_euler(own):
        return own
    return EulerScheduler(shift=shift_of(own) if shift is None else shift)


def unipc(shift: float | None, own: Any) -> Any:
    """UniPC of order 2, likewise."""
    if shift is None and isinstance(own, UniPCMultistepScheduler):
        return own
    return UniPCMultistepScheduler(
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=shift_of(own) if shift is None else shift,
        solver_order=2,
    )


def shift_of(own: Any) -> float:
    """The sigma shift of a loaded scheduler; 1 when it has none."""
    return float(own.config.get("flow_shift") or own.config.get("shift") or 1.0)


def solver_name(own: Any) -> str:
    """`euler` or `unipc` as in `solver_words`, else the class's name."""
    known = {"euler": FlowMatchEulerDiscreteScheduler, "unipc": UniPCMultistepScheduler}
    return next((name for name, kind in known.items() if isinstance(own, kind)), type(own).__name__)


def not_plain_euler(scheduler: Any, what: str) -> str:
    """Why a method that leaves `what` out in some steps cannot be used; "" for plain Euler."""
    if is_euler(scheduler) and not scheduler.config.get("stochastic_sampling"):
        return ""
    return (
        f"it needs plain Euler steps, and the solver is {type(scheduler).__name__}, which would "
        f"take the change of several steps for that of one when a {what} runs again; add +euler"
    )


def is_euler(scheduler: Any) -> bool:
    return isinstance(scheduler, FlowMatchEulerDiscreteScheduler)
