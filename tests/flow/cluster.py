"""One Ray cluster on this machine for all tests that do not end it, in a process of its own.

Batches attach to it by address and leave it as it was, so a test pays for its actors alone. Tests
that kill a driver, or that need workers with another environment, start a cluster of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

PLACES = 4  # workers of each pool at most

_PROGRAM = f"""
import sys
import ray
ray.init(
    address="local", num_cpus={2 * PLACES}, include_dashboard=False, log_to_driver=False,
    resources={{"pool_cloud": {PLACES}, "pool_edge": {PLACES}}}, object_store_memory=80 * 2**20,
)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class Cluster:
    """A cluster that runs: where it listens, and the process whose end ends it."""

    address: str
    pid: int

    def workers(self) -> list[int]:
        """Process ids of the actors that are up."""
        return sorted(pid for pid in children_of(self.pid) if "WorkerActor" in name_of(pid))


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Cluster]:
    env = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    command, pipe = [sys.executable, "-c", _PROGRAM], subprocess.PIPE
    process = subprocess.Popen(
        command, env=env, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        assert address, "the cluster did not start"
        yield Cluster(address, process.pid)
    finally:
        process.stdin.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def children_of(pid: int) -> set[int]:
    """All processes below `pid`."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found |= {child} | children_of(child)
    return found


def listening(pids: Iterable[int]) -> dict[int, str]:
    """Ports at which these processes listen, with the address that each is bound to, in hex as the
    kernel tells it."""
    theirs = set()
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            theirs |= {str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()}
    found = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            address, _, port = fields[1].partition(":")
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in theirs:
                found[int(port, 16)] = address
    return found


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
