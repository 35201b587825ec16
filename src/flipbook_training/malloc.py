"""Keeps freed memory in the process, on glibc.

By default glibc hands large freed blocks back to the kernel at once, and a network that allocates
its activations anew in every layer pays a page fault per 4 KiB each time: half of all processor
time was spent in the kernel while training flipbook's autoencoder. Does nothing on other C
libraries.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # malloc.h


def keep_freed_memory() -> bool:
    """Set glibc's allocator for this process, whole life long; returns whether it took."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # musl
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 64 * 2**20))
    taken = [mallopt(option, value) == 1 for option, value in settings]
    return all(taken)
