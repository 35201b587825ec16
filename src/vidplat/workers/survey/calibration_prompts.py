"""What a model is asked for while it is calibrated: movement of many kinds, in our own words."""

from __future__ import annotations

from itertools import cycle, islice

SCENES = (
    "a golden retriever runs along a beach at sunset, waves behind it",
    "a cyclist rides down a narrow street in the rain, the camera follows",
    "close-up of a potter's hands shaping wet clay on a turning wheel",
    "snow falls slowly on a wooden cabin in a quiet forest",
    "a crowd crosses a busy junction at night under neon signs, seen from above",
    "a hummingbird hovers in front of a red flower, then darts away",
    "the camera flies over a mountain lake at dawn, mist on the water",
    "a chef tosses vegetables in a pan, flames leap up",
    "a sailing boat tilts in strong wind, spray flies over the bow",
    "an old man reads a newspaper on a park bench, pigeons walk around him",
    "a steam train leaves a station, smoke fills the platform",
    "a child blows soap bubbles in a garden, they drift out of view",
    "a dancer in a white dress turns on an empty stage, one spotlight",
    "time-lapse of clouds that race over a city skyline",
    "a jellyfish pulses through dark blue water",
    "a red sports car drifts around a corner, the camera pans with it",
)
SHAPES = (  # for the embedded models, which know moving shapes only
    "a large red circle moves fast right on a plain gray background",
    "a small yellow square drifts slowly down on a plain navy background",
    "a large white cross stays still on a checkered maroon background",
    "a small cyan circle orbits clockwise on a plain black background",
    "a large green triangle orbits counterclockwise on a striped gray background",
    "a small magenta circle bounces up and down on a plain forest background",
    "a large blue square moves slowly left on a plain white background",
    "a small red cross moves fast up on a striped navy background",
    "a large yellow triangle drifts slowly right on a checkered black background",
    "a small white circle bounces left and right on a plain maroon background",
    "a large magenta square orbits clockwise on a plain gray background",
    "a small green cross stays still on a striped black background",
    "a large cyan triangle moves fast down on a plain forest background",
    "a small blue circle drifts slowly up on a checkered gray background",
    "a large white square moves left on a plain navy background, the camera pans right",
    "a small yellow circle orbits counterclockwise on a plain maroon background",
)


def calibration_prompts(knows_shapes_only: bool, many: int) -> list[str]:
    """The first `many`; from the 17th on they come again, for another seed."""
    return list(islice(cycle(SHAPES if knows_shapes_only else SCENES), many))
