"""Videos begun in one host and finished in another, over a thin link: two network namespaces on this machine.

    sudo python benchmarks/cloud_edge.py [--rates 0.1 0.3 1] [--share 0.5] [--videos 4] [--keyframes 5 6 9]

A Ray head with the cloud's worker runs in one namespace, a Ray node with the edge's light worker in the other, and the
object store (an S3 server in memory) beside the edge: there the videos are wanted. A veth pair joins them; `tc htb`
limits what goes to and from the store, between Ray's object managers and between its workers, at such a rate that the
bytes of one full video take `rates` times its own denoising. What Ray's nodes say to each other is not limited: at the
size of this model that would outweigh the videos, which it does not at 720p. The edge has `share` of a core.

Ways, all over the same prompts, seeds, solver and thread:

    full           all on cloud, the video is sent
    N steps        the same with fewer steps, about as quick as the quickest split
    eco K          K evenly spaced latent frames (the default of this model), finished at the edge
    entropy K      the same with half of the frames, chosen by entropy

Seconds are from the first dispatch to the last committed video. PSNR and SSIM are of the stored files, against `full`.
Needs root, iproute2 and the extra `dev`. Prints a card and ends with one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

CLOUD, EDGE = "vp-cloud", "vp-edge"
CLOUD_IP, EDGE_IP = "10.77.0.1", "10.77.0.2"
RAY_PORT, OBJECTS_PORT, STORE_PORT = 6399, 6400, 9000
WORKER_PORTS = 0x4000  # 256 of them: orders, heartbeats and small objects go straight from process to process
FIRST_SEED = 9_900_000_000  # of captions; training drew below 3e9
FRAMES = 65
CGROUP = Path("/sys/fs/cgroup/cpu/vp-edge")
NO_TOKENS = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_DASHBOARD": "1"}
KEYS = {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "AWS_DEFAULT_REGION": "us-east-1"}


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--rates", type=float, nargs="+", default=[0.1, 0.3, 1.0])
    words.add_argument("--share", type=float, default=0.5, help="of one core, for the edge")
    words.add_argument("--videos", type=int, default=4)
    words.add_argument("--keyframes", type=int, nargs="+", default=[5, 6, 9])
    words.add_argument("--steps", type=int, default=9, help="of the rival with fewer steps")
    words.add_argument("--drive", help=argparse.SUPPRESS)
    told = words.parse_args()
    if told.drive:
        drive(json.loads(told.drive))
        return
    if os.geteuid() or not shutil.which("ip") or not shutil.which("tc"):
        sys.exit("needs root and iproute2 (ip, tc)")
    with tempfile.TemporaryDirectory() as folder, two_hosts(), store(), ray_nodes(told.share):
        answer = measured(told, Path(folder))
    print("\n".join(card(answer)))
    print(json.dumps(answer))


# --- measuring ----------------------------------------------------------------------------------


def measured(told: argparse.Namespace, folder: Path) -> dict[str, Any]:
    half = (FRAMES - 1) // 4 // 2 + 1
    ways: dict[str, dict[str, Any]] = {
        "full": {"method": "full", "light": False},
        f"{told.steps} steps": {"method": "full", "light": False, "steps": told.steps},
        f"entropy {half}": {"method": f"eco:k={half},selector=entropy", "light": True},
    }
    ways |= {f"eco {k}": {"method": f"eco:k={k}", "light": True} for k in told.keyframes}

    limit(None)
    free = ran("full", ways["full"], folder, told.videos)  # also warms the page cache
    denoise_s = mean(one["phases"]["denoise"] for one in free["videos"])
    video_bytes = mean(one["bytes"] for one in free["videos"])
    reference = {one["row"]: frames_of(one["uri"]) for one in free["videos"]}
    points = []
    for rate in told.rates:
        bits_per_s = 8 * video_bytes / (rate * denoise_s)
        limit(bits_per_s)
        for name, way in ways.items():
            found = ran(name, way, folder, told.videos)
            points.append({"rate": rate, "bits_per_s": round(bits_per_s), "way": name} | summed(found, reference))
            say(f"{rate:g} of the denoising per full video, {name}: {points[-1]['seconds']:.1f} s")
    limit(None)
    for point in points:
        full = next(one for one in points if one["rate"] == point["rate"] and one["way"] == "full")
        point["ratio"] = round(full["seconds"] / point["seconds"], 3)
    return {
        "benchmark": "cloud_edge",
        "model": "flipbook",
        "frames": FRAMES,
        "videos": told.videos,
        "edge_share": told.share,
        "denoise_s": round(denoise_s, 3),
        "video_bytes": round(video_bytes),
        "points": points,
        "seeds": f"{FIRST_SEED}..",
        "machine": platform.processor() or platform.machine(),
        "versions": {name: version(name) for name in ("torch", "diffusers", "ray", "vidplat")},
    }


def summed(found: dict[str, Any], reference: dict[int, np.ndarray]) -> dict[str, Any]:
    """Means over the videos; the parts are worker seconds of cloud, network and edge."""
    from vidplat.workers.quality import psnr_db, ssim

    videos = found["videos"]
    made = [(reference[one["row"]], frames_of(one["uri"])) for one in videos]
    parts = {"cloud_s": 0.0, "network_s": 0.0, "edge_s": 0.0}
    for one in videos:
        split = "reconstruct" in one["phases"]
        for phase, seconds in one["phases"].items():
            if phase == "network" or (phase == "store" and not split):
                parts["network_s"] += seconds
            elif split and phase in ("reconstruct", "mp4", "store"):
                parts["edge_s"] += seconds
            else:
                parts["cloud_s"] += seconds
    differing = [psnr_db(a, b) for a, b in made if not np.array_equal(a, b)]
    return {
        "seconds": round(found["seconds"], 3),
        **{name: round(seconds / len(videos), 3) for name, seconds in parts.items()},
        "sent_bytes": round(mean(one["sent_bytes"] for one in videos)),
        "psnr_db": round(mean(differing), 2) if differing else None,
        "identical": len(made) - len(differing),
        "ssim": round(mean(ssim(a, b) for a, b in made), 4),
    }


def ran(name: str, way: dict[str, Any], folder: Path, count: int) -> dict[str, Any]:
    """One batch in the cloud's namespace."""
    from vidplat.training import world

    prompts = folder / "prompts.txt"
    captions = [world.example(FIRST_SEED + n, num_frames=5, height=16, width=16)[0] for n in range(count)]
    prompts.write_text("".join(f"{caption}\n" for caption in captions))
    bucket = f"b{time.time_ns()}"
    s3().create_bucket(Bucket=bucket)
    asked = way | {"prompts": str(prompts), "output": f"s3://{bucket}", "catalog": f"{folder}/{bucket}.db"}
    command = [sys.executable, __file__, "--drive", json.dumps(asked)]
    told = in_host(CLOUD, command, stdout=subprocess.PIPE, text=True)
    said, _ = told.communicate(timeout=1_800)
    if told.returncode:
        raise SystemExit(f"{name} ended with {told.returncode}")
    return json.loads(said.splitlines()[-1])  # type: ignore[no-any-return]


def drive(asked: dict[str, Any]) -> None:
    """Inside the cloud's namespace: submit, and print what came of it."""
    from vidplat.config import CatalogConfig, Config, PoolConfig, RayConfig, StoreConfig
    from vidplat.domain import Outcome
    from vidplat.platform import Silence, SubmitRequest, submit

    class Ears(Silence):
        def __init__(self) -> None:
            self.outcomes: list[Outcome] = []

        def outcome(self, outcome: Outcome) -> None:
            self.outcomes.append(outcome)

        def warn(self, text: str) -> None:
            say(f"warning: {text}")

    ears = Ears()
    pools = (PoolConfig("cloud"), PoolConfig("edge", light=True)) if asked["light"] else (PoolConfig("cloud"),)
    config = Config(
        catalog=CatalogConfig(f"sqlite:///{asked['catalog']}"),
        store=StoreConfig(asked["output"]),
        pools=pools,
        ray=RayConfig(address=f"{CLOUD_IP}:{RAY_PORT}"),
    )
    spec = {"num_frames": FRAMES} | ({"num_inference_steps": asked["steps"]} if "steps" in asked else {})
    result = submit(SubmitRequest(asked["prompts"], method=asked["method"], spec=spec), config, ears)
    if result.exit_code:
        sys.exit(f"exit {result.exit_code}: {result.message}")
    from vidplat.storage import open_catalog

    catalog = open_catalog(config.catalog.url)
    row_of = {record.job.id: record.job.row for record in catalog.jobs(result.batch.id)}
    catalog.close()
    videos = [
        {
            "row": row_of[each.job_id],
            "uri": each.artifact.video_uri,
            "bytes": each.artifact.size_bytes,
            "sent_bytes": each.metrics.get("draft_bytes", each.artifact.size_bytes),
            "phases": dict(each.phases),
        }
        for each in ears.outcomes
        if each.artifact
    ]
    first = min(each.started_at for each in ears.outcomes)
    print(json.dumps({"seconds": max(each.finished_at for each in ears.outcomes) - first, "videos": videos}))


# --- two hosts ----------------------------------------------------------------------------------


@contextmanager
def two_hosts() -> Iterator[None]:
    """Two namespaces and a veth pair between them."""
    remove()
    try:
        for host in (CLOUD, EDGE):
            do("ip", "netns", "add", host)
            do("ip", "-n", host, "link", "set", "lo", "up")
        do("ip", "link", "add", "vp-a", "netns", CLOUD, "type", "veth", "peer", "name", "vp-b", "netns", EDGE)
        for host, device, address in ((CLOUD, "vp-a", CLOUD_IP), (EDGE, "vp-b", EDGE_IP)):
            do("ip", "-n", host, "address", "add", f"{address}/24", "dev", device)
            do("ip", "-n", host, "link", "set", device, "up")
        yield
    finally:
        remove()


def remove() -> None:
    for host in (CLOUD, EDGE):
        subprocess.run(["ip", "netns", "delete", host], capture_output=True, check=False)


def limit(bits_per_s: float | None) -> None:
    """Limit what goes to and from the store and the object managers; None: no limit."""
    for host, device in ((CLOUD, "vp-a"), (EDGE, "vp-b")):
        subprocess.run(["tc", "-n", host, "qdisc", "del", "dev", device, "root"], capture_output=True, check=False)
        if bits_per_s is None:
            continue
        tc = ("tc", "-n", host)
        do(*tc, "qdisc", "add", "dev", device, "root", "handle", "1:", "htb", "default", "1", "r2q", "1000")
        fast, thin = ("rate", "10gbit", "quantum", "60000"), ("rate", f"{round(bits_per_s)}bit", "quantum", "1500")
        do(*tc, "class", "add", "dev", device, "parent", "1:", "classid", "1:1", "htb", *fast)
        do(*tc, "class", "add", "dev", device, "parent", "1:", "classid", "1:2", "htb", *thin, "burst", "4k")
        for port, bits in ((OBJECTS_PORT, "0xffff"), (STORE_PORT, "0xffff"), (WORKER_PORTS, "0xff00")):
            for side in ("sport", "dport"):
                match = ("match", "ip", side, str(port), bits, "flowid", "1:2")
                do(*tc, "filter", "add", "dev", device, "parent", "1:", "protocol", "ip", "u32", *match)


@contextmanager
def store() -> Iterator[None]:
    command = [sys.executable, "-m", "moto.server", "-H", EDGE_IP, "-p", str(STORE_PORT)]
    server = in_host(EDGE, command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: bool(s3().list_buckets() is not None), 60)
        yield
    finally:
        server.kill()
        server.wait()


@contextmanager
def ray_nodes(share: float) -> Iterator[None]:
    ray = str(Path(sys.executable).with_name("ray"))
    common = ["--num-cpus", "1", "--object-manager-port", str(OBJECTS_PORT), "--object-store-memory", "100000000"]
    common += ["--min-worker-port", str(WORKER_PORTS), "--max-worker-port", str(WORKER_PORTS + 255)]
    head = ["--head", "--port", str(RAY_PORT), "--node-ip-address", CLOUD_IP, "--include-dashboard", "false"]
    node = ["--address", f"{CLOUD_IP}:{RAY_PORT}", "--node-ip-address", EDGE_IP]
    with tempfile.TemporaryDirectory(prefix="vp-ray-") as folder:
        started = []
        try:
            starts = ((CLOUD, head, '{"pool_cloud": 1}'), (EDGE, node, '{"pool_edge": 1}'))
            for host, how, places in starts:
                where = ["--temp-dir", f"{folder}/c"] if host == CLOUD else []
                command = [ray, "start", "--block", *how, *common, *where, "--resources", places]
                out = (Path(folder) / f"{host}.log").open("wb")
                started.append(in_host(host, command, share if host == EDGE else 1.0, stdout=out, stderr=out))
                time.sleep(8)
            yield
        finally:
            for process in reversed(started):
                process.kill()
                process.wait()
            for host in (CLOUD, EDGE):
                for pid in subprocess.run(
                    ["ip", "netns", "pids", host], capture_output=True, text=True, check=False
                ).stdout.split():
                    with suppress(ProcessLookupError):
                        if int(pid) != os.getpid():
                            os.kill(int(pid), signal.SIGKILL)


def in_host(host: str, command: Sequence[str], share: float = 1.0, **how: Any) -> subprocess.Popen[Any]:
    """A process in a namespace, its CPU limited to `share` of a core."""
    env = {**os.environ, **NO_TOKENS, **KEYS, "AWS_ENDPOINT_URL": f"http://{EDGE_IP}:{STORE_PORT}"}
    enter: list[str] = []
    if share < 1:
        CGROUP.mkdir(exist_ok=True)
        (CGROUP / "cpu.cfs_quota_us").write_text(str(round(100_000 * share)))
        enter = ["sh", "-c", f'echo $$ > {CGROUP}/cgroup.procs && exec "$@"', "sh"]
    enter += ["ip", "netns", "exec", host]
    return subprocess.Popen([*enter, *command], env=env, start_new_session=True, **how)


def do(*command: str) -> None:
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"{' '.join(command)}: {ended.stderr.strip()}")


def s3() -> Any:
    """A client in the edge's namespace would be of no use to this process: it asks through `nsenter` of its thread."""
    import boto3
    from botocore.config import Config as S3Config

    enter_namespace(EDGE)
    limits = S3Config(retries={"max_attempts": 1}, connect_timeout=2, read_timeout=30)
    return boto3.client(
        "s3",
        endpoint_url=f"http://{EDGE_IP}:{STORE_PORT}",
        aws_access_key_id="none",
        aws_secret_access_key="none",
        region_name="us-east-1",
        config=limits,
    )


def enter_namespace(host: str) -> None:
    """This thread's network becomes that of a namespace; new processes still enter theirs by `ip netns exec`."""
    import ctypes

    with Path(f"/var/run/netns/{host}").open() as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), 0x40000000):
            raise SystemExit(f"cannot enter namespace {host}: {os.strerror(ctypes.get_errno())}")


def frames_of(uri: str) -> np.ndarray:
    from vidplat.workers.video import to_frames

    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return to_frames(s3().get_object(Bucket=bucket, Key=key)["Body"].read())


def until(ready: Any, patience_s: float) -> None:
    give_up_at = time.monotonic() + patience_s
    while True:
        with suppress(Exception):
            if ready():
                return
        if time.monotonic() > give_up_at:
            raise SystemExit(f"the store did not start within {patience_s:.0f} s")
        time.sleep(0.3)


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def card(answer: dict[str, Any]) -> Iterator[str]:
    yield (
        f"flipbook, {answer['videos']} videos of {answer['frames']} frames at 64x64, 24 steps; edge share "
        f"{answer['edge_share']:g}; a full video has {answer['video_bytes'] / 1e3:.1f} kB"
    )
    yield (
        f"  {'sending':>8} {'kbit/s':>7} {'way':<11} {'seconds':>8} {'ratio':>6} {'cloud':>7} {'network':>8} "
        f"{'edge':>6} {'sent kB':>8} {'PSNR':>6} {'SSIM':>7}"
    )
    for one in answer["points"]:
        shown = "same" if one["psnr_db"] is None else f"{one['psnr_db']:.2f}"
        yield (
            f"  {one['rate']:>7g}x {one['bits_per_s'] / 1e3:>7.1f} {one['way']:<11} {one['seconds']:>8.2f} "
            f"{one['ratio']:>5.2f}x {one['cloud_s']:>7.2f} {one['network_s']:>8.2f} {one['edge_s']:>6.2f} "
            f"{one['sent_bytes'] / 1e3:>8.1f} {shown:>6} {one['ssim']:>7.4f}"
        )
    yield "  seconds: first dispatch to last commit; cloud, network, edge: mean seconds per video"


if __name__ == "__main__":
    main()
