"""The synthetic world: captions and scenes say the same, and the renderer draws what they say."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flipbook_training import world

seeds = st.integers(0, 2**32)


@given(seeds)
def test_every_caption_reads_back_as_its_scene(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = world.draw_scene(rng)
    assert world.parse(world.describe(scene, rng)) == scene
    assert world.parse(world.describe(scene)) == scene


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "a dog in the park",
        "a small red circle on a plain pink background",
        "a small red circle moves sideways on a plain gray background",
        "a small red circle on a plain gray background, the camera pans up",
        "a small red circle and a large red square and a small blue cross on a plain gray "
        "background",
    ],
)
def test_words_outside_the_grammar_are_refused(caption: str) -> None:
    with pytest.raises(world.NotInGrammar):
        world.parse(caption)


@pytest.mark.parametrize("shape", world.SHAPES)
@pytest.mark.parametrize("size", world.SIZES)
def test_all_shapes_of_a_size_have_the_same_area(shape: str, size: str) -> None:
    radius = world.SIZES[size]
    axis = ((np.arange(512) + 0.5) / 512 - 0.5).astype(np.float32)
    covered = world.coverage(shape, radius, axis[None, :], axis[:, None], 1 / 512).mean()
    assert covered == pytest.approx(math.pi * radius**2, rel=0.01)


def test_the_same_seed_gives_the_same_video() -> None:
    first, again = world.example(7), world.example(7)
    assert first[0] == again[0]
    assert np.array_equal(first[1], again[1])


def test_things_are_brighter_than_any_background() -> None:
    brightest_ground = max(max(tone) for tones in world.BACKGROUNDS.values() for tone in tones)
    dimmest_thing = min(max(colour) for colour in world.COLOURS.values())
    assert brightest_ground <= 0.5
    assert dimmest_thing >= 0.9


def test_a_slow_drift_moves_by_its_speed() -> None:
    scene = world.parse("a small white square moves slowly right on a plain black background")
    layout = world.Layout((((0.5, 0.5),),), ((0.0,),), ((0.0, 0.0),))
    video = world.render(scene, layout, num_frames=33, height=64, width=64)
    columns = [(frame[:, :, 0] > 128).any(0).nonzero()[0].mean() for frame in (video[0], video[32])]
    # 0.10 of the width per second, 32 frames at 16 fps are 2 s: 0.2 * 64 = 12.8 pixels
    assert columns[1] - columns[0] == pytest.approx(12.8, abs=1.0)


def test_a_thing_that_leaves_on_one_side_enters_on_the_other() -> None:
    scene = world.parse("a small white square stays still on a plain black background")
    video = world.render(
        scene,
        world.Layout((((0.0, 0.5),),), ((0.0,),), ((0.0, 0.0),)),
        num_frames=1,
        height=64,
        width=64,
    )
    bright = (video[0, 32, :, 0] > 128).nonzero()[0]
    assert bright.min() == 0
    assert bright.max() == 63


def test_a_cut_shows_two_scenes_of_half_the_length_each() -> None:
    caption = (
        "a small red circle on a plain navy background, cut to a large white square on a "
        "plain maroon background"
    )
    scene = world.parse(caption)
    layout = world.draw_layout(scene, np.random.default_rng(0))
    video = world.render(scene, layout, num_frames=33, height=32, width=32)
    changes = np.abs(np.diff(video.astype(float), axis=0)).mean((1, 2, 3))
    assert changes.argmax() == 16
    assert (np.delete(changes, 16) == 0).all()
