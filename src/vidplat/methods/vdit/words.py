"""Efficient-vDiT as it is asked for: frames attend to themselves and to k reference frames.

Its word on the command line is `sparse`.
"""

from __future__ import annotations

from collections.abc import Sequence

from vidplat.methods import kinds
from vidplat.methods.vdit.tiles import density, is_full


class SparseKind(kinds.MethodKind):
    name = "sparse"
    seam = kinds.Seam.ATTENTION
    parameters = kinds.parameters(
        k=kinds.Number(3, 1, 64, whole=True),
        masks=kinds.Choice("uniform", ("uniform", "searched")),
        dense_steps=kinds.Number(0, 0, 1000, whole=True),
        dense_ends=kinds.Number(0, 0, 16, whole=True),
        path=kinds.Choice("auto", ("auto", "gather", "lse", "flex")),
    )
    on_model = "vdit.on_model:Sparse"
    first = "k"

    def contradiction(self, values: kinds.Values) -> str:
        if self.reads_masks(values) and values["k"] != self.parameters["k"].default:
            return (
                f"k={values['k']} and masks=searched exclude each other, since searched masks "
                "bring a k for each layer"
            )
        return ""

    def reads_masks(self, values: kinds.Values) -> bool:
        return bool(values["masks"] == "searched")

    def share(self, values: kinds.Values, run: kinds.PlannedRun) -> kinds.Share | None:
        """rho of the attention where a step that runs and a layer are sparse, all of it elsewhere.
        Searched masks have densities of their own, which a profile knows."""
        if self.reads_masks(values):
            return None
        k = values["k"]
        if is_full(run.frames, k):
            return kinds.Share()
        dense_steps, dense_ends = values["dense_steps"], values["dense_ends"]
        sparse_steps = sum(step >= dense_steps for step in run.passes) / len(run.passes)
        sparse_layers = max(0, run.layers - 2 * dense_ends) / run.layers
        sparse = sparse_steps * sparse_layers
        return kinds.Share(attention=sparse * density(run.frames, k) + (1 - sparse))

    def candidates(self, steps: int, frames: int) -> Sequence[kinds.Candidate]:
        settings = tuple(self.at(steps, k=k) for k in range(frames - 1, 0, -1))
        return (kinds.Candidate(self.name, settings),)


# source: Efficient-vDiT, arXiv 2502.06155; places of reference frames from its sparsities
# law:    tiles of the diagonal and of the reference frames floor(i F / k) are kept
# cost:   rho = 1 - (F - k)(F - k - 1) / F^2 of the attention; linear work stays
# price:  3.1 times as fast at k=3: benchmarks/results/sparse-attention-2core-epyc-2026-11-21.txt
