"""LIPAR as it is asked for: tokens that repeat their past in the edited video do not run."""

from __future__ import annotations

from vidplat.methods import kinds


class LiparKind(kinds.MethodKind):
    name = "lipar"
    seam = kinds.Seam.TOKENS
    parameters = kinds.parameters(
        tau1=kinds.Number(0.15, 0.0, 10.0),
        tau2=kinds.Number(0.3, 0.0, 10.0),
        recovery=kinds.Choice("auto", ("auto", "noise-aware", "noisy", "bias", "none")),
        min_keep=kinds.Number(0.0, 0.0, 1.0),
    )
    on_model = "lipar.on_model:Lipar"
    first = "tau1"
    makes_edits = True
    makes_blocks = True
    by_source = True

    def unsuited(self, values: kinds.Values, task: kinds.Task) -> str:
        if not task.is_edit:
            return (
                "lipar leaves out what does not change in an input video, and this row has none: "
                "add input_video, or choose another method"
            )
        if task.patch_frames != 1:
            return "lipar cannot prune tokens of several latent frames frame by frame"
        if task.in_blocks and values["recovery"] == "bias":
            return (
                "lipar:recovery=bias is not made for block by block videos: use noise-aware, "
                "noisy or none"
            )
        return ""

    def share(self, values: kinds.Values, run: kinds.PlannedRun) -> kinds.Share | None:
        """Kept tokens attend to all; without recovery, or by a bias, to each other alone.

        `noise-aware` makes one more such pass over the source. Where `auto` comes to it depends on
        the transformer, which is not known here: that pass is then learnt with the seconds.
        """
        kept, recovery = run.kept, values["recovery"]
        if kept is None:
            return None
        if recovery in ("none", "bias"):
            return kinds.Share(kept, kept * kept)
        has_pass_more = recovery == "noise-aware" and kept < 1.0
        kept *= (run.steps + has_pass_more) / run.steps
        return kinds.Share(kept, kept)


# source: LIPAR, arXiv 2603.05811 v2, and its released code
# law:    a token runs where it changed by tau1 since the last frame, or tau2 since what is reused
# cost:   the kept share of both parts; of attention its square where recovery is none or bias
# price:  1.43x, 32 % pruned, random weights: benchmarks/results/lipar-2core-epyc-2026-11-21.txt
