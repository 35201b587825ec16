"""The cost model: counting, learning, quantiles."""

from __future__ import annotations

import json
import math
import random

import pytest

from tests.builders import a_shape, a_spec, knowledge
from vidplat.domain import OperatingPoint
from vidplat.methods.model_shape import ModelShape
from vidplat.scheduler.cost import CostModel, Observation, spread_of_sum, updated_speed
from vidplat.scheduler.work import (
    StageFeatures,
    features,
    forward_gflop,
)
from vidplat.stages import (
    LOAD,
    STARTUP,
)

SHAPE = a_shape()


def timed(
    costs: CostModel, steps: int, seconds: float, *, frames: int = 33, model: str = "flipbook"
) -> CostModel:
    """`costs` after one timing of the denoise stage on cpu-1."""
    counted = features(SHAPE, a_spec(frames=frames), OperatingPoint(steps))["denoise"]
    return costs.observe(Observation(model, "cpu-1", "denoise", counted, seconds))


def denoise_s(costs: CostModel, steps: int, *, frames: int = 33, model: str = "flipbook") -> float:
    spec = a_spec(frames=frames)
    return costs.predict(model, SHAPE, "cpu-1", spec, OperatingPoint(steps)).per_stage["denoise"]


class SlowMachine:
    """The truth the model has to find: 5 ms a forward, 8 GFLOP/s linear, 3 GFLOP/s attention."""

    def __init__(self, *, noise: float = 0.1, seed: int = 1) -> None:
        self.noise = noise
        self.random = random.Random(seed)

    def seconds(self, steps: int, frames: int = 33) -> float:
        x = features(SHAPE, a_spec(frames=frames), OperatingPoint(steps))["denoise"]
        return x.calls * 0.005 + x.linear_gflop / 8 + x.attention_gflop / 3

    def timing(self, steps: int, frames: int = 33) -> float:
        return self.seconds(steps, frames) * math.exp(self.random.gauss(0, self.noise))


def test_one_forward_of_wan_1_3b_counts_283_tflop_of_which_198_are_attention():
    # given Wan 2.1 1.3B: 30 blocks, width 1536, ffn 8960, 512 text tokens; 480x832, 81 frames:
    # 21 latent frames x 30 x 52 patches = 32,760 tokens
    wan = ModelShape("wan", 30, 1536, 8960, 512, (1, 2, 2), 4, 8, 2_800_000_000, a_spec())
    spec = a_spec(width=832, height=480, frames=81)

    linear, attention = forward_gflop(wan, wan.tokens(spec))

    assert wan.tokens(spec) == 32_760
    assert attention / 1000 == pytest.approx(198, abs=0.5)
    assert (linear + attention) / 1000 == pytest.approx(283, abs=0.5)


def test_guidance_doubles_the_forwards_and_nothing_else():
    with_guidance = features(SHAPE, a_spec(guidance=5.0), OperatingPoint(24))
    without = features(SHAPE, a_spec(guidance=1.0), OperatingPoint(24))

    assert with_guidance["denoise"].calls == 48
    assert without["denoise"].calls == 24
    assert with_guidance["decode"] == without["decode"]


def test_frames_that_are_left_out_are_filled_in_and_not_decoded():
    # 33 frames are 9 latent ones; 5 of them decode to 4 x (5 - 1) + 1 = 17 frames, 16 are left.
    counted = features(SHAPE, a_spec(width=100, height=100), OperatingPoint(24, "eco:k=5"))

    assert counted["decode"].megapixels == pytest.approx(0.17)
    assert counted["reconstruct"].megapixels == pytest.approx(0.16)
    assert counted["mp4"].megapixels == pytest.approx(0.33)


def test_a_full_video_fills_in_nothing_and_is_charged_nothing_for_it():
    counted = features(SHAPE, a_spec(), OperatingPoint(24))

    assert counted["reconstruct"] == StageFeatures()
    assert (
        CostModel()
        .predict("m", SHAPE, "cpu-1", a_spec(), OperatingPoint(24))
        .per_stage["reconstruct"]
        == 0.0
    )


def test_before_any_timing_there_is_a_guess_with_p90_at_most_one_and_a_half_times_p50():
    guess = CostModel().predict("flipbook", SHAPE, "cpu-1", a_spec(), OperatingPoint(24))

    assert guess.p50_s > 0
    assert 1.25 * guess.p50_s < guess.p90_s <= 1.5 * guess.p50_s


def test_a_gpu_is_guessed_faster_than_a_thread_and_two_threads_faster_than_one():
    def seconds(device: str) -> float:
        return (
            CostModel()
            .predict("m", SHAPE, device, a_spec(width=512, height=512), OperatingPoint(24))
            .p50_s
        )

    assert seconds("NVIDIA H200") < seconds("cpu-2") < seconds("cpu-1")


def test_one_timing_sets_the_level_of_a_guess_that_was_tenfold_off():
    machine_s = 10 * denoise_s(CostModel(), 24)

    costs = timed(CostModel(), 24, machine_s)

    assert denoise_s(costs, 24) == pytest.approx(machine_s)


def test_after_twenty_timings_predictions_are_within_15_percent_also_at_twice_the_length():
    # given timings at 17 and 33 frames, 4 to 24 steps, with 10 % noise
    machine = SlowMachine()
    costs = CostModel()
    for k in range(20):
        steps, frames = (4, 8, 16, 24)[k % 4], (17, 33)[k % 2]
        costs = timed(costs, steps, machine.timing(steps, frames), frames=frames)

    for steps, frames in ((24, 17), (24, 33), (12, 33), (6, 17), (24, 65)):
        assert denoise_s(costs, steps, frames=frames) == pytest.approx(
            machine.seconds(steps, frames), rel=0.15
        )


def test_p90_covers_about_nine_in_ten_of_the_timings_to_come():
    # given 20 % noise (p90 / p50 = exp(1.28 x 0.2) = 1.29), each timing is predicted before it is
    # seen
    machine = SlowMachine(noise=0.2)
    counted = features(SHAPE, a_spec(), OperatingPoint(24))["denoise"]
    costs, covered = CostModel(), []
    for _ in range(600):
        seconds = machine.timing(24)
        covered.append(seconds <= costs.stage("flipbook", "cpu-1", "denoise", counted).p90_s)
        costs = timed(costs, 24, seconds)

    # then: the first hundred teach, the next five hundred count; two standard errors are 2.7 %
    assert 0.87 <= sum(covered[100:]) / 500 <= 0.94


def test_a_machine_that_slows_down_by_30_percent_is_believed_within_fifty_timings():
    machine = SlowMachine()
    costs = CostModel()
    for _ in range(100):
        costs = timed(costs, 24, machine.timing(24))
    for _ in range(50):
        costs = timed(costs, 24, 1.3 * machine.timing(24))

    assert denoise_s(costs, 24) == pytest.approx(1.3 * machine.seconds(24), rel=0.1)


def test_a_guess_made_alone_is_corrected_within_ten_timings_beside_others_that_halve_the_speed():
    machine = SlowMachine(noise=0.05)
    costs = CostModel()
    for steps in (2, 2, 4):
        costs = timed(costs, steps, machine.timing(steps))
    for _ in range(10):
        costs = timed(costs, 24, 2 * machine.timing(24))

    assert denoise_s(costs, 24) == pytest.approx(2 * machine.seconds(24), rel=0.1)


def test_a_lone_straggler_hardly_moves_the_median():
    machine = SlowMachine(noise=0.05)
    costs = CostModel()
    for _ in range(60):
        costs = timed(costs, 24, machine.timing(24))
    before = denoise_s(costs, 24)

    costs = timed(costs, 24, 5 * machine.seconds(24))

    assert denoise_s(costs, 24) == pytest.approx(before, rel=0.1)


def test_more_steps_never_cost_less():
    machine = SlowMachine(noise=0.3)
    costs = CostModel()
    for steps in (24, 4, 4, 24, 12, 3, 20, 8) * 5:
        costs = timed(costs, steps, machine.timing(steps))

    seconds = [denoise_s(costs, steps) for steps in range(1, 25)]

    assert seconds == sorted(seconds)


def test_a_model_never_seen_on_a_device_borrows_the_speed_other_models_had_there():
    machine = SlowMachine(noise=0.0)
    costs = CostModel()
    for steps in (4, 8, 24, 12) * 5:
        costs = timed(costs, steps, machine.timing(steps))

    stranger = costs.predict("stranger", SHAPE, "cpu-1", a_spec(), OperatingPoint(24))

    assert stranger.per_stage["denoise"] == pytest.approx(machine.seconds(24), rel=0.05)
    assert costs.samples("stranger", "cpu-1") == 0
    assert stranger.p90_s > 1.25 * stranger.p50_s  # borrowed, so not trusted


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf])
def test_a_timing_that_cannot_be_is_passed_over(seconds: float):
    assert timed(CostModel(), 24, seconds) == CostModel()


def test_observing_gives_a_new_model_and_leaves_the_old_one_alone():
    old = timed(CostModel(), 24, 5.0)
    before = denoise_s(old, 24)

    new = timed(old, 24, 9.0)

    assert denoise_s(old, 24) == before
    assert denoise_s(new, 24) > before


def test_a_model_survives_the_way_through_json():
    costs = knowledge().costs

    again = CostModel.from_dict(json.loads(json.dumps(costs.to_dict())))

    assert again == costs


@pytest.mark.parametrize(
    "stored", [{}, {"version": 0, "stages": []}, {"version": 1, "stages": [{"model": "m"}]}]
)
def test_a_stored_model_that_is_damaged_or_of_another_version_is_forgotten(
    stored: dict[str, object],
):
    assert CostModel.from_dict(stored) == CostModel()


def test_startup_is_learnt_like_any_stage():
    guess = CostModel().startup("flipbook", SHAPE, "cpu-1").p50_s
    costs = CostModel().observe(
        Observation("flipbook", "cpu-1", STARTUP, StageFeatures(calls=1), 3.0)
    )
    counted = features(SHAPE, a_spec(), OperatingPoint(1))
    costs = costs.observe(Observation("flipbook", "cpu-1", LOAD, counted[LOAD], 1.5))

    assert guess > 0
    assert costs.startup("flipbook", SHAPE, "cpu-1").p50_s == pytest.approx(4.5)


def test_the_spread_of_one_part_is_its_own_and_of_many_lies_between_independent_and_common():
    # four parts of spread 3: independent sqrt(4 x 9) = 6, common 12;
    # equally correlated at 0.25: sqrt(0.75 x 36 + 0.25 x 144) = sqrt(63)
    assert spread_of_sum([3.0]) == pytest.approx(3.0)
    assert spread_of_sum([3.0] * 4) == pytest.approx(math.sqrt(63))
    assert spread_of_sum([]) == 0.0


def test_a_workers_speed_drifts_towards_what_was_measured():
    # predicted 10 s, took 20 s: measured speed 0.5; 0.7 x 1 + 0.3 x 0.5 = 0.85
    assert updated_speed(1.0, predicted_s=10.0, actual_s=20.0) == pytest.approx(0.85)
    assert updated_speed(1.0, predicted_s=10.0, actual_s=0.0) == 1.0
