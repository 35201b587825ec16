"""A video begun by one worker and finished by another. Here makers are cpu-1: a default job takes
10 s there, of which 9 s are denoising; what comes after a draft takes the seconds that each test
says.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from tests.builders import (
    FLIPBOOK,
    a_job,
    a_policy,
    a_shape,
    a_snapshot,
    a_worker,
    an_open_job,
    knowledge,
)
from vidplat.domain import OnInfeasible, OperatingPoint
from vidplat.methods.frames import kept_latents
from vidplat.scheduler import plan, wording
from vidplat.scheduler.cost import Observation
from vidplat.scheduler.decision import Finisher, Plan, Snapshot, Verdict
from vidplat.scheduler.menu import Knowledge
from vidplat.scheduler.relay import added, lag_before
from vidplat.scheduler.work import features
from vidplat.stages import (
    AFTER_DRAFT,
)

LIGHT = "cpu-1 light"
PLENTY = 1e12  # bit/s


def a_light_worker(
    *, ready_at: float = 0.0, speed: float = 1.0, bits_per_s: float | None = PLENTY
) -> Finisher:
    return Finisher(LIGHT, ready_at, speed, bits_per_s)


def known(*, store_s: float = 6.0, light_s: float = 0.2) -> Knowledge:
    """Storing takes makers so long; each stage after a draft takes light workers `light_s`."""
    base, shape = knowledge(), a_shape()
    stages = {key: cost for key, cost in base.costs.stages.items() if key[1:] != ("cpu-1", "store")}
    costs = replace(base.costs, stages=stages)
    for k in (5, 7):
        counted = features(shape, shape.defaults, OperatingPoint(24, f"eco:k={k}"))
        for _ in range(40):
            costs = costs.observe(
                Observation(FLIPBOOK.id, "cpu-1", "store", counted["store"], store_s)
            )
            for stage in AFTER_DRAFT:
                costs = costs.observe(
                    Observation(FLIPBOOK.id, LIGHT, stage, counted[stage], light_s)
                )
    return replace(base, costs=costs)


def planned(snapshot: Snapshot, what: Knowledge) -> Plan:
    return plan(snapshot, a_policy(on_infeasible=OnInfeasible.BEST_EFFORT), what)


def eco_jobs(count: int, method: str = "eco"):
    return [an_open_job(a_job(row=row, method=method)) for row in range(1, count + 1)]


def kept(decided: Plan) -> list[int]:
    """Latent frames, of nine."""
    return sorted(kept_latents(each.point.accelerator, 9) for each in decided.assignments)


# --- the arithmetic -------------------------------------------------------------------------------


def test_where_light_workers_keep_up_a_maker_is_only_charged_until_the_draft():
    # flow shop of 5 s and 3 s: n videos are through after 5 n + 3
    assert added(5.0, 9.0, 3.0, makers=1, light=1) == (5.0, 3.0)


def test_where_they_do_not_a_queue_is_as_fast_as_they_are_or_as_makers_alone():
    assert added(6.0, 11.0, 10.0, makers=1, light=1)[0] == 10.0
    assert added(6.0, 11.0, 12.0, makers=1, light=1)[0] == 11.0


@pytest.mark.parametrize("handed", [1.0, 10.0, 100.0, 1e6])
def test_light_workers_never_make_a_queue_longer(handed):
    per_video, _ = added(6.0, 11.0, handed, makers=3, light=2)
    assert 6.0 <= per_video <= 11.0


def test_random_queues_end_about_when_they_are_said_to():
    rng = random.Random(7)
    beyond = []
    for _ in range(3000):
        makers, light = rng.choice([1, 1, 2, 3]), rng.choice([1, 1, 2, 3])
        usual = rng.uniform(1, 10), rng.uniform(0.1, 10), rng.uniform(0.1, 30)
        jobs = [tuple(x * rng.uniform(0.7, 1.4) for x in usual) for _ in range(rng.randint(1, 25))]
        sums, lags = [0.0] * makers, []
        for n, (c, a, e) in enumerate(jobs):
            per_video, lag = added(c, c + a, e, makers, light)
            sums[n % makers] += per_video
            lags.append(lag)
        beyond.append(played(jobs, makers, light) / (max(sums) + max(lags)))
    assert max(beyond) <= 1 + 1e-9
    assert sum(beyond) / len(beyond) > 0.65  # and not much sooner


def test_a_queue_that_ends_early_enough_leaves_time_for_light_workers_that_are_free_later():
    # given queues of like videos that light workers keep up with, once these are free
    rng = random.Random(8)
    margins = []
    for _ in range(3000):
        makers, light = rng.choice([1, 1, 2, 3]), rng.choice([1, 1, 2, 3])
        c, count = rng.uniform(1, 10), makers * rng.randint(1, 12)
        e = rng.uniform(0.01, 1) * c * light / makers
        behind = rng.uniform(0, 3) * c
        per_video, lag = added(c, 1e9, e, makers, light)
        queue = per_video * count / makers

        # when the least time is found by which all can be due
        busy = e * makers / (light * per_video)
        due = bisected(lambda d: queue + lag_before(d, lag, behind, busy, light) <= d)  # noqa: B023

        # then they are through by then
        end = played([(c, 1e9, e)] * count, makers, light, behind)
        margins.append(end / due)
    assert max(margins) <= 1 + 1e-6
    assert sum(margins) / len(margins) > 0.8


def bisected(fits: Callable[[float], bool]) -> float:
    low, high = 0.0, 1e6
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def test_light_workers_that_are_seldom_busy_make_up_for_being_late_by_themselves():
    # a quarter of the queue's seconds: of 100 s they need 25, so 60 s late is nothing and 85 s late
    # costs 40 s
    assert lag_before(100.0, 2.0, 60.0, 0.25, light=1) == 2.0
    assert lag_before(100.0, 2.0, 85.0, 0.25, light=1) == 40.0
    # those that are always busy never do
    assert lag_before(100.0, 2.0, 30.0, 1.0, light=1) == 30.0


def played(
    jobs: Sequence[tuple[float, ...]], makers: int, light: int, behind: float = 0.0
) -> float:
    """When all are through, each draft going to whoever is through with it first: a light worker,
    or its maker once it has made the rest of its jobs. Light workers are free from `behind` on."""
    chains = [jobs[m::makers] for m in range(makers)]
    free, own = (
        [behind] * light,
        [0.0] * makers,
    )  # own: seconds of drafts that stay with their maker
    drafts = [(chain[0][0], m, 0) for m, chain in enumerate(chains) if chain]
    heapq.heapify(drafts)
    last = 0.0
    while drafts:
        at, m, n = heapq.heappop(drafts)
        _, a, e = chains[m][n]
        worker = min(range(light), key=free.__getitem__)
        there = max(free[worker], at) + e
        here = at + sum(c for c, _, _ in chains[m][n + 1 :]) + own[m] + a
        if there <= here:
            free[worker] = there
            last = max(last, there)
        else:
            own[m] += a
        if n + 1 < len(chains[m]):
            heapq.heappush(drafts, (at + chains[m][n + 1][0], m, n + 1))
        else:
            last = max(last, at + own[m])
    return last


# --- storing, beside making the next --------------------------------------------------------------


@pytest.mark.parametrize(
    ("store_s", "ends_at"),
    [
        (6.0, 4 * 9.98 + 6.01),  # 9.98 s of making and 0.01 s of mp4: the last one's storing counts
        (30.0, 9.98 + 4 * 30.01),  # the store is the slower of the two
    ],
)
def test_a_queue_is_as_long_as_the_slower_of_making_and_storing(store_s: float, ends_at: float):
    snapshot = a_snapshot(jobs=eco_jobs(4, "full"))

    decided = planned(snapshot, known(store_s=store_s))

    assert decided.finish_p50_at == pytest.approx(ends_at, rel=1e-3)
    assert decided.finish_p50_at == max(each.finish_p50_at for each in decided.assignments)
    assert decided.assignments[0].p50_s == pytest.approx(9.99 + store_s, rel=1e-3)


def test_what_is_told_of_a_slow_store_can_be_promised():
    jobs = eco_jobs(4, "full")
    told = planned(a_snapshot(jobs=jobs), known()).finish_p90_at
    for deadline_at, verdict in ((told, Verdict.FEASIBLE), (told - 0.5, Verdict.INFEASIBLE)):
        decided = planned(a_snapshot(jobs=jobs, deadline_at=deadline_at), known())
        assert decided.verdict is verdict


def test_a_single_video_is_promised_by_what_making_and_storing_it_take():
    # given a store that takes 6 s, where the cheapest way of making a video takes less
    jobs, what = [an_open_job(a_job())], known()
    decided = planned(a_snapshot(jobs=jobs, deadline_at=9.0), what)
    assert decided.verdict is Verdict.DEGRADED
    assert decided.finish_p90_at <= 9.0


# --- in plans -------------------------------------------------------------------------------------


def test_what_light_workers_store_leaves_makers_time_for_better_videos():
    # given two videos, of which a maker alone would store the last for 6 s
    jobs, what = eco_jobs(2), known()
    alone = planned(a_snapshot(jobs=jobs, deadline_at=18.0), what)
    together = planned(
        replace(a_snapshot(jobs=jobs, deadline_at=18.0), finishers=(a_light_worker(),)), what
    )

    assert together.mean_quality > alone.mean_quality + 0.02
    assert together.finish_p90_at <= 18.0
    assert all(each.handed_s == pytest.approx(0.6, rel=0.1) for each in together.assignments)
    assert {each.handed_s for each in alone.assignments} == {0.0}


def test_a_batch_that_makers_alone_cannot_make_in_time_is_made_with_light_workers():
    # six times 6 s of storing alone are more than there is
    jobs, what = eco_jobs(6), known()
    alone = planned(a_snapshot(jobs=jobs, deadline_at=35.0), what)
    together = planned(
        replace(a_snapshot(jobs=jobs, deadline_at=35.0), finishers=(a_light_worker(),)), what
    )

    assert alone.verdict is Verdict.INFEASIBLE
    assert together.verdict is Verdict.DEGRADED
    assert together.earliest_at < alone.earliest_at


@pytest.mark.parametrize(
    "finisher",
    [
        a_light_worker(ready_at=500.0),  # busy
        a_light_worker(speed=0.001),  # slow
        a_light_worker(bits_per_s=10.0),  # behind a link that hardly carries
    ],
)
def test_light_workers_that_are_no_help_leave_the_plan_as_it_is(finisher):
    alone = a_snapshot(jobs=eco_jobs(4), deadline_at=50.0)
    assert planned(replace(alone, finishers=(finisher,)), known()).mean_quality == pytest.approx(
        planned(alone, known()).mean_quality, abs=2e-3
    )


def test_what_full_quality_is_short_of_is_told_by_the_time_of_the_video():
    snapshot = replace(
        a_snapshot(jobs=eco_jobs(6), deadline_at=40.0), finishers=(a_light_worker(),)
    )
    decided = planned(snapshot, known(light_s=1.0))
    short_s = decided.full_quality_at - 40.0
    assert {each.reason.rpartition(" is ")[2] for each in decided.assignments} == {
        f"{wording.seconds(short_s)} short"
    }


def test_a_thinner_link_keeps_fewer_frames_or_steps():
    snapshot = a_snapshot(jobs=eco_jobs(2), deadline_at=18.0)
    qualities = [
        planned(
            replace(snapshot, finishers=(a_light_worker(bits_per_s=rate),)), known()
        ).mean_quality
        for rate in (1e6, 20_000.0, 5_000.0, 1_000.0)
    ]
    assert qualities == sorted(qualities, reverse=True)
    assert qualities[0] > qualities[-1]


def test_counting_on_light_workers_never_makes_a_plan_worse():
    rng, what = random.Random(3), known()
    for _ in range(40):
        jobs = [
            an_open_job(
                a_job(row=row, method=rng.choice(["eco", "eco:k=3", "auto", "full", "eco:k=9"]))
            )
            for row in range(1, rng.randint(2, 12))
        ]
        workers = [a_worker(f"w{n}", speed=rng.uniform(0.5, 2)) for n in range(rng.randint(1, 3))]
        alone = a_snapshot(
            jobs=jobs, workers=workers, deadline_at=rng.uniform(3, 12) * len(jobs) / len(workers)
        )
        finishers = tuple(
            a_light_worker(
                ready_at=rng.uniform(0, 20),
                speed=rng.uniform(0.01, 2),
                bits_per_s=rng.choice([None, 3e4]),
            )
            for _ in range(rng.randint(1, 3))
        )
        with_them, without = (
            planned(replace(alone, finishers=finishers), what),
            planned(alone, what),
        )
        in_time = [
            sum(each.finish_p90_at <= alone.deadline_at + 1e-6 for each in decided.assignments)
            for decided in (with_them, without)
        ]
        assert in_time[0] >= in_time[1]
        if in_time[0] == in_time[1]:
            assert with_them.mean_quality >= without.mean_quality - 0.002  # less is not looked for
        assert with_them.quality_bound >= with_them.mean_quality


def test_jobs_that_leave_nothing_out_are_made_by_their_worker_alone():
    decided = planned(
        replace(
            a_snapshot(jobs=eco_jobs(3, "full"), deadline_at=60.0), finishers=(a_light_worker(),)
        ),
        known(),
    )
    assert {each.handed_s for each in decided.assignments} == {0.0}


def test_makers_are_told_to_hand_over_in_time_for_the_rest():
    snapshot = replace(
        a_snapshot(jobs=eco_jobs(3, "eco:k=5"), deadline_at=60.0), finishers=(a_light_worker(),)
    )
    decided = planned(snapshot, known(light_s=1.0))

    last = decided.assignments[-1]
    assert last.handed_s == pytest.approx(4.0, rel=0.3)
    assert last.finish_by is not None
    assert last.finish_by - last.handed_s <= 60.0 - last.handed_s
    assert last.finish_p50_at == pytest.approx(last.start_at + last.p50_s, rel=0.01)
