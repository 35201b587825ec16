"""The caches of others as they are asked for: passes are skipped while little changes."""

from __future__ import annotations

from collections.abc import Sequence

from vidplat.domain import OperatingPoint
from vidplat.methods.kinds import Candidate, MethodKind, Number, Seam, parameters

#: Thresholds between which these go from skipping nothing to skipping nearly all.
_LEAST, _MOST = 0.003, 3.0


class CacheKind(MethodKind):
    """What the caches have in common: a threshold decides which passes are skipped."""

    seam = Seam.PASSES
    first = "threshold"

    def candidates(self, steps: int, frames: int) -> Sequence[Candidate]:
        def point(share: float) -> OperatingPoint:
            """Of the lowest threshold for 1, the highest for 0, on a logarithmic scale."""
            threshold = _LEAST * (_MOST / _LEAST) ** (1 - share)
            return self.at(steps, threshold=float(f"{threshold:.4g}"))

        return (Candidate(self.name, point=point),)


class TeaCacheKind(CacheKind):
    """Passes are skipped while the time embedding changes little."""

    name = "teacache"
    parameters = parameters(threshold=Number(0.08, 0.0, 10.0))
    on_model = "peers.teacache:TeaCache"
    rehearses = True  # on models without published constants


class EasyCacheKind(CacheKind):
    """Passes are skipped while the output is predicted to change little."""

    name = "easycache"
    parameters = parameters(threshold=Number(0.05, 0.0, 10.0), warmup=Number(0.2, 0.0, 1.0))
    on_model = "peers.easycache:EasyCache"


# source: TeaCache, arXiv 2411.19108; EasyCache, arXiv 2507.02860
# law:    a pass is skipped while the change summed up since the last one stays below a threshold
# cost:   none in closed form: how many passes are skipped depends on the video
# price:  34.5, 40.6 dB at half the time: benchmarks/results/methods-2core-epyc-2026-11-21.txt
