"""What a plan that is followed has due, and when: arithmetic, without catalog, workers or clock.

A job takes 10 s on a worker of class cpu-1 (`tests.builders.knowledge`), the look-ahead is 1 s.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from tests.builders import FLIPBOOK, a_job, a_shape, an_open_job, knowledge
from tests.platform.builders import a_seat, an_assignment
from vidplat.domain import OpenJob, Progress
from vidplat.platform.dispatch.dispatcher import Order, Seat
from vidplat.platform.run.following import MOST_IN_HAND, Due, Following, Standing, why_stuck
from vidplat.platform.run.hands import Hands, InHand
from vidplat.platform.run.learning import Learner
from vidplat.scheduler.decision import Assignment, Deferred, Plan, Verdict


def standing(
    waiting: Iterable[OpenJob] = (),
    *,
    seats: tuple[Seat, ...] = (a_seat(),),
    hands: Hands | None = None,
    now: float = 0.0,
) -> Standing:
    learner = Learner(lambda model_id: (FLIPBOOK, a_shape()), None, "b1")
    learner.know(FLIPBOOK.id)
    learner.costs = knowledge().costs
    by_id = {each.job.id: each for each in waiting}
    return Standing(now, seats, hands or Hands(), by_id, learner, look_ahead_s=1.0)


def planned(row: int, **changed: object) -> Assignment:
    return replace(an_assignment(a_job(row=row).id), **changed)


def following(*assignments: Assignment) -> Following:
    return Following.of(Plan(Verdict.FEASIBLE, assignments))


def holding(seconds: float, count: int = 1, deadline_at: float | None = None) -> Hands:
    """A worker w1 with so many orders in hand, of so many seconds each."""
    hands = Hands()
    for row in range(101, 101 + count):
        open_job = an_open_job(row=row, deadline_at=deadline_at)
        order = Order(an_assignment(open_job.job.id), open_job.job, 1)
        hands.put("w1", InHand(order, open_job, {"denoise": seconds}, 0.0))
    return hands


def rows(due: Iterable[Due]) -> list[int]:
    return [each.open_job.job.row for each in due]


def test_an_idle_worker_gets_one_job_and_the_rest_stays_planned():
    plan = following(planned(1), planned(2))
    due, rest = plan.due(standing([an_open_job(row=1), an_open_job(row=2)]))
    assert rows(due) == [1]
    assert rest.planned_s("w1") == 10.0
    # and nothing has changed in what was asked
    assert plan.planned_s("w1") == 20.0


@pytest.mark.parametrize(("left_s", "expected"), [(1.5, []), (0.5, [1])])
def test_the_next_is_due_when_less_than_the_look_ahead_is_in_hand(left_s, expected):
    due, _ = following(planned(1)).due(standing([an_open_job(row=1)], hands=holding(left_s)))
    assert rows(due) == expected


def test_a_hand_is_never_overfilled():
    full = holding(0.0, count=MOST_IN_HAND)
    due, _ = following(planned(1)).due(standing([an_open_job(row=1)], hands=full))
    assert due == []


def test_jobs_that_no_longer_wait_are_passed_over():
    due, rest = following(planned(1), planned(2)).due(standing([an_open_job(row=2)]))
    assert rows(due) == [2]
    assert rest.planned_s("w1") == 0.0


def test_a_backed_off_job_keeps_its_place_until_its_time():
    plan, backed_off = following(planned(1)), [an_open_job(row=1, not_before=5.0)]
    due, rest = plan.due(standing(backed_off, now=4.9))
    assert (due, rest.planned_s("w1")) == ([], 10.0)
    assert rows(plan.due(standing(backed_off, now=5.0))[0]) == [1]
    # and nothing needs to be done before it, though no worker is ever left alone for long
    assert plan.wait_s(standing(backed_off, now=4.9)) == pytest.approx(0.1)
    assert plan.wait_s(standing(backed_off)) == 0.25


def test_workers_that_are_not_up_get_nothing():
    seats = (a_seat(up=False),)
    assert following(planned(1)).due(standing([an_open_job(row=1)], seats=seats))[0] == []


def test_an_order_ends_a_cushion_and_a_slow_store_before_its_limit():
    (due,), _ = following(planned(1, finish_by=20.0)).due(standing([an_open_job(row=1)]))
    # storing takes 0.01 s at p50 and 2 % more at p90; the cushion is 0.2 s
    assert due.finish_by == pytest.approx(20.0 - 0.2 - 0.0102, abs=1e-3)
    assert due.stages["store"] == pytest.approx(0.01, abs=1e-3)


def test_what_another_worker_is_counted_on_for_is_not_in_its_makers_way():
    handed = planned(1, finish_by=20.0, handed_s=3.0)
    (due,), _ = following(handed).due(standing([an_open_job(row=1)]))
    assert not {"mp4", "store"} & set(due.stages)
    assert due.finish_by == pytest.approx(20.0 - 3.0 - 0.2)
    assert following(handed).planned_s("w1") == 7.0


def test_without_a_limit_nobody_hurries():
    (due,), _ = following(planned(1)).due(standing([an_open_job(row=1)]))
    assert due.finish_by is None


def test_what_is_in_hand_hears_of_an_end_that_keeps_all_behind_it_in_time():
    # given two orders of 10 s in hand, the second due at 30 s
    plan, hands = following(), holding(10.0, count=2, deadline_at=30.0)
    first, second = (held.order.job.id for held in hands.of("w1"))
    # then the first must leave it its 10 s
    assert plan.moved_ends("w1", standing(hands=hands)) == {first: 20.0, second: 30.0}

    # and what has been told is not told again for a quarter of a second
    for held in hands.of("w1"):
        due = {first: 20.2, second: 29.8}[held.order.job.id]
        held.order = replace(held.order, finish_by=due)
    assert plan.moved_ends("w1", standing(hands=hands)) == {}


def test_what_is_stored_beside_the_next_may_end_after_that_began():
    # given a plan that needs the worker at 30 s, and in its hand one of 10 s, 2 s of it for storing
    plan = following(planned(1, finish_by=40.2, p50_s=10.0, p90_s=10.2))
    hands = holding(8.0)
    (held,) = hands.of("w1")
    held.stages = {**held.stages, "store": 2.0}

    # then it may be made by 30 s and stored by 32 s
    (told,) = plan.moved_ends("w1", standing(hands=hands)).values()
    assert told == pytest.approx(32.0, abs=0.2)

    # and once it is being stored it hears of nothing
    held.note(Progress(held.order.job.id, 1, "w1", "store", 24, 24, 8.0))
    assert plan.moved_ends("w1", standing(hands=hands, now=8.0)) == {}


def test_what_can_only_be_late_is_not_hurried():
    hands = holding(10.0, deadline_at=5.0)
    assert following().moved_ends("w1", standing(hands=hands, now=6.0)) == {}


def test_a_worker_is_idle_when_jobs_wait_and_the_plan_has_none_for_it():
    waiting = [an_open_job(row=1)]
    assert following().has_idle(standing(waiting))
    assert not following(planned(1)).has_idle(standing(waiting))
    assert following(planned(1)).without("w1").has_idle(standing(waiting))
    assert not following().has_idle(standing(waiting, hands=holding(5.0)))
    assert not following().has_idle(standing(waiting, seats=(a_seat(light=True),)))
    assert not following().has_idle(standing([an_open_job(row=1, not_before=5.0)]))


def test_a_batch_is_stuck_when_nothing_runs_and_nobody_is_on_the_way():
    nothing = Plan(Verdict.INFEASIBLE, (), (Deferred("j", "needs 60 GB"),))
    light = a_seat("e1", up=False, light=True)
    assert why_stuck(nothing, standing(seats=(a_seat(), light))) == "needs 60 GB"
    assert why_stuck(nothing, standing(seats=(a_seat(up=False),))) is None
    assert why_stuck(nothing, standing(hands=holding(1.0))) is None
    assert why_stuck(replace(nothing, assignments=(planned(1),)), standing()) is None
