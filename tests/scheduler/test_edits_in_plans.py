"""What the planner counts for edits: their source, the steps they take, and the tokens that lipar
leaves.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.builders import (
    FLIPBOOK,
    PROFILE,
    a_job,
    a_policy,
    a_shape,
    a_snapshot,
    a_spec,
    an_open_job,
    knowledge,
)
from vidplat.domain import Job, OperatingPoint
from vidplat.methods.model_shape import ProfilePoint
from vidplat.methods.work import method_work
from vidplat.scheduler import plan
from vidplat.scheduler.cost import CostModel, Observation
from vidplat.scheduler.kept_share import KeptShare, expected
from vidplat.scheduler.work import (
    StageFeatures,
    features,
)
from vidplat.stages import (
    SOURCE,
)

SHAPE = a_shape()
FULL = OperatingPoint(24)
LIPAR = OperatingPoint(24, "lipar")


def an_edit(row: int = 1, strength: float = 0.6, method: str | None = "full") -> Job:
    return replace(
        a_job(row=row, method=method),
        input_video="/clips/a.mp4",
        input_sha256="0" * 64,
        strength=strength,
    )


def with_source(costs: CostModel, seconds: float) -> CostModel:
    counted = features(SHAPE, a_spec(), FULL, is_edit=True)[SOURCE]
    return costs.observe(Observation(FLIPBOOK.id, "cpu-1", SOURCE, counted, seconds))


def with_kept(*shares: float, costs: CostModel = CostModel()) -> CostModel:
    for share in shares:
        costs = costs.observe_kept(FLIPBOOK.id, LIPAR, share)
    return costs


# --- the source ---------------------------------------------------------------------------------


def test_a_source_is_counted_in_pixels_of_the_video_to_be_made_and_only_for_edits():
    # 33 frames of 100 x 100
    spec = a_spec(width=100, height=100)
    assert features(SHAPE, spec, FULL, is_edit=True)[SOURCE] == StageFeatures(
        calls=1, megapixels=pytest.approx(0.33)
    )
    assert features(SHAPE, spec, FULL)[SOURCE] == StageFeatures()


def test_before_a_source_was_timed_it_is_taken_to_cost_as_much_as_decoding():
    # given decoding learnt at 0.97 s for as many pixels, where the autoencoder's other half is
    # timed at start
    costs = knowledge().costs
    decode_s = costs.predict(FLIPBOOK.id, SHAPE, "cpu-1", a_spec(), FULL).per_stage["decode"]
    edit = costs.predict(FLIPBOOK.id, SHAPE, "cpu-1", a_spec(), FULL, is_edit=True)

    assert decode_s == pytest.approx(0.97)
    assert edit.per_stage[SOURCE] == pytest.approx(0.97)
    assert edit.p50_s == pytest.approx(10.97)  # a video from text alone takes 10 s
    assert (
        edit.p90_s - edit.p50_s > 0.4 * 0.97
    )  # a guess is told as one: its p90 is half as much again


def test_the_first_timing_of_a_source_sets_its_level_and_leaves_other_stages_alone():
    costs = with_source(knowledge().costs, 2.5)
    edit = costs.predict(FLIPBOOK.id, SHAPE, "cpu-1", a_spec(), FULL, is_edit=True)

    assert edit.per_stage[SOURCE] == pytest.approx(2.5)
    assert edit.p50_s == pytest.approx(12.5)
    assert costs.predict(FLIPBOOK.id, SHAPE, "cpu-1", a_spec(), FULL).p50_s == pytest.approx(10.0)


def test_a_plan_counts_the_source_of_edits_and_none_for_videos_from_text():
    # given sources of 2.5 s, two edits and a video from text alone, all alike otherwise, at 10 s
    known = replace(knowledge(), costs=with_source(knowledge().costs, 2.5))
    jobs = [an_open_job(an_edit(1)), an_open_job(an_edit(2)), an_open_job(row=3, method="full")]

    decided = plan(a_snapshot(jobs=jobs), a_policy(), known)

    seconds = {a.job_id: a.p50_s for a in decided.assignments}
    assert [seconds[open_job.job.id] for open_job in jobs] == pytest.approx([12.5, 12.5, 10.0])
    assert decided.device_seconds == pytest.approx(35.0)


def test_an_edit_is_priced_by_the_steps_that_it_takes_whatever_its_strength():
    # steps of a point are taken: at 0.3 they are the last 24 of a schedule of 80, at 0.6 of one of
    # 40
    known = replace(knowledge(), costs=with_source(knowledge().costs, 1.0))
    for strength in (0.05, 0.3, 0.6, 1.0):
        (alone,) = plan(
            a_snapshot(jobs=[an_open_job(an_edit(strength=strength))]), a_policy(), known
        ).assignments
        assert (alone.point.steps, alone.p50_s) == (24, pytest.approx(11.0))


# --- the tokens that run ------------------------------------------------------------------------


def test_while_nobody_has_measured_a_share_lipar_counts_as_full_work():
    assert expected(SHAPE, LIPAR, {}) is None
    plain = CostModel().predict("m", SHAPE, "cpu-1", a_spec(), FULL, is_edit=True)
    assert CostModel().predict("m", SHAPE, "cpu-1", a_spec(), LIPAR, is_edit=True) == plain


@pytest.mark.parametrize(
    ("method", "linear", "attention"),
    [
        ("lipar", 0.5, 0.5),  # half of the queries, all keys
        ("lipar:recovery=noisy", 0.5, 0.5),
        ("lipar:recovery=none", 0.5, 0.25),  # half of the queries, half of the keys
        ("lipar:recovery=bias", 0.5, 0.25),
        (
            "lipar:recovery=noise-aware",
            0.5 * 25 / 24,
            0.5 * 25 / 24,
        ),  # and one more pass, over the source
        ("lipar+euler", 0.5, 0.5),
    ],
)
def test_a_kept_half_is_half_of_the_work_where_all_keys_are_attended(
    method: str, linear: float, attention: float
):
    found = method_work(SHAPE, a_spec(), OperatingPoint(24, method), 0.5)
    assert (found.linear, found.attention) == (pytest.approx(linear), pytest.approx(attention))


def test_shares_are_kept_as_mean_and_deviation():
    # 0.4 and 0.6: mean 0.5, deviation sqrt(0.1^2 + 0.1^2) = 0.1414 with one degree of freedom
    seen = KeptShare().after(0.4).after(0.6)
    assert (seen.samples, seen.mean) == (2, pytest.approx(0.5))
    assert seen.deviation == pytest.approx(0.02**0.5)
    # two of twenty samples are trusted by a tenth, the rest counts all tokens
    assert seen.p90 == pytest.approx(0.1 * (0.5 + 1.2816 * 0.02**0.5) + 0.9)
    assert KeptShare().p90 == 1.0


def test_a_share_that_was_learnt_sets_the_median_and_its_spread_the_p90():
    # given denoising that is linear in FLOPs at 9 s for a full video, and twenty videos that all
    # kept a half
    steady = with_kept(*[0.5] * 20, costs=knowledge().costs)
    varied = with_kept(*[0.25, 0.75] * 10, costs=knowledge().costs)
    plain = knowledge().costs.predict(FLIPBOOK.id, SHAPE, "cpu-1", a_spec(), FULL, is_edit=True)
    counted = features(SHAPE, a_spec(), LIPAR, is_edit=True, kept=0.5)["denoise"]
    denoise_s = knowledge().costs.stage(FLIPBOOK.id, "cpu-1", "denoise", counted).p50_s

    one, other = (
        c.predict(FLIPBOOK.id, SHAPE, "cpu-1", a_spec(), LIPAR, is_edit=True)
        for c in (steady, varied)
    )

    assert one.per_stage["denoise"] == other.per_stage["denoise"] == pytest.approx(denoise_s)
    assert one.p50_s < plain.p50_s - 3
    assert other.p90_s > one.p90_s + 1  # 0.25 more or less of 9 s, at 1.28 deviations


def test_one_share_moves_the_median_and_leaves_the_p90_near_that_of_full_work():
    costs = with_kept(0.5, costs=knowledge().costs)
    full = knowledge().costs.predict(FLIPBOOK.id, SHAPE, "cpu-1", a_spec(), FULL, is_edit=True)
    found = costs.predict(FLIPBOOK.id, SHAPE, "cpu-1", a_spec(), LIPAR, is_edit=True)

    assert found.p50_s < full.p50_s - 3
    assert found.p90_s > full.p50_s - 0.5


def test_of_a_profile_and_videos_made_the_one_with_more_samples_counts():
    point = ProfilePoint(1.0, 0.95, samples=8, method="lipar", linear_work=0.7, work_spread=0.1)
    shape = a_shape(profile=(*PROFILE, point))
    few, many = KeptShare(3, 0.4), KeptShare(8, 0.4)

    measured = expected(shape, LIPAR, {})
    assert measured is not None
    assert (measured.samples, measured.mean, measured.deviation) == (8, 0.7, pytest.approx(0.1))
    assert expected(shape, LIPAR, {"lipar": few}) == measured
    assert expected(shape, LIPAR, {"lipar": many}) == many


def test_shares_of_other_thresholds_models_and_methods_are_not_mixed():
    costs = with_kept(0.5)
    assert costs.kept == {(FLIPBOOK.id, "lipar"): KeptShare(1, 0.5)}
    assert (
        expected(SHAPE, OperatingPoint(24, "lipar:tau1=0.3"), {"lipar": KeptShare(1, 0.5)}) is None
    )
    assert costs.observe_kept(FLIPBOOK.id, FULL, 0.5) == costs
    plain = CostModel().predict("other", SHAPE, "cpu-1", a_spec(), LIPAR, is_edit=True)
    assert costs.predict("other", SHAPE, "cpu-1", a_spec(), LIPAR, is_edit=True) == plain


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5, float("nan")])
def test_a_share_that_cannot_be_is_passed_over(share: float):
    assert with_kept(share) == CostModel()


def test_shares_survive_the_way_through_json():
    costs = with_kept(0.4, 0.6, costs=knowledge().costs)
    assert CostModel.from_dict(json.loads(json.dumps(costs.to_dict()))) == costs


def test_a_document_from_before_there_were_shares_is_still_read():
    written = knowledge().costs.to_dict()
    del written["kept"]
    assert CostModel.from_dict(written) == knowledge().costs
