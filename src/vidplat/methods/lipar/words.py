"""LIPAR as it is asked for: tokens that repeat their past in the edited video do not run."""

from __future__ import annotations

from types import MappingProxyType

from vidplat.methods.kinds import Choice, MethodKind, Number, Seam


class LiparKind(MethodKind):
    name = "lipar"
    about = "tokens that repeat their past in the edited video do not run (LIPAR, arXiv 2603.05811)"
    seam = Seam.TOKENS
    parameters = MappingProxyType(
        {
            "tau1": Number(0.15, 0.0, 10.0),
            "tau2": Number(0.3, 0.0, 10.0),
            "recovery": Choice("auto", ("auto", "noise-aware", "noisy", "bias", "none")),
            "min_keep": Number(0.0, 0.0, 1.0),
        }
    )
    first = "tau1"
