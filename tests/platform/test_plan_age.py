"""When a plan has been overtaken."""

from __future__ import annotations

from vidplat.platform.run.plan_age import PlanAge


def a_plan(took_s: float = 0.1) -> PlanAge:
    """Made at second 100, in `took_s`."""
    age = PlanAge()
    age.made(100.0, took_s)
    return age


def due(age: PlanAge, now: float, *, idle: bool = False, deadlines: bool = False) -> bool:
    return age.is_due(now, idle=idle, deadlines=deadlines)


def test_the_first_plan_is_due_at_once():
    assert due(PlanAge(), 0.0)


def test_a_plan_that_nothing_overtook_is_followed_to_its_end():
    assert not due(a_plan(), 10_000.0)


def test_an_urgent_call_waits_only_until_planning_took_a_third_of_the_time():
    age = a_plan(took_s=0.1)
    age.call(urgent=True)
    assert not due(age, 100.15)
    assert due(age, 100.25)


def test_an_ordinary_call_waits_until_planning_takes_five_percent():
    age = a_plan(took_s=0.1)
    age.call()
    assert not due(age, 101.9)
    assert due(age, 102.1)


def test_an_idle_worker_is_not_kept_waiting():
    assert due(a_plan(took_s=0.001), 100.03, idle=True)
    assert not due(a_plan(took_s=0.001), 100.01, idle=True)


def test_with_a_deadline_ahead_a_plan_is_at_most_ten_seconds_old():
    assert not due(a_plan(), 109.0, deadlines=True)
    assert due(a_plan(), 111.0, deadlines=True)
