"""Heterogeneous step allocation as it is asked for: tokens that hardly change take fewer steps."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from vidplat.domain import OperatingPoint
from vidplat.methods.hsa.schedule import schedule_for, schedule_of_work
from vidplat.methods.kinds import (
    Candidate,
    Choice,
    MethodKind,
    Number,
    PlannedRun,
    Seam,
    Share,
    Values,
)

if TYPE_CHECKING:
    from vidplat.methods.protocol import Method


class HsaKind(MethodKind):
    """Tokens that hardly change take fewer steps."""

    name = "hsa"
    seam = Seam.TOKENS
    parameters = MappingProxyType(
        {
            "preset": Choice("50", ("75A", "75B", "50", "25")),
            # Share of the full run's work, instead of a preset's.
            "work": Number(None, 0.05, 1.0),
            "kv": Choice("full", ("full", "fp8", "offload")),
        }
    )
    first = "preset"
    needs_euler = "UniPC would divide the change of several steps by one when a token wakes up"

    def share(self, values: Values, run: PlannedRun) -> Share:
        """R, the mean share of running tokens. A run too short for the schedule counts full: the
        worker will refuse it."""
        work = values["work"]
        try:
            if work is None:
                schedule = schedule_for(values["preset"], run.steps)
            else:
                schedule = schedule_of_work(work, run.steps)
        except ValueError:
            return Share()
        return Share(schedule.relative_cost, schedule.relative_cost)

    def candidates(self, steps: int, frames: int) -> Sequence[Candidate]:
        """By itself, and with tile masks beside it."""

        def alone(share: float) -> OperatingPoint:
            return self.at(steps, work=round(max(0.05, share), 3))

        def masked(share: float) -> OperatingPoint:
            return OperatingPoint(steps, method=f"{alone(share).method}+sparse")

        return Candidate(self.name, point=alone), Candidate(f"{self.name}+sparse", point=masked)

    def install(self, values: Values) -> Method:
        from vidplat.methods.hsa.on_model import Hsa

        return Hsa(values)


# source: heterogeneous step allocation, arXiv 2605.06892; windows, strides, sizes are ours
# law:    group k runs where its stride divides the step; all run in the first W and last E steps
# cost:   R = sum of phi_k n_k / T over groups of phi_k of the tokens that run n_k times
# price:  42.2 dB at half the time, steps 33.0: benchmarks/results/methods-2core-epyc-2026-11-21.txt
