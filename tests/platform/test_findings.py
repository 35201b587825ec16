"""From rows of a survey to figures, and to the points a planner may choose from."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vidplat.platform.measuring.findings import findings, profile_points
from vidplat.workers.survey.survey import Row


def a_row(method: str = "steps", **changed: object) -> Row:
    row = Row(
        method=method,
        target=0.5,
        label="12 steps",
        point_method="" if method == "steps" else method,
        steps=12 if method == "steps" else 24,
        kind="still",
        prompt="a red circle",
        seed=0,
        cost=0.5,
        cost_end_to_end=0.55,
        work=0.5,
        linear_work=0.5,
        attention_work=0.5,
        psnr_db=20.0,
        ssim=0.8,
        fit=0.9,
        fit_full=1.0,
        flicker=0.02,
        flicker_full=0.01,
        motion_ratio=None,
        peak_bytes=100,
    )
    return replace(row, **changed)  # type: ignore[arg-type]


def test_costs_are_medians_and_qualities_means() -> None:
    rows = [a_row(cost=cost, ssim=ssim) for cost, ssim in ((0.4, 0.7), (0.5, 0.8), (2.0, 0.9))]
    (found,) = findings(rows)
    assert (found.cost, found.ssim, found.prompts) == (0.5, pytest.approx(0.8), 3)
    assert found.flicker_ratio == 2.0
    assert found.motion_ratio is None  # nothing moved in any of them


def test_fewer_steps_of_another_solver_stay_out_since_they_met_its_own_full_run() -> None:
    rows = [
        a_row(),
        a_row("euler", steps=12, cost=0.4, ssim=0.95),
        a_row("early+euler", cost=0.5, ssim=0.9),
    ]
    assert [point.method for point in profile_points(findings(rows), 24)] == ["early+euler"]


def test_only_methods_that_beat_fewer_steps_come_into_the_profile() -> None:
    rows = [
        a_row(ssim=0.8, cost=0.5),
        a_row(target=0.25, steps=6, ssim=0.6, cost=0.25, work=0.25),
        a_row("early", ssim=0.9, cost=0.5, work=0.4, linear_work=0.4, attention_work=0.4),
        a_row("easycache", ssim=0.7, cost=0.5),
        a_row("teacache", ssim=0.99, cost=0.5),  # better, but plans do not count its rehearsal
    ]
    (kept,) = profile_points(findings(rows), full_steps=24)
    assert (kept.method, kept.quality, kept.steps_fraction) == ("early", 0.9, 1.0)
    # 0.5 of the time for 0.4 of the work
    assert (kept.linear_work, kept.overhead) == (0.4, 1.25)
