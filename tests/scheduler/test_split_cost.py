"""Seconds and bytes of a split: the sums as written down, the pipeline by brute force, and the published table."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from tests.builders import a_spec
from vidplat.domain import ModelShape
from vidplat.scheduler.split_cost import (
    ForwardCost,
    SplitClip,
    SplitMachines,
    SplitPoint,
    denoising_s,
    denoising_speedup,
    fitted,
    flow_shop,
    overlapped,
    sent_bytes,
    serial,
)
from vidplat.scheduler.work import forward_gflop

# 81 frames are 21 latents; 50 steps, the first 5 with all frames.
CLIP = SplitClip(81, tokens_per_frame=10, latent_values=1000, frame_bytes=300, steps=50, warmup=5)
MACHINES = SplitMachines(
    ForwardCost(1.0, 0.01, 0.0), decode_frame_s=0.5, insert_s=(0.25, 0.5, 1.0, 2.0), bits_per_s=1000.0, rtt_s=2.0,
    edge_share=0.5, text_s=3.0, entropy_s=4.0, score_s=0.125, edge_decode_frame_s=1.5, video_bytes={11: 5000},
)  # fmt: skip


def a_wan(name: str) -> ModelShape:
    layers, width, ffn = {"1.3B": (30, 1536, 8960), "14B": (40, 5120, 13824)}[name]
    return ModelShape("wan", layers, width, ffn, 512, (1, 2, 2), 4, 8, 0, a_spec())


@pytest.mark.parametrize(
    ("model", "width", "height", "pflop", "share", "half", "speedups"),
    [
        ("1.3B", 832, 480, 0.283, 0.699, 0.3497, (2.41, 3.39, 4.37)),
        ("14B", 832, 480, 1.678, 0.524, 0.3938, (2.20, 3.01, 3.82)),
        ("14B", 1280, 720, 6.523, 0.718, 0.3449, (2.44, 3.44, 4.43)),
    ],
)
def test_the_table_of_the_flop_model_comes_out_to_three_digits(
    model: str, width: int, height: int, pflop: float, share: float, half: float, speedups: tuple[float, ...]
):
    wan, spec = a_wan(model), a_spec(width=width, height=height, frames=81)
    flops = {k: forward_gflop(wan, wan.tokens(spec, k)) for k in (21, 11, 8, 6)}
    full = sum(flops[21])

    assert full / 1e6 == pytest.approx(pflop, abs=5e-4)
    assert flops[21][1] / full == pytest.approx(share, abs=5e-4)
    assert sum(flops[11]) / full == pytest.approx(half, abs=5e-5)
    for k, speedup in zip((11, 8, 6), speedups, strict=True):
        assert denoising_speedup(full, sum(flops[k]), 50, 5) == pytest.approx(speedup, abs=5e-3)


def test_every_second_of_a_serial_split_is_accounted_for():
    times = serial(CLIP, MACHINES, SplitPoint(11, 2))

    # c(21) = 1 + 2.1, c(11) = 1 + 1.1; text 3, entropy 4, 2 (5 * 3.1 + 45 * 2.1) = 220, decode 41 / 2
    assert times.cloud_s == pytest.approx(3 + 4 + 220 + 20.5)
    assert times.network_s == pytest.approx(2 + 8 * 5000 / 1000)
    assert times.edge_s == pytest.approx(40 * 1.0 / 0.5)  # 81 - 41 frames on half an edge
    assert times.total_s == pytest.approx(247.5 + 42 + 80)
    assert times.edge_bytes == 81 * 300


def test_latents_take_the_decoder_to_the_edge():
    times = serial(CLIP, MACHINES, SplitPoint(11, 2, "latent"))

    assert times.sent_bytes == 2 * 11 * 1000
    assert times.cloud_s == pytest.approx(3 + 4 + 220)
    assert times.edge_s == pytest.approx((40 * 1.0 + 41 * 1.5) / 0.5)
    assert times.edge_bytes == 81 * 300 + 22_000


def test_scoring_costs_and_a_faster_output_needs_more_frames():
    scored = serial(CLIP, MACHINES, SplitPoint(11, 0), scored=80)
    faster = serial(replace(CLIP, output_frames=121), MACHINES, SplitPoint(11, 0))

    assert scored.edge_s == pytest.approx((40 * 0.25 + 80 * 0.125) / 0.5)
    assert faster.edge_s == pytest.approx(80 * 0.25 / 0.5)


def test_all_frames_need_no_edge():
    assert serial(CLIP, MACHINES, SplitPoint(21, 3)).edge_s == 0


def test_a_video_that_was_not_measured_is_counted_by_its_pixels():
    assert sent_bytes(CLIP, MACHINES, SplitPoint(11, 0)) == 5000
    assert sent_bytes(CLIP, MACHINES, SplitPoint(8, 0)) == round(29 * 100 * 0.05)


def test_full_forwards_are_counted_in_the_warm_up_and_short_ones_after_it():
    """s b forwards of F P tokens and (S - s) b of K P: with c(n) = 1 their number, with c(n) = n their tokens."""
    counted = replace(MACHINES, forward=ForwardCost(1, 0, 0), text_s=0, entropy_s=0)
    tokens = replace(counted, forward=ForwardCost(0, 1, 0))

    assert denoising_s(CLIP, counted, 11) == 2 * 50
    assert denoising_s(CLIP, tokens, 11) == 2 * (5 * 210 + 45 * 110)
    assert denoising_s(CLIP, tokens, 21) == 2 * 50 * 210


@pytest.mark.parametrize(
    ("point", "said"),
    [
        (SplitPoint(22, 0), "22 keyframes cannot be chosen from 21"),
        (SplitPoint(0, 0), "0 keyframes cannot be chosen from 21"),
        (SplitPoint(11, 4), "depth 4 was not measured; 4 depths were"),
        (SplitPoint(11, 0, "letters"), "one of video, latent, not 'letters'"),
    ],
)
def test_points_that_cannot_be_are_refused(point: SplitPoint, said: str):
    with pytest.raises(ValueError, match=said):
        serial(CLIP, MACHINES, point)


def test_a_link_or_an_edge_of_nothing_is_refused():
    for nothing in ({"bits_per_s": 0.0}, {"edge_share": 0.0}):
        with pytest.raises(ValueError, match="carries no job"):
            replace(MACHINES, **nothing)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="60 steps with all frames do not fit into 50"):
        replace(CLIP, warmup=60)


# --- the fit ---------------------------------------------------------------------------------------


def test_a_parabola_is_found_from_three_forwards():
    truth = ForwardCost(0.5, 2e-4, 3e-9)

    found = fitted([(n, truth.seconds(n)) for n in (9_360, 17_160, 32_760)])

    assert (found.a0, found.a1, found.a2) == pytest.approx((0.5, 2e-4, 3e-9), rel=1e-9)


def test_no_coefficient_is_negative():
    """Exact for a0 - a1 n + a2 n^2, so that plain least squares would answer with the negative slope."""
    timings = [(n, 10 - 0.1 * n + 0.01 * n * n) for n in (5, 6, 7, 8)]

    found = fitted(timings)

    assert min(found.a0, found.a1, found.a2) >= 0
    # No slope is left: the line through n^2, by the two normal equations, s = a0 + a2 q with q = 25, 36, 49, 64.
    q, s = [n * n for n, _ in timings], [each for _, each in timings]
    slope = sum((a - 43.5) * b for a, b in zip(q, s, strict=True)) / sum((a - 43.5) ** 2 for a in q)
    assert found.a2 == pytest.approx(slope)
    assert found.a0 == pytest.approx(sum(s) / 4 - 43.5 * slope)


def test_two_lengths_are_not_enough():
    with pytest.raises(ValueError, match="three lengths, not of 2"):
        fitted([(10, 1.0), (20, 2.0), (20, 2.1)])


# --- the pipeline ----------------------------------------------------------------------------------


def longest_path(seconds: list[list[float]]) -> float:
    """A flow shop ends with its longest path: over all walks down the items and along the stages."""

    def ends(item: int, stage: int) -> float:
        before = [ends(item - 1, stage)] if item else []
        before += [ends(item, stage - 1)] if stage else []
        return max(before, default=0.0) + seconds[item][stage]

    return ends(len(seconds) - 1, len(seconds[0]) - 1)


def test_a_flow_shop_ends_with_its_longest_path():
    rng = random.Random(0)
    for _ in range(50):
        seconds = [[float(rng.randrange(10)) for _ in range(3)] for _ in range(rng.randrange(1, 6))]

        assert flow_shop(seconds) == longest_path(seconds)


def test_equal_items_wait_for_the_slowest_stage():
    assert flow_shop([[1.0, 5.0, 2.0]] * 4) == 1 + 5 + 2 + 3 * 5
    assert flow_shop([]) == 0


@pytest.mark.parametrize("payload", ["video", "latent"])
@pytest.mark.parametrize("k", [1, 2, 6, 11, 21])
def test_overlap_saves_time_and_no_work(k: int, payload: str):
    point = SplitPoint(k, 1, payload)
    apart, together = serial(CLIP, MACHINES, point), overlapped(CLIP, MACHINES, point)
    denoising = denoising_s(CLIP, MACHINES, k)

    assert replace(together, total_s=apart.total_s) == apart  # the same parts
    # Never before the slowest stage is done, and never after one part following the other.
    slowest = max(apart.cloud_s - denoising, apart.network_s, apart.edge_s)
    assert denoising + slowest - 1e-9 <= together.total_s <= apart.total_s + 1e-9


def test_wide_gaps_at_the_end_hold_the_last_frames_up():
    point = SplitPoint(3, 3)
    early = overlapped(CLIP, MACHINES, point, gaps=(19, 1))
    late = overlapped(CLIP, MACHINES, point, gaps=(1, 19))

    assert early.total_s < late.total_s
    assert overlapped(CLIP, MACHINES, point) == overlapped(CLIP, MACHINES, point, gaps=(10, 10))
    with pytest.raises(ValueError, match="3 keyframes have 2 gaps"):
        overlapped(CLIP, MACHINES, point, gaps=(20,))
