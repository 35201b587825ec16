"""EcoVideo as it is asked for: K latent frames are finished, the others are left out early and
filled in."""

from __future__ import annotations

from types import MappingProxyType

from vidplat.methods.kinds import Choice, MethodKind, Number, Seam, Values


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
            # Depth of interpolation, see `filling.frames`.
            "d": Number(1, 0, 3, whole=True),
            # Share of the steps that see all frames.
            "warmup": Number(0.1, 0.0, 1.0),
            "selector": Choice(
                "uniform", ("entropy", "uniform", "random", "motion", "anti-entropy")
            ),
            "entropy": Choice("rows", ("rows", "pooled", "heads")),
            "join": Choice("ema", ("ema", "mean", "last")),
            "rope": Choice("original", ("original", "compact")),
            "solver": Choice("reset", ("keep", "reset")),
            "context": Choice("off", ("off", "on")),
            # Steps after which the context is made anew; None: never.
            "refresh": Number(None, 1, 1000, whole=True),
            "max_gap": Number(None, 1, 1000, whole=True),
            "timeline": Choice("true", ("true", "code")),
        }
    )
    first = "k"

    def contradiction(self, values: Values) -> str:
        if values["refresh"] is not None and values["context"] == "off":
            return (
                f"refresh={values['refresh']} is for context=on: nothing else looks at the "
                "frames that were left out"
            )
        return ""
