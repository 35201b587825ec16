"""VGDFR as it is asked for: quiet passages are merged in mid-run, and fewer latent frames go on."""

from __future__ import annotations

from types import MappingProxyType

from vidplat.methods.kinds import Choice, MethodKind, Number, Seam, Values


class VgdfrKind(MethodKind):
    name = "vgdfr"
    about = (
        "quiet passages are merged in mid-run, and fewer latent frames go on (VGDFR, arXiv "
        "2504.12259)"
    )
    seam = Seam.FRAMES
    parameters = MappingProxyType(
        {
            # Frames more alike than this are merged.
            "theta": Number(0.7, 0.0, 1.0),
            # Steps before the preview; None: a tenth of them.
            "k": Number(None, 1, 1000, whole=True),
            # At most this share of the frames is left, instead of theta.
            "ratio": Number(None, 0.01, 1.0),
            "alike": Choice("span", ("span", "whole", "min-tile")),
            "quads": Choice("on", ("on", "off")),
            "merge": Choice("latents", ("latents", "mean", "first")),
            "noise": Choice("pooled", ("pooled", "selected")),
            "anchor": Choice("first", ("first", "centre")),
            "unmerged": Choice("own", ("own", "encoded")),
            "rope": Choice("global", ("global", "local")),
            # Depth of interpolation, see `filling.frames`.
            "d": Number(1, 0, 3, whole=True),
            # What is given up by a run that is late.
            "late": Choice("shorten", ("shorten", "merge")),
        }
    )
    first = "theta"

    def contradiction(self, values: Values) -> str:
        theta, ratio = values["theta"], values["ratio"]
        if ratio is not None and theta != self.parameters["theta"].default:
            return (
                f"theta={theta} and ratio={ratio} exclude each other: a ratio finds its own theta"
            )
        if values["merge"] == "first" and values["anchor"] == "centre":
            return (
                "merge=first and anchor=centre exclude each other: a group's first frame stands "
                "at its own time"
            )
        if values["merge"] == "latents" and values["unmerged"] == "encoded":
            return (
                "unmerged=encoded is for merge=mean and merge=first: of merged latents nothing "
                "is encoded"
            )
        return ""
