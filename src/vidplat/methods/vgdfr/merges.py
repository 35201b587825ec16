"""Which frames of a preview are merged and what is left: VGDFR's plan, without torch.

A latent frame stands for t frames, however little happens in them. Where frames are alike, a run of
2 t of them is merged two by two into t (one latent instead of two), or a run of 4 t four by four
(one instead of four); so a shorter clip of a valid length is left (VGDFR, arXiv 2504.12259; the
quantised rule is that of its code, written there for t = 4).

Runs begin at frames 1, 1 + 2 t, 1 + 4 t, ...: the slots of a `Lattice`. A pair run needs its slot
to be alike, a quad run two slots in a row. Latents saved are thus the slots alike as pairs, plus
the quad runs; and the walk from left to right takes as many quad runs as fit. Both counts can only
grow when the threshold falls, or when quads are allowed as well. So the number of latents never
rises as theta falls, in any mode (our proof; the paper has none).

Legend: N frames, F latent frames, M latents left, t frames per latent frame (the temporal factor).
Latent 0 is frame 0, latent j >= 1 is frames t (j - 1) + 1 .. t j.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from vidplat.methods.model_shape import latent_frames

_BEFORE = 1 / 10  # share of the steps before the preview, where k is not given


def steps_before(given: int | None, steps: int) -> int:
    """k: how many of `steps` are made before the look at what is alike."""
    return given or max(1, round(_BEFORE * steps))


def too_late(given: int | None, steps: int) -> str:
    """Why no step is left after the look; "" when one is."""
    before = steps_before(given, steps)
    if before < steps:
        return ""
    return f"its preview is made after {before} of the steps, and the whole run has {steps}"


#: Range of thresholds that `merges_of_ratio` may take, and from where down it merges four by four.
#: The upper two are those of VGDFR's code; its lowest, 0.01, is for likeness of neighbours alone:
#: where something moves the ends of a run are often as unlike as can be.
LOWEST, HIGHEST, QUADS_BELOW = -1.0, 0.99, 0.5


@dataclass(frozen=True)
class Merges:
    """A plan. `runs` are (first frame, s): s t frames that become t, s of 2 or 4, in order of time.

    Raises `ValueError` for runs that overlap, lie off the lattice, or reach into the last latent.
    """

    num_frames: int
    runs: tuple[tuple[int, int], ...] = ()
    temporal_factor: int = 4

    def __post_init__(self) -> None:
        t = self.temporal_factor
        if self.num_frames < 1 or (self.num_frames - 1) % t:
            raise ValueError(
                f"{self.num_frames} frames are no whole number of latents of {t} frames after "
                "the first"
            )
        end = 1
        for first, size in self.runs:
            if size not in (2, 4) or (first - 1) % t or first < end:
                raise ValueError(
                    f"a run of {size} x {t} frames cannot begin at frame {first} after frame "
                    f"{end - 1}"
                )
            end = first + size * t
        if self.runs and end > self.num_frames - t:
            raise ValueError(
                f"the last latent of {self.num_frames} frames cannot be merged: there is "
                "nothing after it"
            )

    @cached_property
    def groups(self) -> tuple[range, ...]:
        """The frames that are merged into one each, in order."""
        t = self.temporal_factor
        starts = ((first + n * size, size) for first, size in self.runs for n in range(t))
        return tuple(range(first, first + size) for first, size in starts)

    @cached_property
    def frames(self) -> tuple[int, ...]:
        """R_vid: the t (M - 1) + 1 frames left, merged ones under their group's first index."""
        gone = {frame for group in self.groups for frame in group[1:]}
        return tuple(frame for frame in range(self.num_frames) if frame not in gone)

    @cached_property
    def latents(self) -> tuple[int, ...]:
        """R_lat: the latents that are left, M of them: of each run the first."""
        gone = {latent for run in self.latent_runs for latent in run[1:]}
        return tuple(latent for latent in range(self.all_latents) if latent not in gone)

    @cached_property
    def latent_runs(self) -> tuple[range, ...]:
        """The latents that each run covers."""
        starts = ((latent_frames(first, self.temporal_factor), size) for first, size in self.runs)
        return tuple(range(start, start + size) for start, size in starts)

    @property
    def all_latents(self) -> int:
        """F."""
        return latent_frames(self.num_frames, self.temporal_factor)

    @property
    def merges_nothing(self) -> bool:
        return not self.runs

    @property
    def quads(self) -> int:
        """How many runs are merged four by four."""
        return sum(size == 4 for _, size in self.runs)


@dataclass(frozen=True)
class Lattice:
    """How alike the frames of each slot are, in [-1, 1]: what a threshold is compared with.

    `pairs` has a value for each slot, `quads` one for each two neighbours; empty, nothing is merged
    four by four. Raises `ValueError` for another number of values than the video has slots, for
    values that are not finite, and for two slots that are more alike than one of them.
    """

    num_frames: int
    pairs: tuple[float, ...]
    quads: tuple[float, ...] = ()
    temporal_factor: int = 4

    def __post_init__(self) -> None:
        Merges(self.num_frames, (), self.temporal_factor)  # refuses other lengths
        slots = len(self.starts)
        if len(self.pairs) != slots or len(self.quads) not in (0, max(0, slots - 1)):
            raise ValueError(
                f"{self.num_frames} frames have {slots} slots, not values for "
                f"{len(self.pairs)} of them and for {len(self.quads)} neighbours"
            )
        if not all(math.isfinite(value) for value in (*self.pairs, *self.quads)):
            raise ValueError("a similarity is not finite: the preview is no picture")
        if any(q > min(two) for q, two in zip(self.quads, pairwise(self.pairs), strict=False)):
            raise ValueError(
                "two slots are more alike than each of them: a higher theta would leave fewer "
                "latents"
            )

    @property
    def starts(self) -> range:
        """First frames of the slots."""
        return slot_starts(self.num_frames, self.temporal_factor)


def slot_starts(num_frames: int, temporal_factor: int) -> range:
    """First frames of a lattice's slots. One or two latents after the last are never merged."""
    t = temporal_factor
    return range(1, num_frames - 2 * t - 1, 2 * t)


def merges_above(lattice: Lattice, theta: float) -> Merges:
    """Threshold mode: all more alike than `theta` is merged. Raises `ValueError` outside [0, 1]."""
    if not 0 <= theta <= 1:
        raise ValueError(f"theta must be between 0 and 1, not {theta}")
    return _above(lattice, theta, quads=True)


def merges_of_ratio(lattice: Lattice, ratio: float) -> Merges:
    """Ratio mode: as many frames left as possible, at most `ratio` in (0, 1] of all; where the
    lattice allows none so short, the shortest.

    The threshold is at most `HIGHEST`, so what is all but equal is merged at any ratio. Tried are
    all thresholds down to `LOWEST` with pairs alone, and those under `QUADS_BELOW` with quads; of
    two plans with as many latents the one with fewer quads (our choice, as is the search over the
    values that are met instead of bisection to 0.001: those of still clips lie closer together).
    """
    if not 0 < ratio <= 1:
        raise ValueError(
            f"the ratio of frames that are left must be above 0 and at most 1, not {ratio}"
        )
    most = math.floor((ratio * lattice.num_frames - 1 + 1e-9) / lattice.temporal_factor) + 1
    thetas = [*cuts(lattice, HIGHEST, quads=False), HIGHEST]
    with_pairs = _highest_within(lattice, thetas, most, quads=False)
    if not lattice.quads or len(with_pairs.latents) == most:
        return with_pairs
    thetas = cuts(lattice, QUADS_BELOW, quads=True)
    with_quads = _highest_within(lattice, thetas, most, quads=True)

    def worth(plan: Merges) -> tuple[bool, int, int]:
        left = len(plan.latents)
        return left <= most, left if left <= most else -left, -plan.quads

    return max((with_pairs, with_quads), key=worth)


def cuts(lattice: Lattice, high: float, *, quads: bool) -> list[float]:
    """Thresholds in [LOWEST, high) that tell all plans apart, rising: `LOWEST`, and those met."""
    met = {*lattice.pairs, *(lattice.quads if quads else ())}
    return [LOWEST, *sorted(value for value in met if LOWEST < value < high)]


def _above(lattice: Lattice, theta: float, *, quads: bool) -> Merges:
    runs = tuple(_runs(lattice, theta, quads=quads))
    return Merges(lattice.num_frames, runs, lattice.temporal_factor)


def _runs(lattice: Lattice, theta: float, *, quads: bool) -> Iterator[tuple[int, int]]:
    starts, slot = lattice.starts, 0
    while slot < len(starts):
        if quads and slot < len(lattice.quads) and lattice.quads[slot] > theta:
            yield starts[slot], 4
            slot += 2
            continue
        if lattice.pairs[slot] > theta:
            yield starts[slot], 2
        slot += 1


def _highest_within(lattice: Lattice, thetas: list[float], most: int, *, quads: bool) -> Merges:
    """Bisection: latents never fall as theta rises. The first if even that has too many."""

    def left(theta: float) -> int:
        return len(_above(lattice, theta, quads=quads).latents)

    place = bisect_right(thetas, most, key=left) - 1
    return _above(lattice, thetas[max(place, 0)], quads=quads)
