"""`early` as it is asked for: passes run at chosen steps, dense at first and thin at the end."""

from __future__ import annotations

from types import MappingProxyType

from vidplat.methods.kinds import MethodKind, Number, Seam


class EarlyKind(MethodKind):
    name = "early"
    about = (
        "passes run at chosen steps, dense at first and thin at the end, the velocity held "
        "between (ours)"
    )
    seam = Seam.PASSES
    parameters = MappingProxyType(
        {
            # Share of the steps whose passes run.
            "work": Number(0.5, 0.01, 1.0),
        }
    )
    first = "work"
    excludes = MappingProxyType(
        {
            "unipc": "UniPC would divide the change of several steps by one when a pass runs "
            "again; early needs euler"
        }
    )
