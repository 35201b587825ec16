"""What a video needs of a device's memory, by dtype, method and phase, and what a plan makes of it.

The figures are those of Wan 2.1 14B as published: 40 layers of width 5120, feed forward 13824, a
VAE of 8 x 8 x 4; 720p and 81 frames are 21 latent frames, 75,600 tokens.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.builders import a_policy, a_shape, a_snapshot, a_spec, a_worker, an_open_job, knowledge
from vidplat.domain import OperatingPoint, VideoSpec
from vidplat.methods.model_shape import ModelShape, ProfilePoint
from vidplat.scheduler.planner import plan
from vidplat.scheduler.profile import choices
from vidplat.scheduler.work import decoding_bytes, needed_bytes

GPU = "NVIDIA H100"
HD = VideoSpec(1280, 720, 81, 16, 50, 5.0, 0)


def wan_14b() -> ModelShape:
    shape = replace(a_shape(), layers=40, width=5120, ffn_width=13824, text_tokens=512)
    return replace(shape, patch=(1, 2, 2), parameter_bytes=4 * 14_300_000_000)


def need(method: str, device: str = GPU) -> int:
    return needed_bytes(wan_14b(), HD, OperatingPoint(50, method), device)


def test_activations_take_half_on_a_gpu_where_transformers_are_bfloat16():
    assert wan_14b().tokens(HD) == 75_600
    values = 75_600 * (12 * 5120 + 2 * 13824)
    assert (need("full", GPU), need("full", "cpu-8")) == (values * 2, values * 4)


@pytest.mark.parametrize(
    ("method", "kept"),
    [
        # keys and values x branches x tokens x width x layers x bytes
        ("hsa", 2 * 2 * 75_600 * 5120 * 40 * 2),  # 124 GB
        ("hsa:work=0.3,kv=fp8+euler", 2 * 2 * 75_600 * 5120 * 40 * 1),
        ("hsa:kv=offload+sparse", 2 * 1 * 75_600 * 5120 * 2 * 2),  # two layers of a branch: 3 GB
        ("early", 0),
        ("sparse", 0),
    ],
)
def test_what_a_method_keeps_is_counted(method: str, kept: int):
    assert need(method) - need("full") == kept


def test_on_a_cpu_keys_have_nowhere_else_to_go():
    assert need("hsa:kv=offload", "cpu-8") == need("hsa", "cpu-8")


def test_decoding_takes_tiles_where_the_whole_takes_more():
    # 81 frames of 921,600 pixels are 0.9 GB in float32; a step of the whole takes 5.7 GB beside
    # two of them, in tiles of 256 x 256 pixels 0.4 GB beside four.
    video, channels = 1280 * 720 * 81 * 3 * 4, 4 * 4 * 96 * 4
    assert decoding_bytes(wan_14b(), HD) == 4 * video + channels * 256 * 256
    small = a_spec()
    assert decoding_bytes(a_shape(), small) == (2 * 33 * 3 * 4 + channels) * 64 * 64


HSA = ProfilePoint(1.0, 0.97, method="hsa", linear_work=0.5, attention_work=0.5, samples=4)
SHAPE = replace(wan_14b(), profile=(ProfilePoint(0.25, 0.8), ProfilePoint(0.5, 0.9), HSA))


def test_the_ways_that_take_less_memory_are_offered_as_what_they_were_measured_like():
    offered = choices(SHAPE, HD)
    found = dict(zip([p.method for p in offered.points], offered.qualities, strict=True))
    assert found["hsa"] == found["hsa:kv=fp8"] == found["hsa:kv=offload"] == 0.97
    asked = choices(SHAPE, HD, "hsa:work=0.3")
    assert {point.method for point in asked.points} == {
        "hsa:work=0.3", "hsa:work=0.3,kv=fp8", "hsa:work=0.3,kv=offload"
    }  # fmt: skip
    assert [p.method for p in choices(SHAPE, HD, "hsa:kv=fp8").points] == ["hsa:kv=fp8"]


@pytest.mark.parametrize(
    ("free_gb", "rung_down", "method"),
    [
        (0, 0, "hsa"),  # not known until the worker is up
        (141, 0, "hsa"),
        (100, 0, "hsa:kv=fp8"),  # 13.5 + 61.9 GB
        (60, 0, "hsa:kv=offload"),  # 13.5 + 3.1 GB
        (141, 1, "hsa:kv=fp8"),
        (141, 2, "hsa:kv=offload"),
        (100, 1, "hsa:kv=offload"),
        (15, 0, "steps"),
    ],
)
def test_what_needs_less_memory_comes_before_fewer_steps(
    free_gb: float, rung_down: int, method: str
):
    job = an_open_job(spec=HD, rung_down=rung_down)
    worker = replace(a_worker(free_gb=free_gb), device_class=GPU)
    knows = knowledge(shape=SHAPE)
    full_s = knows.costs.predict("flipbook", SHAPE, GPU, HD, OperatingPoint(50)).p90_s
    snapshot = a_snapshot(jobs=[job], workers=[worker], deadline_at=0.75 * full_s)
    (assigned,) = plan(snapshot, a_policy(), knows).assignments
    assert assigned.point.method == method
