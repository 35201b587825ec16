"""EcoVideo as it is asked for: K latent frames are finished, the others filled in."""

from __future__ import annotations

from collections.abc import Sequence

from vidplat.methods import kinds
from vidplat.methods.eco.budget import budgets, kept_frames, too_many, warmup_steps
from vidplat.methods.model_shape import EULER, UNIPC


class EcoKind(kinds.MethodKind):
    name = "eco"
    seam = kinds.Seam.FRAMES
    parameters = kinds.parameters(
        # Latent frames that are finished; None: half of them.
        k=kinds.Number(None, 2, 1000, whole=True),
        # Share of the steps that see all frames.
        warmup=kinds.Number(0.1, 0.0, 1.0),
        # What decides which; EcoVideo's own is entropy.
        selector=kinds.Choice("uniform", ("entropy", "uniform", "motion")),
    )
    on_model = "eco.on_model:Eco"
    first = "k"
    left_to_plan = "k"

    def unsuited(self, values: kinds.Values, task: kinds.Task) -> str:
        if values["selector"] == "motion" and task.solver not in (EULER, UNIPC):
            return (
                "eco:selector=motion looks at the video that a run is heading for, and "
                f"{task.solver} does not tell it; take another selector, or add +euler"
            )
        return too_many(values["k"], task.latent_frames)

    def share(self, values: kinds.Values, run: kinds.PlannedRun) -> kinds.Share:
        """All frames in the warm-up, K afterwards. Watching a few rows of attention is free."""
        steps, warm = run.steps, warmup_steps(values["warmup"], run.steps)
        kept = self.kept(values, run.frames)
        if kept >= run.frames or warm >= steps:
            return kinds.Share()
        linear, attention = run.block.shares(kept * run.per_frame, run.frames * run.per_frame)
        return kinds.Share(
            (warm + (steps - warm) * linear) / steps, (warm + (steps - warm) * attention) / steps
        )

    def kept(self, values: kinds.Values, frames: int) -> int:
        return kept_frames(values["k"], frames)

    def options(self, values: kinds.Values, frames: int) -> Sequence[kinds.Value]:
        return budgets(frames)

    def candidates(self, steps: int, frames: int) -> Sequence[kinds.Candidate]:
        """Every K once, whatever the targets: who leaves K to the plan needs to know them all."""
        return tuple(
            kinds.Candidate(f"{self.name} {k}", (self.at(steps, k=k),))
            for k in reversed(budgets(frames))
        )


# source: EcoVideo, arXiv 2606.30557, and its released program
# law:    the first s_e steps see all F latent frames, the others K; the rest is filled in
# cost:   (s_e + (S - s_e) x) / S, where x is what K frames take of F, n or n^2 tokens alike
# price:  22.4 dB at 0.58 of the time: benchmarks/results/methods-eco-2core-epyc-2026-11-21.txt
