"""Being the one process that works on a batch: the hold is taken in the catalog, waited for, given
back. A run renews it with its leases (`heartbeat`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from vidplat.platform.run.interrupts import Interrupts
from vidplat.platform.run.owners import is_surely_gone
from vidplat.platform.run.site import Site

_LOOK_AGAIN_S = 0.5


@contextmanager
def held(site: Site, batch_id: str, interrupts: Interrupts) -> Iterator[bool]:
    """Hold the batch, once nobody else does. False: interrupted while waiting."""
    is_told = False
    while not _take(site, batch_id):
        if not is_told:
            site.listener.phase(f"another process is making batch {batch_id}; waiting for it")
            is_told = True
        if interrupts.draining:
            yield False
            return
        time.sleep(_LOOK_AGAIN_S)
    try:
        yield True
    finally:
        site.catalog.leave_batch(batch_id, site.owner)


def _take(site: Site, batch_id: str) -> bool:
    """Whether the batch is ours now; it is taken over from a process that is surely gone."""
    ask = partial(site.catalog.hold_batch, batch_id, site.owner, lease_s=site.config.run.lease_s)
    owner = ask(now=site.clock()).owner
    if owner != site.owner and is_surely_gone(owner):
        owner = ask(now=site.clock(), instead_of=owner).owner
    return owner == site.owner
