"""Which frames of a preview are merged, what is left, and how all frames come back: VGDFR's plan,
without torch.

A latent frame stands for t frames, however little happens in them. Where frames are alike, a run of
2 t of them is merged two by two into t (one latent instead of two), or a run of 4 t four by four
(one instead of four); so a shorter clip of a valid length is left (VGDFR, arXiv 2504.12259; the
quantised rule is that of its code, written there for t = 4). After the shorter clip is made, the
frames that were merged away are interpolated.

Runs begin at frames 1, 1 + 2 t, 1 + 4 t, ...; call these blocks. A pair run needs its block to be
alike, a quad run two blocks in a row. Latents saved are thus the blocks alike as pairs, plus the
quad runs; and the walk from left to right takes as many quad runs as fit. Both counts can only grow
when the threshold falls, or when quads are allowed as well. So the number of latents never rises as
theta falls, in any mode (our proof; the paper has none).

Legend: N frames, F latent frames, M latents left, t frames per latent frame (the temporal factor).
Latent 0 is frame 0, latent j >= 1 is frames t (j - 1) + 1 .. t j.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from typing import Protocol

from vidplat.methods.filling.moments import Moment
from vidplat.methods.model_shape import latent_frames

#: Range of thresholds that `merges_of_ratio` may take by likeness of neighbours, and from where
#: down it merges four by four (VGDFR's code).
LOWEST, HIGHEST, QUADS_BELOW = 0.01, 0.99, 0.5


@dataclass(frozen=True)
class Similarity:
    """Likeness of frames in [-1, 1]: `s1[i]` of frames i and i + 1, `s2[i]` of i and i + 2, `s3[i]`
    of i and i + 3.

    `s2` and `s3` are asked for by quads alone, and may be empty without them. Raises `ValueError`
    for wrong lengths and for values that are not finite.
    """

    s1: Sequence[float]
    s2: Sequence[float] = ()
    s3: Sequence[float] = ()

    def __post_init__(self) -> None:
        frames = len(self.s1) + 1
        for lag, table in enumerate((self.s2, self.s3), start=2):
            if len(table) not in (0, max(0, frames - lag)):
                raise ValueError(
                    f"{frames} frames have {frames - lag} pairs {lag} apart, not {len(table)}"
                )
        if not all(
            math.isfinite(value) for table in (self.s1, self.s2, self.s3) for value in table
        ):
            raise ValueError("a similarity is not finite: the preview is no picture")

    @property
    def num_frames(self) -> int:
        return len(self.s1) + 1


@dataclass(frozen=True)
class Group:
    """Frames `first` .. `first + size - 1`, which become one."""

    first: int
    size: int

    @property
    def frames(self) -> range:
        return range(self.first, self.first + self.size)

    @property
    def centre(self) -> Fraction:
        """Mean time of the group, in frames."""
        return self.first + Fraction(self.size - 1, 2)


@dataclass(frozen=True)
class Merges:
    """A plan. `runs` are (first frame, s): s t frames that become t, s of 2 or 4, in order of time.

    Raises `ValueError` for runs that overlap, lie off the latents' lattice, or reach into the last
    latent.
    """

    num_frames: int
    runs: tuple[tuple[int, int], ...] = ()
    temporal_factor: int = 4
    theta: float = 1.0  # the threshold that gave this plan
    reason: str = ""  # why the plan is not what was asked for; "" when it is

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
    def groups(self) -> tuple[Group, ...]:
        """What is merged into one frame each, in order."""
        starts = (
            (first + place * size, size)
            for first, size in self.runs
            for place in range(self.temporal_factor)
        )
        return tuple(Group(first, size) for first, size in starts)

    @cached_property
    def frames(self) -> tuple[int, ...]:
        """R_vid: the frames that are left, merged ones under their group's first index; t (M - 1) +
        1 of them."""
        gone = {frame for group in self.groups for frame in group.frames[1:]}
        return tuple(frame for frame in range(self.num_frames) if frame not in gone)

    @cached_property
    def latents(self) -> tuple[int, ...]:
        """R_lat: the latents that are left, M of them: of each run the first."""
        gone = {latent for run in self.latent_runs for latent in run[1:]}
        return tuple(latent for latent in range(self.all_latents) if latent not in gone)

    @cached_property
    def latent_runs(self) -> tuple[range, ...]:
        """The latents that each run covers."""
        starts = ((1 + (first - 1) // self.temporal_factor, size) for first, size in self.runs)
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

    @property
    def ratio(self) -> float:
        """Share of frames that are left. It moves in jumps of a latent."""
        return len(self.frames) / self.num_frames


class Lattice(Protocol):
    """How alike the frames of each block are: the numbers that a threshold is compared with.
    `Blocks`, `Spans`."""

    @property
    def temporal_factor(self) -> int: ...

    @property
    def num_frames(self) -> int: ...

    @property
    def lowest(self) -> float:
        """The lowest threshold that a search for fewer latents may take."""

    @property
    def pairs(self) -> Sequence[float]:
        """Per block."""

    @property
    def quads(self) -> Sequence[float]:
        """Per block but the last: of it and its neighbour in one; empty where these are not told
        apart."""


@dataclass(frozen=True)
class Blocks:
    """By likeness of neighbours (VGDFR's code)."""

    similarity: Similarity
    temporal_factor: int = 4
    # neighbours of different groups of a run must be alike as well (our choice; the code's are not)
    strict: bool = False

    def __post_init__(self) -> None:
        Merges(self.similarity.num_frames, (), self.temporal_factor)  # refuses other lengths

    @property
    def num_frames(self) -> int:
        return self.similarity.num_frames

    @property
    def lowest(self) -> float:
        return LOWEST

    @cached_property
    def pairs(self) -> tuple[float, ...]:
        """Per block: the least likeness within its pairs (i, i + 1), (i + 2, i + 3), ..."""
        step = 1 if self.strict else 2
        last = 2 * self.temporal_factor - 1
        return tuple(
            min(self.similarity.s1[i : i + last : step])
            for i in block_starts(self.num_frames, self.temporal_factor)
        )

    @cached_property
    def quads(self) -> tuple[float, ...]:
        """Per block but the last: the least likeness of any two frames of a quad, within it and its
        neighbour."""
        s1, s2, s3 = self.similarity.s1, self.similarity.s2, self.similarity.s3
        if not s3:
            return ()
        starts = block_starts(self.num_frames, self.temporal_factor)
        within = [
            min(s1[q], s1[q + 1], s1[q + 2], s2[q], s2[q + 1], s3[q])
            for start in starts
            for q in range(start, start + 2 * self.temporal_factor, 4)
        ]
        each = self.temporal_factor // 2
        found = [min(within[each * b : each * (b + 2)]) for b in range(len(starts) - 1)]
        if self.strict:
            length = 4 * self.temporal_factor - 1
            found = [min(q, *s1[i : i + length]) for q, i in zip(found, starts, strict=False)]
        return tuple(found)


@dataclass(frozen=True)
class Spans:
    """By likeness of a run's first frame to the last ones of its latents (our choice): `pairs` and
    `quads` as they are.

    Neighbours are alike in any video, and the more so in a blurred preview; how far a run strays
    from its first frame tells passages in which something moves from quiet ones. Raises
    `ValueError` for another number of values than the video has blocks, and for two blocks that are
    more alike than one of them.
    """

    num_frames: int
    pairs: tuple[float, ...]
    quads: tuple[float, ...] = ()
    temporal_factor: int = 4

    def __post_init__(self) -> None:
        Merges(self.num_frames, (), self.temporal_factor)  # refuses other lengths
        blocks = len(block_starts(self.num_frames, self.temporal_factor))
        if len(self.pairs) != blocks or len(self.quads) not in (0, max(0, blocks - 1)):
            raise ValueError(
                f"{self.num_frames} frames have {blocks} blocks, not values for "
                f"{len(self.pairs)} of them and for "
                f"{len(self.quads)} neighbours"
            )
        if not all(math.isfinite(value) for value in (*self.pairs, *self.quads)):
            raise ValueError("a similarity is not finite: the preview is no picture")
        if any(
            quad > min(halves)
            for quad, halves in zip(self.quads, pairwise(self.pairs), strict=False)
        ):
            raise ValueError(
                "two blocks are more alike than each of them: a higher theta would leave fewer "
                "latents"
            )

    @property
    def lowest(self) -> float:
        return -1.0  # where something moves the ends of a run are often as unlike as can be


def block_starts(num_frames: int, temporal_factor: int) -> range:
    """First frames of blocks. What follows the last of them, one latent or two, is never merged."""
    t = temporal_factor
    return range(1, num_frames - 2 * t - 1, 2 * t)


def span_frames(
    num_frames: int, temporal_factor: int, size: int
) -> list[tuple[int, tuple[int, ...]]]:
    """Of each run of `size` latents that may be merged its first frame, and the last frame of each
    of its latents."""
    t, starts = temporal_factor, block_starts(num_frames, temporal_factor)
    runs = starts if size == 2 else starts[:-1]
    return [(first, tuple(first + t * n - 1 for n in range(1, size + 1))) for first in runs]


def _above(of: Lattice, theta: float, *, quads: bool) -> Merges:
    """The plan of a threshold: everything more alike than `theta` is merged, four by four first."""
    return Merges(of.num_frames, tuple(_runs(of, theta, quads)), of.temporal_factor, theta)


def cuts(of: Lattice, low: float, high: float, *, quads: bool) -> list[float]:
    """Thresholds in [low, high) that tell all its plans apart, rising: `low`, and each value that
    is met."""
    met = {*of.pairs, *(of.quads if quads else ())}
    return [low, *sorted(value for value in met if low < value < high)]


def _runs(of: Lattice, theta: float, quads: bool) -> Iterator[tuple[int, int]]:
    starts, block = block_starts(of.num_frames, of.temporal_factor), 0
    while block < len(starts):
        if quads and block < len(of.quads) and of.quads[block] > theta:
            yield starts[block], 4
            block += 2
            continue
        if of.pairs[block] > theta:
            yield starts[block], 2
        block += 1


def merges_above(blocks: Lattice, theta: float, *, quads: bool = False) -> Merges:
    """Threshold mode: everything more alike than `theta` in [0, 1] is merged. Raises `ValueError`
    outside."""
    if not 0 <= theta <= 1:
        raise ValueError(f"theta must be between 0 and 1, not {theta}")
    return _above(blocks, theta, quads=quads)


def merges_of_ratio(blocks: Lattice, ratio: float) -> Merges:
    """Ratio mode: as many frames left as possible, at most `ratio` in (0, 1] of all.

    The threshold is at most `HIGHEST`, so what is all but equal is merged at any ratio.
    """
    if not 0 < ratio <= 1:
        raise ValueError(
            f"the ratio of frames that are left must be above 0 and at most 1, not {ratio}"
        )
    t, frames = blocks.temporal_factor, blocks.num_frames
    most = math.floor((ratio * frames - 1 + 1e-9) / t) + 1
    found = merges_to(blocks, most, highest=HIGHEST)
    if len(found.latents) <= most:
        return found
    told = (
        f"{found.ratio:.2f} of the frames are left where all is merged that can be, more "
        f"than {ratio:g}"
    )
    return Merges(found.num_frames, found.runs, t, found.theta, told)


def merges_to(blocks: Lattice, most: int, *, highest: float = 1.0) -> Merges:
    """The plan with the most latents among those with at most `most`; where none has, the one with
    the fewest.

    Tried are all thresholds from the lowest to `highest` with pairs alone, and those under
    `QUADS_BELOW` with quads; of two plans with as many latents the one with fewer quads (our
    choice, as is the search over the values that are met instead of bisection to 0.001: values of
    still clips lie closer together than that).
    """
    with_pairs = _highest_within(
        blocks, [*cuts(blocks, blocks.lowest, highest, quads=False), highest], most, quads=False
    )
    if not blocks.quads or len(with_pairs.latents) == most:
        return with_pairs
    with_quads = _highest_within(
        blocks, cuts(blocks, blocks.lowest, QUADS_BELOW, quads=True), most, quads=True
    )
    return max(
        (with_pairs, with_quads),
        key=lambda plan: (
            len(plan.latents) <= most,
            len(plan.latents) if len(plan.latents) <= most else -len(plan.latents),
            -plan.quads,
        ),
    )


def least_latents(num_frames: int, temporal_factor: int = 4, *, quads: bool = False) -> int:
    """M of a video in which nothing moves: fewer are left of none of this length."""
    alike = [(1.0,) * max(0, num_frames - lag) for lag in (1, 2, 3)]
    blocks = Blocks(Similarity(*(alike if quads else alike[:1])), temporal_factor)
    return len(_above(blocks, LOWEST, quads=quads).latents)


def _highest_within(blocks: Lattice, thetas: list[float], most: int, *, quads: bool) -> Merges:
    """Bisection: latents never fall as theta rises. The first threshold's plan when even that has
    more than `most`."""
    low, high = 0, len(thetas)
    while high - low > 1:
        middle = (low + high) // 2
        if len(_above(blocks, thetas[middle], quads=quads).latents) <= most:
            low = middle
        else:
            high = middle
    return _above(blocks, thetas[low], quads=quads)


def moments(merges: Merges, anchor: str = "first") -> tuple[Moment, ...]:
    """All N frames in order of time, from the decoded ones.

    `first`: a merged frame stands at its group's first index, and those after it lead to the next
    decoded frame (VGDFR). `centre`: it stands at the group's mean time, where a mean of frames
    belongs, and every whole time that no decoded frame stands at is synthesised (our choice).
    """
    if anchor not in ("first", "centre"):
        raise ValueError(f"the anchor is first or centre, not {anchor!r}")
    centre = {group.first: group.centre for group in merges.groups} if anchor == "centre" else {}
    times = [centre.get(frame, Fraction(frame)) for frame in merges.frames]
    return tuple(_moment(times, frame) for frame in range(merges.num_frames))


def _moment(times: Sequence[Fraction], frame: int) -> Moment:
    """Where `frame` lies among decoded frames at `times`, of which the first and the last are those
    of the video."""
    before = bisect_right(times, frame) - 1
    if times[before] == frame:
        return Moment(before, Fraction(0))
    return Moment(before, (frame - times[before]) / (times[before + 1] - times[before]))
