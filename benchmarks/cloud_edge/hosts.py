"""Two hosts on this machine: network namespaces, a thin link, an object store and a Ray cluster.

A Ray head lives in the cloud's namespace, a Ray node and the store (an S3 server in memory) in the
edge's. A veth pair joins them; `tc htb` limits what goes to and from the store, between Ray's
object managers and between its workers. The three share it fairly, as under the fair queue that
Linux has by default: else an order of one packet waits behind a whole video at 3 kbit/s, which is
half a minute here and a tenth of a second at 1 Mbit/s. What Ray's nodes say to each other is not
limited: at the size of flipbook that would outweigh the videos, which it does not at 720p. Needs
root and iproute2.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from vidplat.workers.video import to_frames

CLOUD, EDGE = "vp-cloud", "vp-edge"
CLOUD_IP, EDGE_IP = "10.77.0.1", "10.77.0.2"
LINK_ENDS = ((CLOUD, "vp-a", CLOUD_IP), (EDGE, "vp-b", EDGE_IP))
RAY_PORT, OBJECTS_PORT, STORE_PORT = 6399, 6400, 9000
WORKER_PORTS = 0x4000  # and 255 more: orders, heartbeats and small objects go between processes
STORE = f"http://{EDGE_IP}:{STORE_PORT}"
CGROUP = Path("/sys/fs/cgroup/cpu/vp-edge")
KEYS = {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none"}
ENVIRONMENT = {
    **KEYS,
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ENDPOINT_URL": STORE,
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_DASHBOARD": "1",
}
THIN = "1:2"  # the class of all that is limited
SHARING = {  # classes within it: ports
    "1:3": (f"sport {STORE_PORT} 0xffff", f"dport {STORE_PORT} 0xffff"),
    # answers: drafts, and what is up
    "1:4": (f"sport {WORKER_PORTS} 0xff00", f"sport {OBJECTS_PORT} 0xffff"),
    # orders
    "1:5": (f"dport {WORKER_PORTS} 0xff00", f"dport {OBJECTS_PORT} 0xffff"),
}
UNLIMITED = 1e9


# --- the link -------------------------------------------------------------------------------------


@contextmanager
def two_hosts() -> Iterator[None]:
    """Two namespaces and a veth pair between them."""
    _remove()
    try:
        for host in (CLOUD, EDGE):
            _do(f"ip netns add {host}")
            _do(f"ip -n {host} link set lo up")
        _do(f"ip link add vp-a netns {CLOUD} type veth peer name vp-b netns {EDGE}")
        for host, device, address in LINK_ENDS:
            _do(f"ip -n {host} address add {address}/24 dev {device}")
            # whole packets: segments of 8 kB would pass at once, then block the link for a minute
            _do(f"ip -n {host} link set {device} gso_max_segs 1 gso_max_size 1514 up")
        _thin_link()
        yield
    finally:
        _remove()


def _remove() -> None:
    for host in (CLOUD, EDGE):
        subprocess.run(["ip", "netns", "delete", host], capture_output=True, check=False)


def _thin_link() -> None:
    """Traffic classes for both ends of the pair, without a limit yet."""
    for host, device, _ in LINK_ENDS:
        tc = f"tc -n {host}"
        _do(f"{tc} qdisc add dev {device} root handle 1: htb default 1 r2q 1000")
        fast = "htb rate 10gbit quantum 60000"
        _do(f"{tc} class add dev {device} parent 1: classid 1:1 {fast}")
        for name, ports in SHARING.items():
            for port in ports:
                match = f"u32 match ip {port} flowid {name}"
                _do(f"{tc} filter add dev {device} parent 1: protocol ip {match}")
    limit(None)


def limit(bits_per_s: float | None) -> None:
    """What the store, the object managers and the workers may send each way, from now on; None: no
    limit."""
    whole = round(bits_per_s or UNLIMITED)
    classes = [(THIN, "1:", whole), *((name, THIN, whole // len(SHARING)) for name in SHARING)]
    for host, device, _ in LINK_ENDS:
        for name, parent, rate in classes:
            where = f"dev {device} parent {parent} classid {name}"
            rates = f"rate {rate}bit ceil {whole}bit quantum 1500 burst 4k"
            _do(f"tc -n {host} class replace {where} htb {rates}")


def carried_bytes() -> int:
    """That went from cloud to edge over the limited link so far."""
    host, device, _ = LINK_ENDS[0]
    about = _do(f"tc -n {host} -s class show dev {device}").partition(f"class htb {THIN} ")[2]
    return int(about.partition("Sent ")[2].split()[0])


def _do(command: str) -> str:
    ended = subprocess.run(shlex.split(command), capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"{command}: {ended.stderr.strip()}")
    return ended.stdout


# --- what runs in the hosts -----------------------------------------------------------------------


@contextmanager
def ray_nodes() -> Iterator[None]:
    """A Ray head in the cloud, a node at the edge."""
    ray = str(Path(sys.executable).with_name("ray"))
    common = f"--num-cpus 1 --object-manager-port {OBJECTS_PORT} --object-store-memory 100000000"
    common += f" --min-worker-port {WORKER_PORTS} --max-worker-port {WORKER_PORTS + 255}"
    with tempfile.TemporaryDirectory(prefix="vp-ray-") as folder:
        head = f"--head --port {RAY_PORT} --node-ip-address {CLOUD_IP} --include-dashboard false"
        head += f" --temp-dir {folder}/c"
        node = f"--address {CLOUD_IP}:{RAY_PORT} --node-ip-address {EDGE_IP}"
        started = []
        try:
            for host, how, pool in ((CLOUD, head, "cloud"), (EDGE, node, "edge")):
                command = [ray, "start", "--block", *shlex.split(f"{how} {common}")]
                command += ["--resources", f'{{"pool_{pool}": 1}}']
                with (Path(folder) / f"{host}.log").open("wb") as out:
                    is_limited = host == EDGE
                    started.append(in_host(host, command, is_limited, stdout=out, stderr=out))
                time.sleep(8)
            yield
        finally:
            for process in reversed(started):
                process.kill()
                process.wait()
            _end_all()


def _end_all() -> None:
    """Of what runs in the namespaces; this process may be in one of them."""
    for host in (CLOUD, EDGE):
        for pid in map(int, _do(f"ip netns pids {host}").split()):
            with suppress(ProcessLookupError):
                if pid != os.getpid():
                    os.kill(pid, signal.SIGKILL)


def in_host(
    host: str, command: Sequence[str], is_limited: bool = False, **how: Any
) -> subprocess.Popen[Any]:
    """A process in a namespace; `is_limited` to the edge's share of a core, and all that it
    starts."""
    enter: list[str] = []
    if is_limited:
        CGROUP.mkdir(exist_ok=True)
        enter = ["sh", "-c", f'echo $$ > {CGROUP}/cgroup.procs && exec "$@"', "sh"]
    enter += ["ip", "netns", "exec", host]
    env = os.environ | ENVIRONMENT
    return subprocess.Popen([*enter, *command], env=env, start_new_session=True, **how)


def set_share(share: float) -> None:
    """What the edge may use of a core, from now on."""
    (CGROUP / "cpu.cfs_quota_us").write_text(str(round(100_000 * share)))


# --- the store ------------------------------------------------------------------------------------


@contextmanager
def store() -> Iterator[None]:
    command = [sys.executable, "-m", "moto.server", "-H", EDGE_IP, "-p", str(STORE_PORT)]
    server = in_host(EDGE, command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _until(lambda: s3().list_buckets(), 60)
        yield
    finally:
        server.kill()
        server.wait()


def s3() -> Any:
    """A client of the store. This thread's network becomes that of the edge; new processes still
    enter theirs by `ip netns exec`."""
    import boto3
    from botocore.config import Config

    with Path(f"/var/run/netns/{EDGE}").open() as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), 0x40000000):
            raise SystemExit(f"cannot enter namespace {EDGE}: {os.strerror(ctypes.get_errno())}")
    limits = Config(retries={"max_attempts": 1}, connect_timeout=2, read_timeout=30)
    keys = {name.lower(): key for name, key in KEYS.items()}
    return boto3.client("s3", endpoint_url=STORE, region_name="us-east-1", config=limits, **keys)


def frames_of(uri: str) -> np.ndarray:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return to_frames(s3().get_object(Bucket=bucket, Key=key)["Body"].read())


def stored_bytes(bucket: str) -> int:
    """Of all jobs."""
    pages = s3().get_paginator("list_objects_v2").paginate(Bucket=bucket)
    objects = (each for page in pages for each in page.get("Contents", ()))
    return sum(each["Size"] for each in objects if "/jobs/" in each["Key"])


def _until(ready: Callable[[], object], patience_s: float) -> None:
    give_up_at = time.monotonic() + patience_s
    while time.monotonic() < give_up_at:
        with suppress(Exception):
            ready()
            return
        time.sleep(0.3)
    raise SystemExit(f"the store did not start within {patience_s:.0f} s")
