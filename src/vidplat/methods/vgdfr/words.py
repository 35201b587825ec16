"""VGDFR as it is asked for: quiet passages are merged in mid-run, and fewer latent frames go on."""

from __future__ import annotations

from vidplat.methods import kinds
from vidplat.methods.model_shape import EULER, UNIPC
from vidplat.methods.vgdfr.merges import too_late


class VgdfrKind(kinds.MethodKind):
    name = "vgdfr"
    seam = kinds.Seam.FRAMES
    parameters = kinds.parameters(
        # Frames more alike than this are merged.
        theta=kinds.Number(0.7, 0.0, 1.0),
        # Steps before the preview; None: a tenth of them.
        k=kinds.Number(None, 1, 1000, whole=True),
        # At most this share of the frames is left, instead of theta.
        ratio=kinds.Number(None, 0.01, 1.0),
        # Whether four latents may become one, or two at most.
        quads=kinds.Choice("on", ("on", "off")),
        # How they are merged: latents with their noise pooled, or as the paper has it.
        form=kinds.Choice("pooled", ("pooled", "paper")),
    )
    on_model = "vgdfr.on_model:Vgdfr"
    first = "theta"

    def unsuited(self, values: kinds.Values, task: kinds.Task) -> str:
        if task.patch_frames != 1:
            return "vgdfr cannot leave out tokens of several latent frames frame by frame"
        if task.solver not in (EULER, UNIPC):
            return f"vgdfr: {task.solver} has no preview of the video between its steps; add +euler"
        why = too_late(values["k"], task.steps)
        return why and f"vgdfr: {why}"

    def contradiction(self, values: kinds.Values) -> str:
        theta, ratio = values["theta"], values["ratio"]
        if ratio is not None and theta != self.parameters["theta"].default:
            return (
                f"theta={theta} and ratio={ratio} exclude each other: a ratio finds its own theta"
            )
        return ""


# source: VGDFR, arXiv 2504.12259, and its code; merging latents and noise is ours
# law:    runs of frames more alike than theta become one latent of two, or of four, after k steps
# cost:   none in closed form: the preview decides how many latents go on
# price:  1.2 times as fast, 25.7 dB: benchmarks/results/frame-rate-2core-epyc-2026-11-28.txt
