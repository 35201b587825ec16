"""Seconds and bytes of a video whose keyframes are made in one pool and whose other frames in another.

The cloud denoises all F latent frames for a few steps and K of them for the rest; the K go over the link as a decoded,
compressed video or as latents; the edge makes the frames between. Three parts of time (EcoVideo, arXiv 2606.30557,
names knobs and inputs; all formulas are our choice):

    T_cloud = text + entropy + b (s c(F) + (S - s) c(K)) + decode (4 (K - 1) + 1)     b branches, s of S steps with all
    T_net   = rtt + 8 bytes(K) / B
    T_edge  = (N_ins insert(D) + N_score score) / g,     N_ins = N_target - (4 (K - 1) + 1)

Latents are sent before they are decoded, so decoding then moves into T_edge. c is a parabola in tokens, fitted to timed
forwards (`fitted`). In `serial` the parts follow each other; in `overlapped` each latent's frames go on as soon as they
are decoded, which is a flow shop of three stages.

Which K and depth D to take is `split.py`; pixels are made by `workers/reconstruct.py`.

Legend: N frames, F latent frames, P tokens per latent frame, n = F P, K kept frames, B bit/s, g share of a full edge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from vidplat.keyframes import decoded_frames, latent_frames

Floats = NDArray[np.float64]

PAYLOADS = ("video", "latent")
_LATENT_BYTES = 2  # sent as half floats


@dataclass(frozen=True)
class ForwardCost:
    """c(n) = a0 + a1 n + a2 n^2 seconds of one forward over n tokens."""

    a0: float
    a1: float
    a2: float

    def seconds(self, tokens: int) -> float:
        return self.a0 + self.a1 * tokens + self.a2 * tokens * tokens


def fitted(timings: Sequence[tuple[int, float]]) -> ForwardCost:
    """The least squares fit to (tokens, seconds) of three or more different lengths, with no coefficient below 0.

    A negative one would make fewer tokens cost more somewhere (our choice). Of the seven sets of coefficients that may
    be above 0, each is solved alone, and the best that comes out without a negative one is taken: the exact optimum.
    Raises `ValueError` for fewer than three lengths.
    """
    lengths = {tokens for tokens, _ in timings}
    if len(lengths) < 3:
        raise ValueError(f"a parabola needs forwards of three lengths, not of {len(lengths)}")
    scale = max(lengths)  # powers of tokens would differ by nine digits
    n = np.array([tokens / scale for tokens, _ in timings])
    seconds = np.array([took for _, took in timings])
    powers = np.stack([np.ones_like(n), n, n * n], axis=1)
    best, best_error = np.zeros(3), float(np.sum(seconds**2))
    for size in (3, 2, 1):
        for chosen in combinations(range(3), size):
            found = np.linalg.lstsq(powers[:, chosen], seconds, rcond=None)[0]
            if found.min() < 0:
                continue
            error = float(np.sum((powers[:, chosen] @ found - seconds) ** 2))
            if error < best_error * (1 - 1e-12):
                best, best_error = np.zeros(3), error
                best[list(chosen)] = found
    a0, a1, a2 = best.tolist()
    return ForwardCost(a0, a1 / scale, a2 / scale**2)


@dataclass(frozen=True)
class SplitClip:
    """What is made. `output_frames` at the rate of the reconstructed video; 0: as many as `num_frames`."""

    num_frames: int
    tokens_per_frame: int
    latent_values: int  # C h w of one latent frame
    frame_bytes: int  # of one decoded frame, 3 H W
    steps: int
    warmup: int  # steps with all frames
    branches: int = 2  # forwards per step, 2 with guidance
    output_frames: int = 0
    factor: int = 4  # frames per latent frame

    def __post_init__(self) -> None:
        if not 0 <= self.warmup <= self.steps:
            raise ValueError(f"{self.warmup} steps with all frames do not fit into {self.steps}")

    @property
    def latents(self) -> int:
        return latent_frames(self.num_frames, self.factor)

    def inserted(self, k: int) -> int:
        """N_ins: frames that the edge makes."""
        return max(0, (self.output_frames or self.num_frames) - decoded_frames(k, self.factor))


@dataclass(frozen=True)
class SplitMachines:
    """What was measured of both pools and the link between them. Units are in the names."""

    forward: ForwardCost  # on the cloud
    decode_frame_s: float  # per frame, on the cloud
    insert_s: tuple[float, ...]  # t_interp(D) of one frame by depth 0, 1, ..., on a full edge
    bits_per_s: float
    rtt_s: float = 0.0
    edge_share: float = 1.0  # g, of a full edge
    text_s: float = 0.0
    entropy_s: float = 0.0
    score_s: float = 0.0  # per interval that is scored, on a full edge
    edge_decode_frame_s: float = 0.0  # per frame, on a full edge; for payload "latent"
    video_bytes: Mapping[int, int] | None = None  # measured mp4 by K; None: counted from `bytes_per_pixel`
    bytes_per_pixel: float = 0.05

    def __post_init__(self) -> None:
        if not (self.bits_per_s > 0 and self.edge_share > 0):
            raise ValueError(f"a link of {self.bits_per_s:g} bit/s to {self.edge_share:g} of an edge carries no job")


@dataclass(frozen=True)
class SplitPoint:
    """K kept frames, refined at depth D on the edge; what travels."""

    k: int
    depth: int
    payload: str = "video"


@dataclass(frozen=True)
class SplitTimes:
    """Where the seconds of one point go. `total_s` is below the sum of the three where stages overlap."""

    cloud_s: float
    network_s: float
    edge_s: float
    total_s: float
    sent_bytes: int
    edge_bytes: int  # memory on the edge: decoded frames, those made of them, and the latents if they were sent
    bits_per_s: float  # of the link that was counted on


def denoising_s(clip: SplitClip, machines: SplitMachines, k: int) -> float:
    """The cloud's seconds before decoding: text, `warmup` steps of F frames, the entropy, and the other steps of K."""
    full, kept = (machines.forward.seconds(frames * clip.tokens_per_frame) for frames in (clip.latents, k))
    forwards_s = clip.branches * (clip.warmup * full + (clip.steps - clip.warmup) * kept)
    return machines.text_s + machines.entropy_s + forwards_s


def sent_bytes(clip: SplitClip, machines: SplitMachines, point: SplitPoint) -> int:
    """Half-float latents exactly; a video as measured for this K, else by its pixels."""
    if point.payload == "latent":
        return _LATENT_BYTES * clip.latent_values * point.k
    if machines.video_bytes and point.k in machines.video_bytes:
        return machines.video_bytes[point.k]
    return round(decoded_frames(point.k, clip.factor) * clip.frame_bytes / 3 * machines.bytes_per_pixel)


def serial(clip: SplitClip, machines: SplitMachines, point: SplitPoint, *, scored: int = 0) -> SplitTimes:
    """One part after the other: T = T_cloud + T_net + T_edge. `scored` intervals are scored (timeline "code")."""
    _check(clip, machines, point)
    decoded = decoded_frames(point.k, clip.factor)
    sent = sent_bytes(clip, machines, point)
    cloud_s = denoising_s(clip, machines, point.k)
    edge_s = clip.inserted(point.k) * machines.insert_s[point.depth] + scored * machines.score_s
    if point.payload == "latent":
        edge_s += decoded * machines.edge_decode_frame_s
    else:
        cloud_s += decoded * machines.decode_frame_s
    edge_s /= machines.edge_share
    network_s = machines.rtt_s + 8 * sent / machines.bits_per_s
    held = (decoded + clip.inserted(point.k)) * clip.frame_bytes + (sent if point.payload == "latent" else 0)
    return SplitTimes(cloud_s, network_s, edge_s, cloud_s + network_s + edge_s, sent, held, machines.bits_per_s)


def overlapped(
    clip: SplitClip, machines: SplitMachines, point: SplitPoint, *, scored: int = 0, gaps: Sequence[int] = ()
) -> SplitTimes:
    """The same work as `serial`, each latent frame on its way as soon as it can be.

    Items are the K latent frames; their stages decode (cloud), transmit and edge. Bytes are spread over the items by
    their frames. Inserted frames belong to the item that ends their gap: in proportion to `gaps` - 1, the distances of
    neighbouring keys, or evenly where these are not known. The round trip is paid once, before the first item arrives.
    """
    whole = serial(clip, machines, point, scored=scored)
    shown = np.array([1] + [clip.factor] * (point.k - 1))
    frames = shown / shown.sum()
    before_s = denoising_s(clip, machines, point.k)
    made = clip.inserted(point.k) * machines.insert_s[point.depth] + scored * machines.score_s
    making_s = made / machines.edge_share

    decode = frames * (whole.cloud_s - before_s)
    transmit = frames * (whole.network_s - machines.rtt_s)
    transmit[0] += machines.rtt_s
    edge = frames * (whole.edge_s - making_s) + _spread(point.k, gaps, frames) * making_s
    stages = np.stack([decode, transmit, edge], axis=1).tolist()
    return replace(whole, total_s=before_s + flow_shop(stages))


def _spread(k: int, gaps: Sequence[int], frames: Floats) -> Floats:
    """Each item's share of what is inserted; where no gap has room (another rate), as `frames`, its share of those."""
    if k == 1:
        return frames
    room = np.array([gap - 1 for gap in gaps] if gaps else [1] * (k - 1), float)
    if len(room) != k - 1 or room.min() < 0:
        raise ValueError(f"{k} keyframes have {k - 1} gaps of 1 or more, not {tuple(gaps)}")
    return np.array([0.0, *(room / room.sum())]) if room.sum() else frames


def flow_shop(seconds: Sequence[Sequence[float]]) -> float:
    """When the last item leaves the last stage: C[i,s] = max(C[i-1,s], C[i,s-1]) + p[i,s], items in their order.

    seconds: p, items x stages. Each stage works on one item at a time. 0 for no items.
    """
    ready = [0.0] * (len(seconds[0]) if seconds else 1)
    for item in seconds:
        at = 0.0
        for stage, takes in enumerate(item):
            at = max(ready[stage], at) + takes
            ready[stage] = at
    return ready[-1]


def denoising_speedup(full: float, kept: float, steps: int, warmup: int) -> float:
    """S c(F) / (s c(F) + (S - s) c(K)): what leaving frames out saves of denoising alone."""
    return steps * full / (warmup * full + (steps - warmup) * kept)


def _check(clip: SplitClip, machines: SplitMachines, point: SplitPoint) -> None:
    if not 1 <= point.k <= clip.latents:
        raise ValueError(f"{point.k} keyframes cannot be chosen from {clip.latents} latent frames")
    if not 0 <= point.depth < len(machines.insert_s):
        raise ValueError(f"depth {point.depth} was not measured; {len(machines.insert_s)} depths were, from 0")
    if point.payload not in PAYLOADS:
        raise ValueError(f"what is sent is one of {', '.join(PAYLOADS)}, not {point.payload!r}")
