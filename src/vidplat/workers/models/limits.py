"""Which videos a model can make: the rule, and the nearest valid value when a request breaks it.

Pure arithmetic on `ModelShape`, so that intake can check a million rows without loading a model.
Whether the machine has the memory for a size is not decided here.
"""

from __future__ import annotations

from math import lcm

from vidplat.domain import VideoSpec
from vidplat.errors import SpecError
from vidplat.methods.model_shape import ModelShape

PIXEL_STEP = 16  # WanPipeline refuses sizes that are not multiples of 16, whatever the patch
LARGEST_SEED = 2**63 - 1  # torch takes seeds as signed 64-bit integers


def size_step(shape: ModelShape, axis: int) -> int:
    """Widths (axis 2) and heights (axis 1) must be multiples of this many pixels."""
    return lcm(PIXEL_STEP, shape.spatial_factor * shape.patch[axis])


def nearest_multiple(value: int, step: int) -> int:
    """The positive multiple of `step` nearest to `value`; the larger one of two equally near."""
    return max(step, (2 * value + step) // (2 * step) * step)


def nearest_frames(frames: int, shape: ModelShape) -> int:
    """The number of the form factor x k + 1 nearest to `frames`, k + 1 a multiple of the temporal
    patch."""
    factor, patch = shape.temporal_factor, shape.patch[0]
    latent = (
        nearest_multiple(shape.latent_frames(frames), patch)
        if patch > 1
        else round((frames - 1) / factor) + 1
    )
    return shape.frames_of(max(latent, 1))


def check_spec(shape: ModelShape, spec: VideoSpec) -> None:
    """Raises `SpecError` with every broken rule and the nearest valid value."""
    problems = []
    for name, value, axis in (("height", spec.height, 1), ("width", spec.width, 2)):
        step = size_step(shape, axis)
        if value <= 0 or value % step:
            problems.append(
                f"{name} must be a multiple of {step}, not {value}: use "
                f"{nearest_multiple(value, step)}"
            )
    if spec.num_frames != (near := nearest_frames(spec.num_frames, shape)):
        rule = f"{shape.temporal_factor}k+1"
        problems.append(f"num_frames must be of the form {rule}, not {spec.num_frames}: use {near}")
    for name, count in (("fps", spec.fps), ("num_inference_steps", spec.num_inference_steps)):
        if count < 1:
            problems.append(f"{name} must be at least 1, not {count}")
    if shape.blocks is not None and spec.num_inference_steps > (most := len(shape.blocks.steps)):
        problems.append(
            f"num_inference_steps must be at most {most}, the steps this model makes a block in, "
            f"not {spec.num_inference_steps}: use {most}"
        )
    if not 0.0 <= spec.guidance_scale <= 100.0:  # also false for NaN
        problems.append(f"guidance_scale must be between 0 and 100, not {spec.guidance_scale}")
    if not 0 <= spec.seed <= LARGEST_SEED:
        problems.append(f"seed must be between 0 and {LARGEST_SEED}, not {spec.seed}")
    if problems:
        raise SpecError("; ".join(problems))
