"""Predicted against actual, and whose fault a miss was."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.builders import FLIPBOOK, a_job
from vidplat.domain import Artifact, Batch, Failure, FailureKind, OperatingPoint, Outcome
from vidplat.platform.dispatch.dispatcher import Order
from vidplat.platform.run.score import Tally
from vidplat.scheduler.decision import Assignment, Plan, Verdict

BATCH = Batch("b1", "x", "/out", FLIPBOOK, submitted_at=0.0, deadline_at=60.0)
PLAN = Plan(Verdict.FEASIBLE, (), finish_p50_at=50.0, finish_p90_at=55.0)
ARTIFACT = Artifact("v", "p", "m", "0" * 64, 1, 1)


def an_order(row: int = 1) -> Order:
    job = a_job(row=row)
    return Order(
        Assignment(job.id, "w", "cloud", OperatingPoint(8), 10.0, 10.0, 15.0, 0.9, 20.0, 25.0),
        job,
        1,
    )


def an_outcome(order: Order, began: float, ended: float, **changed) -> Outcome:
    made = Outcome(
        order.job.id,
        1,
        "w",
        OperatingPoint(8),
        began,
        ended,
        {"denoise": ended - began},
        artifact=ARTIFACT,
    )
    return replace(made, **changed)


def a_tally(plan: Plan = PLAN, workers: int = 2) -> Tally:
    tally = Tally(BATCH, workers, plan, promised_startup_s=8.0)
    tally.dispatched(10.0)
    return tally


def test_a_run_is_scored_against_its_promise():
    # given two jobs of 10 s predicted at p50 and 15 at p90, that took 12 and 18, on two workers
    # from second 10
    tally = a_tally()
    tally.ended(an_order(1), an_outcome(an_order(1), 10.0, 22.0))
    tally.ended(an_order(2), an_outcome(an_order(2), 10.0, 28.0))

    # when
    score = tally.score()

    # then errors were +20 % and +80 %; 30 model seconds of 2 x 18
    assert score.median_error == pytest.approx(0.5)
    assert score.within_p90 == 0.5
    assert score.busy_share == pytest.approx(30 / 36)
    assert (score.startup_s, score.predicted_startup_s) == (10.0, 8.0)
    assert (score.predicted_p50_at, score.finished_at) == (50.0, 28.0)
    assert score.misses == ()


def late(tally: Tally, by: float = 10.0) -> str:
    """The cause found for a job that came `by` seconds late."""
    tally.ended(an_order(), an_outcome(an_order(), 50.0, 60.0 + by))
    (miss,) = tally.score().misses
    assert miss.late_s == pytest.approx(by)
    return miss.cause


def test_each_miss_has_the_first_cause_that_fits():
    assert late(a_tally()) == "estimate"
    assert late(a_tally(replace(PLAN, verdict=Verdict.INFEASIBLE))) == "infeasible"
    # workers were 2 s later than predicted, the video 1 s late
    assert late(a_tally(), by=1.0) == "start-up"

    lost = a_tally()
    lost.worker_lost(an_order().job.id)
    assert late(lost) == "worker lost"

    retried = a_tally()
    failure = Failure(FailureKind.JOB, "no")
    retried.ended(an_order(), an_outcome(an_order(), 10.0, 12.0, artifact=None, failure=failure))
    assert late(retried) == "retry"


def test_a_run_that_made_nothing_has_an_empty_score():
    assert a_tally().score().jobs == 0
