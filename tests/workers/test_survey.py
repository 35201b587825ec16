"""The survey tunes knobs by measured cost and compares each video with the full run of its own solver."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from vidplat.domain import OperatingPoint
from vidplat.workers.models.catalogue import describe_model, locate
from vidplat.workers.models.family import load_family
from vidplat.workers.survey import Bench, Candidate, Subject, survey, tune


@pytest.fixture
def bench(tiny_wan: Path) -> Bench:
    ref, shape = describe_model(str(tiny_wan))
    spec = replace(shape.defaults, num_inference_steps=8, guidance_scale=3.0)
    return Bench(load_family(locate(str(tiny_wan)), "cpu"), ref.revision, spec)


SUBJECTS = [Subject("a red circle", seed=1, kind="still"), Subject("a blue square", seed=2, kind="fast")]


def test_fewer_steps_do_their_share_of_the_work_and_lose_more_the_fewer_they_are(bench: Bench) -> None:
    ways = [Candidate(f"{n}", (OperatingPoint(n, None, "steps"),)) for n in (6, 2)]
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
    unipc = Candidate("unipc", (OperatingPoint(8, None, "unipc"),), solver="unipc")
    (row,) = survey(bench, SUBJECTS[:1], [unipc], targets=(0.5,), tuning=1)
    assert row.psnr_db == 60.0
    assert row.label == "8 steps, unipc"


def test_a_knob_is_tuned_by_bisection(bench: Bench) -> None:
    def point(share: float) -> OperatingPoint:
        return OperatingPoint(max(1, round(share * 8)), None, "steps")

    found, cost = tune(bench, SUBJECTS[:1], Candidate("steps", point=point), 0.5)
    assert 2 <= found.steps <= 6
    assert 0 < cost < 1.2
