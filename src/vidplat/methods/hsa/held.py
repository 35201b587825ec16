"""What a token that does not run is taken to answer: the cached Euler update of HSA.

A flow-matching model answers a velocity v. A token that last ran at sigma_a keeps v_a, and Euler's
steps telescope: x_b = x_a + (sigma_b - sigma_a) v_a (HSA, arXiv 2605.06892). So giving the kept
rows to the solver with the fresh ones is the whole update: the paper's one jump from x_a ends at
the same latents.

A v-prediction model of a variance-preserving process answers v = alpha eps - sigma x0 about x =
alpha x0 + sigma eps with alpha^2 + sigma^2 = 1. There v turns with time even where nothing changes,
so x0 = alpha x - sigma v and eps = sigma x + alpha v are kept, and the token is taken to answer
alpha_j eps - sigma_j x0 at step j. DDIM then telescopes to x_b = alpha_b x0 + sigma_b eps.

Legend: B videos (twice as many with both branches in a batch), N tokens, n fresh, P values of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from vidplat.methods.seams.passes import wide

Rows = Tensor | None  # (n,) of those that ran; None: all


@dataclass(frozen=True)
class Level:
    """Where a step stands: x = alpha x0 + sigma eps. Not needed for flow matching."""

    alpha: float
    sigma: float


class Held(Protocol):
    """The last answers of every token of one branch, in float32 or wider."""

    def take(self, level: Level, rows: Rows, answer: Tensor, latents: Tensor | None) -> None:
        """Keep the answers (B, n, P) of `rows` (n,), or of all. `latents` (B, n, P) of the same
        tokens, in the order of the answer's values; only v-prediction looks at them."""

    def given(self, level: Level) -> Tensor:
        """What every token is taken to answer at `level`: (B, N, P), never written to again."""


class HeldVelocity:
    """Flow matching: the velocity is kept."""

    def __init__(self) -> None:
        self._velocity: Tensor | None = None

    def take(self, level: Level, rows: Rows, answer: Tensor, latents: Tensor | None = None) -> None:
        self._velocity = _put(self._velocity, rows, wide(answer))

    def given(self, level: Level) -> Tensor:
        assert self._velocity is not None
        return self._velocity


class HeldPrediction:
    """v-prediction: what x0 and eps the token stood for is kept."""

    def __init__(self) -> None:
        self._x0: Tensor | None = None
        self._eps: Tensor | None = None

    def take(self, level: Level, rows: Rows, answer: Tensor, latents: Tensor | None) -> None:
        assert latents is not None
        v, x = wide(answer), wide(latents)
        self._x0 = _put(self._x0, rows, level.alpha * x - level.sigma * v)
        self._eps = _put(self._eps, rows, level.sigma * x + level.alpha * v)

    def given(self, level: Level) -> Tensor:
        assert self._x0 is not None and self._eps is not None
        return level.alpha * self._eps - level.sigma * self._x0


def _put(whole: Tensor | None, rows: Rows, part: Tensor) -> Tensor:
    """A new tensor, for the old one may be in the solver's hands."""
    if rows is None or whole is None:
        assert rows is None
        return part
    return whole.index_copy(1, rows, part)
