"""The caches of others as they are asked for: passes are skipped while little changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from vidplat.domain import OperatingPoint
from vidplat.methods.kinds import Candidate, MethodKind, Number, Seam, Value, Values

if TYPE_CHECKING:
    from vidplat.methods.protocol import Method

#: Thresholds between which these go from skipping nothing to skipping nearly all.
_LEAST, _MOST = 0.003, 3.0


class CacheKind(MethodKind):
    """What the caches have in common: they skip passes by a threshold, and how many depends on the
    video."""

    seam = Seam.PASSES
    first = "threshold"

    def candidates(self, steps: int, frames: int) -> Sequence[Candidate]:
        return (Candidate(self.name, point=self._of_threshold(steps)),)

    def _of_threshold(self, steps: int, **beside: Value) -> Callable[[float], OperatingPoint]:
        """share 1: the lowest threshold, share 0: the highest, on a logarithmic scale."""

        def point(share: float) -> OperatingPoint:
            threshold = float(f"{_LEAST * (_MOST / _LEAST) ** (1 - share):.4g}")
            return self.at(steps, threshold=threshold, **beside)

        return point


class TeaCacheKind(CacheKind):
    """Passes are skipped while the time embedding changes little."""

    name = "teacache"
    parameters = MappingProxyType({"threshold": Number(0.08, 0.0, 10.0)})
    rehearses = True  # on models without published constants

    def install(self, values: Values) -> Method:
        from vidplat.methods.peers.teacache import TeaCache

        return TeaCache(values)


class EasyCacheKind(CacheKind):
    """Passes are skipped while the output is predicted to change little."""

    name = "easycache"
    parameters = MappingProxyType(
        {"threshold": Number(0.05, 0.0, 10.0), "warmup": Number(0.2, 0.0, 1.0)}
    )

    def install(self, values: Values) -> Method:
        from vidplat.methods.peers.easycache import EasyCache

        return EasyCache(values)


class MagCacheKind(CacheKind):
    """Passes are skipped while residuals keep their size."""

    name = "magcache"
    parameters = MappingProxyType(
        {
            "threshold": Number(0.12, 0.0, 10.0),
            "most": Number(3, 1, 100, whole=True),
            "warmup": Number(0.2, 0.0, 1.0),
        }
    )
    rehearses = True

    def install(self, values: Values) -> Method:
        from vidplat.methods.peers.magcache import MagCache

        return MagCache(values)


class FirstBlockCacheKind(CacheKind):
    """Passes are skipped while the first block's residual changes little."""

    name = "fbcache"
    parameters = MappingProxyType(
        {
            "threshold": Number(0.05, 0.0, 10.0),
            "most": Number(3, 1, 100, whole=True),
            "warmup": Number(0.2, 0.0, 1.0),
        }
    )

    def install(self, values: Values) -> Method:
        from vidplat.methods.peers.fbcache import FirstBlockCache

        return FirstBlockCache(values)


class DbCacheKind(CacheKind):
    """As fbcache, with F first and B last blocks always computed."""

    name = "dbcache"
    parameters = MappingProxyType(
        {
            "threshold": Number(0.08, 0.0, 10.0),
            "front": Number(1, 1, 64, whole=True),
            "back": Number(0, 0, 64, whole=True),
            "taylor": Number(0, 0, 4, whole=True),
            "warmup": Number(4, 0, 1000, whole=True),
        }
    )

    def install(self, values: Values) -> Method:
        from vidplat.methods.peers.dbcache import DbCache

        return DbCache(values)

    def candidates(self, steps: int, frames: int) -> Sequence[Candidate]:
        taylor = Candidate(f"{self.name}+taylor", point=self._of_threshold(steps, taylor=1))
        return (*super().candidates(steps, frames), taylor)


# source: TeaCache, arXiv 2411.19108; EasyCache, arXiv 2507.02860
# law:    a pass is skipped while the change summed up since the last one stays below a threshold
# cost:   none in closed form: how many passes are skipped depends on the video
# price:  34.5, 40.6 dB at half the time: benchmarks/results/methods-2core-epyc-2026-11-21.txt
