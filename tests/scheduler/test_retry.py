"""After a failure: again, elsewhere, one rung lower, or give up."""

from __future__ import annotations

from tests.builders import an_open_job
from vidplat.domain import FailureKind, JobState, OpenJob
from vidplat.scheduler import after, suspects


def decide(kind: FailureKind, *, attempt: int = 1, worker: str = "w1", **job) -> OpenJob | JobState:
    """The decision about `job` at second 100."""
    failed = an_open_job(**job)
    return after(kind, failed, worker, attempt=attempt, max_attempts=3, now=100.0)


def test_a_wrong_request_is_failed_at_once():
    assert decide(FailureKind.REQUEST) is JobState.FAILED


def test_a_refused_method_is_the_rows_failure_where_it_asked_for_it_and_else_the_plans():
    again = decide(FailureKind.METHOD, attempt=9)
    assert isinstance(again, OpenJob)
    assert (again.not_before, again.avoid, again.rung_down) == (100.0, frozenset(), 0)
    assert decide(FailureKind.METHOD, method="hsa:50") is JobState.FAILED


def test_a_failed_job_goes_elsewhere_after_a_short_wait():
    again = decide(FailureKind.JOB)

    assert isinstance(again, OpenJob)
    assert again.avoid == {"w1"}
    assert again.rung_down == 0
    assert 100.25 <= again.not_before < 100.5  # half a second, with jitter in [0.5, 1)


def test_a_lost_worker_costs_one_attempt_and_no_wait():
    again = decide(FailureKind.WORKER_LOST)

    assert isinstance(again, OpenJob)
    assert (again.not_before, again.avoid) == (100.0, {"w1"})


def test_running_out_of_memory_goes_one_rung_lower_and_blames_no_worker():
    again = decide(FailureKind.OUT_OF_MEMORY, rung_down=1)

    assert isinstance(again, OpenJob)
    assert (again.not_before, again.avoid, again.rung_down) == (100.0, frozenset(), 2)


def test_failing_surroundings_are_waited_for_longer_and_longer():
    # given half a second, doubled with each attempt, at most a minute, and jitter in [0.5, 1)
    waits = [decide(FailureKind.INFRASTRUCTURE, attempt=n).not_before - 100 for n in range(1, 10)]

    assert waits[:7] == sorted(waits[:7])
    assert all(0.5 * 0.5 * 2**n <= wait < 0.5 * 2**n for n, wait in enumerate(waits[:7]))
    assert waits[8] <= 60.0
    assert decide(FailureKind.INFRASTRUCTURE, attempt=10) is JobState.FAILED


def test_a_wait_never_takes_more_than_a_tenth_of_the_time_left():
    again = decide(FailureKind.INFRASTRUCTURE, attempt=9, deadline_at=110.0)

    assert again.not_before <= 101.0


def test_three_workers_that_fail_a_job_make_it_poison():
    stopped = decide(FailureKind.JOB, attempt=2, worker="w3", avoid=frozenset({"w1", "w2"}))

    assert stopped is JobState.QUARANTINED


def test_a_job_that_takes_the_only_worker_down_three_times_is_poison():
    stopped = decide(FailureKind.WORKER_LOST, attempt=3, worker="w1", avoid=frozenset({"w1"}))

    assert stopped is JobState.QUARANTINED


def test_a_job_out_of_attempts_on_one_worker_is_failed():
    stopped = decide(FailureKind.JOB, attempt=3, worker="w1", avoid=frozenset({"w1"}))

    assert stopped is JobState.FAILED


def test_the_same_history_gives_the_same_decision():
    assert decide(FailureKind.JOB, attempt=2) == decide(FailureKind.JOB, attempt=2)


def test_three_different_jobs_failing_on_a_worker_make_it_suspect():
    history = [("w1", "a", False), ("w1", "b", False), ("w2", "a", False), ("w1", "c", False)]
    assert suspects(history) == {"w1"}


def test_one_job_failing_three_times_does_not_make_its_worker_suspect():
    assert suspects([("w1", "a", False)] * 3) == frozenset()


def test_a_success_clears_a_worker():
    history = [("w1", "a", False), ("w1", "b", False), ("w1", "d", True), ("w1", "c", False)]
    assert suspects(history) == frozenset()
