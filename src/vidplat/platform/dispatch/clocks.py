"""Clocks of two machines: what a worker says of time is turned into ours, and what it is told into
its own.

A worker on another machine may be minutes ahead of or behind the platform. Taken at its word, it
would cut videos short because their end has passed there, or never hurry; and what it says of
starts and ends would fit nothing here. So it is asked for its time once it is up, and the middle of
that round trip is when it answered (Cristian, Distributed Computing 3, 1989, section 4); the error
is at most half of it. A clock that is set while a batch runs is not noticed.

Ahead: seconds by which the worker's clock is ahead of ours; negative when it is behind.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from vidplat.domain import Outcome, Progress
from vidplat.platform.dispatch.dispatcher import Event, HandedOver, Order, WorkerUp

_TRIES = 3


def ahead_of_ours(ask: Callable[[], float], clock: Callable[[], float] = time.time) -> float:
    """How far the clock that `ask` reads is ahead, by the quickest of three questions; 0 where that
    cannot be told.

    A difference below half of the round trip is nothing but the way of the answer.
    """
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
    if isinstance(event, Outcome):
        return replace(
            event, started_at=event.started_at - ahead, finished_at=event.finished_at - ahead
        )
    if isinstance(event, HandedOver):
        return replace(event, started_at=event.started_at - ahead, at=event.at - ahead)
    if isinstance(event, Progress | WorkerUp):
        return replace(event, at=event.at - ahead)
    return event


def in_worker_time(order: Order, ahead: float) -> Order:
    """An order with its times by the worker's clock."""
    drafted = order.drafted
    if drafted is not None:
        drafted = replace(drafted, started_at=drafted.started_at + ahead, at=drafted.at + ahead)
    finish_by = None if order.finish_by is None else order.finish_by + ahead
    return replace(order, finish_by=finish_by, drafted=drafted)


def ends_in_worker_time(
    finish_by: Mapping[str, float | None], ahead: float
) -> dict[str, float | None]:
    """Finish times by the worker's clock."""
    return {job: None if at is None else at + ahead for job, at in finish_by.items()}
