"""Which process works on a batch: its name, and whether it is still alive.

An owner is `host:pid:start`, where `start` tells a process from a later one with the same number.
Only processes of this very machine can be looked at; others are believed until their hold runs out.
"""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path


def this_owner() -> str:
    return f"{_host()}:{os.getpid()}:{_start_of(os.getpid())}"


def is_surely_gone(owner: str) -> bool:
    """True when `owner` ran on this machine and its process has ended."""
    found = re.fullmatch(r"(.*):(\d+):(\d*)", owner)
    if found is None or found[1] != _host():
        return False
    return _start_of(int(found[2])) != found[3]


def _host() -> str:
    """The machine and its boot, where known: process numbers begin anew with each."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return (
        f"{socket.gethostname()}-{boot.read_text().strip()[:8]}"
        if boot.exists()
        else socket.gethostname()
    )


def _start_of(pid: int) -> str:
    """Clock ticks from boot to the start of a process; "" when there is no such process, "0" where
    unknown."""
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
