"""What pruning saves, and the thresholds that a frame rate needs.

A pass costs so many FLOPs for so many kept tokens, and in seconds it is a line: `Latency` is fitted to a few measured
blocks. A stream that must keep a pace then takes, block by block, the smallest threshold whose mask is fast enough
(`PacedMask`). LIPAR (arXiv 2603.05811) measures that latency is linear and says that it can be predicted; how
thresholds follow from it, hysteresis and refreshes are our choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from vidplat.workers.acceleration.lipar_mask import MaskRule, keep_mask

GRID = (0.05, 0.10, 0.15, 0.20, 0.25, 0.30)
CUT = 0.9  # a block that keeps more than this is a new scene: it is made whole


def pass_flops(kept: float, window: float, *, layers: int, width: int, ffn_width: int, text: int) -> float:
    """FLOPs of one pass: `kept` queries, `window` keys that they attend to, `text` tokens for cross-attention.

    Per layer 8 k d^2 (self-attention's projections) + 4 k w d (its products) + 4 k d^2 (cross-attention's query and
    output) + 4 m d^2 (its keys and values) + 4 k m d (its products) + 4 k d f (feed-forward).
    """
    d, m = width, text
    per_layer = 12 * kept * d * d + 4 * kept * window * d + 4 * m * d * d + 4 * kept * m * d + 4 * kept * d * ffn_width
    return layers * per_layer


@dataclass(frozen=True)
class Latency:
    """Seconds of a block: base_s + per_token_s x kept tokens."""

    base_s: float
    per_token_s: float

    @classmethod
    def fitted(cls, measured: Sequence[tuple[int, float]]) -> Latency:
        """The line through (kept tokens, seconds) by least squares. Raises `ValueError` for fewer than three points."""
        if len({kept for kept, _ in measured}) < 3:
            raise ValueError(f"a line needs at least three different counts of tokens, not {len(measured)} points")
        slope, base = np.polyfit([kept for kept, _ in measured], [seconds for _, seconds in measured], 1)
        return cls(float(base), float(slope))

    def seconds(self, kept: float) -> float:
        return self.base_s + self.per_token_s * kept


@dataclass(frozen=True)
class Threshold:
    """The threshold taken for a block. `in_time` is False when the largest one is too slow as well."""

    tau1: float
    expected_s: float
    in_time: bool


def smallest_in_time(
    kept: Sequence[int], latency: Latency, target_s: float, before: int | None, slack: float = 0.05
) -> tuple[int, bool]:
    """Which of the thresholds, ascending, whose masks keep `kept` tokens, and whether it meets `target_s`.

    Up as soon as the target is missed; down only where it is met with `slack` to spare, so that a stream at the border
    does not flicker between two masks. `before` is the last block's choice.
    """
    times = [latency.seconds(count) for count in kept]
    for index, expected_s in enumerate(times):
        limit = target_s * (1 - slack) if before is not None and index < before else target_s
        if expected_s <= limit:
            return index, True
    return len(kept) - 1, False


class PacedMask:
    """The mask of a stream that must make each block within `target_s`; give it to `causal.stream` as `keep`."""

    def __init__(
        self,
        source: Tensor,
        patch: tuple[int, int],
        latency: Latency,
        target_s: float,
        rule: MaskRule = MaskRule(block=3, causal=True),
        grid: Sequence[float] = GRID,
    ) -> None:
        """`source` (C, T, H, W) normalised latents; tau2 is twice tau1."""
        self.latency, self.target_s, self.grid = latency, target_s, tuple(sorted(grid))
        self._masks = [keep_mask(source, patch, replace(rule, tau1=tau, tau2=2 * tau)) for tau in self.grid]
        self._before: int | None = None
        self.taken: list[Threshold] = []  # one per block that was asked for

    def __call__(self, start: int, frames: int) -> Tensor | None:
        """(frames, h, w) bool for the block from `start` on; None when it is made whole."""
        parts = [mask[start : start + frames] for mask in self._masks]
        kept = [int(part.sum()) for part in parts]
        index, in_time = smallest_in_time(kept, self.latency, self.target_s, self._before)
        self._before = index
        is_cut = kept[index] > CUT * parts[index].numel()
        expected_s = self.latency.seconds(parts[index].numel() if is_cut else kept[index])
        self.taken.append(Threshold(self.grid[index], expected_s, in_time))
        return None if is_cut else parts[index]
