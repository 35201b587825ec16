"""How alike frames are, over the whole picture and in its worst tile."""

from __future__ import annotations

import numpy as np
import pytest

from vidplat.methods.vgdfr.likeness import likeness, spans
from vidplat.methods.vgdfr.merges import Blocks, merges_above


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


def test_equal_frames_are_alike_and_merge_whatever_the_threshold() -> None:
    tables = likeness(a_still_video())
    assert [len(table) for table in (tables.s1, tables.s2, tables.s3)] == [16, 15, 14]
    assert min(*tables.s1, *tables.s2, *tables.s3) == pytest.approx(1.0, abs=1e-6)
    assert len(merges_above(Blocks(tables), 0.99).latents) == 4  # of 5: one pair run


def test_each_table_compares_frames_as_far_apart_as_its_name_says() -> None:
    video = np.zeros((9, 16, 16, 3), np.float32)
    video[3] = 0.5 + 0.5 * np.eye(16, dtype=np.float32)[:, :, None]
    tables = likeness(video)
    assert [place for place, value in enumerate(tables.s1) if value < 0.9] == [2, 3]
    assert [place for place, value in enumerate(tables.s2) if value < 0.9] == [1, 3]
    assert [place for place, value in enumerate(tables.s3) if value < 0.9] == [0, 3]


def test_two_flat_colours_are_as_alike_as_the_formula_says() -> None:
    # No variance: SSIM = (2 a b + C1) / (a^2 + b^2 + C1) with C1 = (0.01 x 1)^2; a = 0.2, b = 0.6.
    video = np.stack([np.full((16, 16, 3), value, np.float32) for value in (0.2, 0.6)])
    assert likeness(video, quads=False).s1[0] == pytest.approx(
        (0.24 + 1e-4) / (0.4 + 1e-4), abs=1e-4
    )


def test_what_moves_in_a_corner_is_seen_by_the_worst_tile() -> None:
    video = with_a_mover(a_still_video())
    whole, tiled = likeness(video), likeness(video, by="min-tile")
    assert min(whole.s1) > 0.8
    assert sum(tiled.s1) / len(tiled.s1) < 0.75
    assert merges_above(Blocks(whole), 0.8).runs == ((1, 2),)
    assert merges_above(Blocks(tiled), 0.8).merges_nothing


def test_a_tile_is_never_more_alike_than_the_whole() -> None:
    video = np.random.default_rng(1).random((9, 20, 28, 3), np.float32)
    whole, tiled = likeness(video), likeness(video, by="min-tile")
    assert all(tile <= picture for tile, picture in zip(tiled.s1, whole.s1, strict=True))


def test_tables_for_quads_are_made_only_when_asked_for() -> None:
    tables = likeness(a_still_video(), quads=False)
    assert (len(tables.s1), tables.s2, tables.s3) == (16, (), ())


def test_pictures_smaller_than_the_window_are_compared_all_the_same() -> None:
    assert likeness(a_still_video(side=8), by="min-tile").s1[0] == pytest.approx(1.0, abs=1e-6)


def test_frames_that_are_no_pictures_and_unknown_words_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        likeness(np.full((9, 16, 16, 3), np.nan, np.float32))
    with pytest.raises(ValueError, match="not 'tiles'"):
        likeness(a_still_video(), by="tiles")


def test_a_run_is_as_alike_as_its_first_frame_is_to_the_ends_of_its_latents() -> None:
    # given 33 frames of one picture, another from frame 11 to 18: within blocks 9 .. 16 and 17 ..
    # 24
    chance = np.random.default_rng(3)
    one, other = (chance.random((24, 24, 3)).astype(np.float32) for _ in range(2))
    frames = np.stack([other if 11 <= n <= 18 else one for n in range(33)])

    found = spans(frames, 4)

    # the first strays nowhere; 9 differs from 12 and 16, 17 from 20 and 24
    assert found.pairs[0] == pytest.approx(1.0)
    assert max(found.pairs[1:]) < 0.3
    assert max(found.quads) < 0.3
    assert spans(np.stack([one] * 33), 4).quads == pytest.approx((1.0, 1.0))
    assert spans(frames, 4, quads=False).quads == ()
