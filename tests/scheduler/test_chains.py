"""One worker's queue: room, finish, and the spending of slack."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import a_job
from vidplat.domain import OperatingPoint
from vidplat.scheduler.chains import EASE_S, Chain
from vidplat.scheduler.cost import Estimate
from vidplat.scheduler.groups import NEVER, Group
from vidplat.scheduler.menu import Rungs
from vidplat.scheduler.relay import stored_beside
from vidplat.scheduler.slack import _Lots, spend_slack


def a_group(
    *,
    due: float = NEVER,
    p50_s: tuple[float, ...] = (2.0, 4.0, 8.0),
    spread: float = 0.0,
    weight: float = 1.0,
) -> Group:
    """Quality 0.6, 0.9, 1.0 (or evenly rising): 0.15 a second for the first step, 0.025 for the
    second."""
    qualities = (
        (0.6, 0.9, 1.0)
        if len(p50_s) == 3
        else tuple((k + 1) / len(p50_s) for k in range(len(p50_s)))
    )
    points = tuple(OperatingPoint(k + 1) for k in range(len(p50_s)))
    spreads = tuple(spread * s for s in p50_s)
    works = [Estimate(p50, p50 + more) for p50, more in zip(p50_s, spreads, strict=True)]
    alone = tuple(stored_beside(work, 0.0) for work in works)
    rungs = Rungs(points, qualities, p50_s, spreads, alone)
    return Group(a_job(), due, 0.0, weight, 1.0, True, {0: rungs})


def a_chain(*parts: tuple[Group, int, int]) -> Chain:
    """A chain of (group, rung, count) from second 0."""
    chain = Chain(0, 0.0)
    for index, (group, rung, count) in enumerate(parts):
        chain.append(index, group, rung, count)
    return chain


def steps_made(chain: Chain) -> list[dict[int, int]]:
    return [dict(sorted(p.runs.items())) for p in chain.places]


def test_a_chain_ends_after_the_seconds_of_all_its_jobs():
    # 2 x 2 s and 1 x 4 s; spreads 0.2 x: 0.4, 0.4, 0.8, so 1.6 in sum, 0.96 in squares:
    # sqrt(0.75 x 0.96 + 0.25 x 2.56) = sqrt(1.36)
    chain = a_chain((a_group(spread=0.2), 0, 2), (a_group(spread=0.2), 1, 1))

    assert chain.finish() == pytest.approx((8.0, 8.0 + math.sqrt(1.36)))


seconds = st.floats(0.1, 50)


@given(p50=seconds, spread=st.floats(0, 3), before=st.integers(0, 20), due=st.floats(0, 2000))
def test_room_is_what_adding_jobs_one_by_one_comes_to(
    p50: float, spread: float, before: int, due: float
):
    group = a_group(p50_s=(p50,), spread=spread)
    chain = a_chain((group, 0, before)) if before else Chain(0, 0.0)
    room = chain.room(p50, p50 * spread, due, not_before=0.0, at_median=False)

    for _ in range(room):
        assert chain.finish(p50, p50 * spread)[1] <= due + EASE_S
        chain.append(9, group, 0)
    if spread < 1.9:  # beyond, the sure bound is taken and some room may be left
        assert chain.finish(p50, p50 * spread)[1] >= due - EASE_S


def test_the_best_quality_per_second_is_bought_first():
    # due at 8 s, at 2 s each: 4 s are left for one first step (2 s, 0.15 a second) of each of the
    # two jobs
    chain = a_chain((a_group(due=8.0), 0, 2))

    spend_slack(chain)

    assert steps_made(chain) == [{1: 2}]


def test_what_an_early_deadline_refuses_a_later_one_may_take():
    # the first is due at 2 s, no slack; the second at 12 s has 10 - 2 = 8 s and needs 6 s for both
    # steps
    chain = a_chain((a_group(due=2.0), 0, 1), (a_group(due=12.0), 0, 1))

    spend_slack(chain)

    assert steps_made(chain) == [{0: 1}, {2: 1}]


def test_an_upgrade_must_fit_every_later_deadline():
    # the first could take 8 s by its own deadline, but the second, due at 11 s, needs 2 s: 1 s of
    # slack buys nothing
    chain = a_chain((a_group(due=20.0), 0, 1), (a_group(due=20.5, p50_s=(17.0,)), 0, 1))

    spend_slack(chain)

    assert steps_made(chain) == [{0: 1}, {0: 1}]


def test_a_heavier_job_is_served_before_a_lighter_one():
    chain = a_chain((a_group(due=6.0), 0, 1), (a_group(due=6.0, weight=2.0), 0, 1))

    spend_slack(chain)

    assert steps_made(chain) == [{0: 1}, {1: 1}]


def test_part_of_a_run_rises_when_not_all_of_it_can():
    # five jobs of 2 s due at 16 s: 6 s of slack raise three of them
    chain = a_chain((a_group(due=16.0), 0, 5))

    spend_slack(chain)

    assert steps_made(chain) == [{0: 2, 1: 3}]
    assert chain.finish()[0] == 16.0


@given(
    parts=st.lists(
        st.tuples(st.floats(1, 30), st.integers(1, 4), seconds, seconds), min_size=1, max_size=25
    ),
    spread=st.sampled_from([0.0, 0.3]),
)
def test_rising_together_first_comes_to_what_rising_one_by_one_does(
    parts: list[tuple[float, int, float, float]], spread: float
):
    due, groups = 0.0, []
    for slack, count, least, more in parts:
        due += count * least * (1 + spread) + slack
        groups.append((a_group(due=due, p50_s=(least, least + more), spread=spread), 0, count))
    one_by_one, together = a_chain(*groups), a_chain(*groups)

    singly, both = _Lots(one_by_one.places, 0.0), _Lots(together.places, 0.0)
    singly.rise_singly()
    both.rise_together()
    both.rise_singly()

    assert both.runs() == singly.runs()
