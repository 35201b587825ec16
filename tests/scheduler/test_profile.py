"""Operating points and their quality."""

from __future__ import annotations

import pytest

from tests.builders import a_shape, a_spec
from vidplat.domain import OperatingPoint
from vidplat.errors import UsageError
from vidplat.methods.model_shape import ProfilePoint
from vidplat.scheduler.profile import check_method, choices, hull, quality_of

WITH_KEYFRAMES = (
    ProfilePoint(0.25, 1.0, 0.80),
    ProfilePoint(0.5, 1.0, 0.90),
    ProfilePoint(1.0, 5 / 9, 0.95),
    ProfilePoint(0.5, 5 / 9, 0.88),
)


def test_full_quality_is_always_offered_and_is_the_best():
    offered = choices(a_shape(), a_spec(steps=24))

    assert offered.points[-1] == OperatingPoint(24)
    assert offered.qualities[-1] == 1.0
    assert offered.measured


def test_quality_between_measured_points_lies_on_the_line_between_them():
    # 0.80 at 6 of 24 steps and 0.92 at 12: 9 steps are half way
    assert quality_of(a_shape(), a_spec(steps=24), OperatingPoint(9)) == pytest.approx(0.86)


def test_nothing_below_the_least_measured_steps_is_offered():
    # the profile starts at an eighth: 3 of 24 steps
    assert min(p.steps for p in choices(a_shape(), a_spec(steps=24)).points) == 3


def test_more_steps_are_never_worse_even_where_the_measurement_was():
    wavy = a_shape(
        profile=(
            ProfilePoint(0.25, 1.0, 0.9),
            ProfilePoint(0.5, 1.0, 0.85),
            ProfilePoint(1.0, 1.0, 1.0),
        )
    )

    qualities = [quality_of(wavy, a_spec(steps=24), OperatingPoint(s)) for s in range(6, 25)]

    assert qualities == sorted(qualities)


def test_a_model_without_a_profile_gets_steps_alone_and_says_that_quality_is_a_guess():
    offered = choices(a_shape(profile=()), a_spec(steps=24))

    assert not offered.measured
    assert {p.keyframes for p in offered.points} == {None}
    assert list(offered.qualities) == sorted(offered.qualities)
    assert min(p.steps for p in offered.points) == 4


def test_keyframes_of_the_profile_are_scaled_to_the_video():
    # five ninths of 17 latent frames (65 frames) are 9 keyframes
    offered = choices(a_shape(profile=WITH_KEYFRAMES), a_spec(frames=65))

    assert {p.keyframes for p in offered.points} == {None, 9}


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("full", OperatingPoint(24)),
        ("steps:12", OperatingPoint(12, None, "steps")),
        ("keyframes:5", OperatingPoint(24, 5, "keyframes")),
        ("keyframes:5,steps:12", OperatingPoint(12, 5, "keyframes")),
        (" Steps:24 ", OperatingPoint(24)),
        ("steps:99", OperatingPoint(24)),  # never more than asked for
        (
            "keyframes:9",
            OperatingPoint(24),
        ),  # 33 frames are 9 latent ones: nothing is left to interpolate
    ],
)
def test_a_method_with_a_number_leaves_one_point(method: str, expected: OperatingPoint):
    check_method(method)
    assert choices(a_shape(profile=WITH_KEYFRAMES), a_spec(), method).points == (expected,)


def test_a_method_without_a_number_leaves_the_number_to_the_planner():
    steps = choices(a_shape(profile=WITH_KEYFRAMES), a_spec(), "steps")
    keyframes = choices(a_shape(profile=WITH_KEYFRAMES), a_spec(), "keyframes")

    assert {p.keyframes for p in steps.points} == {None}
    assert {p.keyframes for p in keyframes.points if p != OperatingPoint(24)} == {5}


@pytest.mark.parametrize(
    "method", ["steps:0", "steps:", "keyframes:1", "steps:3,steps:4", "fast", "a\x00b"]
)
def test_an_unknown_method_is_refused_with_the_list_of_known_ones(method: str):
    with pytest.raises(
        UsageError, match=r"is not known; use auto, full, steps, keyframes"
    ) as refused:
        check_method(method)
    assert "\x00" not in str(refused.value)


def test_a_forced_point_off_the_profile_is_not_taken_for_as_good_as_the_nearest_measured_one():
    # 3 of 24 steps are the least measured (0.60); one step must be worse; five keyframes were never
    # measured
    assert quality_of(a_shape(), a_spec(), OperatingPoint(1)) < 0.60
    assert quality_of(a_shape(), a_spec(), OperatingPoint(24, 5)) < 1.0


def test_the_hull_keeps_what_no_mix_of_others_beats():
    # (2 s, 0.5) lies under the line from (1, 0.4) to (3, 0.9); (4, 0.9) costs more than (3, 0.9)
    # for nothing
    seconds, quality = [1.0, 2.0, 3.0, 4.0, 5.0], [0.4, 0.5, 0.9, 0.9, 1.0]

    assert hull(seconds, quality) == [0, 2, 4]


def test_the_hull_keeps_points_on_an_edge_as_finer_steps():
    assert hull([1.0, 2.0, 3.0], [0.2, 0.4, 0.6]) == [0, 1, 2]


def test_of_two_points_with_equal_seconds_the_better_one_stays():
    assert hull([1.0, 1.0, 2.0], [0.2, 0.5, 0.6]) == [1, 2]
