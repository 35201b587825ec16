"""Heterogeneous step allocation as it is asked for: tokens that hardly change take fewer steps."""

from __future__ import annotations

from types import MappingProxyType

from vidplat.methods.kinds import Choice, MethodKind, Number, Seam


class HsaKind(MethodKind):
    name = "hsa"
    about = "tokens that hardly change take fewer steps (HSA, arXiv 2605.06892)"
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
    excludes = MappingProxyType(
        {
            "unipc": "UniPC would divide the change of several steps by one when a token wakes up; "
            "hsa needs euler"
        }
    )
