"""Clocks of two machines: what a worker says of time becomes ours, what it is told becomes its own.

A worker on another machine may be minutes ahead of or behind the platform. Taken at its word, it
would cut videos short because their end has passed there, or never hurry; and what it says of
starts and ends would fit nothing here. So it is asked for its time once it is up, and the middle of
that round trip is when it answered (Cristian, Distributed Computing 3, 1989, section 4); the error
is at most half of it. Neither side notices when its clock is set meanwhile (`times.now`).

Ahead: seconds by which the worker's clock is ahead of ours; negative when it is behind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from vidplat import times
from vidplat.domain import Outcome, Progress
from vidplat.platform.dispatch.dispatcher import Event, HandedOver, Order, WorkerUp

_TRIES = 3
# What a worker says of time; that it is lost is for us to notice.
_TIMES: Mapping[type, tuple[str, ...]] = {
    Outcome: ("started_at", "finished_at"),
    HandedOver: ("started_at", "at"),
    Progress: ("at",),
    WorkerUp: ("at",),
}
_Event = TypeVar("_Event", bound=Event)


def ahead_of_ours(ask: Callable[[], float], clock: Callable[[], float] = times.now) -> float:
    """How far the clock that `ask` reads is ahead, by the quickest of three questions; 0 where
    that is below half of the round trip, and so nothing but the way of the answer."""
    answers: list[tuple[float, float]] = []
    for _ in range(_TRIES):
        asked_at = clock()
        told = ask()
        heard_at = clock()
        answers.append((heard_at - asked_at, told - (asked_at + heard_at) / 2))
    round_trip_s, ahead = min(answers)
    return ahead if abs(ahead) > round_trip_s / 2 else 0.0


def in_our_time(event: Event, ahead: float) -> Event:
    """An event with its times by our clock."""
    return _moved(event, -ahead)


def in_worker_time(order: Order, ahead: float) -> Order:
    """An order with its times by the worker's clock."""
    drafted = None if order.drafted is None else _moved(order.drafted, ahead)
    finish_by = None if order.finish_by is None else order.finish_by + ahead
    return replace(order, finish_by=finish_by, drafted=drafted)


def ends_in_worker_time(
    finish_by: Mapping[str, float | None], ahead: float
) -> dict[str, float | None]:
    """Finish times by the worker's clock."""
    return {job: None if at is None else at + ahead for job, at in finish_by.items()}


def _moved(event: _Event, seconds: float) -> _Event:
    times = _TIMES.get(type(event), ())
    moved: dict[str, Any] = {name: getattr(event, name) + seconds for name in times}
    return replace(event, **moved) if moved else event
