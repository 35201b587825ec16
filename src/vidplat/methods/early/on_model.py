"""A step grid of our own (decision 0013): passes run densely at first, later ever more thinly.

In the other steps each branch's last velocity is given again. Flow-match Euler's steps telescope
while the velocity is held, x_b = x_a + (sigma_b - sigma_a) v_a, so the whole is Euler on a part of
the run's own sigmas. Which steps run is arithmetic (`grid.py`), the same for both branches, so a
run's cost is known before it. With two transformers (Wan 2.2) a velocity is held across their
boundary, and a run that is shortened keeps the passes it still has steps for.

Refused are multistep solvers, which would take the change of several steps for that of one, and
v-prediction, whose answer turns with time even where nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from vidplat.methods.early.grid import passes_of, shortened
from vidplat.methods.kinds import Seam
from vidplat.methods.protocol import Method, Run
from vidplat.methods.seams.layouts import Args, Kwargs, layout_of
from vidplat.methods.seams.passes import Place, Skipper, answered, watched, wide
from vidplat.methods.seams.solver_choice import not_plain_euler


class Early(Method):
    name = "early"

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._held = _Held(float(values["work"]))

    def refusal(self, model: Any, run: Run) -> str:
        layout = layout_of(model)
        if why := layout.refusal(model, Seam.PASSES):
            return why
        if not layout.velocity:
            return (
                "it would leave out whole steps, and a v-prediction answer cannot be given again "
                "at another step; take fewer steps"
            )
        return not_plain_euler(run.solver.scheduler, "pass")

    @contextmanager
    def applied_to(self, model: Any) -> Iterator[None]:
        with watched(model, self.name, self._held):
            yield

    def begin(self, run: Run) -> None:
        self._held.forget()

    def share(self, step: int, steps: int) -> float:
        """1 where the passes of `step` run in a run of `steps` by now; 0: a held step is free."""
        return float(step in self._held.planned(steps))


class _Held(Skipper):
    """What all transformers share: the steps whose passes run, and each branch's last velocity."""

    def __init__(self, work: float) -> None:
        self._work = work
        # by branch and shape of the latents
        self._velocities: dict[tuple[str, torch.Size], Tensor] = {}
        self._passes: tuple[int, ...] = ()
        self._steps = 0  # of the run that `_passes` are of; 0: no run yet
        self._step = -1  # the last one that was asked about

    def planned(self, steps: int) -> tuple[int, ...]:
        """The steps that run, were the run to have `steps` from its next step on."""
        if not self._steps:
            return passes_of(self._work, steps)
        return shortened(self._passes, self._steps, self._step + 1, steps)

    def call(self, here: Place, args: Args, kwargs: Kwargs, run: Callable[[], Any]) -> Any:
        self._move_to(here)
        latents: Tensor = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        kept = here.branch, latents.shape  # after frames were left out nothing would fit
        held = None if here.step in self._passes else self._velocities.get(kept)
        if held is not None:
            return answered(held, kwargs)
        answer = run()
        self._velocities[kept] = wide(answer[0])
        return answer

    def _move_to(self, here: Place) -> None:
        if here.steps is None:
            raise ValueError(
                "early needs the number of steps: model.cache_context(..., num_inference_steps=...)"
            )
        if here.step < self._step:  # the same pipeline begins another video
            self.forget()
        if here.step != self._step:
            self._passes = self.planned(here.steps)
            self._steps, self._step = here.steps, here.step

    def forget(self) -> None:
        self._velocities.clear()
        self._passes, self._steps, self._step = (), 0, -1
