"""A survey writes what it measured into a model's profile, and leaves the rest as it was."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.methods import write_profile
from vidplat.methods.model_shape import ProfilePoint

OLD = {
    "revision": "r1",
    "points": [
        {"steps_fraction": 0.25, "quality": 0.8, "method": ""},
        {"steps_fraction": 0.5, "quality": 0.9, "method": ""},
        {"steps_fraction": 1.0, "quality": 0.95, "method": "early"},
    ],
}


def test_plain_steps_measured_anew_replace_those_of_the_same_number(tmp_path: Path) -> None:
    told = written(tmp_path, OLD, plain=[ProfilePoint(0.5, 0.93)])

    assert told["revision"] == "r1"
    assert qualities(told) == {(0.25, ""): 0.8, (0.5, ""): 0.93, (1.0, "early"): 0.95}


def test_new_points_of_methods_replace_all_older_ones(tmp_path: Path) -> None:
    told = written(tmp_path, OLD, methods=[ProfilePoint(1.0, 0.97, method="hsa")])

    assert qualities(told) == {(0.25, ""): 0.8, (0.5, ""): 0.9, (1.0, "hsa"): 0.97}


def test_a_profile_names_the_weights_and_sigmas_that_it_was_measured_with(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(OLD))

    write_profile(path, [], [], revision="r2")

    assert json.loads(path.read_text()) == OLD | {"revision": "r2"}


def test_a_model_without_a_profile_gets_one(tmp_path: Path) -> None:
    told = written(tmp_path, None, plain=[ProfilePoint(0.5, 0.9), ProfilePoint(0.25, 0.8)])

    assert list(qualities(told)) == [(0.25, ""), (0.5, "")]


def written(
    folder: Path,
    old: object | None,
    plain: list[ProfilePoint] | None = None,
    methods: list[ProfilePoint] | None = None,
) -> dict:  # type: ignore[type-arg]
    path = folder / "profile.json"
    if old is not None:
        path.write_text(json.dumps(old))
    write_profile(path, plain or [], methods or [])
    return json.loads(path.read_text())


def qualities(profile: dict) -> dict[tuple[float, str], float]:  # type: ignore[type-arg]
    """By steps and method, in the order of the file."""
    points = profile["points"]
    return {(point["steps_fraction"], point["method"]): point["quality"] for point in points}
