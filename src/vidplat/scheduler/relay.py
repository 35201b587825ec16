"""A video begun by one worker and finished by another, as the queue of the first sees it.

Where a method leaves frames out, its maker may stop at a draft, and whoever is through first fills
in, compresses and stores it: a light worker, or the maker after all (EcoVideo's split, arXiv
2606.30557; rule and bound are our choice). With c seconds until the draft, a for what is left on
the maker, e for what is left (and the way there) on a light worker, M makers and L light workers,
one video adds

    b = min(max(c, e M / L), c + a)

to a maker's queue: what the slower side takes, and never more than without light workers. (Where
these do not keep up, makers finish some drafts too, but may store them over the same thin link, so
nothing is counted on that.) A queue of such videos is through about

    lag = e                             L > M
    lag = min(e ceil(M / L), c + a)     else, since the drafts of all makers may come at once

after the sum of its b. For M = L = 1 and a light worker that keeps up that is the flow shop's
bound: its end is max over k of (sum of c up to k + sum of e from k on) <= sum of max(c, e) + max of
min(c, e). Elsewhere it is a rule: of 3,000 random queues in a test none ends later.

Light workers may be free only `behind` seconds after makers: they are starting, or busy. Either all
of them work from then on without a pause, or one has to wait for a draft later on. In the first
case they are through by behind + r S + (1 - 1 / L) lag, where S are the seconds of a maker's queue
and r = e M / (L b), at most 1, is how busy they are meanwhile (list scheduling; Graham 1969); in
the second they are as without it, but not evenly spread. To be through by D, S must end so long
before that:

    max((2 - 1 / L) lag, (behind + (1 - 1 / L) lag - (1 - r) D) / r)

The same arithmetic holds for what a worker does beside making its next video, compressing and
storing (`stages.BESIDE`; storing for short): with c seconds of making and e of storing a video adds
max(c, e) to the queue, and the last one is stored min(c, e) after that (`stored_beside`; a `Chain`
tells its ends so much later).

Not promised: what a transfer takes while another uses the same link.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from vidplat.domain import OperatingPoint, VideoSpec
from vidplat.methods.frames import kept_latents
from vidplat.methods.model_shape import ModelShape
from vidplat.scheduler.cost import CostModel, Estimate, spread_of_sum
from vidplat.scheduler.decision import Finisher
from vidplat.scheduler.work import StageFeatures, decoded_frames, features
from vidplat.stages import AFTER_DRAFT, NETWORK


@dataclass(frozen=True)
class Relayed:
    """A video that another worker may finish, or the storing of which goes on beside the next."""

    p50_s: float  # that it adds to its maker's queue
    spread_s: float
    handed_s: float  # of a light worker, at p50
    lag_p50_s: float  # how long after the queue it may come
    lag_p90_s: float
    busy: float  # r at p90: which share of the queue's seconds light workers work
    free_at: float  # when light workers are free, on average
    work: Estimate  # of both workers, with nobody waiting

    def at(self, speed: float) -> Relayed:
        """The same on a worker so much faster, where that does all of it."""
        return replace(
            self,
            p50_s=self.p50_s / speed,
            spread_s=self.spread_s / speed,
            work=Estimate(self.work.p50_s / speed, self.work.p90_s / speed),
        )

    def through_at(self, queue_ends: tuple[float, float]) -> tuple[float, float]:
        """(p50, p90) of its end, where its maker's queue up to it ends at these."""
        p50_at, p90_at = queue_ends
        first_at = self.free_at + self.handed_s
        return max(p50_at + self.lag_p50_s, first_at), max(p90_at + self.lag_p90_s, first_at)


def stored_beside(alone: Estimate, store_s: float) -> Relayed:
    """A video that one worker makes and then stores, for `store_s` of the seconds it takes."""
    beside_s = min(store_s, alone.p50_s - store_s)
    return Relayed(alone.p50_s - beside_s, alone.spread_s, 0.0, 0.0, 0.0, 0.0, 0.0, alone)


def leaves_draft(shape: ModelShape, spec: VideoSpec, point: OperatingPoint) -> bool:
    """Whether it is known beforehand that frames are left out by this method."""
    whole = shape.latent_frames(spec.num_frames)
    return kept_latents(point.accelerator, whole) < whole


def draft_bytes(
    shape: ModelShape, spec: VideoSpec, point: OperatingPoint, bytes_per_pixel: float
) -> int:
    """Expected size of a draft, by what drafts were seen to take per pixel."""
    return round(decoded_frames(shape, spec, point) * spec.width * spec.height * bytes_per_pixel)


def finishing(
    costs: CostModel,
    model_id: str,
    shape: ModelShape,
    spec: VideoSpec,
    point: OperatingPoint,
    worker: Finisher,
    size_bytes: int,
) -> Estimate:
    """Seconds from a draft of so many bytes to the stored file, on that worker at its own speed.

    Its link tells how long it fetches once it has carried some; before, its device class does.
    """
    counted = features(shape, spec, point)
    counted[NETWORK] = StageFeatures(calls=1, megabytes=size_bytes / 1e6)
    seconds, spreads = {}, []
    for stage in AFTER_DRAFT:
        one = costs.stage(model_id, worker.device_class, stage, counted[stage])
        took = one.p50_s / worker.speed
        if stage == NETWORK and worker.bits_per_s is not None:
            took = 8 * size_bytes / worker.bits_per_s
        seconds[stage] = took
        spreads.append(took * (one.p90_s / one.p50_s - 1) if one.p50_s > 0 else 0.0)
    p50 = sum(seconds.values())
    return Estimate(p50, p50 + spread_of_sum(spreads), seconds)


def added(
    until_draft: float, alone: float, handed: float, makers: int, light: int
) -> tuple[float, float]:
    """(b, lag) of the formulas above, in seconds: c, c + a, e, M and L."""
    c, a = until_draft, max(0.0, alone - until_draft)
    b = min(max(c, handed * makers / light), c + a)
    lag = handed if light > makers else min(handed * math.ceil(makers / light), c + a)
    return b, lag


def mean_ready_at(finishers: Sequence[Finisher]) -> float:
    return sum(each.ready_at for each in finishers) / len(finishers) if finishers else 0.0


def lag_before(due_s: float, lag_s: float, behind_s: float, busy: float, light: int) -> float:
    """By how much a queue must end before `due_s`, so that light workers are through by then."""
    if behind_s <= 0 or busy <= 0 or math.isinf(due_s):
        return lag_s
    uneven_s = (1 - 1 / light) * lag_s
    return max(lag_s + uneven_s, (behind_s + uneven_s - (1 - busy) * due_s) / busy)


def relayed(
    making: Estimate, finishing: Sequence[Estimate], own: Relayed, makers: int, free_at: float
) -> Relayed:
    """`making`: until the draft; `finishing`: from there, by each light worker, these being free at
    `free_at` on average; `own`: all of it by the maker, than which a queue is never longer.

    `making` and `own` at the maker's speed. Light workers that differ count by their mean rate.
    """
    light, alone = len(finishing), own.work
    handed, handed_p90 = _mean([e.p50_s for e in finishing]), _mean([e.p90_s for e in finishing])
    p50, lag_p50 = added(making.p50_s, alone.p50_s, handed, makers, light)
    p90, lag_p90 = added(making.p90_s, alone.p90_s, handed_p90, makers, light)
    p50, p90 = min(p50, own.p50_s), min(p90, own.p50_s + own.spread_s)
    busy = min(1.0, handed_p90 * makers / (light * max(p90, 1e-9)))
    spread = spread_of_sum([making.spread_s, max(e.spread_s for e in finishing)])
    work = Estimate(making.p50_s + handed, making.p50_s + handed + spread)
    lag_p90 = max(lag_p50, lag_p90)
    return Relayed(p50, max(0.0, p90 - p50), handed, lag_p50, lag_p90, busy, free_at, work)


def _mean(seconds: Sequence[float]) -> float:
    """Of workers that each do what comes to them: harmonic, so that their rates add up."""
    return len(seconds) / sum(1 / max(each, 1e-9) for each in seconds)
