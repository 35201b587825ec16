"""The counter counts what ran, and agrees with the scheduler's formula."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.methods.on_model.tiny import a_tiny_transformer, answer
from vidplat.methods.seams.layouts import layout_of
from vidplat.methods.seams.tokens import hooked
from vidplat.scheduler.work import forward_gflop
from vidplat.workers.models.catalogue import describe_model
from vidplat.workers.survey.flops import counted


@pytest.mark.parametrize("frames", [1, 5])
def test_a_stock_pass_counts_as_the_formula_says(frames: int) -> None:
    twin = a_tiny_transformer("wan", frames=frames)
    _, flipbook = describe_model("flipbook")
    shape = replace(flipbook, layers=3, width=36, ffn_width=48, text_tokens=5)
    with counted(twin.model) as found:
        answer(twin)
    linear, attention = forward_gflop(shape, frames * 4 * 6)
    assert (found.linear, found.attention) == (round(linear * 1e9), round(attention * 1e9))


def test_dropped_tokens_are_not_counted() -> None:
    twin = a_tiny_transformer("wan")
    with counted(twin.model) as whole:
        answer(twin)

    def half(here: Any, device: Any) -> torch.Tensor:
        return torch.arange(0, here.grid.tokens, 2)

    with (
        hooked(twin.model, layout_of(twin.model), "test", half, lambda here, rows, out: out),
        counted(twin.model) as kept,
    ):
        answer(twin)
    text_keys = (
        3 * 4 * 5 * 36 * 36
    )  # keys and values of the 5 text tokens in 3 blocks do not depend on the video
    assert kept.linear - text_keys == (whole.linear - text_keys) // 2
    assert kept.attention == whole.attention // 4  # half the queries, half the keys


def test_nothing_that_ran_outside_is_counted() -> None:
    twin = a_tiny_transformer("wan")
    answer(twin)
    with counted(twin.model) as found:
        pass
    assert found.total == 0
