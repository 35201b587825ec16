"""Whole clips from kept frames: decoded frames survive, moments are true, insertion is exact,
deeper is not worse.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from tests.methods.test_flow import a_texture
from tests.workers.test_video import a_clip
from vidplat.methods.eco.keyframes import oracle, path_cost, uniform
from vidplat.methods.filling import frames as edge
from vidplat.methods.filling.flow import Pair
from vidplat.methods.filling.frames import (
    DEPTHS,
    FourScore,
    code_score,
    filled,
    inserted,
    reconstruct,
)
from vidplat.methods.filling.moments import true_moments, true_times
from vidplat.quality import psnr_db


def decoded_of(clip: np.ndarray, key: tuple[int, ...]) -> np.ndarray:
    """What a perfect model would decode: the true frames at their true times."""
    return clip[list(true_times(key))]


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("key", [(0, 4), (0, 1, 4), (0, 3, 4), (0, 1, 2, 3, 4)])
def test_decoded_frames_come_back_bit_for_bit_at_their_own_times(
    key: tuple[int, ...], depth: int
) -> None:
    clip = a_clip(17)
    whole = reconstruct(decoded_of(clip, key), key, 17, depth=depth)

    assert whole.shape == clip.shape and whole.dtype == np.uint8
    for q, at in enumerate(true_times(key)):
        assert np.array_equal(whole[at], decoded_of(clip, key)[q])


def test_all_latents_make_the_clip_itself() -> None:
    clip = a_clip(17)

    assert np.array_equal(reconstruct(clip, range(5), 17, depth=3), clip)


def test_uneven_keys_keep_the_clips_speed() -> None:
    clip = a_clip(33)
    key = (0, 1, 2, 8)
    by_time = reconstruct(decoded_of(clip, key), key, 33)
    evenly = inserted(decoded_of(clip, key), 33, depth=1).frames

    assert psnr_db(by_time, clip) > 30
    assert (
        psnr_db(by_time, clip) > psnr_db(evenly, clip) + 5
    )  # the right frames, at the wrong times


def test_flow_beats_dissolving_and_the_deeper_depths_hold_it() -> None:
    clip = a_clip(33)
    key = (0, 3, 8)
    by_depth = [
        psnr_db(reconstruct(decoded_of(clip, key), key, 33, depth=depth), clip) for depth in DEPTHS
    ]

    assert by_depth[1] > by_depth[0] + 3
    assert min(by_depth[1:]) > by_depth[1] - 0.5


def test_another_rate_has_as_many_frames_as_it_lasts() -> None:
    clip = a_clip(17)

    faster = reconstruct(decoded_of(clip, (0, 2, 4)), (0, 2, 4), 17, fps=16, output_fps=24)

    assert len(faster) == 25  # 16 / 16 s at 24 per second, and the first
    assert np.array_equal(faster[::3], clip[::2])  # every 3/24 s is 2/16 s, which the key decodes


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_cut_inside_a_gap_shows_only_the_two_scenes(depth: int) -> None:
    first, second = a_texture(1, 64, 64), a_texture(2, 64, 64)
    decoded = np.stack([first] * 3 + [second] * 2)  # latents 0 and 3: frames 0, 3, 6 | 9, 12

    whole = reconstruct(decoded, (0, 3), 13, depth=depth)

    assert [bool(np.array_equal(frame, first)) for frame in whole] == [True] * 8 + [False] * 5
    assert all(np.array_equal(frame, second) for frame in whole[8:])
    halved = inserted(decoded, 13, depth=depth).frames
    assert all(np.array_equal(frame, first) or np.array_equal(frame, second) for frame in halved)


def test_flicker_of_a_made_frame_is_taken_out_and_decoded_frames_are_not_touched() -> None:
    clip = a_clip(5)
    clip[2] += (
        16  # the whole frame is brighter than its neighbours; flow still finds where everything is
    )
    steady = edge.steadied(clip, [False, False, True, False, False])

    assert np.abs(steady[2].astype(int) - a_clip(5)[2]).mean() < 0.5
    assert all(np.array_equal(steady[n], clip[n]) for n in (0, 1, 3, 4))
    assert np.array_equal(edge.steadied(clip, [False] * 5), clip)


def test_what_does_not_fit_is_refused() -> None:
    clip = a_clip(5)

    with pytest.raises(ValueError, match="3 keyframes decode to 9 frames, not to 5"):
        reconstruct(clip, (0, 1, 2), 9)
    with pytest.raises(ValueError, match="one of 0, 1, 2, 3, not 4"):
        reconstruct(clip, (0, 1), 5, depth=4)
    with pytest.raises(ValueError, match="5 decoded frames do not fit into 4"):
        inserted(clip, 4)


def test_one_latent_is_held() -> None:
    one = a_clip(1)

    assert np.array_equal(reconstruct(one, (0,), 5), np.repeat(one, 5, axis=0))
    assert np.array_equal(inserted(one, 3).frames, np.repeat(one, 3, axis=0))


def test_each_pair_of_neighbours_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    class Counted(Pair):
        def __init__(self, first: np.ndarray, second: np.ndarray) -> None:
            made.append(1)
            super().__init__(first, second)

    monkeypatch.setattr(edge, "Pair", Counted)
    clip = a_clip(17)
    filled(decoded_of(clip, (0, 1, 4)), true_moments((0, 1, 4), 17))

    assert len(made) == 4  # frames 4 | 7 | 10 | 13 | 16; the first gap lacks nothing


# --- insertion ------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [5, 6, 9, 14])
@pytest.mark.parametrize("depth", DEPTHS)
def test_insertion_is_exact_and_keeps_the_decoded_frames_in_order(length: int, depth: int) -> None:
    clip = a_clip(9)[::2]

    done = inserted(clip, length, depth=depth)

    assert len(done.frames) == len(done.places) == length
    assert all(one < other for one, other in pairwise(done.places))
    kept = [n for n, place in enumerate(done.places) if place.denominator == 1]
    assert [done.places[n] for n in kept] == list(range(5))
    assert np.array_equal(done.frames[kept], clip)
    assert length - len(kept) == length - 5  # N_ins, each made once


def test_the_largest_score_is_halved_first_and_of_equals_the_earliest() -> None:
    """A score is the length of its interval times a weight, so the order can be followed by
    hand."""
    clip = a_clip(4)

    def weighed(pair: Pair, left: Fraction, right: Fraction) -> float:
        return float(right - left) * (5 if left >= 2 else 2)

    # Scores 2, 2, 5; then 2.5 + 2.5 of the last; both halves (1.25 each); then the first of two 2,
    # then the other.
    places = [inserted(clip, length, weighed).places for length in range(4, 10)]

    new = [min(set(after) - set(before)) for before, after in pairwise(places)]
    assert new == [Fraction(5, 2), Fraction(9, 4), Fraction(11, 4), Fraction(1, 2), Fraction(3, 2)]


def test_a_made_frame_is_the_middle_of_its_interval() -> None:
    clip = a_clip(9)[::4]
    done = inserted(clip, 4, lambda pair, left, right: float(left == 1))

    assert done.places == (0, 1, Fraction(3, 2), 2)
    assert np.array_equal(done.frames[2], Pair(clip[1], clip[2]).at(0.5))


# --- scores ---------------------------------------------------------------------------------------


def test_equal_frames_score_nothing_and_opposite_ones_all() -> None:
    red, blue = np.zeros((2, 16, 16, 3), np.uint8)
    red[..., 0], blue[..., 2] = 255, 255

    assert code_score(Pair(red, red), Fraction(0), Fraction(1)) == pytest.approx(0, abs=1e-6)
    # Texture: two of three channels differ by 1, 2/3; colours are orthogonal, 1.
    assert code_score(Pair(red, blue), Fraction(0), Fraction(1)) == pytest.approx(
        0.8 * 2 / 3 + 0.8, abs=1e-4
    )


def test_texture_is_the_tenth_that_differs_most() -> None:
    a = np.zeros((20, 20, 3), np.uint8)
    b = a.copy()
    b[0] = 255  # 20 of the 40 pixels of a tenth

    assert edge.texture(Pair(a, b)) == pytest.approx(0.5)


def test_structure_sees_edges_and_not_brightness() -> None:
    stripes = np.repeat(
        (np.arange(32) // 4 % 2 * 100).astype(np.uint8)[None, :, None], 32, 0
    ).repeat(3, 2)
    turned = stripes.transpose(1, 0, 2).copy()

    assert edge.structure(Pair(stripes, stripes + 50)) == pytest.approx(0, abs=1e-5)
    assert edge.structure(Pair(stripes, turned)) == pytest.approx(1, abs=1e-3)


def test_four_terms_are_weighed_against_the_clips_own_intervals() -> None:
    clip = a_clip(13)[[0, 1, 2, 3, 12]]  # the last interval moves nine pixels, the others one
    score = FourScore(clip)
    values = [score(Pair(clip[n], clip[n + 1]), Fraction(n), Fraction(n + 1)) for n in range(4)]

    assert np.argmax(values) == 3
    assert all(0 < value < 4 for value in values)
    assert inserted(clip, 8, score).places[-4:] == tuple(Fraction(n, 4) for n in (13, 14, 15, 16))


def test_density_is_the_entropy_of_both_ends() -> None:
    still = np.repeat(a_clip(1), 4, axis=0)
    score = FourScore(still, entropy=(0.0, 1.0, 2.0, 9.0))
    values = [score(Pair(still[n], still[n + 1]), Fraction(n), Fraction(n + 1)) for n in range(3)]

    # Means 0.5, 1.5, 5.5: median 1.5, MAD 1. Motion, structure and texture are 0 everywhere: a half
    # each.
    expected = [1.5 + 1 / (1 + np.exp(-x)) for x in (-1, 0, 4)]
    assert values == pytest.approx(expected, abs=1e-4)
    assert (
        score(Pair(still[0], still[0]), Fraction(0), Fraction(1, 2)) < values[0]
    )  # entropy 0 and 0.5 there
    with pytest.raises(ValueError, match="4 decoded frames have as many entropies, not 2"):
        FourScore(still, entropy=(1.0, 2.0))


# --- the oracle on pixels -------------------------------------------------------------------------


def test_the_oracle_of_filling_in_is_not_worse_than_uniform_keys() -> None:
    """A clip that stands, then moves: the best frames to keep lie where it moves."""
    moving = a_clip(9)
    clip = np.concatenate([np.repeat(moving[:1], 24, axis=0), moving])
    cells = clip[::4]

    def cost(i: int, j: int) -> float:
        pair = Pair(cells[i], cells[j])
        made = [pair.dissolved((f - i) / (j - i)).astype(float) for f in range(i + 1, j)]
        return sum(
            float(np.square(frame - cells[i + 1 + n]).mean()) for n, frame in enumerate(made)
        )

    best = oracle(len(cells), 4, cost)

    assert best == (0, 6, 7, 8)
    assert path_cost(best, cost) == 0 < path_cost(uniform(9, 4), cost)
