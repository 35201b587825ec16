"""What a VGDFR run of M latent frames costs, and how many it may keep by a deadline.

S steps, of which k see all F latent frames and the others M of them; b branches per step. Between
them lies the compression (preview, likeness, encoding), after them decoding and interpolation.
`Costs` puts seconds to that, as measured on a machine; `most_latents` turns it round. M is known
only after k steps, so a plan made before must reckon with all F of them.

`forward_flops` and `speedup` are the model behind the published speedups: operations of a
transformer whose blocks attend jointly to video and text, denoising alone. VGDFR (arXiv 2504.12259)
has neither; both modes are our choice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vidplat.methods.model_shape import decoded_frames, latent_frames
from vidplat.methods.vgdfr.merges import Lattice, Merges, merges_to


@dataclass(frozen=True)
class Costs:
    """Seconds of the parts of a run, and its steps. `forward_s(frames)` is one forward of so many
    latent frames."""

    forward_s: Callable[[int], float]
    steps: int  # S
    before: int  # k
    branches: int = 1  # b: 2 with guidance
    compress_s: float = 0.0
    decode_frame_s: float = 0.0
    interpolate_frame_s: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.before <= self.steps:
            raise ValueError(f"{self.before} steps before the merge do not fit into {self.steps}")

    def seconds(self, latents: int, num_frames: int, temporal_factor: int = 4) -> float:
        """T(M): the whole run when `latents` are left of a video of `num_frames`."""
        decoded = decoded_frames(latents, temporal_factor)
        everything = latent_frames(num_frames, temporal_factor)
        denoising = self.before * self.forward_s(everything) + (
            self.steps - self.before
        ) * self.forward_s(latents)
        after = self.decode_frame_s * decoded + self.interpolate_frame_s * (num_frames - decoded)
        return self.branches * denoising + self.compress_s + after

    def forwards(self) -> tuple[int, int]:
        """Forwards over all latent frames, and over those that are left. The preview takes none of
        its own."""
        return self.before * self.branches, (self.steps - self.before) * self.branches


def most_latents(costs: Costs, limit_s: float, num_frames: int, temporal_factor: int = 4) -> int:
    """M*: the most latents with which the run takes at most `limit_s`; 0 when not even one does."""
    everything = latent_frames(num_frames, temporal_factor)
    fitting = (
        m
        for m in range(everything, 0, -1)
        if costs.seconds(m, num_frames, temporal_factor) <= limit_s
    )
    return next(fitting, 0)


def merges_by_deadline(blocks: Lattice, costs: Costs, limit_s: float) -> Merges:
    """Deadline mode: the plan with the most latents that takes at most `limit_s` seconds.

    Where the frames allow none, the plan with the fewest latents, with a sentence of what it takes
    as its `reason`.
    """
    frames, t = blocks.num_frames, blocks.temporal_factor
    found = merges_to(blocks, most_latents(costs, limit_s, frames, t))
    takes = costs.seconds(len(found.latents), frames, t)
    if takes <= limit_s:
        return found
    told = (
        f"needs {takes:.3g} s with {len(found.latents)} latent frames, the fewest that it "
        "merges to; "
    )
    return Merges(frames, found.runs, t, found.theta, told + f"the limit is {limit_s:.3g} s")


def forward_flops(
    frames: int, *, per_frame: int, text: int, width: int, blocks: int
) -> tuple[float, float]:
    """Operations of one forward, and of its attention alone, over n = frames x per_frame + text
    tokens.

    24 n d^2 + 4 n^2 d in each block: projections and a feed-forward part four times as wide, QK^T
    and AV.
    """
    tokens = frames * per_frame + text
    attention = 4.0 * tokens**2 * width * blocks
    return 24.0 * tokens * width**2 * blocks + attention, attention


def speedup(share: float, steps: int, before: int) -> float:
    """Denoising all steps in full, over `before` in full and the rest at `share` of a full forward
    each."""
    return steps / (before + (steps - before) * share)
