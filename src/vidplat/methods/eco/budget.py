"""What EcoVideo's method costs before anything runs: arithmetic without torch, for workers and
planners alike.

Of S steps the first s_e see all F latent frames, the others K of them (`keyframes.py` says which).
A pass costs what its tokens cost, so the cost of a run is known before it.

Legend: F latent frames, K kept of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from vidplat.methods.pass_size import BlockSize

#: K between which is chosen, of so many latent frames (our choice).
_BUDGETS, _BUDGETS_OF = (6, 8, 11, 14, 16), 21


def warmup_steps(share: float, steps: int) -> int:
    """s_e: the first `share` of `steps`, rounded, and at least one, since a run that saw no frame
    can choose none."""
    return max(1, round(share * steps))


def kept_frames(asked: int | None, frames: int) -> int:
    """K: what was asked for, else half of F rounded up (11 of 21, as the released settings come
    to), at least two."""
    return min(frames, max(2, -(-frames // 2))) if asked is None else asked


def budgets(frames: int) -> tuple[int, ...]:
    """The K that a plan chooses between, rising: the same shares of any F, at least two and fewer
    than all."""
    shares = {max(2, round(k * frames / _BUDGETS_OF)) for k in _BUDGETS}
    return tuple(sorted(k for k in shares if k < frames))


@dataclass(frozen=True)
class PassSize:
    """What decides the work of one pass. `per_frame`: tokens of a latent frame."""

    per_frame: int
    width: int
    ffn_width: int
    text_tokens: int

    def flops(self, frames: int) -> tuple[int, int]:
        """(linear, attention) FLOPs of one block over `frames` latent frames."""
        block = BlockSize(self.width, self.ffn_width, self.text_tokens)
        return block.flops(frames * self.per_frame)

    def shares(self, kept: int, frames: int) -> tuple[float, float]:
        """(linear, attention) work of a pass over K frames relative to one over all F."""
        some, whole = self.flops(kept), self.flops(frames)
        return some[0] / whole[0], some[1] / whole[1]

    def share(self, kept: int, frames: int) -> float:
        """The same of both together."""
        return sum(self.flops(kept)) / sum(self.flops(frames))

    def run_shares(self, kept: int, frames: int, *, warmup: int, steps: int) -> tuple[float, float]:
        """(linear, attention) work of all `steps`, of which `warmup` see all F, relative to as many
        that all do."""
        if kept >= frames or warmup >= steps:
            return 1.0, 1.0
        linear, attention = (
            warmup + (steps - warmup) * share for share in self.shares(kept, frames)
        )
        return linear / steps, attention / steps
