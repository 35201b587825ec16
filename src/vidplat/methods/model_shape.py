"""What must be known of a model to count its work and foretell its quality.

`ModelShape` is numbers alone: sizes of the transformer, how many pixels a latent cell stands for,
the measured profile, and for block-causal models how their blocks are made. Left to others:
counting (`pass_size`, `scheduler.work`), reading the files (`workers.models.catalogue`), measuring
profiles (`platform.measuring`).
"""

from __future__ import annotations

from dataclasses import dataclass

from vidplat.domain import VideoSpec
from vidplat.methods.pass_size import BlockSize

#: Solvers by their classes in diffusers: those that can be asked for in place of a model's own.
EULER, UNIPC = "FlowMatchEulerDiscreteScheduler", "UniPCMultistepScheduler"


def latent_frames(num_frames: int, temporal_factor: int) -> int:
    """F of a video: its first frame alone, then one for each `temporal_factor` frames."""
    return (num_frames - 1) // temporal_factor + 1


def decoded_frames(latents: int, temporal_factor: int) -> int:
    """Frames that one or more latent frames decode to."""
    return temporal_factor * (latents - 1) + 1


@dataclass(frozen=True)
class ProfilePoint:
    """One measured operating point: what it costs and what it loses against full quality."""

    steps_fraction: float  # steps / full steps, in (0, 1]
    # mean SSIM to the full-step video of the same seed, in [0, 1]; full quality is 1
    quality: float
    quality_spread: float = 0.0  # standard deviation over prompts
    psnr_db: float | None = None
    prompt_fit: float | None = None  # share of caption attributes shown, where that can be measured
    samples: int = 0
    method: str = ""  # canonical text of `vidplat.methods.language`; "": none
    # FLOPs of projections and feed forward over those of as many plain steps
    linear_work: float = 1.0
    attention_work: float = 1.0  # FLOPs of self-attention, likewise
    # standard deviation of linear_work over prompts, where it depends on the video
    work_spread: float = 0.0
    # measured denoising seconds over those that this work takes in plain steps
    overhead: float = 1.0


@dataclass(frozen=True)
class Blocks:
    """How a block-causal model makes a video, some frames after the others: its `causal.json`."""

    frames: int  # latent frames of a block; the last block may have fewer
    # thousandths of the schedule, before the shift, falling; the first is 1000: noise alone
    steps: tuple[float, ...]
    shift: float
    sink: int  # a block attends to the first so many finished frames ...
    recent: int  # ... and to the last so many, its own included
    trained: int  # positions in time that the model has learnt, in latent frames


@dataclass(frozen=True)
class ModelShape:
    """What a model's work is counted by. Filled by `workers.models` from config files.

    With s the spatial factor and p the patch a video has latent frames x (height / s / p) x
    (width / s / p) tokens.
    """

    family: str  # wan, causal-wan, ...
    layers: int
    width: int  # hidden
    ffn_width: int
    text_tokens: int
    patch: tuple[int, int, int]  # latent frames, rows, columns per token
    temporal_factor: int  # frames per latent frame, see `latent_frames`
    spatial_factor: int  # pixels per latent cell, per axis
    parameter_bytes: int
    defaults: VideoSpec  # seed 0
    # empty: not measured; the planner then says so and uses steps alone
    profile: tuple[ProfilePoint, ...] = ()
    blocks: Blocks | None = None  # None: all frames are made together
    solver: str = EULER  # class of the model's own scheduler

    @property
    def block(self) -> BlockSize:
        return BlockSize(self.width, self.ffn_width, self.text_tokens)

    def latent_frames(self, num_frames: int) -> int:
        """F of a video of `num_frames`."""
        return latent_frames(num_frames, self.temporal_factor)

    def frames_of(self, latents: int) -> int:
        """Frames that so many latent frames decode to: the inverse of `latent_frames`."""
        return decoded_frames(latents, self.temporal_factor)

    def tokens(self, spec: VideoSpec, latent_frames: int | None = None) -> int:
        """Transformer tokens of one video, or of its first `latent_frames`."""
        frames = self.latent_frames(spec.num_frames) if latent_frames is None else latent_frames
        cell = self.spatial_factor
        rows, columns = spec.height // cell // self.patch[1], spec.width // cell // self.patch[2]
        return (frames // self.patch[0]) * rows * columns
