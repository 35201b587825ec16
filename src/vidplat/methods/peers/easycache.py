"""EasyCache: passes are skipped while the output is predicted to change little (arXiv 2507.02860).

How much a step will change the output is predicted from how much the input changed:
  k = mean|v_a - v_b| / mean|x_a - x_b|        over the last two computed steps a > b
  e = sum of k mean|x_i - x_{i-1}| / mean|v_a| over the steps since a
While e is below the threshold the answer is x_i + (v_a - x_a). The first `warmup` share of steps
and the last step are computed always (the paper: 10 of 50). The decision is taken on the first
branch of a step and shared with the other, as the authors do; each branch adds its own difference.
Nothing is calibrated: it all happens in the run, so a run whose steps are spaced anew in the middle
simply sees larger changes.

With two transformers (Wan 2.2) each starts with two computed steps of its own. It touches whole
passes: a skipped one costs an addition.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vidplat.methods.protocol import Run
from vidplat.methods.seams.layouts import Args, Kwargs
from vidplat.methods.seams.passes import Place, Skipper, SkippingMethod, answered


class EasyCache(SkippingMethod):
    name = "easycache"

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__()
        self._threshold, self._warmup = float(values["threshold"]), float(values["warmup"])

    def part_of(self, model: Any) -> _Part:
        return _Part(self._threshold, self._warmup)

    def refusal(self, model: Any, run: Run) -> str:
        given, made = model.config.in_channels, model.config.out_channels
        if made is not None and given != made:
            return (
                f"it adds its input to what it keeps, and the model takes {given} channels "
                f"but gives {made}"
            )
        return super().refusal(model, run)


@dataclass
class _Known:
    """What the decision rests on; all tensors have the latents' shape."""

    step: int = -1  # the last one that was decided
    computes: bool = True
    error: float = 0.0  # e
    rate: float | None = None  # k
    before: Tensor | None = None  # x of the last step
    computed: tuple[Tensor, Tensor] | None = None  # x and v of the last computed step


@dataclass
class _Part(Skipper):
    threshold: float
    warmup: float
    known: _Known = field(default_factory=_Known)
    # branch -> v - x of its last computed pass
    added: dict[str, Tensor] = field(default_factory=dict)

    def call(self, here: Place, args: Args, kwargs: Kwargs, run: Callable[[], Any]) -> Any:
        latents: Tensor = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        decides = here.step != self.known.step
        if decides:
            self._decide(here, latents)
        if not self.known.computes and here.branch in self.added:
            made = latents + self.added[here.branch]
            return answered(made, kwargs)
        answer = run()
        made = answer[0]
        self.added[here.branch] = made - latents
        if decides:
            self._learn(latents.clone(), made.clone())
        return answer

    def _decide(self, here: Place, latents: Tensor) -> None:
        known = self.known
        known.step, known.computes = here.step, True
        is_free = not here.is_within(self.warmup) and not here.is_last
        if is_free and known.rate is not None and known.before is not None and known.computed:
            known.error += known.rate * _mean(latents - known.before) / _mean(known.computed[1])
            known.computes = not known.error < self.threshold
        if known.computes:
            known.error = 0.0
        known.before = latents.clone()  # the loop may move its own in place

    def _learn(self, latents: Tensor, made: Tensor) -> None:
        known = self.known
        if known.computed is not None:
            moved = _mean(latents - known.computed[0])
            known.rate = _mean(made - known.computed[1]) / moved if moved > 0 else None
        known.computed = (latents, made)

    def forget(self) -> None:
        self.known = _Known()
        self.added.clear()


def _mean(x: Tensor) -> float:
    return float(torch.mean(x.abs(), dtype=torch.float32))
