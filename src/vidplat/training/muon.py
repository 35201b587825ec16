"""Muon for matrices and convolution kernels, AdamW for everything else.

Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers") replaces the momentum of a weight
matrix by the nearest orthogonal matrix, found by five Newton-Schulz iterations. Kernels are seen as
matrices (out channels, everything else). On flipbook's VAE it reached 22.2 dB in the 256 steps in
which AdamW reached 16.1 to 17.9 dB (docs/decisions/0006-flipbook.md). torch's own
`torch.optim.Muon` takes 2-D weights only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.95


def orthogonalised(matrix: Tensor, *, bfloat16: bool) -> Tensor:
    """About U V^T of `matrix` (rows, columns) = U S V^T; singular values end within [0.7, 1.2].

    `bfloat16` is exact enough for an update and several times faster where the processor has it.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x.bfloat16() if bfloat16 else x
    x = x / (x.norm() + 1e-7)
    for _ in range(5):  # the quintic of the paper
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    result: Tensor = x.T if tall else x
    return result.to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """Orthogonal updates of an AdamW-like size: times lr * 0.2 * sqrt(max(rows, columns))."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, *, bfloat16: bool) -> None:
        super().__init__(parameters, {"lr": lr})
        self.bfloat16 = bfloat16

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["average"] = torch.zeros_like(weight)
                state["average"].lerp_(weight.grad, 1 - MOMENTUM)
                ahead = weight.grad.lerp(state["average"], MOMENTUM)  # Nesterov
                matrix = ahead.reshape(weight.shape[0], -1)
                update = orthogonalised(matrix, bfloat16=self.bfloat16).reshape(weight.shape)
                weight.add_(update, alpha=-group["lr"] * 0.2 * max(matrix.shape) ** 0.5)


class Pair:
    """A model's optimizers: Muon on weights of two and more axes, AdamW on the rest and on whatever
    `plain` names; one schedule for both."""

    def __init__(
        self, model: nn.Module, lr: float, plain: tuple[str, ...] = (), *, bfloat16: bool = False
    ) -> None:
        matrices: list[nn.Parameter] = []
        rest: list[nn.Parameter] = []
        for name, weight in model.named_parameters():
            if not weight.requires_grad:
                continue
            is_matrix = weight.ndim >= 2 and min(weight.shape[0], weight[0].numel()) > 1
            (matrices if is_matrix and not any(p in name for p in plain) else rest).append(weight)
        self.model, self.lr = model, lr
        self.parts: list[torch.optim.Optimizer] = [
            Muon(matrices, lr, bfloat16=bfloat16),
            torch.optim.AdamW(rest, lr=lr / 2, betas=(0.9, 0.95), weight_decay=0.0),
        ]

    def step(self, scale: float) -> None:
        """One update with both learning rates multiplied by `scale`."""
        for part, lr in zip(self.parts, (self.lr, self.lr / 2), strict=True):
            for group in part.param_groups:
                group["lr"] = lr * scale
            part.step()
            part.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Any]:
        """Of the model and of both optimizers."""
        parts = [part.state_dict() for part in self.parts]
        return {"model": self.model.state_dict(), "optimizers": parts}

    def restore(self, saved: dict[str, Any]) -> None:
        self.model.load_state_dict(saved["model"])
        for part, state in zip(self.parts, saved["optimizers"], strict=True):
            part.load_state_dict(state)


def warm_then_down(step: int, steps: int, warm: int = 50, floor: float = 0.02) -> float:
    """Learning-rate scale: linear warm-up, flat to 30 %, linear down to `floor` at the end."""
    if step < warm:
        return (step + 1) / warm
    through = step / steps
    return 1.0 if through < 0.3 else max(floor, 1 - (1 - floor) * (through - 0.3) / 0.7)
