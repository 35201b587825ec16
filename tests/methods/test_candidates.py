"""The ways that a survey compares."""

from vidplat.domain import OperatingPoint, VideoSpec
from vidplat.methods.candidates import candidates


def test_early_takes_whole_passes_so_that_no_video_is_measured_under_two_names() -> None:
    spec = VideoSpec(
        width=64,
        height=64,
        num_frames=33,
        fps=16,
        num_inference_steps=24,
        guidance_scale=5.0,
        seed=0,
    )
    (early,) = (way for way in candidates(spec, 9) if way.name == "early")
    assert early.point is not None
    assert early.point(0.5) == OperatingPoint(24, "early")
    # 0.32 and 0.35 of 24 are 7.7 and 8.4: eight passes
    assert early.point(0.32) == early.point(0.35) == OperatingPoint(24, "early:work=0.3333")
    assert early.point(0.001) == OperatingPoint(24, "early:work=0.0417")
