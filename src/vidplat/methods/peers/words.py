"""The caches of others as they are asked for: passes are skipped while little changes."""

from __future__ import annotations

from types import MappingProxyType

from vidplat.methods.kinds import MethodKind, Number, Seam


class TeaCacheKind(MethodKind):
    name = "teacache"
    about = (
        "passes are skipped while the time embedding changes little (TeaCache, arXiv 2411.19108)"
    )
    seam = Seam.PASSES
    parameters = MappingProxyType({"threshold": Number(0.08, 0.0, 10.0)})
    first = "threshold"
    rehearses = True  # on models without published constants


class EasyCacheKind(MethodKind):
    name = "easycache"
    about = (
        "passes are skipped while the output is predicted to change little (EasyCache, arXiv "
        "2507.02860)"
    )
    seam = Seam.PASSES
    parameters = MappingProxyType(
        {"threshold": Number(0.05, 0.0, 10.0), "warmup": Number(0.2, 0.0, 1.0)}
    )
    first = "threshold"


class MagCacheKind(MethodKind):
    name = "magcache"
    about = (
        "passes are skipped while residuals keep their size (MagCache, arXiv 2506.09045; diffusers)"
    )
    seam = Seam.PASSES
    parameters = MappingProxyType(
        {
            "threshold": Number(0.12, 0.0, 10.0),
            "most": Number(3, 1, 100, whole=True),
            "warmup": Number(0.2, 0.0, 1.0),
        }
    )
    first = "threshold"
    rehearses = True


class FirstBlockCacheKind(MethodKind):
    name = "fbcache"
    about = (
        "passes are skipped while the first block's residual changes little (FirstBlockCache; "
        "diffusers)"
    )
    seam = Seam.PASSES
    parameters = MappingProxyType(
        {
            "threshold": Number(0.05, 0.0, 10.0),
            "most": Number(3, 1, 100, whole=True),
            "warmup": Number(0.2, 0.0, 1.0),
        }
    )
    first = "threshold"


class DbCacheKind(MethodKind):
    name = "dbcache"
    about = "as fbcache, with F first and B last blocks always computed (DBCache; cache-dit)"
    seam = Seam.PASSES
    parameters = MappingProxyType(
        {
            "threshold": Number(0.08, 0.0, 10.0),
            "front": Number(1, 1, 64, whole=True),
            "back": Number(0, 0, 64, whole=True),
            "taylor": Number(0, 0, 4, whole=True),
            "warmup": Number(4, 0, 1000, whole=True),
        }
    )
    first = "threshold"
