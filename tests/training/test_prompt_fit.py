"""Prompt fit is exact: true videos pass every check, and each wrong word fails its own."""

import numpy as np
import pytest

from flipbook_training import world
from flipbook_training.prompt_fit import by_attribute, prompt_fit


def a_true_video(
    caption: str, *, num_frames: int = 33, side: int = 64, seed: int = 3
) -> np.ndarray:
    scene = world.parse(caption)
    layout = world.draw_layout(scene, np.random.default_rng(seed))
    return world.render(scene, layout, num_frames=num_frames, height=side, width=side)


@pytest.mark.parametrize(
    "seeds", [range(10), pytest.param(range(10, 40), marks=pytest.mark.thorough)]
)
@pytest.mark.parametrize(("num_frames", "side"), [(33, 64), (65, 64), (33, 48)])
def test_true_videos_show_everything_their_caption_says(
    num_frames: int, side: int, seeds: range
) -> None:
    for seed in seeds:
        caption, video = world.example(seed, num_frames=num_frames, height=side, width=side)
        fit = prompt_fit(video, caption)
        assert [check for check in fit.checks if not check.ok] == [], caption
        assert fit.share == 1.0


CAPTION = "a small red circle moves slowly left on a striped navy background"


@pytest.mark.parametrize(
    ("attribute", "said", "shown"),
    [
        ("colour", "red", "blue"),
        ("size", "small", "large"),
        ("shape", "circle", "cross"),
        ("direction", "left", "down"),
        ("speed", "slowly", "quickly"),
        ("texture", "striped", "plain"),
        ("background", "navy", "gray"),
    ],
)
def test_each_wrong_word_fails_its_own_check_and_no_other(
    attribute: str, said: str, shown: str
) -> None:
    video = a_true_video(CAPTION.replace(said, shown))
    wrong = [check.attribute for check in prompt_fit(video, CAPTION).checks if not check.ok]
    assert wrong == [attribute]


def test_a_pan_to_the_other_side_is_noticed() -> None:
    caption = "a small red circle on a checkered gray background, the camera pans left"
    fit = prompt_fit(a_true_video(caption.replace("left", "right")), caption)
    assert [(check.attribute, check.found) for check in fit.checks if not check.ok] == [
        ("direction", "right")
    ]


def test_an_orbit_the_other_way_round_is_noticed() -> None:
    caption = "a small white square orbits clockwise on a plain black background"
    fit = prompt_fit(a_true_video(caption.replace("clockwise", "counterclockwise")), caption)
    assert [check.attribute for check in fit.checks if not check.ok] == ["direction"]


def test_noise_shows_almost_nothing() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (33, 64, 64, 3)).astype(np.uint8)
    assert prompt_fit(noise, CAPTION).share <= 0.5


def test_an_empty_picture_has_no_thing_in_it() -> None:
    empty = np.zeros((33, 64, 64, 3), np.uint8)
    found = {check.attribute: check.found for check in prompt_fit(empty, CAPTION).checks}
    assert (found["colour"], found["shape"], found["direction"]) == ("none", "none", "none")


def test_shares_are_counted_per_attribute() -> None:
    right, wrong = a_true_video(CAPTION), a_true_video(CAPTION.replace("red", "green"))
    shares = by_attribute([prompt_fit(right, CAPTION), prompt_fit(wrong, CAPTION)])
    assert shares["colour"] == (0.5, 2)
    assert shares["shape"] == (1.0, 2)
