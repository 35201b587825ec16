"""Solvers as they are asked for: flow-match Euler or UniPC instead of the model's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vidplat.methods import kinds
from vidplat.methods.model_shape import EULER, UNIPC


class SolverKind(kinds.MethodKind):
    """What the solvers have in common: nothing is put around the model."""

    seam = kinds.Seam.SOLVER
    parameters = kinds.parameters(shift=kinds.Number(None, 0.01, 100.0))
    first = "shift"

    def share(self, values: kinds.Values, run: kinds.PlannedRun) -> kinds.Share:
        return kinds.Share()

    def candidates(self, steps: int, frames: int) -> Sequence[kinds.Candidate]:
        """Fewer steps of it."""
        settings = tuple(self.at(fewer) for fewer in range(steps - 1, 0, -1))
        return (kinds.Candidate(self.name, settings, solver=self.name),)


class EulerKind(SolverKind):
    """Flow-match Euler."""

    name = "euler"
    solver = EULER

    def scheduler(self, values: kinds.Values, own: Any) -> Any:
        from vidplat.methods.seams.solver_choice import euler

        return euler(values["shift"], own)


class UnipcKind(SolverKind):
    """UniPC of order 2."""

    name = "unipc"
    solver = UNIPC
    is_multistep = True

    def scheduler(self, values: kinds.Values, own: Any) -> Any:
        from vidplat.methods.seams.solver_choice import unipc

        return unipc(values["shift"], own)


# source: flow-match Euler; UniPC, arXiv 2302.04867; both from diffusers
# law:    Euler takes each answer for its step alone; UniPC of order 2 corrects by the last one
# cost:   that of as many plain steps
# price:  30.5 dB at half, Euler 33.0: benchmarks/results/methods-2core-epyc-2026-11-21.txt
