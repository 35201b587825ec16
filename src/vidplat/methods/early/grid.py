"""Which steps run under `early`, and what is left of them in a shorter run: arithmetic without
torch, for workers and planners alike.

Of S steps M run: step j of them is S (j / M)^2, rounded, or j where that is not yet reached, for j
= 0..M-1. So all steps run up to where the curve is as steep as the count, S (j / M)^2 = j, which is
j = M^2 / S, and from there on gaps grow evenly to about 2 S / M. The law is our choice, measured
against others in decision 0013.
"""

from __future__ import annotations

from functools import lru_cache

POWER = 2


@lru_cache(maxsize=4096)
def passes_of(work: float, steps: int) -> tuple[int, ...]:
    """The steps of `steps` whose passes run: round(work * steps), at least the first."""
    count = max(1, round(work * steps))
    return tuple(max(j, round(steps * j**POWER / count**POWER)) for j in range(count))


@lru_cache(maxsize=4096)
def shortened(passes: tuple[int, ...], steps: int, done: int, total: int) -> tuple[int, ...]:
    """What becomes of `passes`, planned for a run of `steps`, when after `done` of them it is to
    have `total` in all.

    The passes to come keep their places relative to what is left, rounded down; of those that fall
    on one step one runs. So a shorter run gives up held steps first, and a pass only where it has
    no step of its own left.
    """
    if total == steps:
        return passes
    to_come = {
        done + (step - done) * (total - done) // (steps - done) for step in passes if step >= done
    }
    return (*(step for step in passes if step < done), *sorted(to_come))
