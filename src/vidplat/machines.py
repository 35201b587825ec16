"""The machines that workers run on: cores, GPUs and free memory, found without a GPU library.

Left to others: what pools take of them (`config`), how fast they are (`scheduler.cost`).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Machines:
    """What the workers run on: this machine, or the nodes of a cluster."""

    cores: int  # of one machine
    cards: tuple[str, ...] = ()  # names of all GPUs


def this_machine() -> Machines:
    """GPUs are counted without loading a GPU library."""
    return Machines(usable_cores(), gpu_names())


def usable_cores() -> int:
    """CPU cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_memory_bytes() -> int:
    """Memory that may still be taken on this machine, caches that would be given up included, and
    within what the container may have."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        kilobytes = (int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
        free = 1024 * next(kilobytes)
    except (OSError, StopIteration):  # not Linux
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        group = Path("/sys/fs/cgroup")
        most = int((group / "memory.max").read_text(encoding="ascii"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no container, or one without a limit: "max"
        return free
    return min(free, max(0, most - int(stat.get("anon", 0))))


def gpu_names() -> tuple[str, ...]:
    """Names of the NVIDIA GPUs this process may use, as the driver's own files tell them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1", "NoDevFiles"):
        return ()
    names = []
    for file in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        found = re.search(r"^Model:\s*(.+)$", file.read_text(errors="replace"), re.MULTILINE)
        names.append(found[1].strip() if found else "NVIDIA")
    return tuple(names if visible is None else names[: len(visible.split(","))])


def has_gpus(machines: Machines) -> bool:
    """Also where the driver has no such files: under WSL, and AMD's."""
    return bool(machines.cards) or any(Path(each).exists() for each in ("/dev/dxg", "/dev/kfd"))
