"""What EcoVideo's method costs before anything runs: arithmetic without torch, for workers and
planners alike.

Of S steps the first s_e see all F latent frames, the others K of them (`keyframes.py` says which).
A pass costs what its tokens cost, so the cost of a run is known before it.

Legend: F latent frames, K kept of them, n video tokens, m text tokens, D width, E ffn width.
"""

from __future__ import annotations

from dataclasses import dataclass

_BUDGETS, _BUDGETS_OF = (
    (6, 8, 11, 14, 16),
    21,
)  # K between which is chosen, of so many latent frames (our choice)


def warmup_steps(share: float, steps: int) -> int:
    """s_e: the first `share` of `steps`, rounded, and at least one, since a run that saw no frame
    can choose none."""
    return max(1, round(share * steps))


def refreshes(step: int, steps: int, warmup: int, every: int | None) -> bool:
    """Whether after `step` the model is asked again about the frames that were left out: after each
    `every` steps without them, and not after the last."""
    return (
        every is not None
        and step >= warmup
        and (step + 1 - warmup) % every == 0
        and step + 1 < steps
    )


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

    def flops(self, frames: int, context: int = 0) -> tuple[int, int]:
        """(linear, attention) operations of one block over `frames` latent frames, with `context`
        tokens beside the text's: 12 n D^2 + 4 m D^2 + 4 n m D + 4 n D E, and 4 n^2 D. As
        `scheduler.work.forward_gflop`."""
        n, m, d, e = frames * self.per_frame, self.text_tokens + context, self.width, self.ffn_width
        return 12 * n * d * d + 4 * m * d * d + 4 * n * m * d + 4 * n * d * e, 4 * n * n * d

    def shares(self, kept: int, frames: int, *, context: bool = False) -> tuple[float, float]:
        """(linear, attention) work of a pass over K frames relative to one over all F. `context`:
        whether the others are given to it as a token each."""
        some, whole = self.flops(kept, frames - kept if context else 0), self.flops(frames)
        return some[0] / whole[0], some[1] / whole[1]

    def share(self, kept: int, frames: int, *, context: bool = False) -> float:
        """The same of both together."""
        return sum(self.flops(kept, frames - kept if context else 0)) / sum(self.flops(frames))

    def run_shares(
        self,
        kept: int,
        frames: int,
        *,
        warmup: int,
        steps: int,
        context: bool = False,
        refresh: int | None = None,
    ) -> tuple[float, float]:
        """(linear, attention) work of all `steps`, of which `warmup` see all F, relative to as many
        that all do.

        `refresh`: see `refreshes`; each is a pass over the F - K others.
        """
        if kept >= frames or warmup >= steps:
            return 1.0, 1.0
        cropped, beside = (
            self.shares(kept, frames, context=context),
            self.shares(frames - kept, frames),
        )
        after = steps - warmup
        again = sum(refreshes(step, steps, warmup, refresh) for step in range(steps))
        linear, attention = (
            warmup + after * a + again * b for a, b in zip(cropped, beside, strict=True)
        )
        return linear / steps, attention / steps
