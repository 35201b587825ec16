"""EcoVideo as it is asked for: K latent frames are finished, the others are left out early and
filled in."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from vidplat.methods.eco.budget import budgets, kept_frames, warmup_steps
from vidplat.methods.kinds import (
    Candidate,
    Choice,
    MethodKind,
    Number,
    PlannedRun,
    Seam,
    Share,
    Task,
    Value,
    Values,
)

if TYPE_CHECKING:
    from vidplat.methods.protocol import Method


class EcoKind(MethodKind):
    """K latent frames are finished, the others filled in."""

    name = "eco"
    seam = Seam.FRAMES
    parameters = MappingProxyType(
        {
            # Latent frames that are finished; None: half of them.
            "k": Number(None, 2, 1000, whole=True),
            # Share of the steps that see all frames.
            "warmup": Number(0.1, 0.0, 1.0),
            # What decides which; EcoVideo's own is entropy.
            "selector": Choice("uniform", ("entropy", "uniform", "motion")),
        }
    )
    first = "k"
    left_to_plan = "k"

    def unsuited(self, values: Values, task: Task) -> str:
        k, frames = values["k"], task.latent_frames
        if k is not None and k > frames:
            return (
                f"{k} keyframes cannot be chosen from {frames} latent frames; take "
                f"K={frames} or less"
            )
        return ""

    def share(self, values: Values, run: PlannedRun) -> Share:
        """All frames in the warm-up, K afterwards. Watching attention is not counted: a few rows of
        one layer."""
        steps, warm = run.steps, warmup_steps(values["warmup"], run.steps)
        kept = self.kept(values, run.frames)
        if kept >= run.frames or warm >= steps:
            return Share()
        linear, attention = run.block.shares(kept * run.per_frame, run.frames * run.per_frame)
        return Share(
            (warm + (steps - warm) * linear) / steps, (warm + (steps - warm) * attention) / steps
        )

    def kept(self, values: Values, frames: int) -> int:
        return kept_frames(values["k"], frames)

    def options(self, values: Values, frames: int) -> Sequence[Value]:
        return budgets(frames)

    def candidates(self, steps: int, frames: int) -> Sequence[Candidate]:
        """Every K once, whatever the targets: who leaves K to the plan needs to know them all."""
        return tuple(
            Candidate(f"{self.name} {k}", (self.at(steps, k=k),)) for k in reversed(budgets(frames))
        )

    def install(self, values: Values) -> Method:
        from vidplat.methods.eco.on_model import Eco

        return Eco(values)


# source: EcoVideo, arXiv 2606.30557, and its released program
# law:    the first s_e steps see all F latent frames, the others K; the rest is filled in
# cost:   (s_e + (S - s_e) x) / S, where x is what K frames take of F, n or n^2 tokens alike
# price:  22.4 dB at 0.58 of the time: benchmarks/results/methods-eco-2core-epyc-2026-11-21.txt
