"""How alike frames are: neighbours over the whole picture, and runs from end to end in the worst
tile."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vidplat.methods.vgdfr.likeness import by_neighbours, by_spans
from vidplat.methods.vgdfr.merges import merges_above
from vidplat.quality import ssim_map

both = pytest.mark.parametrize("lattice_of", [by_neighbours, by_spans])


def a_still_video(frames: int = 17, side: int = 48) -> np.ndarray:
    """The same random picture, smoothed a little, in every frame."""
    picture = np.random.default_rng(4).random((side // 4, side // 4, 3), np.float32)
    return np.broadcast_to(picture.repeat(4, 0).repeat(4, 1), (frames, side, side, 3)).copy()


def with_a_mover(video: np.ndarray) -> np.ndarray:
    """A white square of 4 x 4 pixels that jumps by its own width in every frame, along a row of the
    ground."""
    moved = video.copy()
    for frame, picture in enumerate(moved):
        at = 4 * (frame % 10)
        picture[20:24, at : at + 4] = 1.0
    return moved


def with_another(frames: int, *others: int) -> np.ndarray:
    """One random picture, and another one at these frames."""
    chance = np.random.default_rng(3)
    one, other = (chance.random((24, 24, 3)).astype(np.float32) for _ in range(2))
    return np.stack([other if n in others else one for n in range(frames)])


@both
def test_equal_frames_are_alike_and_merge_whatever_the_threshold(lattice_of: Any) -> None:
    lattice = lattice_of(a_still_video(33), 4, quads=True)

    assert lattice.pairs == pytest.approx([1.0] * 3, abs=1e-6)
    assert lattice.quads == pytest.approx([1.0] * 2, abs=1e-6)
    assert len(merges_above(lattice, 0.99).latents) == 5  # of 9: a quad run and a pair run


def test_of_neighbours_only_those_that_would_be_merged_are_compared() -> None:
    # 33 frames: slots of pairs (1, 2), (3, 4), ... begin at 1, 9 and 17, quads at 1, 5, 9, ...
    inside = by_neighbours(with_another(33, 3), 4, quads=True)
    assert [value < 0.3 for value in inside.pairs] == [True, False, False]
    assert [value < 0.3 for value in inside.quads] == [True, False]

    # Frames 11 and 12 are another picture: a pair of their own, but no quad with 9 and 10.
    between = by_neighbours(with_another(33, 11, 12), 4, quads=True)
    assert between.pairs == pytest.approx([1.0] * 3, abs=1e-6)
    assert [value < 0.3 for value in between.quads] == [True, True]


def as_the_code_has_it(video: np.ndarray, theta: float, allow4: bool) -> list[tuple[int, int]]:
    """The specification's loop, b4, word for word."""
    s1, s2, s3 = (
        [float(ssim_map(*two, 1.0).mean()) for two in zip(video[:-lag], video[lag:], strict=True)]
        for lag in (1, 2, 3)
    )
    frames, i, runs = len(video), 1, []
    while i < frames - 9:
        if allow4 and i < frames - 17:
            q = min(
                min(s1[i + o], s2[i + o], s3[i + o], s1[i + o + 1], s2[i + o + 1], s1[i + o + 2])
                for o in (0, 4, 8, 12)
            )
            if q > theta:
                runs.append((i, 4))
                i += 16
                continue
        if min(s1[i], s1[i + 2], s1[i + 4], s1[i + 6]) > theta:
            runs.append((i, 2))
        i += 8
    return runs


@pytest.mark.parametrize("quads", [True, False])
def test_the_plan_by_neighbours_is_that_of_the_specification_s_loop(quads: bool) -> None:
    # A picture that wanders by steps of every size, so that slots differ.
    chance = np.random.default_rng(7)
    steps = chance.random((65, 1, 1, 1)) ** 4 * chance.normal(size=(65, 16, 16, 3)) * 0.3
    video = np.clip(0.5 + steps.cumsum(0), 0, 1).astype(np.float32)
    lattice = by_neighbours(video, 4, quads=quads)

    plans = set()
    for theta in np.linspace(0, 1, 21):
        plans.add(runs := merges_above(lattice, float(theta)).runs)
        assert list(runs) == as_the_code_has_it(video, float(theta), quads)
    assert len(plans) >= 4


def test_two_flat_colours_are_as_alike_as_the_formula_says() -> None:
    # No variance: SSIM = (2 a b + C1) / (a^2 + b^2 + C1) with C1 = (0.01 x 1)^2; a = 0.2, b = 0.6.
    video = np.stack([np.full((16, 16, 3), 0.6 if n == 2 else 0.2, np.float32) for n in range(17)])
    assert by_neighbours(video, 4, quads=False).pairs[0] == pytest.approx(
        (0.24 + 1e-4) / (0.4 + 1e-4), abs=1e-4
    )


def test_what_moves_in_a_corner_is_seen_by_the_worst_tile_alone() -> None:
    video = with_a_mover(a_still_video())
    assert merges_above(by_neighbours(video, 4, quads=False), 0.8).runs == ((1, 2),)
    assert merges_above(by_spans(video, 4, quads=False), 0.8).merges_nothing


def test_a_run_is_as_alike_as_its_first_frame_is_to_the_ends_of_its_latents() -> None:
    # Another picture from frame 11 to 18: within slots 9 .. 16 and 17 .. 24.
    lattice = by_spans(with_another(33, *range(11, 19)), 4, quads=True)

    # The first strays nowhere; 9 differs from 12 and 16, 17 from 20 and 24.
    assert lattice.pairs[0] == pytest.approx(1.0)
    assert max(lattice.pairs[1:]) < 0.3
    assert max(lattice.quads) < 0.3


def test_only_the_last_frames_of_a_run_s_latents_are_compared_with_its_first() -> None:
    # Cell 1 .. 8 has latents 1 .. 4 and 5 .. 8.
    for other, strays in ((2, False), (3, False), (4, True), (7, False), (8, True)):
        (value,) = by_spans(with_another(17, other), 4, quads=False).pairs
        assert (value < 0.3) == strays


@both
def test_slots_are_compared_four_by_four_only_when_asked_for(lattice_of: Any) -> None:
    assert lattice_of(a_still_video(33), 4, quads=False).quads == ()


@both
def test_pictures_smaller_than_the_window_are_compared_all_the_same(lattice_of: Any) -> None:
    (value,) = lattice_of(a_still_video(side=8), 4, quads=False).pairs
    assert value == pytest.approx(1.0, abs=1e-6)


@both
def test_frames_that_are_no_pictures_are_refused(lattice_of: Any) -> None:
    with pytest.raises(ValueError, match="not finite"):
        lattice_of(np.full((17, 16, 16, 3), np.nan, np.float32), 4, quads=True)
