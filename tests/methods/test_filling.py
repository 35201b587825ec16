"""Whole clips from kept frames: decoded ones survive, and those between them are near the truth."""

from __future__ import annotations

import numpy as np
import pytest

from tests.methods.test_flow import a_texture
from tests.workers.test_video import a_clip
from vidplat.methods.filling import frames as filling
from vidplat.methods.filling.flow import Pair
from vidplat.methods.filling.frames import filled
from vidplat.methods.filling.moments import Moment, true_moments, true_times
from vidplat.quality import psnr_db


def decoded_of(clip: np.ndarray, key: tuple[int, ...]) -> np.ndarray:
    """What a perfect model would decode: the true frames at their true times."""
    return clip[list(true_times(key))]


def restored(clip: np.ndarray, key: tuple[int, ...]) -> np.ndarray:
    """`clip` again, of what the latents `key` would decode to."""
    return filled(decoded_of(clip, key), true_moments(key, len(clip)))


def dissolved(decoded: np.ndarray, moments: tuple[Moment, ...]) -> np.ndarray:
    """As a rival that knows no motion would fill in."""
    return np.stack(
        [
            decoded[m.before]
            if m.is_decoded
            else Pair(decoded[m.before], decoded[m.before + 1]).dissolved(float(m.part))
            for m in moments
        ]
    )


@pytest.mark.parametrize("key", [(0, 4), (0, 1, 4), (0, 3, 4), (0, 1, 2, 3, 4)])
def test_decoded_frames_come_back_bit_for_bit_at_their_own_times(key: tuple[int, ...]) -> None:
    clip = a_clip(17)
    whole = restored(clip, key)

    assert whole.shape == clip.shape and whole.dtype == np.uint8
    for q, at in enumerate(true_times(key)):
        assert np.array_equal(whole[at], decoded_of(clip, key)[q])


def test_all_latents_make_the_clip_itself() -> None:
    clip = a_clip(17)

    assert np.array_equal(restored(clip, (0, 1, 2, 3, 4)), clip)


def test_uneven_keys_keep_the_clips_speed() -> None:
    clip = a_clip(33)

    assert psnr_db(restored(clip, (0, 1, 2, 8)), clip) > 30


def test_flow_beats_dissolving() -> None:
    clip, key = a_clip(33), (0, 3, 8)
    by_dissolving = dissolved(decoded_of(clip, key), true_moments(key, 33))

    assert psnr_db(restored(clip, key), clip) > psnr_db(by_dissolving, clip) + 3


def test_a_cut_inside_a_gap_shows_only_the_two_scenes() -> None:
    first, second = a_texture(1, 64, 64), a_texture(2, 64, 64)
    decoded = np.stack([first] * 3 + [second] * 2)  # latents 0 and 3: frames 0, 3, 6 | 9, 12

    whole = filled(decoded, true_moments((0, 3), 13))

    assert [bool(np.array_equal(frame, first)) for frame in whole] == [True] * 8 + [False] * 5
    assert all(np.array_equal(frame, second) for frame in whole[8:])


def test_moments_that_need_a_frame_beyond_the_last_are_refused() -> None:
    with pytest.raises(ValueError, match="the moments need 9 decoded frames, there are 5"):
        filled(a_clip(5), true_moments((0, 1, 2), 9))


def test_one_latent_is_held() -> None:
    one = a_clip(1)

    assert np.array_equal(filled(one, true_moments((0,), 5)), np.repeat(one, 5, axis=0))


def test_each_pair_of_neighbours_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    class Counted(Pair):
        def __init__(self, first: np.ndarray, second: np.ndarray) -> None:
            made.append(1)
            super().__init__(first, second)

    monkeypatch.setattr(filling, "Pair", Counted)
    restored(a_clip(17), (0, 1, 4))

    assert len(made) == 4  # frames 4 | 7 | 10 | 13 | 16; the first gap lacks nothing
