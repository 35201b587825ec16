"""`early` as it is asked for: passes run at chosen steps, dense at first and thin at the end."""

from __future__ import annotations

from collections.abc import Sequence

from vidplat.domain import OperatingPoint
from vidplat.methods import kinds
from vidplat.methods.early.grid import passes_of


class EarlyKind(kinds.MethodKind):
    name = "early"
    seam = kinds.Seam.PASSES
    parameters = kinds.parameters(
        # Share of the steps whose passes run.
        work=kinds.Number(0.5, 0.01, 1.0),
    )
    on_model = "early.on_model:Early"
    first = "work"
    needs_euler = "UniPC would divide the change of several steps by one when a pass runs again"

    def passes(self, values: kinds.Values, steps: int) -> Sequence[int]:
        return passes_of(values["work"], steps)

    def share(self, values: kinds.Values, run: kinds.PlannedRun) -> kinds.Share:
        share = len(run.passes) / run.steps
        return kinds.Share(share, share)

    def candidates(self, steps: int, frames: int) -> Sequence[kinds.Candidate]:
        """A whole number of passes: other shares make the same video."""

        def point(share: float) -> OperatingPoint:
            work = round(max(1, round(share * steps)) / steps, 4)
            return self.at(steps, work=work)

        return (kinds.Candidate(self.name, point=point),)


# source: ours, docs/decisions/0013-early.md
# law:    of S steps M run, the j-th at max(j, round(S (j / M)^2)); the velocity is held between
# cost:   M / S of both parts
# price:  half: 40.5 dB, steps 32.4: benchmarks/results/profile-quality-2core-epyc-2026-12-01.txt
