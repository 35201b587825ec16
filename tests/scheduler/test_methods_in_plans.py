"""Measured methods are points like any others: counted, priced, chosen when they are worth it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.builders import (
    PROFILE,
    a_job,
    a_policy,
    a_shape,
    a_snapshot,
    a_spec,
    an_open_job,
    knowledge,
)
from vidplat.domain import OperatingPoint
from vidplat.methods.model_shape import ModelShape, ProfilePoint
from vidplat.methods.work import MethodWork, method_work
from vidplat.scheduler.planner import plan
from vidplat.scheduler.profile import Choices, choices, quality_of
from vidplat.scheduler.work import features

# Half the steps are worth 0.90; teacache at half the work is worth 0.97, and is a tenth slower than
# its FLOPs.
STEPS = (ProfilePoint(0.25, 0.80), ProfilePoint(0.5, 0.90))
GOOD = ProfilePoint(
    1.0, 0.97, method="teacache", linear_work=0.5, attention_work=0.5, overhead=1.1, samples=16
)


def test_a_measured_method_is_offered_with_its_measured_quality():
    offered = choices(a_shape(profile=(*STEPS, GOOD)), a_spec(steps=24))
    assert (
        dict(zip(offered.points, offered.qualities, strict=True))[OperatingPoint(24, "teacache")]
        == 0.97
    )


def test_its_work_is_the_measured_share_with_the_measured_overhead():
    shape, spec = a_shape(profile=(*STEPS, GOOD)), a_spec(steps=24)
    plain = features(shape, spec, OperatingPoint(24))["denoise"]
    with_it = features(shape, spec, OperatingPoint(24, "teacache"))["denoise"]
    assert with_it.linear_gflop == pytest.approx(plain.linear_gflop * 0.5 * 1.1)
    assert with_it.attention_gflop == pytest.approx(plain.attention_gflop * 0.5 * 1.1)


def test_the_planner_takes_the_method_where_it_beats_fewer_steps():
    # A full run takes 11 s at p50, 1 s of it beside denoising; within 9 s there is time for 17 of
    # 24 steps, worth 0.94, or for the method: 1 + 10 x 0.5 x 1.1 = 6.5 s, worth 0.97.
    shape = a_shape(profile=(*STEPS, GOOD))
    snapshot = a_snapshot(jobs=[an_open_job()], deadline_at=9.0)
    decided = plan(snapshot, a_policy(), knowledge(shape=shape, full_s=11.0, fixed_s=1.0))
    assert [a.point.method for a in decided.assignments] == ["teacache"]
    assert decided.assignments[0].quality == pytest.approx(0.97)


def test_what_a_worker_refused_is_not_chosen_again_and_the_next_best_is():
    shape = a_shape(profile=(*STEPS, GOOD))
    snapshot = a_snapshot(jobs=[an_open_job()], deadline_at=9.0)
    known = knowledge(shape=shape, full_s=11.0, fixed_s=1.0)
    refused = replace(known, refused=frozenset({(snapshot.jobs[0].job.model.id, "teacache")}))
    (made,) = plan(snapshot, a_policy(), refused).assignments
    assert (made.point.steps, made.point.accelerator) == (17, "")


def test_a_method_that_was_never_measured_is_counted_at_full_work_and_said_to_be_a_guess():
    shape, spec = a_shape(profile=STEPS), a_spec(steps=24)
    asked = choices(shape, spec, "easycache:0.1")
    assert asked.points == (OperatingPoint(24, "easycache:threshold=0.1"),)
    assert asked.guess
    assert method_work(shape, spec, asked.points[0]) == MethodWork()


def test_a_method_that_was_asked_for_is_the_only_point():
    asked = choices(a_shape(profile=(*STEPS, GOOD)), a_spec(steps=24), "TeaCache:0.08")
    assert asked.points == (OperatingPoint(24, "teacache"),)
    assert not asked.guess


def reason_and_notes(method: str, shape: ModelShape) -> tuple[str, tuple[str, ...]]:
    """How a plan of two jobs that must be made so is told."""
    jobs = [an_open_job(a_job(row=n, method=method)) for n in (1, 2)]
    decided = plan(a_snapshot(jobs=jobs), a_policy(), knowledge(shape=shape))
    return decided.reason, decided.notes


def test_a_plan_says_what_was_not_measured_the_method_or_the_model():
    no_method = "was not measured on model flipbook: its quality is a guess"
    no_model = "no profile for model flipbook: step counts alone, quality is a guess"
    for shape in (a_shape(profile=STEPS), a_shape(profile=())):
        (note,) = reason_and_notes("easycache:0.1", shape)[1]
        assert note.startswith("easycache:threshold=0.1") and no_method in note
        assert "`vidplat bench methods flipbook`" in note
    assert reason_and_notes("steps:12", a_shape(profile=()))[1] == (no_model,)
    assert reason_and_notes("teacache", a_shape(profile=(*STEPS, GOOD)))[1] == ()
    assert reason_and_notes("full", a_shape(profile=()))[1] == ()


def test_jobs_that_must_be_made_with_less_are_not_said_to_be_of_full_quality():
    shape = a_shape(profile=(*STEPS, GOOD))
    reason, _ = reason_and_notes("teacache", shape)
    assert reason.startswith("all 2 jobs as asked (24 steps, teacache)")
    assert "predicted quality 0.97" in reason and "full quality" not in reason
    reason, _ = reason_and_notes("steps:12", shape)
    assert reason.startswith("all 2 jobs as asked (12 of 24 steps), predicted quality 0.90")
    assert reason_and_notes("full", shape)[0].startswith("all 2 jobs at full quality")


def test_methods_that_were_never_measured_are_guessed_by_the_work_they_leave():
    shape, spec = a_shape(profile=STEPS), a_spec(steps=24)
    found = {
        method: quality_of(shape, spec, OperatingPoint(24, method))
        for method in ("early:work=0.25", "early", "early:work=0.75", "hsa:work=0.25", "sparse:k=3")
    }
    assert found["early:work=0.25"] < found["early"] <= found["early:work=0.75"] == 0.9
    # half of the work, as plain steps would use it; no more than 0.9 is promised unseen
    assert found["early"] == pytest.approx(quality_of(shape, spec, OperatingPoint(12)), abs=0.03)
    assert found["sparse:k=3"] == 0.9


def test_a_method_between_measured_ones_of_its_kind_is_guessed_between_them():
    measured = [ProfilePoint(1.0, q, method=f"hsa:work={w}") for w, q in ((0.2, 0.8), (0.6, 0.98))]
    shape, spec = a_shape(profile=(*STEPS, *measured)), a_spec(steps=24)
    between = quality_of(shape, spec, OperatingPoint(24, "hsa:work=0.4"))
    assert 0.85 < between < 0.93


def test_few_steps_lose_more_by_each_that_is_left_out_than_where_it_was_measured():
    early = ProfilePoint(1.0, 0.998, method="early", linear_work=0.5, attention_work=0.5)
    shape = a_shape(profile=(*PROFILE, early))
    qualities = {
        steps: quality_of(shape, a_spec(steps=steps), OperatingPoint(steps, "early"))
        for steps in (4, 8, 16, 24, 48)
    }
    assert max(qualities[4], qualities[8]) < 0.9 < qualities[16] < 0.998
    assert qualities[24] == qualities[48] == pytest.approx(0.998)
    plain = quality_of(shape, a_spec(steps=8), OperatingPoint(4, "steps"))
    assert plain < quality_of(shape, a_spec(steps=24), OperatingPoint(12, "steps"))
    (note,) = reason_and_notes("early", replace(shape, defaults=a_spec(steps=50)))[1]
    assert "was measured on model flipbook at 50 steps, not at 24" in note


def test_a_shortened_run_with_a_method_loses_by_both():
    shape, spec = a_shape(profile=(*STEPS, GOOD)), a_spec(steps=24)
    # 12 of 24 steps are worth 0.90, the method 0.97
    assert quality_of(shape, spec, OperatingPoint(12, "teacache")) == pytest.approx(0.90 * 0.97)


def test_closed_forms_are_used_where_there_are_any():
    shape = a_shape(profile=STEPS)

    def work(method: str, frames: int = 33, steps: int = 40) -> MethodWork:
        return method_work(shape, a_spec(frames=frames, steps=steps), OperatingPoint(steps, method))

    hsa = work("hsa")
    assert hsa.linear == hsa.attention == pytest.approx(0.5, abs=0.001)  # the preset 50 at 40 steps
    # 81 frames are 21 latent ones; with k = 3 of them for reference 135 of 441 tiles are kept
    assert work("sparse:k=3", frames=81) == MethodWork(1.0, pytest.approx(135 / 441))
    assert work("sparse:k=21", frames=81) == MethodWork()
    # 4 of 40 steps dense, and the first and last of 6 layers: 0.9 x 4/6 of the attention is sparse
    some = work("sparse:k=3,dense_steps=4,dense_ends=1", frames=81)
    assert some.attention == pytest.approx(0.6 * 135 / 441 + 0.4)
    both = work("hsa+sparse:k=3", frames=81)
    assert (both.linear, both.attention) == (hsa.linear, pytest.approx(hsa.linear * 135 / 441))
    assert work("early:0.5") == MethodWork(0.5, 0.5)
    assert work("early:0.5", steps=7) == MethodWork(4 / 7, 4 / 7)  # 3.5 passes are 4
    # 20 of 40 passes run, the first 4 of them in dense steps: 16 of 20 are sparse
    mixed = work("early:0.5+sparse:k=3,dense_steps=4", frames=81)
    assert (mixed.linear, mixed.attention) == (0.5, pytest.approx(0.5 * (0.2 + 0.8 * 135 / 441)))
    assert work("unipc") == MethodWork()


def test_the_overhead_is_the_measured_one_even_where_the_work_has_a_closed_form():
    slow = ProfilePoint(1.0, 0.95, method="hsa", linear_work=0.5, attention_work=0.5, overhead=1.2)
    found = method_work(
        a_shape(profile=(*STEPS, slow)), a_spec(steps=40), OperatingPoint(40, "hsa")
    )
    assert found.overhead == 1.2


# --- the method and its solver together -----------------------------------------------------------

UNIPC = "UniPCMultistepScheduler"
WITH_EULER = ProfilePoint(
    1.0, 0.97, method="early+euler", linear_work=0.5, attention_work=0.5, samples=4
)


def test_on_a_model_of_another_solver_a_plan_takes_the_method_with_euler():
    shape = replace(a_shape(profile=(*STEPS, WITH_EULER)), solver=UNIPC)
    # 10 s in full, half of them with the method; half the steps are worth 0.90
    snapshot = a_snapshot(jobs=[an_open_job()], deadline_at=7.0)
    (assigned,) = plan(snapshot, a_policy(), knowledge(shape=shape)).assignments
    assert assigned.point == OperatingPoint(24, "early+euler")


def test_what_the_words_refuse_of_a_model_or_a_length_is_not_offered():
    short = ProfilePoint(1.0, 0.99, method="hsa:preset=25", linear_work=0.25, attention_work=0.25)
    alone = ProfilePoint(1.0, 0.98, method="early", linear_work=0.5, attention_work=0.5)
    shape = replace(a_shape(profile=(*STEPS, short, alone, WITH_EULER)), solver=UNIPC)

    def offered(steps: int, shape: ModelShape) -> set[str]:
        return {point.accelerator for point in choices(shape, a_spec(steps=steps)).points}

    assert offered(24, shape) == {"", "early+euler"}
    euler = replace(shape, solver="FlowMatchEulerDiscreteScheduler")
    leaner = {"hsa:preset=25,kv=fp8", "hsa:preset=25,kv=offload"}
    assert offered(24, euler) == {"", "hsa:preset=25", *leaner, "early", "early+euler"}
    assert offered(4, euler) == {"", "early", "early+euler"}  # hsa:25 needs 21 steps


# --- eco: K is the planner's to choose ------------------------------------------------------------

HALF = ProfilePoint(
    1.0, 0.82, method="eco:k=5", linear_work=0.6, attention_work=0.4
)  # of 9 latent frames
MOST = ProfilePoint(1.0, 0.86, method="eco:k=7", linear_work=0.8, attention_work=0.7)


def in_full_steps(offered: Choices) -> dict[str, float]:
    """Quality by method, of the points that take all 24 steps."""
    pairs = zip(offered.points, offered.qualities, strict=True)
    return {point.method: quality for point, quality in pairs if point.steps == 24}


def test_eco_without_k_offers_every_budget_with_qualities_between_the_measured_ones():
    offered = choices(a_shape(profile=(*STEPS, HALF, MOST)), a_spec(frames=33), "eco")
    found = in_full_steps(offered)
    assert list(found) == ["eco:k=3", "eco:k=5", "eco:k=6", "eco:k=7"]
    assert (found["eco:k=5"], found["eco:k=6"], found["eco:k=7"]) == pytest.approx(
        (0.82, 0.84, 0.86)
    )
    assert found["eco:k=3"] < 0.82
    assert not offered.guess


def test_more_frames_than_there_are_are_worth_no_more_than_all():
    for frames in (1, 5):
        offered = choices(a_shape(profile=STEPS), a_spec(frames=frames), "eco:3")
        assert max(offered.qualities) <= 1.0


def test_another_length_has_other_budgets_and_the_quality_of_their_share():
    offered = choices(a_shape(profile=(*STEPS, HALF, MOST)), a_spec(frames=65), "eco")
    found = in_full_steps(offered)
    assert list(found) == ["eco:k=5", "eco:k=6", "eco:k=9", "eco:k=11", "eco:k=13"]
    # 11 of 17 lies between 5 and 7 of 9; 9 of 17 lies just below the least that was measured
    assert found["eco:k=11"] == pytest.approx(0.82 + 0.04 * (11 / 17 - 5 / 9) / (7 / 9 - 5 / 9))
    assert 0.80 < found["eco:k=9"] < 0.82


def test_eco_without_k_goes_with_fewer_steps_and_loses_by_both():
    offered = choices(a_shape(profile=(*STEPS, HALF, MOST)), a_spec(), "eco")
    found = dict(zip(offered.points, offered.qualities, strict=True))
    assert found[OperatingPoint(12, "eco:k=7")] == pytest.approx(0.90 * 0.86)


def test_a_plan_with_less_time_takes_fewer_keyframes():
    shape = a_shape(profile=(*STEPS, HALF, MOST))

    def method(deadline_at: float) -> str:
        snapshot = a_snapshot(jobs=[an_open_job(a_job(method="eco"))], deadline_at=deadline_at)
        return plan(snapshot, a_policy(), knowledge(shape=shape)).assignments[0].point.method

    assert method(30.0) == "eco:k=7"
    assert method(3.0) in ("eco:k=3", "eco:k=5")


def test_without_a_table_quality_is_a_guess_that_rises_with_k_and_says_so():
    offered = choices(a_shape(profile=STEPS), a_spec(), "eco")
    assert list(in_full_steps(offered)) == [
        "eco:k=3",
        "eco:k=5",
        "eco:k=6",
        "eco:k=7",
    ]  # by rising quality
    assert offered.guess


def test_left_to_itself_the_planner_takes_eco_where_the_table_says_it_is_worth_it():
    good = ProfilePoint(1.0, 0.99, method="eco:k=5", linear_work=0.5, attention_work=0.4)
    shape = a_shape(profile=(*STEPS, good))
    snapshot = a_snapshot(jobs=[an_open_job(a_job(spec=a_spec(frames=65)))], deadline_at=14.0)
    (assigned,) = plan(snapshot, a_policy(), knowledge(shape=shape)).assignments
    assert assigned.point.method.startswith("eco:k=")
