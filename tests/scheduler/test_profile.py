"""Operating points and their quality."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.builders import a_job, a_shape, a_spec
from vidplat.domain import OperatingPoint
from vidplat.methods.model_shape import ProfilePoint
from vidplat.scheduler.profile import choices, hull, planned_method, quality_of


def test_full_quality_is_always_offered_and_is_the_best():
    offered = choices(a_shape(), a_spec(steps=24))

    assert offered.points[-1] == OperatingPoint(24)
    assert offered.qualities[-1] == 1.0
    assert not offered.guess


def test_quality_between_measured_points_lies_on_the_line_between_them():
    # 0.80 at 6 of 24 steps and 0.92 at 12: 9 steps are half way
    assert quality_of(a_shape(), a_spec(steps=24), OperatingPoint(9)) == pytest.approx(0.86)


def test_nothing_below_the_least_measured_steps_is_offered():
    # the profile starts at an eighth: 3 of 24 steps
    assert min(p.steps for p in choices(a_shape(), a_spec(steps=24)).points) == 3


def test_more_steps_are_never_worse_even_where_the_measurement_was():
    wavy = a_shape(
        profile=(
            ProfilePoint(0.25, 0.9),
            ProfilePoint(0.5, 0.85),
            ProfilePoint(1.0, 1.0),
        )
    )

    qualities = [quality_of(wavy, a_spec(steps=24), OperatingPoint(s)) for s in range(6, 25)]

    assert qualities == sorted(qualities)


def test_a_model_without_a_profile_gets_steps_alone_and_says_that_quality_is_a_guess():
    offered = choices(a_shape(profile=()), a_spec(steps=24))

    assert offered.guess
    assert {p.accelerator for p in offered.points} == {""}
    assert list(offered.qualities) == sorted(offered.qualities)
    assert min(p.steps for p in offered.points) == 4


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("full", OperatingPoint(24)),
        ("steps:12", OperatingPoint(12, "steps")),
        (" Steps:24 ", OperatingPoint(24)),
        ("steps:99", OperatingPoint(24)),  # never more than asked for
    ],
)
def test_a_method_with_a_number_leaves_one_point(method: str, expected: OperatingPoint):
    assert choices(a_shape(), a_spec(), method).points == (expected,)


def test_a_method_without_a_number_leaves_the_number_to_the_planner():
    offered = choices(a_shape(), a_spec(), "steps")

    assert {p.method for p in offered.points} == {"steps", "full"}
    assert len(offered.points) > 3


def test_a_job_that_was_stored_with_a_method_that_is_gone_is_planned_anew():
    stored = a_job(method="keyframes:5,steps:12")

    assert planned_method(stored) == "auto"
    assert planned_method(replace(stored, input_video="/a.mp4")) == "steps"
    assert planned_method(a_job(method="steps:12")) == "steps:12"
    assert planned_method(a_job()) is None


def test_an_edit_that_was_stored_with_auto_in_other_letters_is_planned_by_steps():
    for method in ("AUTO", " auto ", ""):
        assert planned_method(replace(a_job(method=method), input_video="/a.mp4")) == "steps"
        assert planned_method(a_job(method=method)) == method


def test_a_forced_point_off_the_profile_is_not_taken_for_as_good_as_the_nearest_measured_one():
    # 3 of 24 steps are the least measured (0.60); one step must be worse
    assert quality_of(a_shape(), a_spec(), OperatingPoint(1)) < 0.60


def test_the_hull_keeps_what_no_mix_of_others_beats():
    # (2 s, 0.5) lies under the line from (1, 0.4) to (3, 0.9); (4, 0.9) costs more than (3, 0.9)
    # for nothing
    seconds, quality = [1.0, 2.0, 3.0, 4.0, 5.0], [0.4, 0.5, 0.9, 0.9, 1.0]

    assert hull(seconds, quality) == [0, 2, 4]


def test_the_hull_keeps_points_on_an_edge_as_finer_steps():
    assert hull([1.0, 2.0, 3.0], [0.2, 0.4, 0.6]) == [0, 1, 2]


def test_of_two_points_with_equal_seconds_the_better_one_stays():
    assert hull([1.0, 1.0, 2.0], [0.2, 0.5, 0.6]) == [1, 2]
