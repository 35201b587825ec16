"""The survey tunes knobs by measured cost and compares each video with the full run of its own
solver.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from vidplat.domain import OperatingPoint
from vidplat.methods.kinds import Candidate
from vidplat.workers.models.catalogue import describe_model, locate
from vidplat.workers.models.family import Family
from vidplat.workers.models.loading import load_family
from vidplat.workers.survey.survey import Bench, Costs, Subject, survey, tune


@pytest.fixture(scope="module")
def family(tiny_wan: Path) -> Family:
    return load_family(locate(str(tiny_wan)), "cpu")


@pytest.fixture
def bench(family: Family, tiny_wan: Path) -> Bench:
    _, shape = describe_model(str(tiny_wan))
    spec = replace(shape.defaults, num_inference_steps=8, guidance_scale=3.0)
    return Bench(family, spec)


SUBJECTS = [
    Subject("a red circle", seed=1, kind="still"),
    Subject("a blue square", seed=2, kind="fast"),
]


def test_fewer_steps_do_their_share_of_the_work_and_lose_more_the_fewer_they_are(
    bench: Bench,
) -> None:
    ways = [Candidate(f"{n}", (OperatingPoint(n, "steps"),)) for n in (6, 2)]
    rows = list(survey(bench, SUBJECTS, ways, targets=(0.5,), tuning=1))
    assert [(row.method, row.seed, row.kind) for row in rows] == [
        ("6", 1, "still"), ("2", 1, "still"), ("6", 2, "fast"), ("2", 2, "fast"),
    ]  # fmt: skip
    for gentle, hard in zip(rows[::2], rows[1::2], strict=True):
        assert gentle.psnr_db > hard.psnr_db
        assert (gentle.work, hard.work) == (6 / 8, 2 / 8)
        assert gentle.linear_work == gentle.attention_work == 6 / 8


def test_the_full_run_itself_costs_one_and_loses_nothing(bench: Bench) -> None:
    whole = Candidate("whole", (OperatingPoint(8),))
    (row,) = survey(bench, SUBJECTS[:1], [whole], targets=(0.5,), tuning=1)
    assert (row.work, row.psnr_db, row.ssim) == (1.0, 60.0, 1.0)
    assert row.flicker == row.flicker_full


def test_another_solver_is_compared_with_its_own_full_run(bench: Bench) -> None:
    unipc = Candidate("unipc", (OperatingPoint(8, "unipc"),), solver="unipc")
    (row,) = survey(bench, SUBJECTS[:1], [unipc], targets=(0.5,), tuning=1)
    assert row.psnr_db == 60.0
    assert row.label == "8 steps, unipc"


class Given(Costs):
    """Costs that are known beforehand, and counted."""

    def __init__(self) -> None:
        self.known: dict[OperatingPoint, float] = {}

    def __call__(self, point: OperatingPoint) -> float:
        return self.known.setdefault(point, point.steps / 100)


def test_a_knob_is_tuned_by_bisection_to_within_two_percent() -> None:
    def point(share: float) -> OperatingPoint:
        return OperatingPoint(max(1, round(share * 200)), "steps")  # costs twice its share

    found, cost = tune(Candidate("steps", point=point), Given(), 0.25)
    assert cost == found.steps / 100
    assert abs(cost - 0.25) <= 0.02 * 0.25


@pytest.mark.parametrize(
    ("target", "nearest"), [(0.75, 70), (0.5, 50), (0.24, 30), (0.05, 10), (0.99, 90)]
)
def test_of_a_list_the_nearest_setting_is_found_and_few_are_measured(
    target: float, nearest: int
) -> None:
    ways = Candidate("steps", tuple(OperatingPoint(n, "steps") for n in (90, 70, 50, 30, 10)))
    costs = Given()
    found, _ = tune(ways, costs, target)
    assert found.steps == nearest
    assert len(costs.known) <= 4


def test_a_point_is_measured_once_and_the_full_run_for_every_fourth(bench: Bench) -> None:
    made: list[OperatingPoint] = []
    make = bench.make
    bench.make = lambda subject, point: made.append(point) or make(subject, point)  # type: ignore
    costs = Costs(bench, SUBJECTS[:1])
    for steps in (1, 2, 1, 3, 4, 5):
        costs(OperatingPoint(steps, "steps"))
    warming, measured = made[:2], made[2:]
    assert [point.steps for point in warming] == [8, 1]
    assert [point.steps for point in measured] == [8, 1, 2, 3, 4, 8, 5]


@pytest.mark.parametrize("cold", [8, 4])  # steps of the full run, of a method's first point
def test_what_a_first_call_prepares_is_not_counted(bench: Bench, cold: int) -> None:
    seen: set[int] = set()

    def make(subject: Subject, point: OperatingPoint) -> SimpleNamespace:
        """A second a step, and a hundred more for the first video of `cold` steps."""
        prepares = point.steps == cold and cold not in seen
        seen.add(point.steps)
        return SimpleNamespace(phases={"denoise": point.steps + 100.0 * prepares})

    bench.make = make  # type: ignore
    costs = Costs(bench, SUBJECTS)
    assert costs(OperatingPoint(4, "steps")) == 4 / 8
