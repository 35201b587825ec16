"""The methods that there are: one line each. Adding a method is adding a folder and a line here.

Their order is that of a canonical text, and the order in which they are installed on a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from vidplat.methods.early.words import EarlyKind
from vidplat.methods.eco.words import EcoKind
from vidplat.methods.hsa.words import HsaKind
from vidplat.methods.kinds import MethodKind
from vidplat.methods.lipar.words import LiparKind
from vidplat.methods.peers.words import EasyCacheKind, TeaCacheKind
from vidplat.methods.seams.solver_words import EulerKind, UnipcKind
from vidplat.methods.vdit.words import SparseKind
from vidplat.methods.vgdfr.words import VgdfrKind

_KINDS: tuple[MethodKind, ...] = (
    HsaKind(),
    LiparKind(),
    SparseKind(),
    EarlyKind(),
    TeaCacheKind(),
    EasyCacheKind(),
    EcoKind(),
    VgdfrKind(),
    EulerKind(),
    UnipcKind(),
)

KINDS: Mapping[str, MethodKind] = MappingProxyType({kind.name: kind for kind in _KINDS})
