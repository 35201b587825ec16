"""Which keyframes `eco` should keep: selectors at the same K, what they lose, what foretells it.

    python -m benchmarks.keyframes [--frames 33 65] [--captions 16 8] [--classes still slow ...]
        [--minutes 30] [--out FILE]

Held-out captions of each class of movement; the model's own full step count and solver; K is half
of the latent frames, rounded up. `--captions` is one number for all lengths, or one for each.

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

Times are processor seconds of one thread over those of the full run, so others on the machine count
little. `--minutes` begins no further caption after that long. Rows of captions go to FILE, as
parquet. A caption takes as long as eight full runs.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any
from unittest.mock import patch

from scipy.stats import spearmanr

from benchmarks import lengths
from benchmarks.common import CLASSES, Row, Subject, mean_of
from benchmarks.making import Maker, Video, between, near
from benchmarks.rivals.keys import (
    Choose,
    Key,
    at_random,
    filling_cost,
    leave_one_out,
    lowest,
    oracle,
    path_cost,
    regret,
)
from vidplat.domain import OperatingPoint, VideoSpec
from vidplat.methods.eco import on_model as eco
from vidplat.methods.eco.keyframes import select, widest_gap
from vidplat.methods.filling.frames import filled
from vidplat.methods.filling.moments import true_moments
from vidplat.quality import flicker

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
RANDOM_REGRETS = 200  # keys at random whose regret is counted; a video is made of one of them


# --- one caption ----------------------------------------------------------------------------------


@dataclass
class Choice:
    """What `eco` chose, and the scores that it chose by: zeros where it looked at none."""

    key: Key = ()
    scores: tuple[float, ...] = ()


@contextmanager
def choice(instead: Choose | None = None) -> Iterator[Choice]:
    """Within it eco's choice is written down, and made by `instead` where that is given.

    `eco` calls `select` by its own module's name for it. That name is exchanged here, and put back:
    no user can choose frames one by one, so there is no proper way.
    """
    found = Choice()

    def watched(scores: Sequence[float], k: int, **how: Any) -> Key:
        found.scores = tuple(scores)
        found.key = select(scores, k, **how) if instead is None else instead(scores, k)
        return found.key

    with patch.object(eco, "select", watched):
        yield found


class Caption:
    """One caption at one length: its full run, and what choosing frames of it costs."""

    def __init__(self, maker: Maker, spec: VideoSpec, subject: Subject) -> None:
        self.maker, self.spec, self.subject = maker, spec, subject
        self.latents = maker.shape.latent_frames(spec.num_frames)
        self.k = -(-self.latents // 2)
        self.full = maker.full(subject, spec)
        self.cost = filling_cost(self.full.frames)
        self.best = oracle(self.latents, self.k, self.cost)
        self.own_latents_db = cache(self._own_latents_db)

    def rows(self) -> Iterator[Row]:
        """Of every selector, the rivals and the oracle's key; then of as many plain steps."""
        drawn = at_random(self.subject.seed)
        rivals = {"anti-entropy": lowest, "random": drawn}
        random = self._random()
        spent = []
        for way, told in SELECTORS.items():
            row, video = self.kept(way, told, rivals.get(way))
            spent.append(video.denoise_s)
            yield row | random
        yield self.kept(BEST, "", lambda scores, k: self.best)[0] | random
        yield from self.plain(statistics.mean(spent))

    def kept(self, way: str, told: str, instead: Choose | None) -> tuple[Row, Video]:
        method = f"eco:k={self.k}{told}"
        with choice(instead) as chosen:
            point = OperatingPoint(self.maker.steps, method)
            video = self.maker.make(self.subject, self.spec, point)
        key, lost = chosen.key, leave_one_out(self.latents, self.cost)
        foretells = way in SCORED and len(lost) > 1
        return {
            **self._about(way, video),
            "method": method,
            "key": ",".join(map(str, key)),
            "widest_gap": widest_gap(key),
            "score_spread": video.facts.get("score_spread"),
            "spearman": float(spearmanr(chosen.scores[1:-1], lost).statistic)
            if foretells
            else None,
            "filling_error": path_cost(key, self.cost),
            "least_filling_error": path_cost(self.best, self.cost),
            "regret": regret(key, self.best, self.cost),
            "own_latents_db": self.own_latents_db(key),
        }, video

    def plain(self, spent: float) -> Iterator[Row]:
        """The two step counts about `spent` seconds of denoising, and what lies between them."""
        few = int(spent / (self.full.denoise_s / self.maker.steps))
        few = max(1, min(self.maker.steps - 1, few))
        times, rows = [], []
        for count in (few, few + 1):
            video = self.maker.make(self.subject, self.spec, OperatingPoint(count))
            times.append(video.denoise_s)
            rows.append(self._about(f"{count} steps", video))
        yield from rows
        names = ("psnr_db", "ssim", "flicker")
        at = between(times, [{name: row[name] for name in names} for row in rows], spent)
        yield {**rows[0], "way": "steps", "time": spent / self.full.denoise_s, **at}

    def _about(self, way: str, video: Video) -> Row:
        return {
            "way": way,
            "frames": self.spec.num_frames,
            "latents": self.latents,
            "kept": self.k,
            "kind": self.subject.kind,
            "seed": self.subject.seed,
            "caption": self.subject.caption,
            "time": video.denoise_s / self.full.denoise_s,
            "time_whole": video.whole_s / self.full.whole_s,
            "flicker": flicker(video.frames),
            "flicker_full": flicker(self.full.frames),
            **near(video.frames, self.full.frames),
        }

    def _random(self) -> Row:
        """What keys at random lose: means over many of them."""
        draws = [at_random(self.subject.seed + 1_000_003 * n) for n in range(1, RANDOM_REGRETS + 1)]
        keys = [draw((0.0,) * self.latents, self.k) for draw in draws]
        each = [{"regret": regret(key, self.best, self.cost)} for key in keys]
        errors = [path_cost(key, self.cost) for key in keys]
        return {
            "random_regret": mean_of(each, "regret"),
            "random_filling_error": statistics.mean(errors),
        }

    def _own_latents_db(self, key: Key) -> float:
        decoded = self.maker.family.decode(self.full.made.latents[:, :, list(key)])
        shown = filled(decoded, true_moments(key, self.spec.num_frames))
        return near(shown, self.full.frames)["psnr_db"]


# --- what was found -------------------------------------------------------------------------------


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Of one length, by way."""
    ways: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        ways[row["way"]].append(row)
    steps = {row["seed"]: row["psnr_db"] for row in ways["steps"]}
    found: dict[str, Any] = {}
    for way in (*SELECTORS, BEST, "steps"):
        mine = ways[way]
        kinds = {kind: [row for row in mine if row["kind"] == kind] for kind in CLASSES}
        shakes = sum(row["flicker_full"] for row in mine)
        found[way] = {
            "videos": len(mine),
            "time": statistics.median(row["time"] for row in mine),
            "psnr_db": mean_of(mine, "psnr_db"),
            "ssim": mean_of(mine, "ssim"),
            "flicker_ratio": sum(row["flicker"] for row in mine) / shakes,
            "nearer_than_steps": sum(row["psnr_db"] > steps[row["seed"]] for row in mine),
            "psnr_db_by_class": {
                kind: mean_of(group, "psnr_db") for kind, group in kinds.items() if group
            },
            **(chosen(way, mine) if way != "steps" else {}),
        }
    return found


def chosen(way: str, mine: Sequence[Row]) -> dict[str, float]:
    """Of a way that chooses keys; regrets of random ones are of many keys, not of the one that a
    video was made of."""
    of = "random_" if way == "random" else ""
    regrets = [row[f"{of}regret"] for row in mine if math.isfinite(row[f"{of}regret"])]
    best = sum(row["least_filling_error"] for row in mine)
    errors = sum(row[f"{of}filling_error"] for row in mine)
    return {
        "own_latents_db": mean_of(mine, "own_latents_db"),
        "regret_mean": statistics.mean(regrets) if regrets else math.nan,
        "regret_median": statistics.median(regrets) if regrets else math.nan,
        "regret_together": errors / best - 1 if best else math.nan,
        "widest_gap_mean": mean_of(mine, "widest_gap"),
        "widest_gap_most": max(row["widest_gap"] for row in mine),
        "score_spread": mean_of(mine, "score_spread"),
        "spearman": mean_of(mine, "spearman"),
    }


def card(maker: Maker, rows: Sequence[Row], found: dict[str, Any]) -> Iterator[str]:
    k = f"K = {rows[0]['kept']}"
    heads = f"{'time':>7}{'PSNR':>8}{'SSIM':>8}{'flicker':>9}{'own latents':>13}"
    yield f"  {k:<20}{heads}{'nearer than steps':>19}"
    for way, f in found.items():
        own = f"{f['own_latents_db']:>10.2f} dB" if "own_latents_db" in f else " " * 13
        wins = "" if way == "steps" else f"{f['nearer_than_steps']} of {f['videos']}"
        figures = f"{f['time']:>7.2f}{f['psnr_db']:>8.2f}{f['ssim']:>8.3f}"
        yield f"  {way:<20}{figures}{f['flicker_ratio']:>9.2f}{own}{wins:>19}"
    yield "  PSNR by class of movement, dB"
    yield f"  {'':<20}" + "".join(f"{kind:>8}" for kind in found["steps"]["psnr_db_by_class"])
    for way, f in found.items():
        yield f"  {way:<20}" + "".join(f"{db:>8.2f}" for db in f["psnr_db_by_class"].values())
    yield "  interpolation oracle: regret, and whether scores foretell what a frame is worth"
    heads = f"{'mean':>8}{'median':>8}{'together':>10}{'widest gap':>16}{'spread':>8}"
    yield f"  {'':<20}{heads}{'Spearman':>10}"
    for way, f in found.items():
        if "regret_mean" in f:
            scores = f"{f['score_spread']:>8.0%}{f['spearman']:>10.2f}" if way in SCORED else ""
            gap = f"{f['widest_gap_mean']:.1f}, most {f['widest_gap_most']}"
            regrets = f"{f['regret_mean']:>8.2f}{f['regret_median']:>8.2f}"
            yield f"  {way:<20}{regrets}{f['regret_together']:>10.2f}{gap:>16}{scores}"


def main() -> None:
    told = lengths.length_options(__doc__, "keyframes").parse_args()
    study = lengths.Study(lambda *about: Caption(*about).rows(), summary, card)
    lengths.run("keyframes", told, study)


if __name__ == "__main__":
    main()
