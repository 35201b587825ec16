"""EXPERIMENTAL: LIPAR for videos made from text alone, where no source tells what will repeat. Off by default.

The source's place is taken by the clean estimate x0 = x - sigma v of the steps already taken: from step `first` on,
every `EVERY` steps, it is masked as a source would be. Early estimates are blurred, so the thresholds are scaled by
how much their median token changes, and a token is pruned only when two estimates in a row found it still; then it
stays so.

A pruned token must not share its ancestor's noise, or the pattern would show. After each step it becomes the ancestor's
x0 with noise of its own, the one it started from: x' = (1 - sigma') x0 + sigma' eps.

All of this is our choice; the paper names text-to-video as future work. Nothing here is known to pay off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from vidplat.workers.acceleration.lipar_mask import MaskRule, distance, keep_mask, repeated, tokens_of
from vidplat.workers.acceleration.method import Grid

EVERY = 2  # steps between two estimates


class Preview:
    """Finds what repeats while a video is made; `after_step` is a `Solver.correct`."""

    def __init__(self, rule: MaskRule, first: int, grid: Grid, found: Callable[[Tensor, Tensor], None]) -> None:
        """`found(keep, x0)` is told each new mask (F, H, W) and the estimate (1, C, F, H, W) that it comes from."""
        self._rule, self._first, self._grid, self._found = rule, first, grid, found
        self._steps = 0
        self._noise: Tensor | None = None
        self._still: Tensor | None = None  # what the last estimate found still
        self._keep: Tensor | None = None

    def start(self, noise: Tensor) -> None:
        """The latents that the run starts from: pure noise."""
        self._noise = noise.clone()

    def after_step(self, latents: Tensor, velocity: Tensor, moved: Tensor, sigmas: Tensor) -> Tensor:
        """The latents after a step, with pruned tokens made anew; see the module's text."""
        sigma, after = (float(level) for level in sigmas)
        clean = latents - sigma * velocity
        if self._keep is not None and self._noise is not None:
            clean = repeated(clean, self._keep)
            own = (1 - after) * clean + after * self._noise
            high, wide = latents.shape[3] // self._grid.rows, latents.shape[4] // self._grid.columns
            kept = self._keep.repeat_interleave(high, 1).repeat_interleave(wide, 2)
            moved = torch.where(kept, moved, own.to(moved))
        self._steps += 1
        if self._steps >= self._first and (self._steps - self._first) % EVERY == 0:
            self._estimate(clean)
        return moved

    def _estimate(self, clean: Tensor) -> None:
        patch = (clean.shape[3] // self._grid.rows, clean.shape[4] // self._grid.columns)
        tokens = tokens_of(clean[0], patch)
        if len(tokens) < 2:
            return
        scale = float(distance(tokens[1:], tokens[:-1]).median()) / MaskRule().tau1
        rule = replace(self._rule, tau1=self._rule.tau1 * scale, tau2=self._rule.tau2 * scale)
        still = ~keep_mask(clean[0], patch, rule)
        if self._still is not None:
            keep = ~(still & self._still)
            self._keep = keep if self._keep is None else keep & self._keep
            self._found(self._keep, clean)
        self._still = still
