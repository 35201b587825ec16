"""Counting the work of models that make a video block by block."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.builders import a_shape, a_spec
from vidplat.domain import OperatingPoint
from vidplat.methods.model_shape import Blocks, ModelShape
from vidplat.methods.pass_size import BlockSize
from vidplat.scheduler.work import features, forward_gflop, needed_bytes

BLOCKS = Blocks(3, (1000, 750, 500, 250), 3.0, sink=1, recent=6, trained=21)
SHAPE = replace(a_shape(), blocks=BLOCKS)
SPEC = a_spec(frames=57, steps=4, guidance=1.0)  # 15 latent frames of 8x8 tokens: five blocks


def test_a_video_takes_the_steps_and_one_pass_more_of_each_block():
    found = features(SHAPE, SPEC, OperatingPoint(4))["denoise"]

    assert found.calls == 5 * (4 + 1)
    assert features(SHAPE, SPEC, OperatingPoint(2))["denoise"].calls == 5 * (2 + 1)
    # Guidance doubles everything, the pass that remembers too.
    assert (
        features(SHAPE, replace(SPEC, guidance_scale=3.0), OperatingPoint(4))["denoise"].calls
        == 2 * found.calls
    )


def test_its_flops_are_those_of_blocks_that_attend_to_a_window():
    # Windows of 3, 6, then 1 + 6 frames of 64 tokens, in six layers.
    size = BlockSize(192, 768, 32)
    each = 6 * sum(sum(size.flops(192, 64 * frames)) for frames in (3, 6, 7, 7, 7))

    found = features(SHAPE, SPEC, OperatingPoint(4))["denoise"]

    assert found.linear_gflop + found.attention_gflop == pytest.approx(5 * each / 1e9)


def test_a_window_that_holds_all_of_one_block_is_a_model_without_blocks():
    whole = replace(SHAPE, blocks=Blocks(15, BLOCKS.steps, 3.0, sink=0, recent=15, trained=15))
    linear, attention = forward_gflop(SHAPE, 15 * 64)

    found = features(whole, SPEC, OperatingPoint(4))["denoise"]

    assert (found.calls, found.linear_gflop, found.attention_gflop) == pytest.approx(
        (5, 5 * linear, 5 * attention)
    )


def test_a_bounded_window_grows_with_length_and_not_with_its_square():
    def attention(frames: int, shape: ModelShape) -> float:
        return features(shape, replace(SPEC, num_frames=frames), OperatingPoint(4))[
            "denoise"
        ].attention_gflop

    # 60 and 120 latent frames: the first two blocks see 3 and 6 frames, all others 7.
    assert attention(477, SHAPE) / attention(237, SHAPE) == pytest.approx(
        (9 + 7 * 38) / (9 + 7 * 18)
    )
    assert attention(477, a_shape()) / attention(237, a_shape()) == pytest.approx(4)


def test_memory_is_bounded_by_the_window():
    def needed(frames: int, shape: ModelShape) -> int:
        spec = replace(SPEC, width=16, height=16, num_frames=frames)
        return needed_bytes(shape, spec, OperatingPoint(4))

    # Small pictures: beyond the window only the decoded video grows, 2 x 3 x 4 bytes per pixel and
    # frame.
    assert needed(477, SHAPE) - needed(237, SHAPE) <= 240 * 16 * 16 * 24
    assert needed(477, SHAPE) < needed(477, a_shape())
