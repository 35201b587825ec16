"""The one process that works on a batch: its name, whether it is still alive, and its hold.

The hold is taken in the catalog, waited for and given back; `heartbeat` renews it with the leases.
An owner is `host:pid:start`, where `start` tells a process from a later one with the same number.
Only processes of this very machine can be looked at; others are believed until their hold runs out.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vidplat.errors import CatalogError, ClusterError

if TYPE_CHECKING:
    from vidplat.platform.run.interrupts import Interrupts
    from vidplat.platform.run.site import Site
    from vidplat.storage.catalog import Catalog

_LOOK_AGAIN_S = 0.5
# Nothing is renewed while a run repairs, plans and asks for workers; its first heartbeat makes the
# hold a short one.
_STARTING_S = 300.0


class HoldLost(ClusterError):
    """Another process holds the batch now: this one was silent for longer than its lease."""


def this_owner() -> str:
    return f"{_host()}:{os.getpid()}:{_start_of(os.getpid())}"


def is_surely_gone(owner: str) -> bool:
    """True when `owner` ran on this machine and its process has ended."""
    found = re.fullmatch(r"(.*):(\d+):(\d*)", owner)
    if found is None or found[1] != _host():
        return False
    return _start_of(int(found[2])) != found[3]


@contextmanager
def held(site: Site, batch_id: str, interrupts: Interrupts) -> Iterator[bool]:
    """Hold the batch, once nobody else does. False: interrupted while waiting."""
    is_told = False
    lease_s = max(site.config.run.lease_s, _STARTING_S)
    while not take(site.catalog, batch_id, site.owner, lease_s=lease_s):
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
        with suppress(CatalogError):  # then it runs out by itself
            site.catalog.leave_batch(batch_id, site.owner)


def take(catalog: Catalog, batch_id: str, owner: str, *, lease_s: float) -> bool:
    """Whether the batch is `owner`'s now; it is taken over from a process that is surely gone."""
    ask = partial(catalog.hold_batch, batch_id, owner, lease_s=lease_s)
    holder = ask()
    if holder != owner and is_surely_gone(holder):
        holder = ask(instead_of=holder)
    return holder == owner


def _host() -> str:
    """The machine and its boot, where known: process numbers begin anew with each."""
    host, boot = socket.gethostname(), Path("/proc/sys/kernel/random/boot_id")
    return f"{host}-{boot.read_text().strip()[:8]}" if boot.exists() else host


def _start_of(pid: int) -> str:
    """Clock ticks from boot to the start of a process, "" where there is none, "0": unknown."""
    stat = Path(f"/proc/{pid}/stat")
    if not Path("/proc/self/stat").exists():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return ""
        except PermissionError:
            pass
        return "0"
    try:
        # The name, in parentheses, may hold spaces; field 22 counts from the first.
        fields = stat.read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] in ("Z", "X") else fields[19]
