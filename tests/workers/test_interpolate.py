"""Frames between frames: exact where nothing is missing, near the truth for motion, held at
cuts.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.workers.test_video import a_clip
from vidplat.quality import psnr_db
from vidplat.workers.interpolate import stretch


def test_input_frames_at_output_moments_come_back_unchanged() -> None:
    clip = a_clip(5)

    longer = stretch(clip, 9)  # moments 0, 0.5, 1, ..., 4

    assert longer.shape == (9, 64, 64, 3)
    assert np.array_equal(longer[::2], clip)


def test_steady_motion_is_filled_in_better_than_by_repeating_or_blending() -> None:
    truth = a_clip(17)
    kept = truth[::4]  # the disc moves 4 pixels between kept frames

    filled = stretch(kept, 17)
    repeated = np.repeat(kept, 4, axis=0)[2 : 2 + 17]
    blended = np.stack([_blend(kept, t / 4) for t in range(17)])

    assert psnr_db(filled, truth) > psnr_db(blended, truth) + 3
    assert psnr_db(filled, truth) > psnr_db(repeated, truth) + 3
    assert psnr_db(filled, truth) > 30


def _blend(frames: np.ndarray, moment: float) -> np.ndarray:
    before = min(int(moment), len(frames) - 2)
    part = moment - before
    return ((1 - part) * frames[before] + part * frames[before + 1]).astype(np.uint8)


def test_a_cut_is_held_not_blended() -> None:
    rng = np.random.default_rng(0)
    scenes = rng.integers(0, 255, (2, 64, 64, 3), np.uint8)

    longer = stretch(scenes, 5)

    assert all(any(np.array_equal(frame, scene) for scene in scenes) for frame in longer)


def test_a_still_picture_stays_still() -> None:
    still = np.repeat(a_clip(1), 3, axis=0)

    assert np.array_equal(stretch(still, 9), np.repeat(a_clip(1), 9, axis=0))


@pytest.mark.parametrize("count", [1, 2, 7])
def test_one_frame_is_repeated(count: int) -> None:
    assert np.array_equal(stretch(a_clip(1), count), np.repeat(a_clip(1), count, axis=0))


def test_frames_too_small_for_flow_are_cross_faded() -> None:
    tiny = np.stack([np.zeros((8, 8, 3)), np.full((8, 8, 3), 100)]).astype(np.uint8)

    assert stretch(tiny, 3)[1].mean() == 50


def test_the_same_frames_are_filled_in_the_same_way() -> None:
    assert np.array_equal(stretch(a_clip(5), 16), stretch(a_clip(5), 16))
