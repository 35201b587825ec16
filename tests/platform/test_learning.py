"""What a run teaches about seconds."""

from __future__ import annotations

import pytest

from tests.builders import FLIPBOOK, a_job, knowledge
from tests.catalog_builders import an_artifact
from vidplat.domain import OperatingPoint, Outcome
from vidplat.platform.learning import Learner


def an_outcome_of(phases: dict[str, float]) -> Outcome:
    job = a_job()
    return Outcome(job.id, 1, "w1", OperatingPoint(24), 0.0, 10.0, phases=phases, artifact=an_artifact(job.id))


def a_learner() -> Learner:
    """It knows the world of tests/builders.py from 40 timings: a job takes ten seconds on cpu-1."""
    known, learner = knowledge(), Learner(None)
    learner.shapes[FLIPBOOK.id] = known.shapes[FLIPBOOK.id]
    learner.costs = known.costs
    return learner


def test_a_job_that_takes_twice_as_long_as_predicted_makes_its_worker_slower():
    learner = a_learner()
    learner.finished(an_outcome_of({"denoise": 18.0, "decode": 2.0}), a_job(), "cpu-1")
    # 10 s predicted over 20 s is a speed of 0.5, which counts for 0.3 of the new value
    assert learner.speed("w1") == pytest.approx(0.7 + 0.3 * 0.5, abs=0.01)


def test_fetching_and_encoding_a_source_does_not_pass_for_a_slow_worker():
    learner = a_learner()
    learner.finished(an_outcome_of({"source": 10.0, "denoise": 9.0, "decode": 1.0}), a_job(), "cpu-1")
    assert learner.speed("w1") == pytest.approx(1.0, abs=0.01)
