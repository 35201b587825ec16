"""Solvers as they are asked for: flow-match Euler or UniPC instead of the model's own."""

from __future__ import annotations

from types import MappingProxyType

from vidplat.methods.kinds import MethodKind, Number, Seam


class EulerKind(MethodKind):
    name = "euler"
    about = "solve with flow-match Euler, whatever the model's own solver is"
    seam = Seam.SOLVER
    parameters = MappingProxyType({"shift": Number(None, 0.01, 100.0)})
    first = "shift"


class UnipcKind(MethodKind):
    name = "unipc"
    about = "solve with UniPC of order 2, whatever the model's own solver is"
    seam = Seam.SOLVER
    parameters = MappingProxyType({"shift": Number(None, 0.01, 100.0)})
    first = "shift"
