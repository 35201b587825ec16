"""What a run teaches about seconds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.builders import FLIPBOOK, a_job, a_shape, knowledge
from tests.catalog_builders import an_artifact
from vidplat.domain import Job, OperatingPoint, Outcome
from vidplat.platform.run.learning import Learner
from vidplat.scheduler.work import features

CLASSES = {"w1": "cpu-1"}


def an_outcome_of(phases: dict[str, float]) -> Outcome:
    job = a_job()
    return Outcome(
        job.id, 1, "w1", OperatingPoint(24), 0.0, 10.0, phases=phases, artifact=an_artifact(job.id)
    )


def a_learner() -> Learner:
    """It knows the world of tests/builders.py from 40 timings: a job takes ten seconds on cpu-1."""
    learner = Learner(lambda model_id: (FLIPBOOK, a_shape()), None, "b1")
    learner.know(FLIPBOOK.id)
    learner.costs = knowledge().costs
    return learner


def test_a_job_that_takes_twice_as_long_as_predicted_makes_its_worker_slower():
    learner = a_learner()
    learner.finished(an_outcome_of({"denoise": 18.0, "decode": 2.0}), a_job(), CLASSES)
    # 10 s predicted over 20 s is a speed of 0.5, which counts for 0.3 of the new value
    assert learner.speed("w1") == pytest.approx(0.7 + 0.3 * 0.5, abs=0.01)


def an_edit(method: str = "full") -> Job:
    return replace(
        a_job(method=method), input_video="/clips/a.mp4", input_sha256="0" * 64, strength=0.6
    )


def test_the_source_of_an_edit_is_learnt_like_any_stage():
    learner = a_learner()
    # taken to cost as much as decoding until one is timed: 0.97 s in the world of the builders
    assert learner.predict(an_edit(), "cpu-1", OperatingPoint(24)).per_stage[
        "source"
    ] == pytest.approx(0.97)
    learner.finished(
        an_outcome_of({"source": 3.0, "denoise": 9.0, "decode": 0.97}), an_edit(), CLASSES
    )
    assert learner.predict(an_edit(), "cpu-1", OperatingPoint(24)).per_stage[
        "source"
    ] == pytest.approx(3.0)


def test_what_a_still_source_saves_is_learnt_as_a_share_and_not_as_speed():
    # given a video whose denoising took just as long as the half of its tokens that ran should take
    learner, point = a_learner(), OperatingPoint(24, "lipar")
    counted = features(learner.shapes[FLIPBOOK.id], a_job().spec, point, is_edit=True, kept=0.5)[
        "denoise"
    ]
    half_s = learner.costs.stage(FLIPBOOK.id, "cpu-1", "denoise", counted).p50_s
    plain = learner.predict(a_job(), "cpu-1", OperatingPoint(24))
    assert (
        learner.predict(an_edit("lipar"), "cpu-1", point).per_stage["denoise"]
        == plain.per_stage["denoise"]
    )

    phases = {
        "source": 0.97,
        "denoise": half_s,
        "decode": 0.97,
        "encode": 0.01,
        "mp4": 0.01,
        "store": 0.01,
    }
    outcome = replace(an_outcome_of(phases), point=point, metrics={"kept_share": 0.5})
    learner.finished(outcome, an_edit("lipar"), CLASSES)

    # then the next such video is expected to take that long, and videos from text what they always
    # took
    assert learner.predict(an_edit("lipar"), "cpu-1", point).per_stage["denoise"] == pytest.approx(
        half_s
    )
    assert learner.predict(a_job(), "cpu-1", OperatingPoint(24)).p50_s == pytest.approx(plain.p50_s)
    assert learner.speed("w1") == pytest.approx(1.0, abs=0.01)


def test_fetching_and_encoding_a_source_does_not_pass_for_a_slow_worker():
    learner = a_learner()
    learner.finished(
        an_outcome_of({"source": 10.0, "denoise": 9.0, "decode": 1.0}), a_job(), CLASSES
    )
    assert learner.speed("w1") == pytest.approx(1.0, abs=0.01)


def test_a_worker_that_nobody_knows_is_an_error():
    with pytest.raises(KeyError, match="w1"):
        a_learner().finished(an_outcome_of({"denoise": 9.0}), a_job(), {"w2": "cpu-1"})
