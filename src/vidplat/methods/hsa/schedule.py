"""When which tokens run under HSA, and what that costs: arithmetic without torch.

Tokens are divided into groups 1..K by how much their velocity changes, group 1 the most. Group k
runs at every step that its stride r_k divides, and all run in the first W steps and the last E
(arXiv 2605.06892; the rule is the paper's, windows, strides and fractions are our choice). All that
is large in a pass is proportional to the tokens that run, so the cost relative to the full run is
R, the mean share of running tokens.

Strides need not begin with 1, and `pace` p lets anything run at every p-th step only; W, E and
strides then count those steps (both our choice). Where nothing runs all tokens keep their velocity.

Presets are written for T = 40 steps. For another T windows and strides are scaled by T / 40 and
rounded (W to 2 or more, E to 1 or more, each stride to a multiple of the one before it), and
`solve_fractions` finds groups that keep R (our choice: the name of a preset promises a cost).

A run may be shortened under way: strides and W stay, the last E steps count from the new end. So
methods that take `steps` mean the total as it is now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise, product
from types import MappingProxyType

PRESET_STEPS = 40


@dataclass(frozen=True)
class Schedule:
    """Which groups run at which step of a run that begins with `steps` steps.

    `fractions` of all tokens, one per group, sum to 1. Raises `ValueError` when they do not, or
    when windows do not fit into the run.
    """

    steps: int
    warmup: int
    cooldown: int
    strides: tuple[int, ...]
    fractions: tuple[float, ...]
    pace: int = 1  # every how many steps anything runs; windows and strides count the steps that do

    def __post_init__(self) -> None:
        _check_windows(self._kept(self.steps), self.warmup, self.cooldown, self.strides)
        if len(self.fractions) != len(self.strides):
            raise ValueError(f"{len(self.strides)} strides, but {len(self.fractions)} fractions")
        if min(self.fractions) < 0 or self.fractions[0] <= 0 or abs(sum(self.fractions) - 1) > 1e-9:
            raise ValueError(
                f"fractions must be shares of 1, the first above 0, not {self.fractions}"
            )

    def active(self, step: int, steps: int | None = None) -> tuple[bool, ...]:
        """Which groups run at `step`, when the run has `steps` steps by now."""
        if step % self.pace:
            return (False,) * len(self.strides)
        at = step // self.pace
        if at < self.warmup or at >= self._kept(steps or self.steps) - self.cooldown:
            return (True,) * len(self.strides)
        return tuple(at % stride == 0 for stride in self.strides)

    def is_full(self, step: int, steps: int | None = None) -> bool:
        """Whether every token runs at `step`."""
        pairs = zip(self.active(step, steps), self.fractions, strict=True)
        return all(on or share == 0 for on, share in pairs)

    def in_warmup(self, step: int) -> bool:
        return step // self.pace < self.warmup

    def next_running(self, step: int, steps: int | None = None) -> int:
        """The first step after `step` at which anything runs, of `steps` by now, or the end."""
        end = steps or self.steps
        return next((later for later in range(step + 1, end) if any(self.active(later, end))), end)

    def share(self, step: int, steps: int | None = None) -> float:
        """Share of tokens that run at `step`: its cost relative to a full step."""
        pairs = zip(self.active(step, steps), self.fractions, strict=True)
        return sum(share for on, share in pairs if on)

    def sizes(self, tokens: int) -> tuple[int, ...]:
        """Tokens per group: each within one of its fraction, and `tokens` in all."""
        shares = (sum(self.fractions[:count]) for count in range(1, len(self.fractions)))
        inner = (min(tokens, max(1, round(share * tokens))) for share in shares)  # group 1 has one
        return tuple(end - start for start, end in pairwise((0, *inner, tokens)))

    @property
    def evaluations(self) -> tuple[int, ...]:
        """How often each group runs in the whole run."""
        return evaluations(self._kept(self.steps), self.warmup, self.cooldown, self.strides)

    @property
    def relative_cost(self) -> float:
        """R: mean share of running tokens."""
        pairs = zip(self.fractions, self.evaluations, strict=True)
        return sum(share * count for share, count in pairs) / self.steps

    def _kept(self, steps: int) -> int:
        return -(-steps // self.pace)


@dataclass(frozen=True)
class Preset:
    """A schedule for any number of steps. Windows and strides are those at T = 40 and pace 1."""

    target: float  # R
    warmup: int
    cooldown: int
    strides: tuple[int, ...]
    coarse_ratio: float  # size of each group from the third on, relative to the one before it
    pace: int = 1


#: Found with flipbook at T = 24, where the specification's own (but for 75B, which is its) lose:
#: long warm-ups and two groups that do not lie far apart come nearer to the full run at the same R.
#: See `SPECIFIED`.
PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "75A": Preset(0.75, 12, 2, (1, 2), 1.0),
        "75B": Preset(0.75, 5, 2, (1, 2), 1.0),
        "50": Preset(0.50, 10, 2, (3, 6), 1.0),
        "25": Preset(0.25, 10, 2, (3, 6), 1.0, pace=2),
    }
)

#: Those of the specification, at T = 40, for comparison.
SPECIFIED: Mapping[str, Preset] = MappingProxyType(
    {
        "75A": Preset(0.75, 8, 2, (1, 2, 4), 0.25 / 0.30),
        "75B": PRESETS["75B"],
        "50": Preset(0.50, 6, 2, (1, 2, 8), 0.60 / 0.20),
        "25": Preset(0.25, 4, 1, (1, 4, 20), 0.76 / 0.16),
    }
)


def schedule_of(preset: str, work: float | None, steps: int) -> Schedule:
    """What the method's parameters ask for; see the two below."""
    return schedule_for(preset, steps) if work is None else schedule_of_work(work, steps)


def schedule_for(preset: str, steps: int) -> Schedule:
    """The preset's schedule for so many steps. Raises `ValueError` when they are too few for it."""
    return carried(PRESETS[preset], steps)


def schedule_of_work(work: float, steps: int) -> Schedule:
    """A schedule with R = `work` in (0, 1]: the nearest preset, with its groups made to fit.

    Where `work` is out of reach 5 % more is tried, and so on. Raises `ValueError` at a full run.
    """
    if work >= 1:
        return Schedule(steps, 0, 0, (1,), (1.0,))
    nearest = PRESETS["75A" if work >= 0.625 else "50" if work >= 0.35 else "25"]
    others = product((1, 2, 3, 4), (PRESETS["50"], PRESETS["75A"]))
    for choice in (nearest, *(replace(preset, pace=pace) for pace, preset in others)):
        with suppress(ValueError):
            return carried(replace(choice, target=work), steps)
    if work * 1.05 >= 1:
        raise ValueError(f"no share of the work of {steps} steps can be left out")
    return schedule_of_work(work * 1.05, steps)


def carried(preset: Preset, steps: int) -> Schedule:
    """The preset at `steps` steps, with groups that differ.

    Where its target is out of reach, strides become shorter or longer, and then the windows give
    way. Raises `ValueError` when that is not enough.
    """
    kept = -(-steps // preset.pace)
    scale, target = kept / PRESET_STEPS, preset.target * steps / kept
    base = max(1, round(preset.strides[0] * scale))
    widest = max(2, round(preset.warmup * scale)), max(1, round(preset.cooldown * scale))
    problem: ValueError | None = None
    for warmup in range(widest[0], 1, -1):  # 2 at least: the score compares two velocities
        for cooldown in range(widest[1], 0, -1):
            for first in (*range(base, 0, -1), 2 * base, 4 * base):
                strides = [first]
                for stride in preset.strides[1:]:
                    strides.append(strides[-1] * max(2, round(stride * scale / strides[-1])))
                windows = warmup, cooldown, tuple(strides)
                try:
                    fractions = solve_fractions(kept, *windows, preset.coarse_ratio, target)
                    if fractions[0] < 1:
                        return Schedule(steps, *windows, fractions, preset.pace)
                except ValueError as infeasible:
                    problem = problem or infeasible
    raise problem or ValueError(
        f"{kept} steps are too few for two full ones at the start and one at the end"
    )


def too_few(preset: str, work: float | None, steps: int) -> str:
    """Why there is no such schedule for so many steps; "" when there is one."""
    try:
        schedule_of(preset, work, steps)
    except ValueError as infeasible:
        if work is not None:
            return f"hsa: {infeasible}; take more steps"
        least = least_steps(preset)
        return f"hsa:{preset} at {steps} steps: {infeasible}; it needs {least} steps or more"
    return ""


@lru_cache
def least_steps(preset: str) -> int:
    """The smallest number of steps from which on the preset can keep its target."""
    feasible = PRESET_STEPS
    while feasible > 1:
        try:
            schedule_for(preset, feasible - 1)
        except ValueError:
            break
        feasible -= 1
    return feasible


def solve_fractions(
    steps: int, warmup: int, cooldown: int, strides: Sequence[int], ratio: float, target: float
) -> tuple[float, ...]:
    """Sizes of the groups for which R is `target`.

    Group 3 is `ratio` times as large as group 2, group 4 as group 3, and so on; what is left
    open is phi_1, and R = (phi_1 n_1 + (1 - phi_1) n) / T is affine in it, with n_k the evaluations
    of group k and n their mean over groups 2..K. So phi_1 = (T R - n) / (n_1 - n). Raises
    `ValueError` when the target is out of reach: at or below n / T, the cost of the windows and of
    the coarse groups alone, or above n_1 / T.
    """
    _check_windows(steps, warmup, cooldown, strides)
    if not 0 < target <= 1 or ratio < 0:
        raise ValueError(f"a target of {target:g} or a ratio of {ratio:g} cannot be met")
    counts = evaluations(steps, warmup, cooldown, strides)
    weights = [ratio**power for power in range(len(strides) - 1)]
    told = (
        f"{steps} steps with {warmup} + {cooldown} full ones and strides "
        f"{'/'.join(map(str, strides))}"
    )
    if not weights or counts[0] == counts[-1]:  # the groups differ in nothing
        if abs(target * steps - counts[0]) > 1e-9:
            raise ValueError(
                f"{told} cost {counts[0] / steps:.3f} of a full run; {target:g} is out of reach"
            )
        return (1.0, *(0.0 for _ in weights))
    coarse = sum(w * n for w, n in zip(weights, counts[1:], strict=True)) / sum(weights)
    first = (target * steps - coarse) / (counts[0] - coarse)
    if not 0 < first <= 1 + 1e-9:
        raise ValueError(
            f"{told} cost between {coarse / steps:.3f} and {counts[0] / steps:.3f} of a full run; "
            f"{target:g} is out of reach"
        )
    first = min(1.0, first)
    return (first, *((1 - first) * w / sum(weights) for w in weights))


def evaluations(steps: int, warmup: int, cooldown: int, strides: Sequence[int]) -> tuple[int, ...]:
    """How often each group runs: W + E full steps, and the multiples of its stride between them."""
    between = range(warmup, steps - cooldown)
    return tuple(
        warmup + cooldown + sum(step % stride == 0 for step in between) for stride in strides
    )


def kv_bytes(
    tokens: int, width: int, layers: int, branches: int, bytes_per_value: float = 2.0
) -> int:
    """Bytes of the keys and values of all layers and branches, 2 b N d L times a value's size."""
    return round(2 * branches * tokens * width * layers * bytes_per_value)


def _check_windows(steps: int, warmup: int, cooldown: int, strides: Sequence[int]) -> None:
    if min(warmup, cooldown) < 0 or warmup + cooldown > steps:
        raise ValueError(f"{warmup} + {cooldown} full steps do not fit into {steps}")
    if not strides or min(strides) < 1:
        raise ValueError(f"strides must be positive, not {tuple(strides)}")
