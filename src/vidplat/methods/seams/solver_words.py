"""Solvers as they are asked for: flow-match Euler or UniPC instead of the model's own."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from vidplat.methods.kinds import Candidate, MethodKind, Number, PlannedRun, Seam, Share, Values


class SolverKind(MethodKind):
    """What the solvers have in common: nothing is put around the model."""

    seam = Seam.SOLVER
    parameters = MappingProxyType({"shift": Number(None, 0.01, 100.0)})
    first = "shift"

    def share(self, values: Values, run: PlannedRun) -> Share:
        return Share()


class EulerKind(SolverKind):
    """Flow-match Euler."""

    name = "euler"

    def scheduler(self, values: Values, own: Any) -> Any:
        from vidplat.methods.seams.solver_choice import euler

        return euler(values["shift"], own)


class UnipcKind(SolverKind):
    """UniPC of order 2."""

    name = "unipc"
    is_multistep = True

    def candidates(self, steps: int, frames: int) -> Sequence[Candidate]:
        """Fewer steps of it, against all its steps."""
        settings = tuple(self.at(fewer) for fewer in range(steps - 1, 0, -1))
        return (Candidate(self.name, settings, solver=self.name),)

    def scheduler(self, values: Values, own: Any) -> Any:
        from vidplat.methods.seams.solver_choice import unipc

        return unipc(values["shift"], own)


# source: flow-match Euler; UniPC, arXiv 2302.04867; both from diffusers
# law:    Euler takes each answer for its step alone; UniPC of order 2 corrects by the last one
# cost:   that of as many plain steps
# price:  30.5 dB at half, Euler 33.0: benchmarks/results/methods-2core-epyc-2026-11-21.txt
