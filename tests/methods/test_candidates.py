"""The ways that a survey compares."""

from vidplat.domain import OperatingPoint, VideoSpec
from vidplat.methods.candidates import candidates
from vidplat.methods.kinds import Candidate
from vidplat.methods.language import asked, text

SPEC = VideoSpec(
    width=64,
    height=64,
    num_frames=33,
    fps=16,
    num_inference_steps=24,
    guidance_scale=5.0,
    seed=0,
)


def points(way: Candidate) -> list[OperatingPoint]:
    return [*way.settings] or [way.point(x) for x in (0.2, 0.8) if way.point]


def test_on_a_model_of_another_solver_what_needs_euler_is_tried_with_it() -> None:
    ways = {way.name: way for way in candidates(SPEC, 9, "UniPCMultistepScheduler")}
    solved = {
        name: {point.method.endswith("euler") for point in points(way)}
        for name, way in ways.items()
    }
    assert all(solved[name] == {True} for name in ("hsa", "hsa+sparse", "early", "euler"))
    assert all(solved[name] == {False} for name in ("steps", "sparse", "easycache", "eco 3"))
    assert "unipc" not in ways  # its fewer steps are the model's
    for way in ways.values():
        for point in points(way):
            assert not point.accelerator or text(asked(point.method).chosen) == point.method


def test_early_takes_whole_passes_so_that_no_video_is_measured_under_two_names() -> None:
    (early,) = (way for way in candidates(SPEC, 9) if way.name == "early")
    assert early.point is not None
    assert early.point(0.5) == OperatingPoint(24, "early")
    # 0.32 and 0.35 of 24 are 7.7 and 8.4: eight passes
    assert early.point(0.32) == early.point(0.35) == OperatingPoint(24, "early:work=0.3333")
    assert early.point(0.001) == OperatingPoint(24, "early:work=0.0417")
