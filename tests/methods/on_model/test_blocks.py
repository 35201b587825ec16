"""The words and the arithmetic of models that make a video block by block."""

from __future__ import annotations

from typing import Any

import pytest

from vidplat.methods.blocks import (
    attended,
    chosen_steps,
    document,
    passes,
    read,
    spans,
)
from vidplat.methods.kinds import Task
from vidplat.methods.language import unsuited
from vidplat.methods.model_shape import Blocks
from vidplat.workers.blocks.memory import Window

FOUR = Blocks(3, (1000, 750, 500, 250), 5.0, sink=1, recent=6, trained=21)


def test_settings_are_read_as_they_were_written() -> None:
    assert read(document(FOUR)) == FOUR
    assert document(FOUR)["steps"] == [1000, 750, 500, 250]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"block": None}, "block must be a whole number"),
        ({"sink": True}, "sink must be a whole number"),
        ({"steps": "1000"}, "steps must be a list of numbers"),
        ({"steps": []}, "steps must fall from 1000"),
        ({"steps": [750, 500]}, "steps must fall from 1000"),
        ({"steps": [1000, 500, 500]}, "steps must fall from 1000"),
        ({"steps": [1000, 0]}, "stay above 0"),
        ({"shift": 0}, "shift must be above 0"),
        ({"recent": 2}, "the window must hold a block"),
        ({"recent": 21}, r"sink \+ recent must not be more than trained"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_the_reason(
    wrong: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        read({**document(FOUR), **wrong})


def test_settings_that_are_missing_are_named() -> None:
    with pytest.raises(ValueError, match="it lacks trained, shift"):
        read({"block": 3, "sink": 1, "recent": 6, "steps": [1000]})


def test_a_video_is_cut_into_blocks_of_which_the_last_may_be_short() -> None:
    assert spans(FOUR, 9) == [(0, 3), (3, 3), (6, 3)]
    assert spans(FOUR, 7) == [(0, 3), (3, 3), (6, 1)]
    # Three blocks of four steps and one pass more.
    assert passes(FOUR, 9, 4) == passes(FOUR, 7, 4) == 15


@pytest.mark.parametrize("sink", [0, 1, 4])
@pytest.mark.parametrize("recent", [3, 5, 6, 17])
def test_a_block_attends_to_as_many_frames_as_the_samplers_window_holds(
    sink: int, recent: int
) -> None:
    blocks, window = Blocks(3, (1000,), 5.0, sink, recent, 21), Window(sink, recent, 21)
    for start, frames in spans(blocks, 44):
        assert attended(blocks, start, frames) == len(window.held(start, frames)) + frames


def test_fewer_steps_are_spread_over_the_models_own() -> None:
    assert chosen_steps(FOUR, 4) == FOUR.steps
    assert chosen_steps(FOUR, 2) == (1000, 500)
    assert chosen_steps(FOUR, 1) == (1000,)
    assert chosen_steps(FOUR, 3) == (1000, 750, 250)  # places 0, 1.33 and 2.67 of the list
    for count in (0, 5):
        with pytest.raises(ValueError, match=f"in 1 to 4 steps, not {count}"):
            chosen_steps(FOUR, count)


def test_an_edit_begins_at_its_strength_and_takes_as_many_steps() -> None:
    assert chosen_steps(FOUR, 4, 0.4) == (400, 300, 200, 100)
    assert chosen_steps(FOUR, 2, 0.6) == (600, 300)


VIDEO_IN_BLOCKS = Task(9, 4, is_edit=False, in_blocks=True)
EDIT_IN_BLOCKS = Task(9, 4, is_edit=True, in_blocks=True)


@pytest.mark.parametrize(
    "method", ["auto", "full", "steps", "steps:2", "lipar", "lipar:tau1=0.3,recovery=noisy"]
)
def test_methods_that_such_a_model_takes(method: str) -> None:
    assert unsuited(method, EDIT_IN_BLOCKS) == ""


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("hsa:50", "hsa is not made for"),
        ("sparse:k=3,dense_steps=2", "sparse is not made for"),
        ("teacache", "teacache is not made for"),
        ("euler", "euler is not made for"),
        ("lipar", "this row has none: add input_video"),
    ],
)
def test_methods_that_it_does_not_take_are_refused_with_the_reason(method: str, said: str) -> None:
    assert said in unsuited(method, VIDEO_IN_BLOCKS)


def test_an_edit_s_method_must_suit_such_a_model_too() -> None:
    assert "recovery=bias is not made for" in unsuited("lipar:recovery=bias", EDIT_IN_BLOCKS)
    assert "euler is not made for" in unsuited("lipar+euler", EDIT_IN_BLOCKS)
