"""Two clocks: what differs between a worker's and ours is found and taken out of everything that
crosses.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.builders import a_job
from vidplat.domain import OperatingPoint, Outcome, Progress
from vidplat.platform.dispatch.clocks import (
    ahead_of_ours,
    ends_in_worker_time,
    in_our_time,
    in_worker_time,
)
from vidplat.platform.dispatch.dispatcher import HandedOver, Order, WorkerLost, WorkerUp
from vidplat.scheduler.decision import Assignment
from vidplat.workers.draft import Draft


def ticking(*seconds: float) -> Iterator[float]:
    return iter(seconds)


def test_the_quickest_answer_tells_how_far_a_clock_is_ahead():
    ours = ticking(
        100.0, 104.0, 110.0, 110.2, 120.0, 121.0
    )  # three questions: 4, 0.2 and 1 s there and back
    theirs = ticking(401.0, 410.1, 420.9)
    assert ahead_of_ours(lambda: next(theirs), lambda: next(ours)) == pytest.approx(300.0)


@pytest.mark.parametrize(("answer", "ahead"), [(10.9, 0.0), (10.1, 0.0), (11.5, 1.0), (9.5, -1.0)])
def test_what_the_way_of_the_answer_explains_is_no_difference(answer: float, ahead: float):
    ours = ticking(*[10.0, 11.0] * 3)
    assert ahead_of_ours(lambda: answer, lambda: next(ours)) == ahead


def test_a_workers_times_come_in_by_our_clock():
    point = OperatingPoint(4)
    ended = in_our_time(Outcome("j", 1, "cloud-1", point, 310.0, 320.0), 300.0)
    drafted = in_our_time(HandedOver("j", 1, "cloud-1", a_draft(), 310.0, 315.0), 300.0)
    progress = in_our_time(Progress("j", 1, "cloud-1", "denoise", 2, 4, 312.0), 300.0)
    up = in_our_time(WorkerUp("cloud-1", "cpu-1", 1, 2.0, at=305.0), 300.0)
    lost = WorkerLost("cloud-1", "it died", 25.0)

    assert isinstance(ended, Outcome) and (ended.started_at, ended.finished_at) == (10.0, 20.0)
    assert isinstance(drafted, HandedOver) and (drafted.started_at, drafted.at) == (10.0, 15.0)
    assert isinstance(progress, Progress) and progress.at == 12.0
    assert isinstance(up, WorkerUp) and up.at == 5.0
    assert in_our_time(lost, 300.0) is lost  # it is we who noticed


def test_what_a_worker_is_told_is_by_its_own_clock():
    job = a_job()
    drafted = HandedOver(job.id, 1, "cloud-1", a_draft(), 10.0, 15.0)
    planned = Assignment(job.id, "edge-1", "edge", OperatingPoint(4), 0.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    order = Order(planned, job, 1, finish_by=20.0, drafted=drafted)

    sent = in_worker_time(order, -60.0)

    assert sent.finish_by == -40.0
    assert sent.drafted is not None and (sent.drafted.started_at, sent.drafted.at) == (-50.0, -45.0)
    assert in_worker_time(Order(planned, job, 1), -60.0).finish_by is None
    assert ends_in_worker_time({"a": 20.0, "b": None}, -60.0) == {"a": -40.0, "b": None}


def a_draft() -> Draft:
    return Draft(b"", 0, {}, {}, {}, {}, 4)
