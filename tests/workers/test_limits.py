"""What a model can make: each broken rule is told with the nearest value that works."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidplat.domain import VideoSpec
from vidplat.errors import SpecError
from vidplat.methods.model_shape import ModelShape
from vidplat.workers.models.limits import check_spec, nearest_frames, nearest_multiple

GOOD = VideoSpec(64, 64, 33, 16, 24, 4.0, seed=0)
SHAPE = ModelShape("wan", 2, 64, 128, 16, (1, 1, 1), 4, 8, 0, defaults=GOOD)


def test_a_video_the_model_can_make_passes() -> None:
    check_spec(SHAPE, GOOD)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 70}, "width must be a multiple of 16, not 70: use 64"),
        ({"height": 0}, "height must be a multiple of 16, not 0: use 16"),
        ({"num_frames": 32}, r"num_frames must be of the form 4k\+1, not 32: use 33"),
        ({"num_frames": -3}, r"of the form 4k\+1, not -3: use 1"),
        ({"fps": 0}, "fps must be at least 1, not 0"),
        ({"num_inference_steps": -1}, "num_inference_steps must be at least 1, not -1"),
        ({"guidance_scale": math.nan}, "guidance_scale must be between 0 and 100, not nan"),
        ({"seed": -1}, "seed must be between 0 and"),
        ({"seed": 2**63}, "seed must be between 0 and"),
    ],
)
def test_each_broken_rule_is_told(change: dict[str, float], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        check_spec(SHAPE, replace(GOOD, **change))


def test_all_broken_rules_are_told_at_once() -> None:
    with pytest.raises(SpecError, match=r"height .*; width .*; num_frames"):
        check_spec(SHAPE, replace(GOOD, width=1, height=1, num_frames=2))


def test_a_coarser_patch_asks_for_coarser_sizes() -> None:
    coarse = replace(SHAPE, spatial_factor=16, patch=(1, 2, 2))

    with pytest.raises(SpecError, match="width must be a multiple of 32, not 48: use 64"):
        check_spec(coarse, replace(GOOD, width=48))


@given(st.integers(-1000, 100_000))
def test_the_value_we_suggest_is_always_valid(value: int) -> None:
    suggested = replace(
        GOOD,
        width=nearest_multiple(value, 16),
        height=nearest_multiple(value, 16),
        num_frames=nearest_frames(value, SHAPE),
    )

    check_spec(SHAPE, suggested)
