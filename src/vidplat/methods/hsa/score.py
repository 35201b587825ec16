"""Which tokens are dynamic: the score of HSA, and the groups made of it.

The score of a token is how much its velocity changes from step to step (HSA, arXiv 2605.06892; the
metric is that of Block Caching, arXiv 2312.03209):

    rho_i[n] = ||v_i[n] - w_i[n]||_1 / (||v_i[n]||_1 + 1e-6)
    S[n] = mean of rho_i[n] over i0 <= i < W

with v the answer of the branch that has the text, and w_i what the token would have been taken to
answer had it not run: v_{i-1} for a velocity. i0 = max(1, W // 2) is ours. Only S's order is used.

Legend: B videos, N tokens (F frames, rows, columns), P values per token.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def first_scored(warmup: int) -> int:
    """i0: early steps, whose velocity is all noise, are left out."""
    return max(1, warmup // 2)


def change(answer: Tensor, expected: Tensor) -> Tensor:
    """rho (N,) of answers (B, N, P): relative L1 change per token, float32, mean over videos."""
    now, before = answer.float(), expected.float()
    relative = (now - before).abs().sum(-1) / (now.abs().sum(-1) + 1e-6)
    return relative.mean(0)


class Score:
    """S of one video, gathered over its first steps."""

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._count = 0

    @property
    def known(self) -> bool:
        return self._count > 0

    def note(self, answer: Tensor, expected: Tensor) -> None:
        """One pass of the branch that has the text, (B, N, P) each."""
        rho = change(answer, expected)
        self._sum = rho if self._sum is None else self._sum + rho
        self._count += 1

    def values(self) -> Tensor:
        """S (N,). To be asked once it is `known`."""
        assert self._sum is not None
        return self._sum / self._count


def partition(score: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Token indices of each group, sorted: the highest scores first, ties in the tokens' order."""
    order = torch.argsort(score, descending=True, stable=True)
    return [group.sort().values for group in torch.split(order, list(sizes))]
