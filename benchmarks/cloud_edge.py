"""Videos begun in one host and finished in another, over a thin link: two network namespaces on
this machine.

    sudo python benchmarks/cloud_edge.py [--rates 0.03 0.1 0.3 1 3] [--shares 0.5 0.25 1] [--videos
    4] [--no-change]

A Ray head with the cloud's worker runs in one namespace, a Ray node with the edge's light worker in
the other, and the object store (an S3 server in memory) beside the edge: there the videos are
wanted. A veth pair joins them; `tc htb` limits what goes to and from the store, between Ray's
object managers and between its workers, at such a rate that what is stored of one full video,
sidecar and all, takes `rates` times its own denoising. The three share it fairly, as under the fair
queue that Linux has by default: else an order of one packet waits behind a whole video at 3 kbit/s,
which is half a minute here and a tenth of a second at 1 Mbit/s. What Ray's nodes say to each other
is not limited: at the size of this model that would outweigh the videos, which it does not at 720p.
The edge has `shares` of a core, one after the other; ways without an edge are run for the first
share alone.

Ways, all over the same prompts, seeds, solver and thread:

    full           all on cloud, the video is sent
    N steps        the same with fewer steps, about as quick as the quickest split
    eco K          K evenly spaced latent frames (the default of this model), finished at the edge;
                   half of them is the rival that does not adapt
    entropy K      the same with half of the frames, chosen by entropy
    small          all at the edge, with the small model
    adaptive       `--method eco` with a deadline: as long as `eco` with half of the frames took at
                   the same point

The adaptive batch comes last at its point and shares a catalog with the batches before it, as a
nightly run does. It wins or ties where its PSNR, or its SSIM, which is what plans go by, is not
below that of the fixed K on the line between those at the seconds it took, within 3 %. At one point
the link's rate falls to a tenth in mid-batch (from 0.1 to 1 times the denoising), for `eco` with
half of the frames and for the adaptive one.

Seconds are from the first dispatch to the last committed video. PSNR and SSIM are of the stored
files, against `full`. `sent` is the draft's or the video's file alone; `link` is all that the batch
sent from cloud to edge, per video: requests, orders and acknowledgements, and from before and after
those seconds the start of the edge's worker and the manifest. `--of-steps 8` makes videos of 8
steps, as quickly as a cloud three times as fast would, for links that are slow beside it: at 3.3
kbit/s Ray's own messages do not come through in the time that Ray gives them, at 10 they do. A
worker does not denoise while it stores; `ideal` is what `full` would take if it did, a flow shop of
the measured stages, and the second ratio is to that. `foretold` is the flow shop of cloud, network
and edge, from the way's own cloud and edge seconds at the fastest link and its bytes over the
link's rate. Needs root, iproute2 and the extra `dev`. After an interrupt, and after SIGTERM, what
was measured is printed. Prints a card and ends with one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
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
WORKER_PORTS = (
    0x4000  # 256 of them: orders, heartbeats and small objects go straight from process to process
)
FIRST_SEED = 9_900_000_000  # of captions; training drew below 3e9
FRAMES = 65
CGROUP = Path("/sys/fs/cgroup/cpu/vp-edge")
NO_TOKENS = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_DASHBOARD": "1",
}
KEYS = {
    "AWS_ACCESS_KEY_ID": "none",
    "AWS_SECRET_ACCESS_KEY": "none",
    "AWS_DEFAULT_REGION": "us-east-1",
}


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--rates", type=float, nargs="+", default=[0.03, 0.1, 0.3, 1.0, 3.0])
    words.add_argument(
        "--shares",
        type=float,
        nargs="+",
        default=[0.5, 0.25, 1.0],
        help="of one core, for the edge",
    )
    words.add_argument("--videos", type=int, default=4)
    words.add_argument(
        "--keyframes", type=int, nargs="+", default=[5, 13], help="beside half of the frames"
    )
    words.add_argument("--steps", type=int, default=9, help="of the rival with fewer steps")
    words.add_argument("--of-steps", type=int, default=24, help="of a full video")
    words.add_argument("--ways", nargs="+", help="as the card names them; default: all")
    words.add_argument("--no-change", action="store_true", help="leave out the link that changes")
    words.add_argument("--drive", help=argparse.SUPPRESS)
    told = words.parse_args()
    if told.drive:
        drive(json.loads(told.drive))
        return
    if os.geteuid() or not shutil.which("ip") or not shutil.which("tc"):
        sys.exit("needs root and iproute2 (ip, tc)")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as folder, two_hosts(), store(), ray_nodes():
        answer = Bench(told, Path(folder)).measured()
    print("\n".join(card(answer)))
    print(json.dumps(answer))


# --- measuring ----------------------------------------------------------------------------------

HALF = (FRAMES - 1) // 4 // 2 + 1  # of the latent frames
FIXED = f"eco {HALF}"


class Bench:
    """Runs every way at every point of the grid."""

    def __init__(self, told: argparse.Namespace, folder: Path) -> None:
        self.told, self.folder = told, folder
        self.reference: dict[int, np.ndarray] = {}
        self.startups: list[float] = []
        self.bits_per_s_of_1 = 0.0  # at which sending a full video takes as long as denoising it
        self.points: list[dict[str, Any]] = []

    def measured(self) -> dict[str, Any]:
        told, ways = self.told, self.ways()
        limit(None)
        set_share(told.shares[0])
        free = self.ran("full", ways["full"], "first")  # also warms the page cache
        denoise_s = mean(one["phases"]["denoise"] for one in free["videos"])
        video_bytes = free["stored_bytes"]
        self.reference = {one["row"]: frames_of(one["uri"]) for one in free["videos"]}
        self.bits_per_s_of_1 = 8 * video_bytes / denoise_s
        try:
            self.everywhere(ways)
        except KeyboardInterrupt:
            say("stopped: what follows was measured so far")
        limit(None)
        self.compare()
        return {
            "benchmark": "cloud_edge",
            "model": "flipbook",
            "frames": FRAMES,
            "videos": told.videos,
            "steps": told.of_steps,
            "denoise_s": round(denoise_s, 3),
            "video_bytes": round(video_bytes),
            "points": self.points,
            "seeds": f"{FIRST_SEED}..",
            "machine": platform.processor() or platform.machine(),
            "versions": {name: version(name) for name in ("torch", "diffusers", "ray", "vidplat")},
        }

    def everywhere(self, ways: dict[str, dict[str, Any]]) -> None:
        told = self.told
        for rate in told.rates:
            self.at_point(ways, told.shares[0], rate)
            if rate == 0.1 and not told.no_change:
                self.while_the_link_changes(ways)
        for share in told.shares[1:]:
            for rate in told.rates:
                if rate <= 1:  # the thinnest links take longest, and an edge waits there
                    self.at_point(ways, share, rate)

    def ways(self) -> dict[str, dict[str, Any]]:
        cloud: dict[str, Any] = {"pools": [["cloud", False]]}
        split: dict[str, Any] = {"pools": [["cloud", False], ["edge", True]]}
        every: dict[str, dict[str, Any]] = {
            "full": {"method": "full", **cloud},
            f"{self.told.steps} steps": {"method": "full", "steps": self.told.steps, **cloud},
            "small": {"method": "full", "model": "flipbook-edge", "pools": [["edge", False]]},
            f"entropy {HALF}": {"method": f"eco:k={HALF},selector=entropy", **split},
            **{
                f"eco {k}": {"method": f"eco:k={k}", **split}
                for k in sorted({*self.told.keyframes, HALF})
            },
            "adaptive": {"method": "eco", **split},
        }
        return {
            name: way for name, way in every.items() if not self.told.ways or name in self.told.ways
        }

    def at_point(self, ways: dict[str, dict[str, Any]], share: float, rate: float) -> None:
        limit(self.bits_per_s_of_1 / rate)
        set_share(share)
        seconds: dict[str, float] = {}
        for name, way in ways.items():
            has_edge = any(pool == "edge" for pool, _ in way["pools"])
            if not has_edge and share != self.told.shares[0]:
                continue
            if name.startswith("entropy") and share != self.told.shares[0]:
                continue
            within_s = seconds[FIXED] if name == "adaptive" else None
            found = self.ran(name, way, f"{share}-{rate}", within_s)
            self.note(name, share, rate, found)
            seconds[name] = found["seconds"]

    def while_the_link_changes(self, ways: dict[str, dict[str, Any]]) -> None:
        """From 0.1 to 1 times the denoising, once half of what the fixed K needs at 0.1 is over."""
        share, catalog = self.told.shares[0], "change"
        set_share(share)
        usual = next(
            (p["seconds"] for p in self.points if (p["way"], p["rate"]) == (FIXED, 0.1)), None
        )
        if usual is None:
            return
        taken_s = None
        for name in (FIXED, "adaptive"):
            limit(self.bits_per_s_of_1 / 0.1)
            delay_s = statistics.median(self.startups) + usual / 2
            change = threading.Timer(delay_s, limit, [self.bits_per_s_of_1])
            change.start()
            found = self.ran(name, ways[name], catalog, taken_s)
            change.join()
            self.note(name, share, 0.1, found, changed=True)
            taken_s = taken_s or found["seconds"]

    def note(
        self, name: str, share: float, rate: float, found: dict[str, Any], *, changed: bool = False
    ) -> None:
        point = {"share": share, "rate": rate, "changed": changed, "way": name}
        point |= {"bits_per_s": round(self.bits_per_s_of_1 / rate)}
        items = [
            (sum(s for phase, s in v["phases"].items() if phase != "store"), v["phases"]["store"])
            for v in found["videos"]
        ]
        if not any(one["at_edge"] for one in found["videos"]):
            point["ideal_s"] = round(flow_shop(items), 3)
        self.points.append(point | summed(found, self.reference))
        told = (
            f"share {share:g}, {rate:g}{' then 1' if changed else ''} of the denoising per "
            "full video"
        )
        say(f"{told}, {name}: {found['seconds']:.1f} s")

    def ran(
        self, name: str, way: dict[str, Any], catalog: str, within_s: float | None = None
    ) -> dict[str, Any]:
        """One batch in the cloud's namespace; with a deadline so long after start-up, as that
        usually takes."""
        deadline_s = None if within_s is None else within_s + statistics.median(self.startups)
        before = carried_bytes()
        way = {"steps": self.told.of_steps} | way
        found = ran(name, way | {"deadline_s": deadline_s}, self.folder, self.told.videos, catalog)
        found["link_bytes"] = (carried_bytes() - before) / self.told.videos
        if way["pools"][0][0] == "cloud":
            self.startups.append(found["startup_s"])
        if deadline_s is not None:
            found["had_s"] = deadline_s - found["startup_s"]
        return found

    def compare(self) -> None:
        """Ratios to `full` at the same rate, and the adaptive way beside the fixed K of its
        point."""
        for point in self.points:
            full = next(
                (p for p in self.points if p["way"] == "full" and p["rate"] == point["rate"]), None
            )
            if full is not None and not point["changed"]:
                point["ratio"] = round(full["seconds"] / point["seconds"], 3)
                point["ratio_to_ideal"] = round(full["ideal_s"] / point["seconds"], 3)
            if point["way"].startswith(("eco", "entropy")) and not point["changed"]:
                point["foretold_s"] = round(self.foretold_s(point), 3)
            if point["way"] != "adaptive":
                continue
            here = [p for p in self.points if [p[n] for n in AT] == [point[n] for n in AT]]
            fixed = sorted(
                (p["seconds"], p["psnr_db"], p["ssim"]) for p in here if p["way"].startswith("eco ")
            )
            at_s = [seconds for seconds, _, _ in fixed]
            for place, figure in ((1, "psnr_db"), (2, "ssim")):
                best = np.maximum.accumulate([one[place] for one in fixed])
                point[f"fixed_{figure}"] = round(
                    float(np.interp(point["seconds"] / 1.03, at_s, best)), 4
                )
                point[f"wins_or_ties_by_{figure}"] = bool(point[figure] >= point[f"fixed_{figure}"])

    def foretold_s(self, point: dict[str, Any]) -> float:
        """Seconds of the batch by the formulas: three stages, each of one video at a time."""
        same = (p for p in self.points if (p["way"], p["share"]) == (point["way"], point["share"]))
        known = min(same, key=lambda p: float(p["rate"]))
        network_s = 8 * point["sent_bytes"] / point["bits_per_s"]
        return flow_shop([(known["cloud_s"], network_s, known["edge_s"])] * self.told.videos)


def flow_shop(seconds: Sequence[Sequence[float]]) -> float:
    """When the last item leaves the last stage: C[i,s] = max(C[i-1,s], C[i,s-1]) + p[i,s], items in
    their order.

    seconds: p, items x stages. Each stage works on one item at a time. 0 for no items.
    """
    ready = [0.0] * (len(seconds[0]) if seconds else 1)
    for item in seconds:
        at = 0.0
        for stage, takes in enumerate(item):
            at = max(ready[stage], at) + takes
            ready[stage] = at
    return ready[-1]


AT = ("share", "rate", "changed")


def summed(found: dict[str, Any], reference: dict[int, np.ndarray]) -> dict[str, Any]:
    """Means over the videos; the parts are worker seconds of cloud, network and edge."""
    from vidplat.quality import psnr_db, ssim

    videos = found["videos"]
    made = [(reference[one["row"]], frames_of(one["uri"])) for one in videos]
    parts = {"cloud_s": 0.0, "network_s": 0.0, "edge_s": 0.0}
    for one in videos:
        for phase, seconds in one["phases"].items():
            if phase == "network" or (phase == "store" and not one["at_edge"]):
                parts["network_s"] += seconds
            elif one["at_edge"] and (
                phase in ("reconstruct", "mp4", "store") or not one["drafted"]
            ):
                parts["edge_s"] += seconds
            else:
                parts["cloud_s"] += seconds
    differing = [psnr_db(a, b) for a, b in made if not np.array_equal(a, b)]
    return {
        "seconds": round(found["seconds"], 3),
        "had_s": round(found["had_s"], 3) if "had_s" in found else None,
        "kept": sorted(one["kept"] for one in videos),
        "finished_at_edge": sum(one["at_edge"] for one in videos),
        **{name: round(seconds / len(videos), 3) for name, seconds in parts.items()},
        "sent_bytes": round(mean(one["sent_bytes"] for one in videos)),
        "link_bytes": round(found["link_bytes"]),
        "psnr_db": round(mean(differing), 2) if differing else None,
        "identical": len(made) - len(differing),
        "ssim": round(mean(ssim(a, b) for a, b in made), 4),
    }


def ran(name: str, way: dict[str, Any], folder: Path, count: int, catalog: str) -> dict[str, Any]:
    """One batch in the cloud's namespace."""
    from flipbook_training import world

    prompts = folder / "prompts.txt"
    captions = [
        world.example(FIRST_SEED + n, num_frames=5, height=16, width=16)[0] for n in range(count)
    ]
    prompts.write_text("".join(f"{caption}\n" for caption in captions))
    bucket = f"b{time.time_ns()}"
    s3().create_bucket(Bucket=bucket)
    asked = way | {
        "prompts": str(prompts),
        "output": f"s3://{bucket}",
        "catalog": f"{folder}/{catalog}.db",
    }
    command = [sys.executable, __file__, "--drive", json.dumps(asked)]
    told = in_host(CLOUD, command, stdout=subprocess.PIPE, text=True)
    said, _ = told.communicate(timeout=1_800)
    if told.returncode:
        raise SystemExit(f"{name} ended with {told.returncode}")
    pages = s3().get_paginator("list_objects_v2").paginate(Bucket=bucket)
    stored = sum(
        each["Size"]
        for page in pages
        for each in page.get("Contents", ())
        if "/jobs/" in each["Key"]
    )
    answer: dict[str, Any] = json.loads(said.splitlines()[-1])
    return answer | {"stored_bytes": stored / count}


def drive(asked: dict[str, Any]) -> None:
    """Inside the cloud's namespace: submit, and print what came of it."""
    from vidplat.config import CatalogConfig, Config, PoolConfig, RayConfig, StoreConfig
    from vidplat.domain import OnInfeasible, Outcome
    from vidplat.methods.frames import kept_latents
    from vidplat.platform import Silence, SubmitRequest, submit

    class Ears(Silence):
        def __init__(self) -> None:
            self.outcomes: list[Outcome] = []

        def outcome(self, outcome: Outcome) -> None:
            self.outcomes.append(outcome)

        def warn(self, text: str) -> None:
            say(f"warning: {text}")

    ears = Ears()
    config = Config(
        catalog=CatalogConfig(f"sqlite:///{asked['catalog']}"),
        store=StoreConfig(asked["output"]),
        pools=tuple(PoolConfig(name, light=light) for name, light in asked["pools"]),
        ray=RayConfig(address=f"{CLOUD_IP}:{RAY_PORT}"),
    )
    request = SubmitRequest(
        asked["prompts"],
        method=asked["method"],
        model=asked.get("model", "flipbook"),
        spec={"num_frames": FRAMES, "num_inference_steps": asked["steps"]},
        deadline=None if asked["deadline_s"] is None else f"{asked['deadline_s']:.3f}s",
        on_infeasible=OnInfeasible.BEST_EFFORT,
        submitted_at=time.time(),
    )
    result = submit(request, config, ears)
    if result.exit_code not in (0, 5):  # 5: the deadline was missed
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
            "kept": kept_latents(each.point.accelerator, (FRAMES - 1) // 4 + 1),
            "at_edge": each.worker_id.startswith("edge"),
            "drafted": bool(each.drafted_by),
            "phases": dict(each.phases),
        }
        for each in ears.outcomes
        if each.artifact
    ]
    first = min(each.started_at for each in ears.outcomes)
    seconds = max(each.finished_at for each in ears.outcomes) - first
    startup_s = first - request.submitted_at
    print(json.dumps({"seconds": seconds, "startup_s": startup_s, "videos": videos}))


# --- two hosts ----------------------------------------------------------------------------------


@contextmanager
def two_hosts() -> Iterator[None]:
    """Two namespaces and a veth pair between them."""
    remove()
    try:
        for host in (CLOUD, EDGE):
            do("ip", "netns", "add", host)
            do("ip", "-n", host, "link", "set", "lo", "up")
        do(
            "ip",
            "link",
            "add",
            "vp-a",
            "netns",
            CLOUD,
            "type",
            "veth",
            "peer",
            "name",
            "vp-b",
            "netns",
            EDGE,
        )
        for host, device, address in ((CLOUD, "vp-a", CLOUD_IP), (EDGE, "vp-b", EDGE_IP)):
            do("ip", "-n", host, "address", "add", f"{address}/24", "dev", device)
            # whole packets in the queue: segments of 8 kB would pass at once and then block a thin
            # link for a minute
            do(
                "ip",
                "-n",
                host,
                "link",
                "set",
                device,
                "gso_max_segs",
                "1",
                "gso_max_size",
                "1514",
                "up",
            )
        thin_link()
        yield
    finally:
        remove()


def remove() -> None:
    for host in (CLOUD, EDGE):
        subprocess.run(["ip", "netns", "delete", host], capture_output=True, check=False)


DEVICES = ((CLOUD, "vp-a"), (EDGE, "vp-b"))
THIN = "1:2"  # the class of all that is limited
SHARING = {  # classes within it: ports
    "1:3": (("sport", STORE_PORT, "0xffff"), ("dport", STORE_PORT, "0xffff")),
    "1:4": (
        ("sport", WORKER_PORTS, "0xff00"),
        ("sport", OBJECTS_PORT, "0xffff"),
    ),  # answers: drafts, and what is up
    "1:5": (("dport", WORKER_PORTS, "0xff00"), ("dport", OBJECTS_PORT, "0xffff")),  # orders
}
UNLIMITED = 1e9


def thin_link() -> None:
    """Traffic classes for both ends of the pair, without a limit yet."""
    for host, device in DEVICES:
        tc = ("tc", "-n", host)
        do(
            *tc,
            "qdisc",
            "add",
            "dev",
            device,
            "root",
            "handle",
            "1:",
            "htb",
            "default",
            "1",
            "r2q",
            "1000",
        )
        fast = ("rate", "10gbit", "quantum", "60000")
        do(*tc, "class", "add", "dev", device, "parent", "1:", "classid", "1:1", "htb", *fast)
        for name, ports in SHARING.items():
            for side, port, bits in ports:
                match = ("match", "ip", side, str(port), bits, "flowid", name)
                do(
                    *tc,
                    "filter",
                    "add",
                    "dev",
                    device,
                    "parent",
                    "1:",
                    "protocol",
                    "ip",
                    "u32",
                    *match,
                )
    limit(None)


def limit(bits_per_s: float | None) -> None:
    """What the store, the object managers and the workers may send each way, from now on; None: no
    limit."""
    whole = bits_per_s or UNLIMITED
    for host, device in DEVICES:
        for name, parent, rate in (
            (THIN, "1:", whole),
            *((name, THIN, whole / len(SHARING)) for name in SHARING),
        ):
            rates = (
                "rate",
                f"{round(rate)}bit",
                "ceil",
                f"{round(whole)}bit",
                "quantum",
                "1500",
                "burst",
                "4k",
            )
            do(
                "tc",
                "-n",
                host,
                "class",
                "replace",
                "dev",
                device,
                "parent",
                parent,
                "classid",
                name,
                "htb",
                *rates,
            )


def carried_bytes() -> int:
    """That went from cloud to edge over the limited link so far."""
    host, device = DEVICES[0]
    told = do("tc", "-n", host, "-s", "class", "show", "dev", device)
    about = told.partition(f"class htb {THIN} ")[2]
    return int(about.partition("Sent ")[2].split()[0])


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


def set_share(share: float) -> None:
    """What the edge may use of a core, from now on."""
    (CGROUP / "cpu.cfs_quota_us").write_text(str(round(100_000 * share)))


@contextmanager
def ray_nodes() -> Iterator[None]:
    ray = str(Path(sys.executable).with_name("ray"))
    common = [
        "--num-cpus",
        "1",
        "--object-manager-port",
        str(OBJECTS_PORT),
        "--object-store-memory",
        "100000000",
    ]
    common += ["--min-worker-port", str(WORKER_PORTS), "--max-worker-port", str(WORKER_PORTS + 255)]
    head = [
        "--head",
        "--port",
        str(RAY_PORT),
        "--node-ip-address",
        CLOUD_IP,
        "--include-dashboard",
        "false",
    ]
    node = ["--address", f"{CLOUD_IP}:{RAY_PORT}", "--node-ip-address", EDGE_IP]
    with tempfile.TemporaryDirectory(prefix="vp-ray-") as folder:
        started = []
        try:
            starts = ((CLOUD, head, '{"pool_cloud": 1}'), (EDGE, node, '{"pool_edge": 1}'))
            for host, how, places in starts:
                where = ["--temp-dir", f"{folder}/c"] if host == CLOUD else []
                command = [ray, "start", "--block", *how, *common, *where, "--resources", places]
                out = (Path(folder) / f"{host}.log").open("wb")
                started.append(
                    in_host(host, command, is_limited=host == EDGE, stdout=out, stderr=out)
                )
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


def in_host(
    host: str, command: Sequence[str], *, is_limited: bool = False, **how: Any
) -> subprocess.Popen[Any]:
    """A process in a namespace; `is_limited` to the edge's share of a core, and all that it
    starts."""
    env = {**os.environ, **NO_TOKENS, **KEYS, "AWS_ENDPOINT_URL": f"http://{EDGE_IP}:{STORE_PORT}"}
    enter: list[str] = []
    if is_limited:
        CGROUP.mkdir(exist_ok=True)
        enter = ["sh", "-c", f'echo $$ > {CGROUP}/cgroup.procs && exec "$@"', "sh"]
    enter += ["ip", "netns", "exec", host]
    return subprocess.Popen([*enter, *command], env=env, start_new_session=True, **how)


def do(*command: str) -> str:
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"{' '.join(command)}: {ended.stderr.strip()}")
    return ended.stdout


def s3() -> Any:
    """A client in the edge's namespace would be of no use to this process: it asks through
    `nsenter` of its thread."""
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
    """This thread's network becomes that of a namespace; new processes still enter theirs by `ip
    netns exec`."""
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
        f"flipbook, {answer['videos']} videos of {answer['frames']} frames at 64x64, "
        f"{answer['steps']} steps; a full "
        f"video has {answer['video_bytes'] / 1e3:.1f} kB in the store and takes "
        f"{answer['denoise_s']:.1f} s to denoise"
    )
    yield (
        f"  {'edge':>5} {'sending':>8} {'kbit/s':>7} {'way':<10} {'seconds':>8} {'ratio':>6} "
        f"{'/ideal':>6} "
        f"{'foretold':>8} {'cloud':>6} "
        f"{'network':>8} {'edge':>6} {'sent kB':>8} {'link kB':>8} {'PSNR':>6} {'SSIM':>7}  kept"
    )
    for one in answer["points"]:
        shown = "same" if one["psnr_db"] is None else f"{one['psnr_db']:.2f}"
        ratio = f"{one['ratio']:.2f}x {one['ratio_to_ideal']:>5.2f}x" if "ratio" in one else ""
        foretold = f"{one['foretold_s']:.1f}" if "foretold_s" in one else ""
        sending = f"{one['rate']:g}>1x" if one["changed"] else f"{one['rate']:g}x"
        kept = ",".join(map(str, one["kept"]))
        beside = (
            ""
            if one["way"] != "adaptive"
            else f"; had {one['had_s']:.1f} s; fixed K gives {one['fixed_psnr_db']:.2f}, "
            f"{one['fixed_ssim']:.3f}"
        )
        yield (
            f"  {one['share']:>5g} {sending:>8} {one['bits_per_s'] / 1e3:>7.1f} {one['way']:<10} "
            f"{one['seconds']:>8.2f} {ratio:>13} {foretold:>8} "
            f"{one['cloud_s']:>6.2f} {one['network_s']:>8.2f} {one['edge_s']:>6.2f} "
            f"{one['sent_bytes'] / 1e3:>8.1f} {one['link_bytes'] / 1e3:>8.1f} "
            f"{shown:>6} {one['ssim']:>7.4f}  {kept}{beside}"
        )
    yield "  seconds: first dispatch to last commit; cloud, network, edge: mean seconds per video"
    adaptive = [one for one in answer["points"] if one["way"] == "adaptive"]
    for figure, name in (("psnr_db", "PSNR"), ("ssim", "SSIM")):
        won = sum(one[f"wins_or_ties_by_{figure}"] for one in adaptive)
        yield f"  adaptive wins or ties (3 %) by {name} at {won} of {len(adaptive)} points"


if __name__ == "__main__":
    main()
