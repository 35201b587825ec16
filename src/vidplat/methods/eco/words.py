"""EcoVideo as it is asked for: K latent frames are finished, the others are left out early and
filled in."""

from __future__ import annotations

from types import MappingProxyType

from vidplat.methods.kinds import Choice, MethodKind, Number, Seam


class EcoKind(MethodKind):
    name = "eco"
    about = (
        "K latent frames are finished, the others left out early and filled in (EcoVideo, arXiv "
        "2606.30557)"
    )
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
