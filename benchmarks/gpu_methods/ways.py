"""What is measured: the model and video of a setting, the ways to run it, and their work.

Work is told as FLOPs of the blocks over those of stock dense attention, as plans count it
(`vidplat.methods.work`), so that what was counted while a way ran can be held against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from vidplat.domain import OperatingPoint, VideoSpec
from vidplat.methods.model_shape import ModelShape
from vidplat.methods.protocol import Grid
from vidplat.methods.work import method_work

GUIDANCE, STRENGTH = 5.0, 0.6  # strength: of edits
KEPT_OF_21 = (6, 8, 11, 14, 16, 21)  # latent frames
STREAM = "stream, pruned"


@dataclass(frozen=True)
class Setting:
    """A model and a video of it."""

    name: str
    shape: ModelShape
    heads: int
    text_width: int

    @property
    def steps(self) -> int:
        return self.shape.defaults.num_inference_steps

    @property
    def latents(self) -> tuple[int, int, int]:
        """Frames, rows and columns of latent cells; a token has 2x2 of a frame."""
        spec, cell = self.shape.defaults, self.shape.spatial_factor
        return self.shape.latent_frames(spec.num_frames), spec.height // cell, spec.width // cell

    @property
    def grid(self) -> Grid:
        frames, rows, columns = self.latents
        return Grid(frames, rows // 2, columns // 2)


def _setting(
    name: str, blocks: tuple[int, int, int], text: tuple[int, int], heads: int, spec: VideoSpec
) -> Setting:
    """blocks: how many, their width and that of the feed forward; text: tokens and their width."""
    (layers, width, ffn), (tokens, text_width) = blocks, text
    unknown = 0  # bytes of the parameters: no question of memory is asked of it
    shape = ModelShape("wan", layers, width, ffn, tokens, (1, 2, 2), 4, 8, unknown, spec)
    return Setting(f"{name}, random weights", shape, heads, text_width)


FULL = _setting(
    "Wan 2.1 1.3B",
    blocks=(30, 1536, 8960),
    text=(512, 4096),
    heads=12,
    spec=VideoSpec(832, 480, 81, 16, 40, GUIDANCE, 0),
)
SMALL = _setting(
    "a small Wan",
    blocks=(1, 128, 512),
    text=(16, 64),
    heads=4,
    spec=VideoSpec(128, 96, 25, 16, 24, GUIDANCE, 0),
)


@dataclass(frozen=True)
class Way:
    """One row. `whole`: its steps differ in cost, so a whole run is timed."""

    part: str
    method: str  # as `vidplat.methods.language` reads it; "" for stock attention
    whole: bool = False
    compiled: bool = False
    frames: int = 0  # latent frames; 0: all

    @property
    def edits(self) -> bool:
        """Whether it starts from the source."""
        return self.part == "lipar"

    @property
    def name(self) -> str:
        frames = f"{self.frames} latent frames" if self.frames else ""
        return (self.method or frames or "dense") + (" compiled" if self.compiled else "")

    @property
    def work_key(self) -> str:
        """Equal for ways that do the same work by different paths."""
        pieces = (self.method or self.name).split("+")
        return "+".join(piece.partition(",path=")[0] for piece in pieces)

    @property
    def is_counted(self) -> bool:
        return not self.compiled and "path=flex" not in self.method


RIVAL = Way("dense", "", compiled=True)  # the model compiled as a whole


PARTS = ("hsa", "sparse", "both", "lipar", "frames", "stream")


def ways(parts: Sequence[str], paths: Sequence[str], latents: int) -> list[Way]:
    """All rows of these parts, in the order they are run; `paths` are those of tile masks."""
    masked = [f"hsa:{preset}+sparse:k=3,path={path}" for preset in ("50", "25") for path in paths]
    kept = sorted({round(k * latents / 21) for k in KEPT_OF_21})
    every = {
        "hsa": [Way("hsa", f"hsa:{preset}", True) for preset in ("75A", "75B", "50", "25")],
        "sparse": [Way("sparse", f"sparse:k={k},path={path}") for k in (1, 3, 5) for path in paths],
        "both": [Way("both", method, True) for method in masked],
        # noise-aware makes a pass more, in the first step
        "lipar": [
            Way("lipar", f"lipar:recovery={form}", form == "noise-aware")
            for form in ("noisy", "none", "bias", "noise-aware")
        ],
        "frames": [Way("frames", "", frames=k) for k in kept],
        "stream": [Way("stream", STREAM)],
    }
    return [way for part in parts for way in every[part]]


class Work(NamedTuple):
    """FLOPs of a run over those of dense."""

    linear: float
    attention: float
    total: float


def planned(way: Way, setting: Setting, steps: int, kept: float) -> Work | None:
    """As a plan counts it, of an edit with the share of tokens that LIPAR keeps; None for streams,
    which plans do not choose. Text tokens count with the others; it assumes for `both` that the
    tokens that run are spread evenly over frames."""
    if way.part == "stream":
        return None
    shape, grid = setting.shape, setting.grid
    left_tokens = (way.frames or grid.frames) * grid.per_frame
    linear, attention = shape.block.shares(left_tokens, grid.tokens)
    if way.method:
        taken = max(1, int(steps * STRENGTH)) if way.edits else steps
        left = method_work(shape, shape.defaults, OperatingPoint(taken, way.method), kept)
        linear, attention = linear * left.linear, attention * left.attention
    share = shape.block.attention_share(grid.tokens)
    return Work(linear, attention, (1 - share) * linear + share * attention)
