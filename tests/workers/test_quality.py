"""Quality figures against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.workers.test_video import a_clip
from vidplat.quality import flicker, motion_energy, psnr_db, ssim


def test_equal_videos_have_infinite_psnr_and_ssim_one() -> None:
    clip = a_clip(3)

    assert psnr_db(clip, clip) == math.inf
    assert ssim(clip, clip) == pytest.approx(1.0)


def test_an_error_of_one_level_everywhere_is_48_db() -> None:
    clip = a_clip(2)

    # 20 log10(255) = 48.13
    assert psnr_db(clip, clip + 1) == pytest.approx(48.13, abs=0.01)


def test_ssim_falls_with_noise_and_is_symmetric() -> None:
    clip = a_clip(2)
    rng = np.random.default_rng(0)
    noisy = [
        np.clip(clip + rng.normal(0, sigma, clip.shape), 0, 255).astype(np.uint8)
        for sigma in (5, 25)
    ]

    assert 1 > ssim(clip, noisy[0]) > ssim(clip, noisy[1]) > 0
    assert ssim(clip, noisy[1]) == pytest.approx(ssim(noisy[1], clip))


def test_two_flat_grey_images_have_the_ssim_of_the_formula() -> None:
    # Without variance only the luminance term stays: (2 * 100 * 110 + C1) / (100^2 + 110^2 + C1),
    # C1 = 6.5025.
    dark, light = (np.full((1, 32, 32, 3), level, np.uint8) for level in (100, 110))

    assert ssim(dark, light) == pytest.approx(
        (2 * 100 * 110 + 6.5025) / (100**2 + 110**2 + 6.5025), abs=1e-5
    )


def test_alternating_brightness_flickers_and_a_steady_fade_does_not() -> None:
    levels = np.array([0, 51, 0, 51]), np.array([0, 51, 102, 153])
    blink, fade = (
        np.broadcast_to(level[:, None, None, None], (4, 8, 8, 3)).astype(np.uint8)
        for level in levels
    )

    assert flicker(blink) == pytest.approx(0.4)  # |0 - 102 + 0| / 255
    assert flicker(fade) == 0
    assert motion_energy(fade) == pytest.approx(0.2)  # 51 / 255


def test_a_single_frame_neither_moves_nor_flickers() -> None:
    assert (flicker(a_clip(1)), motion_energy(a_clip(1))) == (0.0, 0.0)
