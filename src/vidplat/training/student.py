"""A transformer in training: weights, their moving average and the optimizers, saved as one."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from copy import deepcopy
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor

from vidplat.training import ranks
from vidplat.training.attention import PlainAttention
from vidplat.training.muon import Pair, warm_then_down

AVERAGE = 0.998  # of the old average kept in a step
# Not for Muon.
_PLAIN = ("scale_shift_table", "condition_embedder", "patch_embedding", "proj_out", "norm")


class Student:
    """`model` learns, `average` is what is shipped."""

    def __init__(self, model: WanTransformer3DModel, lr: float, *, bfloat16: bool) -> None:
        self.model = model
        self.average = deepcopy(model).requires_grad_(False)
        self._pair = Pair(model, lr, _PLAIN, bfloat16=bfloat16)
        self._bfloat16 = bfloat16

    def products(self) -> AbstractContextManager[Any]:
        """The context of a forward pass: bfloat16 products, where asked for."""
        context = ExitStack()
        if self._bfloat16:
            context.enter_context(torch.autocast("cpu", torch.bfloat16))
            context.enter_context(PlainAttention())
        return context

    def learn(self, loss: Tensor, step: int, steps: int) -> None:
        """One update, with the gradients of all ranks."""
        loss.backward()  # type: ignore[no-untyped-call]
        ranks.average_gradients(self.model)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._pair.step(warm_then_down(step, steps))
        keep = min(AVERAGE, (step + 1) / (step + 10))
        with torch.no_grad():
            for kept, fresh in zip(self.average.parameters(), self.model.parameters(), strict=True):
                kept.lerp_(fresh, 1 - keep)

    def state(self) -> dict[str, Any]:
        return self._pair.state() | {"average": self.average.state_dict()}

    def restore(self, saved: dict[str, Any]) -> None:
        self._pair.restore(saved)
        self.average.load_state_dict(saved["average"])
