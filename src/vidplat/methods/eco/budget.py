"""How many steps see all frames under `eco`, and how many frames go on: arithmetic without torch,
for workers and planners alike.

Of S steps the first s_e see all F latent frames, the others K of them (`keyframes.py` says which).

Legend: F latent frames, K kept of them.
"""

from __future__ import annotations

#: K between which is chosen, of so many latent frames (our choice).
_BUDGETS, _BUDGETS_OF = (6, 8, 11, 14, 16), 21


def warmup_steps(share: float, steps: int) -> int:
    """s_e: `share` of `steps`, rounded, at least one, since who saw no frame can choose none."""
    return max(1, round(share * steps))


def kept_frames(asked: int | None, frames: int) -> int:
    """K: what was asked for, else half of F rounded up (11 of 21, as released), at least two; never
    more than F, whoever asks before `too_many` has refused it."""
    return min(frames, max(2, -(-frames // 2)) if asked is None else asked)


def too_many(asked: int | None, frames: int) -> str:
    """Why so few latent frames cannot have the K that was asked for; "" when they can."""
    if asked is None or asked <= frames:
        return ""
    return (
        f"{asked} keyframes cannot be chosen from {frames} latent frames; take K={frames} or less"
    )


def budgets(frames: int) -> tuple[int, ...]:
    """The K that a plan chooses between, rising: the same shares of any F, from two to F - 1."""
    shares = {max(2, round(k * frames / _BUDGETS_OF)) for k in _BUDGETS}
    return tuple(sorted(k for k in shares if k < frames))
