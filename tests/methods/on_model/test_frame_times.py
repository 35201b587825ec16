"""Frames that are left of a longer video are told their own times."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.methods.on_model.test_seams import as_it_is, traces
from tests.methods.on_model.tiny import Twin, a_tiny_pair, a_tiny_transformer, answer
from vidplat.errors import MethodRefused
from vidplat.methods.seams.attention import Attend, AttentionCall, linked
from vidplat.methods.seams.frame_times import Times, timed
from vidplat.methods.seams.layouts import layout_of
from vidplat.methods.seams.tokens import Pass, hooked

TIMED = ("wan", "wan-5b", "ltx", "hunyuan", "hunyuan-true-cfg")
KEPT = (0, 2, 4)  # of 5 frames of 4 x 6 tokens
P = 4 * 6


@pytest.fixture(params=TIMED)
def twin(request: pytest.FixtureRequest) -> Twin:
    return a_tiny_transformer(request.param)


def cropped(twin: Twin, frames: tuple[int, ...] = KEPT) -> Twin:
    """The same video with these frames alone, as a loop would call the model with it."""
    kept = list(frames)
    if twin.family == "ltx":  # packed: (B, F H W, values)
        latents = twin.latents.unflatten(1, (5, P))[:, kept].flatten(1, 2)
        return replace(twin, latents=latents, inputs={**twin.inputs, "num_frames": len(kept)})
    times = len(kept) * P if twin.times_per_video else 0
    return replace(twin, latents=twin.latents[:, :, kept], times_per_video=times)


def rows_of(twin: Twin, made: Tensor, frames: tuple[int, ...] = KEPT) -> Tensor:
    """Of the answer for all five frames, these."""
    if twin.family == "ltx":
        return made.unflatten(1, (5, P))[:, list(frames)].flatten(1, 2)
    return made[:, :, list(frames)]


def tables_of(twin: Twin) -> list[tuple[Tensor, Tensor]]:
    """The rotary tables that each layer's attention is given in one call."""
    layout, seen = layout_of(twin.model), list[tuple[Tensor, Tensor]]()

    def noting(call: AttentionCall, rest: Attend) -> Tensor:
        seen.append(call.rotary)
        return rest(call)

    with linked(layout.attentions(twin.model), layout.processor, noting):
        answer(twin)
    return seen


def kept_rows(table: Tensor) -> Tensor:
    axis = 0 if table.ndim == 2 else 1  # HunyuanVideo's tables have no batch
    return (
        table.unflatten(axis, (5, P)).index_select(axis, torch.tensor(KEPT)).flatten(axis, axis + 1)
    )


def same(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> bool:
    return torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


def test_original_times_are_the_longer_video_s_rows_in_every_layer(twin: Twin) -> None:
    whole = tables_of(twin)
    with timed(twin.model, layout_of(twin.model), Times(KEPT)):
        given = tables_of(cropped(twin))
    for all_rows, own in zip(whole, given, strict=True):
        assert same(own, (kept_rows(all_rows[0]), kept_rows(all_rows[1])))


def test_the_first_frames_have_the_times_that_a_model_counts_anyway(twin: Twin) -> None:
    short = cropped(twin, (0, 1, 2))
    counted = answer(short)
    with timed(twin.model, layout_of(twin.model), Times((0, 1, 2))):
        assert torch.equal(answer(short), counted)


def test_a_crop_with_original_times_is_the_whole_video_whose_other_tokens_do_not_run(
    twin: Twin,
) -> None:
    layout = layout_of(twin.model)

    def kept_tokens(here: Pass, device: Any) -> Tensor:
        return torch.cat([torch.arange(frame * P, (frame + 1) * P) for frame in KEPT])

    with hooked(twin.model, layout, "test", kept_tokens, as_it_is):
        dropped = rows_of(twin, answer(twin))
    with timed(twin.model, layout, Times(KEPT)):
        assert torch.equal(answer(cropped(twin)), dropped)


def test_frames_may_be_left_out_in_mid_run_and_the_next_video_be_whole_again(twin: Twin) -> None:
    whole, short, times = answer(twin), cropped(twin), Times()
    with timed(twin.model, layout_of(twin.model), times):
        assert torch.equal(answer(twin), whole)
        times.frames = KEPT
        original = answer(short)
        times.frames = None
        assert torch.equal(answer(twin), whole)
    assert not torch.equal(answer(short), original)


def test_undone_it_leaves_no_trace(twin: Twin) -> None:
    whole, short = answer(twin), answer(cropped(twin))
    with timed(twin.model, layout_of(twin.model), Times(KEPT)):
        assert traces(twin.model)
        answer(cropped(twin))
    assert traces(twin.model) == []
    assert torch.equal(answer(twin), whole)
    assert torch.equal(answer(cropped(twin)), short)


def test_it_is_undone_while_a_seam_beneath_it_stays(twin: Twin) -> None:
    layout, whole = layout_of(twin.model), answer(twin)
    with hooked(
        twin.model, layout, "test", lambda here, device: torch.arange(here.grid.tokens), as_it_is
    ):
        with timed(twin.model, layout, Times(KEPT)):
            inner = answer(cropped(twin))
        assert torch.equal(answer(twin), whole)
    with timed(twin.model, layout, Times(KEPT)):
        assert torch.equal(answer(cropped(twin)), inner)


def test_both_transformers_of_a_model_are_told_by_one_object() -> None:
    twins, times = a_tiny_pair(), Times(KEPT)
    whole = [answer(twin) for twin in twins]
    alone = []
    for twin in twins:
        with timed(twin.model, layout_of(twin.model), Times(KEPT)):
            alone.append(answer(cropped(twin)))
    with ExitStack() as stack:
        for twin in twins:
            stack.enter_context(timed(twin.model, layout_of(twin.model), times))
        for twin, expected in zip(twins, alone, strict=True):
            assert torch.equal(answer(cropped(twin)), expected)
    for twin, stock in zip(twins, whole, strict=True):
        assert traces(twin.model) == []
        assert torch.equal(answer(twin), stock)


def test_as_many_times_as_frames_are_needed() -> None:
    twin = a_tiny_transformer("wan")
    with (
        timed(twin.model, layout_of(twin.model), Times(KEPT)),
        pytest.raises(MethodRefused, match="3 frames have times"),
    ):
        answer(twin)


def test_a_call_that_places_its_tokens_itself_is_refused() -> None:
    twin = cropped(a_tiny_transformer("ltx"))
    placed = replace(twin, inputs={**twin.inputs, "video_coords": torch.rand(2, 3, 3 * P)})
    with (
        timed(twin.model, layout_of(twin.model), Times(KEPT)),
        pytest.raises(MethodRefused, match="places its tokens"),
    ):
        answer(placed)


@pytest.mark.parametrize(
    ("family", "why"),
    [
        ("cogvideox", "come with each call"),
        ("cogvideox-1.5", "come with each call"),
        ("cogvideox-2b", "adds its positions when it patches"),
    ],
)
def test_cogvideox_is_refused_with_its_reason(family: str, why: str) -> None:
    twin = a_tiny_transformer(family)
    with (
        pytest.raises(MethodRefused, match=f"CogVideoXTransformer3DModel cannot be told .*{why}"),
        timed(twin.model, layout_of(twin.model), Times(KEPT)),
    ):
        pass
    assert traces(twin.model) == []
