"""Efficient-vDiT as it is asked for: frames attend to themselves and to k reference frames.

Its word on the command line is `sparse`.
"""

from __future__ import annotations

from types import MappingProxyType

from vidplat.methods.kinds import Choice, MethodKind, Number, Seam, Values


class SparseKind(MethodKind):
    name = "sparse"
    about = (
        "frames attend to themselves and to k reference frames (Efficient-vDiT, arXiv 2502.06155)"
    )
    seam = Seam.ATTENTION
    parameters = MappingProxyType(
        {
            "k": Number(3, 1, 64, whole=True),
            "masks": Choice("uniform", ("uniform", "searched")),
            "dense_steps": Number(0, 0, 1000, whole=True),
            "dense_ends": Number(0, 0, 16, whole=True),
            "path": Choice("auto", ("auto", "gather", "lse", "flex")),
        }
    )
    first = "k"

    def contradiction(self, values: Values) -> str:
        if self.reads_masks(values) and values["k"] != self.parameters["k"].default:
            return (
                f"k={values['k']} and masks=searched exclude each other, since searched masks "
                "bring a k for each layer"
            )
        return ""

    def reads_masks(self, values: Values) -> bool:
        return values["masks"] == "searched"
