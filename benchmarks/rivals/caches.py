"""Caches of others that lost to those of the product, to be compared with on a loaded model.

    fbcache    FirstBlockCache (ParaAttention), by diffusers' own hooks
    magcache   MagCache (arXiv 2506.09045), by diffusers' own hooks

A rival is a `MethodKind` and a `Method` like any of the product's, in a table of its own, so no
plan takes it and no command knows it. `WithRivals` installs both kinds by their texts. What they
lost by: docs/decisions/0018-what-left.md. DBCache (package cache-dit) has its figure there alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from benchmarks.rivals.first_block_cache import FirstBlockCacheKind
from benchmarks.rivals.mag_cache import MagCacheKind
from vidplat.methods.installed import Installed
from vidplat.methods.peers.words import CacheKind

_KINDS: tuple[CacheKind, ...] = (FirstBlockCacheKind(), MagCacheKind())
RIVALS: Mapping[str, CacheKind] = MappingProxyType({kind.name: kind for kind in _KINDS})


class WithRivals(Installed):
    """The product's methods and the rivals around one family's transformers."""

    def use(self, method: str) -> None:
        """As `Installed.use`; of a rival's text, `fbcache:threshold=0.05`, only that is read."""
        name, _, told = method.partition(":")
        if name not in RIVALS:
            super().use(method)
            return
        kind, threshold = RIVALS[name], told.removeprefix("threshold=")
        self.install((kind.chosen({"threshold": float(threshold)} if threshold else {}),))
