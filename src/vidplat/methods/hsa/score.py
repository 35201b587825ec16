"""Which tokens are dynamic: the score of HSA, the groups made of it, and a selector that chooses
anew at every step.

The score of a token is how much its velocity changes from step to step (HSA, arXiv 2605.06892; the
metric is that of Block Caching, arXiv 2312.03209):

    rho_i[n] = ||v_i[n] - w_i[n]||_1 / (||v_i[n]||_1 + 1e-6),    S[n] = mean of rho_i[n] over i0 <=
    i < W

with w_i what the token would have been taken to answer had it not run at step i: v_{i-1} for a
velocity. i0 is max(1, W // 2), our choice. Only the order of S is used.

Legend: B videos, N tokens (F frames, rows, columns), P values per token.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d

from vidplat.methods.protocol import Grid

_STARVING = (
    0.1  # RAS's scale: a token's claim grows by a factor e^0.1 with each step that it does not run
)


def first_scored(warmup: int) -> int:
    """i0: early steps, whose velocity is all noise, are left out."""
    return max(1, warmup // 2)


def change(answer: Tensor, expected: Tensor) -> Tensor:
    """rho (N,) of answers (B, N, P): relative L1 change per token in float32, mean over the
    videos."""
    now, before = answer.float(), expected.float()
    relative = (now - before).abs().sum(-1) / (now.abs().sum(-1) + 1e-6)
    return relative.mean(0)


class Score:
    """S of one video, gathered over its first steps.

    `kind` is `cond` (the branch with the text), `guided` (both branches as guidance combines them)
    or `random` (an order drawn from a fixed seed: what an ablation compares with).
    """

    def __init__(self, kind: str, guidance_scale: float, branches: int, *, in_batch: bool) -> None:
        self._kind = kind if branches == 2 or kind == "random" else "cond"
        self._scale, self._in_batch = guidance_scale, in_batch and branches == 2
        self._sum: Tensor | None = None
        self._count = 0
        self._first: tuple[Tensor, Tensor] | None = (
            None  # of the branch with the text, until the other has run
        )

    @property
    def known(self) -> bool:
        return self._count > 0

    def note(self, branch: str, answer: Tensor, expected: Tensor) -> None:
        """One pass of one branch, (B, N, P) each. With both branches in the batch, the second half
        has the text."""
        unguided: tuple[Tensor, Tensor] | None = None
        if self._in_batch:
            (plain, answer), (before, expected) = answer.chunk(2), expected.chunk(2)
            unguided = (plain, before)
        elif branch.startswith("uncond"):
            unguided, with_text = (answer, expected), self._first
            if self._kind != "guided" or with_text is None:
                return
            answer, expected = with_text
        elif self._kind == "guided":
            self._first = (answer, expected)
            return
        if self._kind == "guided" and unguided is not None:
            answer, expected = (
                u + self._scale * (c - u) for u, c in zip(unguided, (answer, expected), strict=True)
            )
            self._first = None
        rho = change(answer, expected)
        self._sum = rho if self._sum is None else self._sum + rho
        self._count += 1

    def values(self, grid: Grid, smooth: int = 0) -> Tensor:
        """S (N,), averaged over neighbours up to `smooth` tokens away in each direction."""
        assert self._sum is not None
        if self._kind == "random":
            drawn = torch.rand(grid.tokens, generator=torch.Generator().manual_seed(0))
            return drawn.to(self._sum.device)
        mean = self._sum / self._count
        if smooth:
            cube = mean.view(1, 1, grid.frames, grid.rows, grid.columns)
            mean = avg_pool3d(
                cube, 2 * smooth + 1, stride=1, padding=smooth, count_include_pad=False
            ).flatten()
        return mean


def partition(score: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Token indices of each group, sorted: the highest scores first, ties in the tokens' order."""
    order = torch.argsort(score, descending=True, stable=True)
    return [group.sort().values for group in torch.split(order, list(sizes))]


def deviation(answer: Tensor) -> Tensor:
    """Standard deviation (N,) of the predicted update's values per token, mean over the videos: the
    metric of RAS."""
    return answer.float().std(dim=-1).mean(0)


class FreshSelector:
    """The ablation `selector=topk`: at every step the tokens with the largest deviation, as in RAS
    (Region-Adaptive Sampling, arXiv 2502.10389), where one that waits gains on the others
    exponentially."""

    def __init__(self, tokens: int, fraction: float, device: torch.device) -> None:
        self._count = max(1, min(tokens, round(fraction * tokens)))
        self._waited = torch.zeros(tokens, device=device)

    def reset(self) -> None:
        """Every token has run."""
        self._waited.zero_()

    def rows(self, answer: Tensor) -> Tensor:
        """The next tokens (n,), sorted, given the latest answer (B, N, P) of all."""
        claim = deviation(answer) * torch.exp(_STARVING * self._waited)
        chosen = torch.argsort(claim, descending=True, stable=True)[: self._count].sort().values
        self._waited += 1
        self._waited[chosen] = 0
        return chosen
