"""Moments: decoded frames keep their own times, and every frame of the video has its place."""

from __future__ import annotations

import json
from fractions import Fraction
from itertools import combinations, pairwise

import pytest

from vidplat.methods.filling.moments import (
    Filling,
    Moment,
    filling_of,
    moments_among,
    true_moments,
    true_times,
)
from vidplat.methods.model_shape import decoded_frames


def test_a_key_of_all_latents_plays_as_it_was() -> None:
    assert true_times(range(21)) == tuple(range(81))
    assert all(
        moment == Moment(n, Fraction(0)) for n, moment in enumerate(true_moments(range(21), 81))
    )


def test_decoded_frames_are_spread_over_their_own_gap() -> None:
    # Latents 0, 1, 4: the first gap holds frames 0..4 as they are, the second stretches four frames
    # over 4..16.
    assert true_times((0, 1, 4)) == (0, 1, 2, 3, 4, 7, 10, 13, 16)
    assert true_times((0, 2), factor=8) == (0, 2, 4, 6, 8, 10, 12, 14, 16)


@pytest.mark.parametrize("k", [2, 3, 5])
def test_moments_are_ascending_as_many_as_frames_and_hit_every_decoded_frame(k: int) -> None:
    for inside in combinations(range(1, 6), k - 2):
        key = (0, *inside, 6)
        times, moments = true_times(key), true_moments(key, 25)
        shown = [_time(moment, times) for moment in moments]

        assert shown == list(range(25))
        assert all(one < other for one, other in pairwise(times))
        decoded = {moment.before: n for n, moment in enumerate(moments) if moment.is_decoded}
        assert decoded == dict(enumerate(times))  # each decoded frame is shown, at its own time


def test_every_decoded_frame_has_a_time() -> None:
    assert len(true_times((0, 3, 4))) == decoded_frames(3, 4) == 9
    assert len(true_times((0, 3, 4), factor=8)) == decoded_frames(3, 8) == 17


def test_frames_between_two_that_are_decoded_divide_the_way_evenly() -> None:
    assert moments_among((0, 1, 4), 5) == (
        Moment(0, Fraction(0)),
        Moment(1, Fraction(0)),
        Moment(1, Fraction(1, 3)),
        Moment(1, Fraction(2, 3)),
        Moment(2, Fraction(0)),
    )


def test_what_a_key_does_not_cover_is_held() -> None:
    moments = true_moments((1, 2), 17)

    # Frames 4..8 are decoded; 0..3 show the first of them, 9..16 the last.
    assert [moment.before for moment in moments] == [0] * 4 + [0, 1, 2, 3, 4] + [4] * 8
    assert all(moment.is_decoded for moment in moments)


@pytest.mark.parametrize("key", [(), (3, 3), (4, 2), (-1, 2)])
def test_what_is_no_key_is_refused(key: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="ascending latent frames"):
        true_times(key)


def _time(moment: Moment, times: tuple[int, ...]) -> Fraction:
    if moment.is_decoded:
        return Fraction(times[moment.before])
    return times[moment.before] + moment.part * (times[moment.before + 1] - times[moment.before])


def test_a_filling_survives_its_way_to_another_worker() -> None:
    filling = Filling(true_moments((0, 2, 8), 33))
    assert sum(not moment.is_decoded for moment in filling.moments) == 33 - 9
    assert filling_of(json.loads(json.dumps(filling.document()))) == filling


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"moments": [[0, 1]]},
        {"moments": [[0, 1, 0]]},
        {"moments": [[0, 3, 2]]},
        {"moments": [[-1, 0, 1]]},
        {"moments": ["deep"]},
    ],
)
def test_what_is_no_filling_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not a filling"):
        filling_of(document)
