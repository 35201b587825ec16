"""Which keyframes `eco` should keep: selectors at the same K, what they lose, and what foretells
it.

    python benchmarks/keyframes.py [--frames 33 65] [--captions 16 8] [--keyframes 5 9] [--oracle 2]
    [--out FILE]

Held-out captions, the first seeds from 9,700,100,000 of each class of movement; flipbook, its own
full step count and solver. `--captions` and `--keyframes` are one number for all lengths, or one
for each of `--frames`.

whole method   every selector through the whole pipeline, beside them the lowest entropies, a key at
               random and the key of the interpolation oracle: distance to the full run of the same
               seed. Rival of all: as many plain steps as the selectors' mean denoising time pays
               (interpolated between two step counts).
own latents    the full run's latents of a selector's frames, decoded and filled in: what choosing
               and filling alone lose, without any generation.
oracle         cost(i, j) is the squared error of filling in between the full video's frames 4 i and
               4 j, summed over the frames 4 f between. Regret is E(key) / E(best key) - 1; all
               together: of the sums over captions. Spearman: a selector's scores against what
               leaving out each inner frame costs.
generation     on `--oracle` captions some keys more at random, each through the whole pipeline: the
               best that was met, and where the selectors stand.
worst tenth    of the default and of entropy. Likely causes, by rule: a cut lies within a gap; else,
               where filling in the full run's own latents explains half of the error or more, a gap
               wider than the even ones need, occlusion (for over 5 % of the pixels of the worst
               gap, flow there and back ends elsewhere), or motion; else the kept frames themselves
               came out otherwise.

Times are processor seconds of one thread over those of the full run, so others on the machine count
little. Per-prompt rows go to <out>.parquet. Prints a card and ends with one JSON line. A caption
takes as long as eight full runs.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from scipy.stats import spearmanr

from flipbook_training import world
from vidplat.domain import OperatingPoint, VideoSpec
from vidplat.methods.eco import on_model as eco
from vidplat.methods.eco.keyframes import top, uniform, widest_gap
from vidplat.methods.filling.flow import VISIBLE_PX, Pair, contradiction
from vidplat.methods.filling.frames import filled
from vidplat.methods.filling.moments import true_moments
from vidplat.methods.installed import Installed
from vidplat.quality import flicker, psnr_db, ssim
from vidplat.workers.generate import generate
from vidplat.workers.making import Ask, Made, Wishes
from vidplat.workers.models.catalogue import describe_model, locate
from vidplat.workers.models.loading import load_family

FIRST_SEED = 9_700_100_000  # captions from here on; training drew below 3e9
CLASSES = world.MOTION_CLASSES
#: Name in the card -> what is told to `eco` beside K.
SELECTORS = {
    "uniform (default)": "",
    "entropy": ",selector=entropy",
    "motion": ",selector=motion",
    "anti-entropy": ",selector=entropy",  # of whose scores the smallest are taken
    "random": "",
}
SCORED = ("entropy", "motion", "anti-entropy")
BEST = "oracle's key"
WATCHED = ("uniform (default)", "entropy")  # whose worst videos are shown
MOST_DB = 60.0  # equal frames have no finite PSNR; means need one
RANDOM_REGRETS = 200  # keys at random whose regret is counted; a video is made of one of them
OCCLUDED, EXPLAINED = 0.05, 0.5
GENERATED = (
    "fast",
    "dash",
    "orbit",
    "slow",
    "bounce",
    "pan",
    "cut",
    "still",
)  # whose captions come first there

Key = tuple[int, ...]
Row = dict[str, Any]
Choose = Callable[[Sequence[float], int], Key]  # scores and K -> the key
#: (i, j), i < j: the error of filling in between kept neighbours i and j
Cost = Callable[[int, int], float]


@dataclass(frozen=True)
class Subject:
    """One held-out caption."""

    caption: str
    kind: str
    seed: int  # of the start noise


@dataclass(frozen=True)
class Video:
    """What was made, and the processor seconds it took."""

    made: Made
    denoise_s: float
    whole_s: float  # encode to the last frame filled in
    facts: dict[str, float]


class Laps:
    """Processor seconds of each phase, told as `Wishes.on_step`."""

    def __init__(self) -> None:
        self.phases: dict[str, float] = defaultdict(float)
        self._phase, self._since = "", time.process_time()

    def __call__(self, phase: str, step: int, steps: int) -> None:
        now = time.process_time()
        if phase != self._phase:
            self.phases[self._phase] += now - self._since
            self._phase, self._since = phase, now

    def end(self) -> dict[str, float]:
        self("", 0, 0)
        return self.phases


class Maker:
    """A loaded model that makes one video after another."""

    def __init__(self, model: str) -> None:
        self.ref, self.shape = describe_model(model)
        self.family: Any = load_family(locate(model), "cpu")
        self.installed = Installed(self.family.transformers)

    def spec(self, frames: int) -> VideoSpec:
        return replace(self.shape.defaults, num_frames=frames)

    def make(self, subject: Subject, spec: VideoSpec, point: OperatingPoint) -> Video:
        self.installed.use(point.accelerator)
        self.family.encode(
            subject.caption
        )  # the same text is asked for again and again; it is encoded once
        laps, mine = Laps(), replace(spec, seed=subject.seed)
        ask = Ask(subject.caption, "", mine, point, wishes=Wishes(on_step=laps))
        made = generate(self.family, ask, self.installed)
        phases = laps.end()
        return Video(made, phases["denoise"], sum(phases.values()), self.installed.facts())


def subjects(count: int, first_seed: int, classes: Sequence[str] = CLASSES) -> list[Subject]:
    """`count` captions, the classes of movement in turn, each with its own first seeds."""
    waiting: dict[str, list[Subject]] = {kind: [] for kind in CLASSES}
    each, seed = -(-count // len(classes)), first_seed
    while min(map(len, waiting.values())) < each:
        rng = np.random.default_rng(seed)
        scene = world.draw_scene(rng)
        waiting[scene.motion_class].append(
            Subject(world.describe(scene, rng), scene.motion_class, seed - first_seed)
        )
        seed += 1
    return [waiting[kind][turn] for turn in range(each) for kind in classes][:count]


def near(frames: np.ndarray, whole: np.ndarray) -> dict[str, float]:
    """Distance to the full run."""
    return {"psnr_db": min(MOST_DB, psnr_db(frames, whole)), "ssim": ssim(frames, whole)}


def between(
    costs: Sequence[float], rows: Sequence[dict[str, float]], cost: float
) -> dict[str, float]:
    """PSNR and SSIM at `cost`, of a rival measured at `costs`: linear between, and the nearest
    one's outside."""
    order = np.argsort(costs)
    x = np.array(costs)[order]
    return {
        name: float(np.interp(cost, x, np.array([row[name] for row in rows])[order]))
        for name in rows[0]
    }


@dataclass
class Choice:
    """What `eco` chose, and the scores that it chose by (nothing but zeros where it looked at
    none)."""

    key: Key = ()
    scores: tuple[float, ...] = field(default=())


@contextmanager
def choice(instead: Choose | None = None) -> Iterator[Choice]:
    """Within it eco's choice is written down, and made by `instead` where that is given.

    `eco` calls `select` by its own module's name for it. That name is exchanged here, and put back:
    no user can choose frames one by one, so there is no proper way.
    """
    found, own = Choice(), eco.select

    def watched(scores: Sequence[float], k: int, **how: Any) -> Key:
        found.scores = tuple(scores)
        found.key = own(scores, k, **how) if instead is None else instead(scores, k)
        return found.key

    eco.select = watched  # type: ignore[assignment]
    try:
        yield found
    finally:
        eco.select = own


def lowest(scores: Sequence[float], k: int) -> Key:
    return top([-score for score in scores], k)


def at_random(seed: int) -> Choose:
    return lambda scores, k: top(np.random.default_rng(seed).random(len(scores)).tolist(), k)


# --- the best there is ----------------------------------------------------------------------------


def oracle(frames: int, k: int, cost: Cost) -> Key:
    """The K frames, first and last among them, with the least `path_cost`; of equals that with the
    lowest indices.

    `cost` is asked at most once for a pair, and only for pairs that a key of K frames can have.
    Costs of intervals add up, so the optimum is a shortest path with K nodes: O(K F^2).
    """
    if not 2 <= k <= frames:
        raise ValueError(f"first and last frame are kept: {k} of {frames} cannot be")
    asked = cache(cost)

    @cache
    def rest(i: int, more: int) -> tuple[float, Key]:
        """The least cost from i on, and the `more` frames that follow."""
        if more == 1:
            return asked(i, frames - 1), (frames - 1,)
        ways = ((j, *rest(j, more - 1)) for j in range(i + 1, frames - more + 1))
        return min((asked(i, j) + further, (j, *key)) for j, further, key in ways)

    return 0, *rest(0, k - 1)[1]


def path_cost(key: Sequence[int], cost: Cost) -> float:
    """E: what filling in between all neighbours of a key costs."""
    return math.fsum(cost(i, j) for i, j in pairwise(key))


def regret(key: Sequence[int], frames: int, cost: Cost) -> float:
    """E(key) / E(oracle) - 1 at equal K, 0 or more; infinity where the oracle loses nothing and the
    key does."""
    best, own = path_cost(oracle(frames, len(key), cost), cost), path_cost(key, cost)
    if best == 0:
        return 0.0 if own == 0 else math.inf
    return own / best - 1


def leave_one_out(frames: int, cost: Cost) -> tuple[float, ...]:
    """What leaving out each inner frame alone costs, cost(f - 1, f + 1): what a score should
    foretell."""
    return tuple(cost(f - 1, f + 1) for f in range(1, frames - 1))


def filling_cost(video: np.ndarray) -> Cost:
    """cost(i, j) of a full run's own video; mean squared error of 255, summed over the frames
    between."""
    shown = video[::4]

    @cache
    def cost(i: int, j: int) -> float:
        pair, total = Pair(shown[i], shown[j]), 0.0
        for f in range(i + 1, j):
            error = pair.at((f - i) / (j - i)).astype(np.float64) - shown[f]
            total += float((error**2).mean())
        return total

    return cost


def gaps_of(key: Key, video: np.ndarray) -> Row:
    """What lies between the kept frames of the full run's video."""
    pairs = [Pair(video[4 * i], video[4 * j]) for i, j in pairwise(key) if j - i > 1]
    hidden = [
        0.0 if p.is_still else float((contradiction(*p.flows) > VISIBLE_PX).mean()) for p in pairs
    ]
    return {
        "cut_in_gap": any(pair.is_cut for pair in pairs),
        "occluded_share": max(hidden, default=0.0),
        "gap_motion_px": max(map(motion_px, pairs), default=0.0),
    }


def motion_px(pair: Pair) -> float:
    """Mean length of the flow from the first frame to the second."""
    return 0.0 if pair.is_still else float(np.linalg.norm(pair.flows[0], axis=-1).mean())


def cause(row: Row) -> str:
    """Of a video that came out badly; see the module's text."""
    frames, kept = row["latents"], row["kept"]
    even = widest_gap(uniform(frames, kept))
    explained = 10 ** ((row["psnr_db"] - row["own_latents_db"]) / 10)  # share of the squared error
    told = f"filling explains {min(1.0, explained):.0%} of the error"
    wide = row["widest_gap"] > even
    if row["cut_in_gap"]:
        return f"a cut within a gap; {told}"
    if explained < EXPLAINED:
        return f"kept frames came out otherwise{', after a wide gap' if wide else ''}; {told}"
    if wide:
        return f"gap of {row['widest_gap']} latents; {told}"
    if row["occluded_share"] > OCCLUDED:
        return f"occlusion, {row['occluded_share']:.0%} of a frame; {told}"
    return f"motion, {row['gap_motion_px']:.1f} px in a gap; {told}"


# --- one length -----------------------------------------------------------------------------------


def measured(
    maker: Maker,
    frames: int,
    k: int,
    asked: list[Subject],
    oracles: int,
    draws: int,
    say: Callable[[str], None],
) -> list[Row]:
    """A row for each video that was made."""
    spec, rows = maker.spec(frames), []
    latents, steps = maker.shape.latent_frames(frames), maker.shape.defaults.num_inference_steps
    order = sorted(asked, key=lambda one: GENERATED.index(one.kind))
    searched = {one.seed for one in order[:oracles]}
    for number, subject in enumerate(asked):
        made = list(
            of_caption(
                maker, spec, latents, k, steps, subject, draws if subject.seed in searched else 0
            )
        )
        rows += made
        best = {row["way"]: row["psnr_db"] for row in made}
        say(
            f"{frames} frames, {number + 1} of {len(asked)} ({subject.kind}): uniform "
            f"{best['uniform (default)']:.1f}, "
            f"entropy {best['entropy']:.1f}, steps {best['steps']:.1f} dB"
        )
    return rows


def of_caption(
    maker: Maker, spec: VideoSpec, latents: int, k: int, steps: int, subject: Subject, draws: int
) -> Iterator[Row]:
    full = maker.make(subject, spec, OperatingPoint(steps))
    whole, family = full.made.frames, maker.family
    cost = filling_cost(whole)
    best = oracle(latents, k, cost)
    lost = leave_one_out(latents, cost)
    about = {
        "frames": spec.num_frames,
        "latents": latents,
        "kept": k,
        "kind": subject.kind,
        "seed": subject.seed,
        "caption": subject.caption,
        "flicker_full": flicker(whole),
    }

    @cache
    def own_latents(key: Key) -> float:
        decoded = family.decode(full.made.latents[:, :, list(key)])
        return near(filled(decoded, true_moments(key, spec.num_frames)), whole)["psnr_db"]

    def drawn(turn: int) -> Choose:
        return at_random(subject.seed + 1_000_003 * turn)

    def kept(way: str, method: str, instead: Choose | None = None) -> tuple[Row, Video]:
        with choice(instead) as chosen:
            video = maker.make(subject, spec, OperatingPoint(steps, method))
        key = chosen.key
        inner = chosen.scores[1:-1]
        return {
            **about,
            "way": way,
            "method": method,
            "key": ",".join(map(str, key)),
            **near(video.made.frames, whole),
            "flicker": flicker(video.made.frames),
            "widest_gap": widest_gap(key),
            "score_spread": video.facts.get("score_spread"),
            "spearman": float(spearmanr(inner, lost).statistic)
            if way in SCORED and len(lost) > 1
            else None,
            "filling_error": path_cost(key, cost),
            "least_filling_error": path_cost(best, cost),
            "regret": regret(key, latents, cost),
            "own_latents_db": own_latents(key),
            **gaps_of(key, whole),
        }, video

    # 1. Every selector, some keys at random, and the key that filling in likes best.
    rivals = {"anti-entropy": lowest, "random": drawn(0)}
    made = [kept(name, f"eco:k={k}{told}", rivals.get(name)) for name, told in SELECTORS.items()]
    made.append(kept(BEST, f"eco:k={k}", lambda scores, k: best))
    made += [kept("random, more", f"eco:k={k}", drawn(1 + turn)) for turn in range(draws)]
    some = [drawn(1 + turn)((0.0,) * latents, k) for turn in range(RANDOM_REGRETS)]
    random = {
        "random_regret": statistics.mean(finite([regret(key, latents, cost) for key in some])),
        "random_filling_error": statistics.mean([path_cost(key, cost) for key in some]),
    }

    # 2. Rivals at about the cost of these.
    spent = statistics.mean(video.denoise_s for row, video in made if row["way"] in SELECTORS)
    per_step = full.denoise_s / steps
    few = max(1, min(steps - 1, int(spent / per_step)))
    plain = {count: maker.make(subject, spec, OperatingPoint(count)) for count in (few, few + 1)}

    # 3. What all that cost.
    def priced(video: Video) -> Row:
        return {
            "time": video.denoise_s / full.denoise_s,
            "time_whole": video.whole_s / full.whole_s,
        }

    for row, video in made:
        yield row | priced(video) | random
    for count, video in plain.items():
        frames = video.made.frames
        told = {"way": f"{count} steps", "flicker": flicker(frames)}
        yield about | told | near(frames, whole) | priced(video)
    times = [video.denoise_s for video in plain.values()]
    found = between(times, [near(video.made.frames, whole) for video in plain.values()], spent)
    shakes = between(
        times, [{"flicker": flicker(video.made.frames)} for video in plain.values()], spent
    )
    yield about | {"way": "steps", "time": spent / full.denoise_s} | found | shakes


# --- what was found -------------------------------------------------------------------------------


def finite(values: Sequence[float]) -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)] or [math.nan]


def mean_of(rows: Sequence[Row], name: str) -> float:
    return statistics.mean(finite([row[name] for row in rows if row.get(name) is not None]))


def summary(rows: list[Row]) -> dict[str, Any]:
    """Of one length, by way."""
    ways: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        ways[row["way"]].append(row)
    steps = {row["seed"]: row for row in ways["steps"]}
    found: dict[str, Any] = {}
    for way in (*SELECTORS, BEST, "steps"):
        mine = ways[way]
        told = {
            "time": statistics.median(finite([row["time"] for row in mine])),
            "psnr_db": mean_of(mine, "psnr_db"),
            "ssim": mean_of(mine, "ssim"),
            "flicker_ratio": sum(row["flicker"] for row in mine)
            / sum(row["flicker_full"] for row in mine),
            "nearer_than_steps": sum(
                row["psnr_db"] > steps[row["seed"]]["psnr_db"] for row in mine
            ),
            "videos": len(mine),
            "psnr_db_by_class": {
                kind: mean_of(group, "psnr_db")
                for kind in CLASSES
                if (group := [r for r in mine if r["kind"] == kind])
            },
        }
        if "key" in mine[0]:
            of = (
                "random_" if way == "random" else ""
            )  # of many keys, not of the one that a video was made of
            regrets, errors = (
                [row[of + name] for row in mine] for name in ("regret", "filling_error")
            )
            best = sum(row["least_filling_error"] for row in mine)
            told |= {
                "own_latents_db": mean_of(mine, "own_latents_db"),
                "regret_mean": statistics.mean(finite(regrets)),
                "regret_median": statistics.median(finite(regrets)),
                "regret_together": sum(errors) / best - 1 if best else math.nan,
                "widest_gap_mean": mean_of(mine, "widest_gap"),
                "widest_gap_most": max(row["widest_gap"] for row in mine),
                "score_spread": mean_of(mine, "score_spread"),
                "spearman": mean_of(mine, "spearman"),
            }
        found[way] = told
    return found


def generation(rows: list[Row]) -> list[Row]:
    """Of captions with more keys: the best key that was met, and each selector's distance to it."""
    found = []
    for seed in {row["seed"]: None for row in rows if row["way"] == "random, more"}:
        mine = [row for row in rows if row["seed"] == seed and "key" in row]
        best = max(mine, key=lambda row: row["psnr_db"])
        keys = {row["key"]: row["psnr_db"] for row in mine}
        behind = {
            row["way"]: {
                "key": row["key"],
                "psnr_db": row["psnr_db"],
                "place": 1 + sum(db > row["psnr_db"] for db in keys.values()),
            }
            for row in mine
            if row["way"] in (*SELECTORS, BEST)
        }
        told = {
            "kind": best["kind"],
            "seed": seed,
            "keys": len(keys),
            "best": best["key"],
            "psnr_db": best["psnr_db"],
        }
        found.append(told | {"ways": behind})
    return found


def worst(rows: list[Row]) -> list[Row]:
    found = []
    for way in WATCHED:
        mine = sorted((row for row in rows if row["way"] == way), key=lambda row: row["psnr_db"])
        for row in mine[: max(1, math.ceil(len(mine) / 10))]:
            names = (
                "way",
                "kind",
                "seed",
                "caption",
                "key",
                "psnr_db",
                "own_latents_db",
                "widest_gap",
                "cut_in_gap",
            )
            more = ("occluded_share", "gap_motion_px")
            found.append({name: row[name] for name in (*names, *more)} | {"cause": cause(row)})
    return found


def card(
    frames: int, k: int, rows: list[Row], found: dict[str, Any], searched: list[Row]
) -> Iterator[str]:
    kinds = [kind for kind in CLASSES if any(row["kind"] == kind for row in rows)]
    captions = len({row["seed"] for row in rows})
    yield ""
    yield (
        f"{frames} frames, K = {k} of {rows[0]['latents']} latents, {captions} captions; "
        "distance to the full run"
    )
    heads = f"{'time':>7}{'PSNR':>8}{'SSIM':>8}{'flicker':>9}{'own latents':>13}"
    yield f"  {'':<20}{heads}{'nearer than steps':>19}"
    for way, f in found.items():
        own = f"{f['own_latents_db']:>10.2f} dB" if "own_latents_db" in f else " " * 13
        wins = "" if way == "steps" else f"{f['nearer_than_steps']} of {f['videos']}"
        figures = (
            f"{f['time']:>7.2f}{f['psnr_db']:>8.2f}{f['ssim']:>8.3f}{f['flicker_ratio']:>9.2f}"
        )
        yield f"  {way:<20}{figures}{own}{wins:>19}"
    yield "  PSNR by class of movement, dB"
    yield f"  {'':<20}" + "".join(f"{kind:>8}" for kind in kinds)
    for way, f in found.items():
        yield f"  {way:<20}" + "".join(f"{f['psnr_db_by_class'][kind]:>8.2f}" for kind in kinds)
    yield "  interpolation oracle: regret, and whether scores foretell what a frame is worth"
    heads = f"{'mean':>8}{'median':>8}{'together':>10}{'widest gap':>16}{'spread':>8}"
    yield f"  {'':<20}{heads}{'Spearman':>10}"
    for way, f in found.items():
        if "regret_mean" not in f:
            continue
        scores = f"{f['score_spread']:>8.0%}{f['spearman']:>10.2f}" if way in SCORED else ""
        gap = f"{f['widest_gap_mean']:.1f}, most {f['widest_gap_most']}"
        regrets = f"{f['regret_mean']:>8.2f}{f['regret_median']:>8.2f}{f['regret_together']:>10.2f}"
        yield f"  {way:<20}{regrets}{gap:>16}{scores}"
    for one in searched:
        places = ", ".join(
            f"{way} {x['psnr_db']:.2f} (place {x['place']})" for way, x in one["ways"].items()
        )
        best = f"best of {one['keys']} keys {one['best']}, {one['psnr_db']:.2f} dB"
        yield f"  generation oracle, {one['kind']}: {best}; {places}"
    yield "  worst tenth"
    for row in worst(rows):
        yield (
            f"  {row['way']:<20}{row['kind']:<8}{row['psnr_db']:>6.2f} dB, key {row['key']}, "
            f"gap {row['widest_gap']}, "
            f"{row['gap_motion_px']:.1f} px, {row['occluded_share']:.0%} hidden: {row['cause']}"
        )


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(one) for one in value]
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None
    return value


def each(told: list[int], count: int, what: str) -> list[int]:
    """One number for every length."""
    if len(told) not in (1, count):
        raise SystemExit(f"{what}: one number, or as many as --frames has")
    return told * count if len(told) == 1 else told


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--model", default="flipbook")
    words.add_argument("--frames", type=int, nargs="+", default=[33, 65])
    words.add_argument("--captions", type=int, nargs="+", default=[8])
    words.add_argument(
        "--keyframes", type=int, nargs="+", help="K; default: half of the latents, rounded up"
    )
    words.add_argument("--oracle", type=int, default=2, help="captions of the generation oracle")
    words.add_argument(
        "--draws", type=int, default=6, help="keys at random there, beside those made anyway"
    )
    words.add_argument("--threads", type=int, default=1)
    words.add_argument("--out", type=Path, default=Path("benchmarks/results/keyframes"))
    told = words.parse_args()
    torch.set_num_threads(told.threads)
    cv2.setNumThreads(1)
    maker = Maker(told.model)
    counts = each(told.captions, len(told.frames), "--captions")
    halves = [-(-maker.shape.latent_frames(frames) // 2) for frames in told.frames]
    kept = each(told.keyframes, len(told.frames), "--keyframes") if told.keyframes else halves
    began = time.perf_counter()

    def say(line: str) -> None:
        print(f"{time.perf_counter() - began:6.0f} s  {line}", file=sys.stderr, flush=True)

    every: list[Row] = []
    lengths: dict[str, Any] = {}
    lines: list[str] = []
    for frames, count, k in zip(told.frames, counts, kept, strict=True):
        rows = measured(maker, frames, k, subjects(count, FIRST_SEED), told.oracle, told.draws, say)
        found, searched = summary(rows), generation(rows)
        lines += card(frames, k, rows, found, searched)
        lengths[str(frames)] = {"keyframes": k, "captions": count, "ways": found} | {
            "generation_oracle": searched,
            "worst": worst(rows),
        }
        every += rows
        told.out.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(
            pa.Table.from_pylist(with_all_names(every)), told.out.with_suffix(".parquet")
        )
    maker.installed.remove()
    steps = maker.shape.defaults.num_inference_steps
    print(f"{told.model} {maker.ref.revision[:12]}, against {steps} steps of the same seed")
    print("\n".join(lines))
    answer = {
        "benchmark": "keyframes",
        "model": told.model,
        "revision": maker.ref.revision,
        "full_steps": steps,
        "seeds": f"{FIRST_SEED}..",
        "lengths": lengths,
        "seconds": time.perf_counter() - began,
        "threads": told.threads,
        "machine": platform.processor() or platform.machine(),
        "versions": {name: version(name) for name in ("torch", "diffusers", "vidplat")},
    }
    print(json.dumps(rounded(answer)))


def with_all_names(rows: list[Row]) -> list[Row]:
    """Rows with the same names, so that a table takes them all."""
    names = {name: None for row in rows for name in row}
    return [{name: row.get(name) for name in names} for row in rows]


if __name__ == "__main__":
    main()
