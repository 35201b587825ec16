"""Heterogeneous step allocation as it is asked for: tokens that hardly change take fewer steps."""

from __future__ import annotations

from collections.abc import Sequence

from vidplat.domain import OperatingPoint
from vidplat.methods import kinds
from vidplat.methods.hsa.schedule import kv_bytes, schedule_of, too_few


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

    def unsuited(self, values: kinds.Values, task: kinds.Task) -> str:
        return too_few(values["preset"], values["work"], task.steps)

    def share(self, values: kinds.Values, run: kinds.PlannedRun) -> kinds.Share:
        """R, the mean share of running tokens; 1 for a run too short, which workers refuse."""
        try:
            cost = schedule_of(values["preset"], values["work"], run.steps).relative_cost
        except ValueError:
            return kinds.Share()
        return kinds.Share(cost, cost)

    def stored_bytes(self, values: kinds.Values, sizes: kinds.StoreSizes) -> int:
        """Keys and values of all layers; offloaded, of two layers of a branch at a time."""
        tokens, width, layers, branches, value_bytes, on_gpu = sizes
        if values["kv"] == "offload" and on_gpu:
            layers, branches = min(layers, 2), 1
        each = 1 if values["kv"] == "fp8" else value_bytes
        return kv_bytes(tokens, width, layers, branches, each)

    def leaner(self, values: kinds.Values) -> Sequence[kinds.Values]:
        """Where nobody chose: 8 bits, then the CPU's memory."""
        if values["kv"] != "full":
            return ()
        return tuple({**values, "kv": kept} for kept in ("fp8", "offload"))

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
