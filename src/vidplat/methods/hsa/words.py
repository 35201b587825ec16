"""Heterogeneous step allocation as it is asked for: tokens that hardly change take fewer steps."""

from __future__ import annotations

from collections.abc import Sequence

from vidplat.domain import OperatingPoint
from vidplat.methods import kinds
from vidplat.methods.hsa.schedule import schedule_of


class HsaKind(kinds.MethodKind):
    name = "hsa"
    seam = kinds.Seam.TOKENS
    parameters = kinds.parameters(
        preset=kinds.Choice("50", ("75A", "75B", "50", "25")),
        # Share of the full run's work, instead of a preset's.
        work=kinds.Number(None, 0.05, 1.0),
        kv=kinds.Choice("full", ("full", "fp8", "offload")),
    )
    on_model = "hsa.on_model:Hsa"
    first = "preset"
    needs_euler = "UniPC would divide the change of several steps by one when a token wakes up"

    def share(self, values: kinds.Values, run: kinds.PlannedRun) -> kinds.Share:
        """R, the mean share of running tokens; 1 for a run too short, which workers refuse."""
        try:
            cost = schedule_of(values["preset"], values["work"], run.steps).relative_cost
        except ValueError:
            return kinds.Share()
        return kinds.Share(cost, cost)

    def candidates(self, steps: int, frames: int) -> Sequence[kinds.Candidate]:
        """By itself, and with tile masks beside it."""

        def alone(share: float) -> OperatingPoint:
            return self.at(steps, work=round(max(0.05, share), 3))

        def masked(share: float) -> OperatingPoint:
            return OperatingPoint(steps, method=f"{alone(share).method}+sparse")

        beside = kinds.Candidate(f"{self.name}+sparse", point=masked)
        return kinds.Candidate(self.name, point=alone), beside


# source: heterogeneous step allocation, arXiv 2605.06892; windows, strides, sizes are ours
# law:    group k runs where its stride divides the step; all run in the first W and last E steps
# cost:   R = sum of phi_k n_k / T over groups of phi_k of the tokens that run n_k times
# price:  1/4: 28.7 dB, steps 25.4: benchmarks/results/profile-quality-2core-epyc-2026-12-01.txt
