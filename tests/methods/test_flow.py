"""A frame between two: right for motion, exact at the ends, and never a blend over a cut."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from flipbook_training import world
from tests.workers.test_video import a_clip
from vidplat.methods.filling.flow import Pair, contradiction, warp


def a_texture(seed: int, rows: int = 96, columns: int = 128) -> np.ndarray:
    """Smooth random colours over the whole range, features of about 8 pixels."""
    noise = np.random.default_rng(seed).standard_normal((rows, columns, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    return np.clip(128 + 45 * smooth / smooth.std(), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("part", [0.25, 0.5, 0.75])
@pytest.mark.parametrize(("down", "right"), [(0, 8), (8, 0), (-8, 0), (0, -8), (4, -4)])
def test_a_translation_of_eight_pixels_is_found(down: int, right: int, part: float) -> None:
    """Frames are windows of one picture, and every quarter of the way is a whole pixel: the truth
    is a window too."""
    for seed in range(3):
        picture = a_texture(seed, 96, 96)

        def window(t: float, picture: np.ndarray = picture) -> np.ndarray:
            top, left = 16 - int(t * down), 16 - int(t * right)
            return picture[top : top + 64, left : left + 64]

        made = Pair(window(0), window(1)).at(part)

        assert (
            np.abs(made.astype(float) - window(part))[16:-16, 16:-16].mean() < 0.1
        )  # of 255; asked for are 2


def test_moments_near_an_end_show_that_end() -> None:
    clip = a_clip(9)
    pair = Pair(clip[0], clip[8])

    for made in (pair.at(1e-3), pair.dissolved(1e-3)):
        assert np.abs(made.astype(float) - clip[0]).mean() < 0.5
    for made in (pair.at(1 - 1e-3), pair.dissolved(1 - 1e-3)):
        assert np.abs(made.astype(float) - clip[8]).mean() < 0.5


def test_motion_goes_on_evenly() -> None:
    clip = a_clip(9)
    pair = Pair(clip[0], clip[8])

    for n in range(1, 8):
        by_motion = np.abs(pair.at(n / 8).astype(float) - clip[n]).mean()
        assert by_motion < 0.2 * np.abs(pair.dissolved(n / 8).astype(float) - clip[n]).mean() + 0.5


def test_two_equal_frames_give_that_frame() -> None:
    frame = a_texture(0)
    pair = Pair(frame, frame.copy())

    assert np.array_equal(pair.at(0.5), frame) and np.array_equal(pair.dissolved(0.5), frame)
    assert not pair.is_cut


def test_hidden_background_is_taken_from_the_frame_that_shows_it() -> None:
    """A square moves 12 px over a still texture. What it uncovers is only in B, what it will cover
    only in A."""
    ground = a_texture(5, 96, 96) // 2

    def shown(left: int) -> np.ndarray:
        frame = ground.copy()
        frame[36:60, left : left + 24] = (250, 240, 60)
        return frame

    made = Pair(shown(30), shown(42)).at(0.5)

    near = np.s_[30:66, 20:76]
    off = np.abs(made[near].astype(float) - shown(36)[near]).mean()
    assert (
        off
        < 0.4
        * np.abs(
            Pair(shown(30), shown(42)).dissolved(0.5)[near].astype(float) - shown(36)[near]
        ).mean()
    )


@pytest.mark.parametrize("part", [0.01, 0.25, 0.49, 0.5, 0.75, 0.99])
@pytest.mark.parametrize("kind", ["noise", "textures", "plain"])
def test_a_cut_is_held_and_never_blended(kind: str, part: float) -> None:
    if kind == "noise":
        first, second = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), np.uint8)
    elif kind == "textures":
        first, second = a_texture(1, 64, 64), a_texture(2, 64, 64)
    else:
        first, second = (
            np.full((64, 64, 3), tone, np.uint8) for tone in ((19, 46, 90), (92, 15, 23))
        )
    pair = Pair(first, second)

    assert pair.is_cut
    nearer = first if part < 0.5 else second
    assert np.array_equal(pair.at(part), nearer)


def test_cuts_of_the_world_are_told_from_its_motion() -> None:
    seen = {True: 0, False: 0}
    for seed in range(9_500_000_000, 9_500_000_040):
        rng = np.random.default_rng(seed)
        scene = world.draw_scene(rng)
        video = world.render(
            scene, world.draw_layout(scene, rng), num_frames=33, height=64, width=64
        )
        for at in (4, 12, 20):
            has_cut = scene.motion_class == "cut" and at < 17 <= at + 8
            assert Pair(video[at], video[at + 8]).is_cut == has_cut
            seen[has_cut] += 1

    assert seen[True] >= 2


def test_frames_too_small_for_flow_are_cross_faded() -> None:
    tiny = np.stack([np.zeros((8, 8, 3)), np.full((8, 8, 3), 100)]).astype(np.uint8)
    pair = Pair(tiny[0], tiny[1])

    assert pair.at(0.25).mean() == 25
    assert not pair.is_cut


def test_large_frames_are_searched_at_half_size_and_as_well() -> None:
    picture = a_texture(4, 288, 320)
    first, middle, second = (picture[16:, left : left + 280] for left in (24, 20, 16))
    made = Pair(first, second).at(0.5)

    assert np.abs(made.astype(float) - middle)[16:-16, 16:-16].mean() < 0.1
    other = Pair(first, a_texture(6, 288, 320)[16:, 16:296])
    assert other.is_cut and np.array_equal(other.at(0.4), first)


def test_there_and_back_cancel_for_one_motion_and_not_for_two() -> None:
    to_right = np.zeros((20, 20, 2), np.float32)
    to_right[..., 0] = 3

    assert contradiction(to_right, -to_right).max() == 0
    assert contradiction(to_right, to_right).min() == 6


def test_warping_looks_up_where_the_flow_points_and_repeats_the_edge() -> None:
    ramp = np.tile(np.arange(8, dtype=np.float32), (4, 1))
    flow = np.zeros((4, 8, 2), np.float32)
    flow[..., 0] = 1.5

    assert warp(ramp, flow)[0].tolist() == [1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.0, 7.0]


def test_the_same_pair_gives_the_same_frames() -> None:
    clip = a_clip(5)

    assert np.array_equal(Pair(clip[0], clip[4]).at(0.3), Pair(clip[0], clip[4]).at(0.3))
