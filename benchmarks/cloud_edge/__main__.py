"""Videos begun in one host and finished in another, over a thin link.

    sudo python -m benchmarks.cloud_edge [--rates 0.03 0.1 0.3 1 3] [--shares 0.5 0.25 1]
        [--videos 4] [--keyframes 5 13] [--steps 9] [--of-steps 24] [--ways full "eco 5" ...]
        [--no-change]

The two hosts are network namespaces of this machine (`hosts.py`): the cloud's worker in one, the
edge's light worker and the object store in the other, since there the videos are wanted. The link
has such a rate that what is stored of one full video, sidecar and all, takes `rates` times its own
denoising. The edge has `shares` of a core, one after the other; ways without an edge are run for
the first share alone. Ways, all over the same prompts, seeds, solver and thread:

full           all on cloud, the video is sent
N steps        the same with fewer steps, about as quick as the quickest split
eco K          K evenly spaced latent frames (the default of this model), finished at the edge; half
               of them is the rival that does not adapt
entropy K      the same with half of the frames, chosen by entropy
small          all at the edge, with the small model
adaptive       `--method eco` with a deadline: as long as `eco` with half of the frames took at the
               same point

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
the measured stages, and the second ratio is to that. Needs root, iproute2 and the extra `dev`.
After an interrupt, and after SIGTERM, what was measured is printed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean

import numpy as np

from benchmarks.cloud_edge import hosts
from benchmarks.cloud_edge.batch import FRAMES, LATENTS, Asked, Done, Stored, run
from benchmarks.common import Row, answer, head, options, progress
from vidplat.quality import psnr_db, ssim

HALF = LATENTS // 2 + 1
FIXED, ADAPTIVE = f"eco {HALF}", "adaptive"
CLOUD_ALONE, EDGE_ALONE = (("cloud", False),), (("edge", False),)
SPLIT = (("cloud", False), ("edge", True))
AT = ("share", "rate", "changed")  # what names a point of the grid


def ways_for(told: argparse.Namespace) -> dict[str, Asked]:
    """By the names of the card, in the order they are run."""
    steps = told.of_steps
    ways = {
        "full": Asked("full", steps, CLOUD_ALONE),
        f"{told.steps} steps": Asked("full", told.steps, CLOUD_ALONE),
        "small": Asked("full", steps, EDGE_ALONE, "flipbook-edge"),
        f"entropy {HALF}": Asked(f"eco:k={HALF},selector=entropy", steps, SPLIT),
        **{f"eco {k}": Asked(f"eco:k={k}", steps, SPLIT) for k in sorted({*told.keyframes, HALF})},
        ADAPTIVE: Asked("eco", steps, SPLIT),
    }
    return {name: way for name, way in ways.items() if not told.ways or name in told.ways}


class Bench:
    """Runs every way at every point of the grid."""

    def __init__(self, told: argparse.Namespace, folder: Path) -> None:
        self.told, self.folder, self.say = told, folder, progress()
        self.ways = ways_for(told)
        self.startups: list[float] = []
        self.points: list[Row] = []
        # also warms the page cache
        hosts.limit(None)
        hosts.set_share(told.shares[0])
        free, _ = self.ran(Asked("full", told.of_steps, CLOUD_ALONE), "first")
        self.denoise_s = mean(video.phases["denoise"] for video in free.videos)
        self.video_bytes = free.stored_bytes
        self.reference = {video.row: hosts.frames_of(video.uri) for video in free.videos}
        # at which sending a full video takes as long as denoising it
        self.bits_per_s_of_1 = 8 * self.video_bytes / self.denoise_s

    def everywhere(self) -> None:
        told = self.told
        for rate in told.rates:
            self.at_point(told.shares[0], rate)
            if rate == 0.1 and not told.no_change:
                self.while_the_link_changes()
        for share in told.shares[1:]:
            for rate in told.rates:
                if rate <= 1:  # the thinnest links take longest, and an edge waits there
                    self.at_point(share, rate)

    def at_point(self, share: float, rate: float) -> None:
        hosts.limit(self.bits_per_s_of_1 / rate)
        hosts.set_share(share)
        seconds: dict[str, float] = {}
        for name, way in self.ways.items():
            is_once = way.pools == CLOUD_ALONE or name.startswith("entropy")
            if is_once and share != self.told.shares[0]:
                continue
            within_s = seconds[FIXED] if name == ADAPTIVE else None
            done, facts = self.ran(way, f"{share}-{rate}", within_s)
            self.note(name, share, rate, done, facts)
            seconds[name] = done.seconds

    def while_the_link_changes(self) -> None:
        """From 0.1 to 1 times the denoising, once half of what the fixed K needs at 0.1 is over."""
        share = self.told.shares[0]
        hosts.set_share(share)
        at = [p["seconds"] for p in self.points if (p["way"], p["rate"]) == (FIXED, 0.1)]
        if not at:
            return
        taken_s = None
        for name in (FIXED, ADAPTIVE):
            hosts.limit(self.bits_per_s_of_1 / 0.1)
            delay_s = statistics.median(self.startups) + at[0] / 2
            change = threading.Timer(delay_s, hosts.limit, [self.bits_per_s_of_1])
            change.start()
            done, facts = self.ran(self.ways[name], "change", taken_s)
            change.join()
            self.note(name, share, 0.1, done, facts | {"changed": True})
            taken_s = taken_s or done.seconds

    def ran(self, way: Asked, catalog: str, within_s: float | None = None) -> tuple[Done, Row]:
        """One batch; with a deadline so long after start-up, as that usually takes."""
        deadline_s = None if within_s is None else within_s + statistics.median(self.startups)
        before = hosts.carried_bytes()
        asked = replace(way, deadline_s=deadline_s)
        done = run(asked, self.folder, self.told.videos, catalog)
        link_bytes = (hosts.carried_bytes() - before) / self.told.videos
        if way.pools[0][0] == "cloud":
            self.startups.append(done.startup_s)
        had_s = None if deadline_s is None else deadline_s - done.startup_s
        return done, {"link_bytes": round(link_bytes), "had_s": had_s, "changed": False}

    def note(self, name: str, share: float, rate: float, done: Done, facts: Row) -> None:
        point = {"share": share, "rate": rate, "way": name, **facts}
        point["bits_per_s"] = round(self.bits_per_s_of_1 / rate)
        if not any(video.at_edge for video in done.videos):
            stages = [(sum(v.phases.values()), v.phases["store"]) for v in done.videos]
            point["ideal_s"] = flow_shop([(whole - store, store) for whole, store in stages])
        self.points.append(point | summed(done, self.reference))
        then = " then 1" if facts["changed"] else ""
        where = f"share {share:g}, {rate:g}{then} of the denoising per full video"
        self.say(f"{where}, {name}: {done.seconds:.1f} s")


# --- what was found -------------------------------------------------------------------------------


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


def summed(done: Done, reference: dict[int, np.ndarray]) -> Row:
    """Means over the videos; the parts are worker seconds of cloud, network and edge."""
    made = [(reference[video.row], hosts.frames_of(video.uri)) for video in done.videos]
    parts = dict.fromkeys(("cloud_s", "network_s", "edge_s"), 0.0)
    for video in done.videos:
        for phase, seconds in video.phases.items():
            parts[place_of(phase, video)] += seconds / len(done.videos)
    differing = [psnr_db(a, b) for a, b in made if not np.array_equal(a, b)]
    return {
        "seconds": done.seconds,
        "kept": sorted(video.kept for video in done.videos),
        "finished_at_edge": sum(video.at_edge for video in done.videos),
        **parts,
        "sent_bytes": round(mean(video.sent_bytes for video in done.videos)),
        "psnr_db": mean(differing) if differing else None,
        "identical": len(made) - len(differing),
        "ssim": mean(ssim(a, b) for a, b in made),
    }


def place_of(phase: str, video: Stored) -> str:
    """Which part a phase's seconds belong to."""
    if phase == "network" or (phase == "store" and not video.at_edge):
        return "network_s"
    of_edge = phase in ("reconstruct", "mp4", "store") or not video.drafted
    return "edge_s" if video.at_edge and of_edge else "cloud_s"


def compare(points: Sequence[Row]) -> None:
    """Add to each point its ratios to `full` at the same rate; to the adaptive ones, what the fixed
    K of their point give in the same time."""
    for point in points:
        if not point["changed"]:
            full = [p for p in points if (p["way"], p["rate"]) == ("full", point["rate"])]
            if full:
                point["ratio"] = full[0]["seconds"] / point["seconds"]
                point["ratio_to_ideal"] = full[0]["ideal_s"] / point["seconds"]
        if point["way"] == ADAPTIVE:
            here = [p for p in points if all(p[name] == point[name] for name in AT)]
            fixed = [p for p in here if p["way"].startswith("eco ")]
            fixed.sort(key=lambda p: float(p["seconds"]))
            at_s = [p["seconds"] for p in fixed]
            for figure in ("psnr_db", "ssim"):
                best = np.maximum.accumulate([p[figure] for p in fixed])
                beside = float(np.interp(point["seconds"] / 1.03, at_s, best))
                point[f"fixed_{figure}"] = beside
                point[f"wins_or_ties_by_{figure}"] = point[figure] >= beside


def card(points: Sequence[Row]) -> Iterator[str]:
    yield (
        f"  {'edge':>5} {'sending':>8} {'kbit/s':>7} {'way':<10} {'seconds':>8} {'ratio':>6} "
        f"{'/ideal':>6} {'cloud':>6} {'network':>8} {'edge':>6} {'sent kB':>8} "
        f"{'link kB':>8} {'PSNR':>6} {'SSIM':>7}  kept"
    )
    for p in points:
        sending = f"{p['rate']:g}>1x" if p["changed"] else f"{p['rate']:g}x"
        where = f"{p['share']:>5g} {sending:>8} {p['bits_per_s'] / 1e3:>7.1f} {p['way']:<10}"
        ratio = f"{p['ratio']:.2f}x {p['ratio_to_ideal']:>5.2f}x" if "ratio" in p else ""
        parts = f"{p['cloud_s']:>6.2f} {p['network_s']:>8.2f} {p['edge_s']:>6.2f}"
        sent = f"{p['sent_bytes'] / 1e3:>8.1f} {p['link_bytes'] / 1e3:>8.1f}"
        psnr = "same" if p["psnr_db"] is None else f"{p['psnr_db']:.2f}"
        kept = ",".join(map(str, p["kept"]))
        if p["way"] == ADAPTIVE:
            fixed = f"fixed K gives {p['fixed_psnr_db']:.2f}, {p['fixed_ssim']:.3f}"
            kept += f"; had {p['had_s']:.1f} s; {fixed}"
        quality = f"{psnr:>6} {p['ssim']:>7.4f}  {kept}"
        took = f"{p['seconds']:>8.2f} {ratio:>13}"
        yield f"  {where} {took} {parts} {sent} {quality}"
    yield "  seconds: first dispatch to last commit; cloud, network, edge: mean seconds per video"
    adaptive = [p for p in points if p["way"] == ADAPTIVE]
    for figure, name in (("psnr_db", "PSNR"), ("ssim", "SSIM")):
        won = sum(p[f"wins_or_ties_by_{figure}"] for p in adaptive)
        yield f"  adaptive wins or ties (3 %) by {name} at {won} of {len(adaptive)} points"


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.03, 0.1, 0.3, 1.0, 3.0])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.5, 0.25, 1.0])
    parser.add_argument("--videos", type=int, default=4)
    parser.add_argument("--keyframes", type=int, nargs="+", default=[5, 13], help="beside half")
    parser.add_argument("--steps", type=int, default=9, help="of the rival with fewer steps")
    parser.add_argument("--of-steps", type=int, default=24, help="of a full video")
    parser.add_argument("--ways", nargs="+", help="as the card names them; default: all")
    parser.add_argument("--no-change", action="store_true", help="leave out the changing link")
    told = parser.parse_args()
    if os.geteuid() or not shutil.which("ip") or not shutil.which("tc"):
        sys.exit("needs root and iproute2 (ip, tc)")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with (
        tempfile.TemporaryDirectory() as folder,
        hosts.two_hosts(),
        hosts.store(),
        hosts.ray_nodes(),
    ):
        bench = Bench(told, Path(folder))
        try:
            bench.everywhere()
        except KeyboardInterrupt:
            bench.say("stopped: what follows was measured so far")
        hosts.limit(None)
    points, video_bytes = bench.points, round(bench.video_bytes)
    compare(points)
    about = f"flipbook, {told.videos} videos of {FRAMES} frames at 64x64, {told.of_steps} steps"
    full = f"a full one has {video_bytes / 1e3:.1f} kB, {bench.denoise_s:.1f} s of denoising"
    print(head(f"{about}; {full}", "cloud_edge"))
    print("\n".join(card(points)))
    sizes = {"frames": FRAMES, "denoise_s": bench.denoise_s, "video_bytes": video_bytes}
    answer("cloud_edge", **vars(told), **sizes, points=points)


if __name__ == "__main__":
    main()
