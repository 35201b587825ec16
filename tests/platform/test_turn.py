"""One turn: hear, observe, plan, carry out. The catalog is real, the workers are a script and time
stands still.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.builders import FLIPBOOK, a_job, a_shape
from vidplat.domain import (
    Failure,
    FailureKind,
    JobState,
    OpenJob,
    OperatingPoint,
    Progress,
)
from vidplat.errors import CatalogError, ClusterError, ModelError
from vidplat.platform.dispatch.dispatcher import WorkerUp
from vidplat.platform.run.owners import HoldLost
from vidplat.platform.run.turn import drain, observe
from vidplat.scheduler.cost import Observation
from vidplat.scheduler.work import features
from vidplat.storage.catalog_words import BatchState


def test_a_worker_gets_one_job_and_the_next_shortly_before_it_is_through(scene):
    # given three jobs of 10 s and a look-ahead of 1 s
    stage = scene(3)

    # when
    stage.turn(0.0)
    assert stage.in_hand() == [1]
    stage.turn(5.0)
    assert stage.in_hand() == [1]
    stage.turn(9.5)

    # then
    assert stage.in_hand() == [1, 2]
    assert stage.states() == {JobState.RUNNING: 2, JobState.QUEUED: 1}


def test_very_short_jobs_are_sent_by_the_dozen_but_not_without_bound(scene):
    stage = scene(200, look_ahead_s=1000.0)
    stage.turn(0.0)
    assert len(stage.in_hand()) == 64
    # and a full hand is no reason to look again soon
    assert stage.world.following.wait_s(stage.world.standing()) == 0.25


def test_what_ended_is_written_once_per_turn_and_told(scene):
    stage = scene(2, look_ahead_s=100.0)
    stage.turn(0.0)
    for order in stage.dispatcher.sent["w1"]:
        stage.dispatcher.finishes(order, at=10.0)
    stage.turn(10.0)
    assert stage.states() == {JobState.DONE: 2}
    assert len(stage.heard.outcomes) == 2
    assert stage.is_over


def test_a_failed_job_comes_again_on_another_worker(scene):
    # given two workers with a job each
    stage = scene(2, "w1", "w2")
    stage.turn(0.0)
    (order,) = stage.dispatcher.sent["w1"]

    # when w1 fails its job, and then both are free
    stage.dispatcher.finishes(order, at=1.0, failure=Failure(FailureKind.JOB, "no"))
    stage.turn(1.0)
    stage.dispatcher.finishes(stage.dispatcher.sent["w2"][0], at=11.0)
    stage.turn(11.0)

    # then it goes to w2, as its second attempt
    assert stage.dispatcher.sent["w2"][-1].job.id == order.job.id
    assert stage.dispatcher.sent["w2"][-1].attempt == 2
    assert len(stage.dispatcher.sent["w1"]) == 1


def test_a_lost_worker_costs_the_running_job_an_attempt_and_those_behind_it_nothing(scene):
    # given a worker with three orders
    stage = scene(3, look_ahead_s=100.0)
    stage.turn(0.0)
    first, second, third = stage.dispatcher.sent["w1"]

    # when it dies
    stage.dispatcher.loses("w1", at=3.0, successor="w1.2")
    stage.turn(3.0)

    # then all wait again; only the first has a failed attempt
    assert stage.states() == {JobState.QUEUED: 3}
    (attempt,) = stage.catalog.attempts("b1", first.job.id)
    assert (attempt.ended, attempt.counts) == ("failed", True)
    for order in (second, third):
        (attempt,) = stage.catalog.attempts("b1", order.job.id)
        assert (attempt.ended, attempt.counts) == ("released", False)

    # and they go to the successor once it is up, the one that was lost once something was made
    stage.dispatcher.places["w1.2"] = replace(stage.dispatcher.places["w1.2"], up=True)
    stage.dispatcher.events.append(WorkerUp("w1.2", "cpu-1", 2**34, 1.0, at=8.0))
    stage.turn(8.0)
    assert sorted(stage.in_hand("w1.2")) == [2, 3]
    stage.dispatcher.finishes(stage.dispatcher.sent["w1.2"][0], at=18.0)
    stage.turn(18.0)
    assert sorted(stage.in_hand("w1.2")) == [1, 2, 3]


def test_a_video_that_was_committed_before_its_worker_died_is_kept(scene):
    # given a worker that died between committing and telling
    stage = scene(2, look_ahead_s=100.0)
    stage.turn(0.0)
    first, second = stage.dispatcher.sent["w1"]
    stage.commits(first)
    stage.dispatcher.loses("w1", at=3.0, successor="w1.2")
    stage.turn(3.0)

    # then the first is done, and the blame falls on the one that ran
    assert stage.states() == {JobState.DONE: 1, JobState.QUEUED: 1}
    (attempt,) = stage.catalog.attempts("b1", second.job.id)
    assert attempt.counts


@pytest.mark.parametrize("heard_of", [1, 2])
def test_a_lost_worker_costs_what_was_being_stored_nothing(scene, heard_of: int):
    # given a worker that stores one or two videos while it makes the next
    stage = scene(3, look_ahead_s=100.0)
    stage.turn(0.0)
    orders = stage.dispatcher.sent["w1"]
    for order in orders[:heard_of]:
        stage.dispatcher.events.append(
            Progress(order.job.id, order.attempt, "w1", "store", 24, 24, 2.0)
        )
    stage.turn(2.0)

    # when it dies
    stage.dispatcher.loses("w1", at=3.0, successor="w1.2")
    stage.turn(3.0)

    # then the blame falls on the one that was being made
    assert stage.states() == {JobState.QUEUED: 3}
    blamed = [stage.catalog.attempts("b1", order.job.id)[-1].counts for order in orders]
    assert blamed == [number == heard_of for number in range(3)]


def test_a_worker_that_dies_with_nothing_but_a_video_to_store_blames_that(scene):
    stage = scene(1)
    stage.turn(0.0)
    (order,) = stage.dispatcher.sent["w1"]
    stage.dispatcher.events.append(
        Progress(order.job.id, order.attempt, "w1", "store", 24, 24, 2.0)
    )
    stage.turn(2.0)
    stage.dispatcher.loses("w1", at=3.0, successor="w1.2")
    stage.turn(3.0)
    (attempt,) = stage.catalog.attempts("b1", order.job.id)
    assert (attempt.ended, attempt.counts) == ("failed", True)


def test_a_worker_that_could_not_load_the_model_ends_the_run_with_its_reason(scene):
    stage = scene(1)
    stage.dispatcher.loses("w1", at=1.0, request_is_wrong=True)
    with pytest.raises(ModelError, match="killed"):
        stage.turn(1.0)


def test_when_every_worker_is_lost_for_good_the_run_ends(scene):
    stage = scene(1)
    stage.turn(0.0)
    stage.dispatcher.loses("w1", at=2.0)
    with pytest.raises(ClusterError, match="every worker was lost; the last one: killed"):
        stage.turn(2.0)
    assert stage.states() == {JobState.QUEUED: 1}


def test_workers_that_never_come_up_end_the_run(scene):
    stage = scene(1)
    stage.dispatcher.places["w1"] = replace(stage.dispatcher.places["w1"], up=False)
    stage.turn(10.0)
    with pytest.raises(ClusterError, match="no worker came up within 300 s"):
        stage.turn(400.0)


def test_a_worker_that_hangs_on_its_way_up_gets_no_job_that_another_could_begin(scene):
    stage = scene(1, "w1", "w2")
    stage.dispatcher.places["w1"] = replace(stage.dispatcher.places["w1"], up=False)
    stage.turn(120.0)
    assert stage.in_hand("w2") == [1]


def test_a_deadline_tells_orders_when_to_be_through(scene):
    # given 4 jobs of 10 s at full quality, and 25 s for one worker
    stage = scene([a_job(row=row, deadline_at=25.0) for row in range(1, 5)], deadline_at=25.0)
    stage.turn(0.0)
    (order,) = stage.dispatcher.sent["w1"]

    # then the first may not take it all
    assert order.assignment.point.steps < 24
    assert order.finish_by is not None
    assert order.finish_by < 25.0


def test_a_run_that_may_be_cut_short_leaves_time_for_storing_at_its_slowest(scene):
    # given one job, and a store that takes half a second, but every fifth time two
    job = a_job(deadline_at=25.0)
    stage = scene([job], deadline_at=25.0)
    learner = stage.world.learner
    counted = features(a_shape(), job.spec, OperatingPoint(24))["store"]
    for n in range(40):
        seen = Observation(FLIPBOOK.id, "cpu-1", "store", counted, 2.0 if n % 5 == 4 else 0.5)
        learner.costs = learner.costs.observe(seen)

    # when it is sent
    stage.turn(0.0)
    (order,) = stage.dispatcher.sent["w1"]

    # then the slow store would still be in time
    assert order.finish_by is not None
    assert 20.0 < order.finish_by <= 23.0


def test_a_running_job_is_hurried_when_the_plan_gets_tighter(scene):
    # given one of two jobs running, with time for both
    stage = scene([a_job(row=row, deadline_at=40.0) for row in (1, 2)], deadline_at=40.0)
    stage.turn(0.0)
    (order,) = stage.dispatcher.sent["w1"]

    # when it turns out to be slow: 4 of 24 steps after 10 s, and a new plan is made
    stage.dispatcher.events = [
        Progress(order.job.id, 1, "w1", "denoise", step, 24, 2.5 * step) for step in (0, 4)
    ]
    stage.turn(10.1)

    # then it hears of an earlier end than the deadline, so that the second fits behind it
    assert stage.dispatcher.hurried[order.job.id] < 40.0


def test_cancelled_jobs_are_stopped_and_their_end_is_of_no_interest(scene):
    stage = scene(2)
    stage.turn(0.0)
    (order,) = stage.dispatcher.sent["w1"]
    stage.catalog.cancel("b1", order.job.id, now=1.0)
    stage.dispatcher.events.append(Progress(order.job.id, 1, "w1", "denoise", 1, 24, 2.0))
    stage.turn(2.0)
    assert stage.dispatcher.cancelled == {order.job.id}
    stage.dispatcher.finishes(order, at=3.0, failure=Failure(FailureKind.JOB, "cancelled"))
    stage.turn(3.0)
    assert stage.states() == {JobState.CANCELLED: 1, JobState.RUNNING: 1}
    assert stage.heard.outcomes == []


def test_a_cancelled_batch_starts_nothing_more(scene):
    stage = scene(3)
    stage.turn(0.0)
    stage.catalog.cancel("b1", now=1.0)
    stage.turn(2.0)
    assert stage.world.state is BatchState.CANCELLED
    stage.dispatcher.finishes(
        stage.dispatcher.sent["w1"][0], at=9.0, failure=Failure(FailureKind.JOB, "cancelled")
    )
    stage.turn(9.0)
    assert len(stage.dispatcher.sent["w1"]) == 1
    assert stage.is_over


def test_draining_takes_back_what_has_not_begun(scene):
    stage = scene(3, look_ahead_s=100.0)
    stage.turn(0.0)
    drain(stage.world)
    stage.turn(1.0)
    assert stage.states() == {JobState.RUNNING: 1, JobState.QUEUED: 2}
    assert not stage.is_over
    stage.dispatcher.finishes(stage.dispatcher.sent["w1"][0], at=9.0)
    stage.turn(9.0)
    assert stage.is_over


def test_a_catalog_that_cannot_be_written_for_a_while_loses_nothing(scene):
    # given a job that ends while the catalog refuses
    stage = scene(1)
    stage.turn(0.0)
    finish, refused = stage.catalog.finish, []

    def refuse(*args, **kwargs):
        refused.append(1)
        raise CatalogError("the catalog is locked")

    stage.catalog.finish = refuse
    stage.dispatcher.finishes(stage.dispatcher.sent["w1"][0], at=9.0)
    stage.turn(9.0)
    assert refused
    assert stage.states() == {JobState.RUNNING: 1}
    assert not stage.is_over

    # when it takes writes again
    stage.catalog.finish = finish
    stage.turn(10.0)

    # then
    assert stage.states() == {JobState.DONE: 1}


@pytest.mark.parametrize("is_read_anew", [False, True])
def test_a_claim_that_happened_but_was_never_answered_leaves_no_job_behind(scene, is_read_anew):
    # given a catalog that claims, and is then away for longer than anybody asks again
    stage = scene(3)
    claim = stage.catalog.claim

    def lose_the_answer(*args, **kwargs):
        claim(*args, **kwargs)
        raise CatalogError("the catalog hung up")

    stage.catalog.claim = lose_the_answer
    stage.turn(0.0)
    assert stage.in_hand() == []

    # when it is back, whether or not the queue is read anew meanwhile
    stage.catalog.claim = claim
    if is_read_anew:
        stage.world.window.jobs.clear()
        assert not stage.is_over
    for n in range(3):
        stage.turn(20.0 * n + 1)
        stage.dispatcher.finishes(stage.dispatcher.sent["w1"][n], at=20.0 * n + 10)
    stage.turn(70.0)

    # then
    assert stage.states() == {JobState.DONE: 3}
    assert stage.is_over


def test_a_queue_that_cannot_be_read_for_a_while_does_not_end_the_run(scene):
    stage = scene(1)
    stage.turn(0.0)
    stage.dispatcher.finishes(stage.dispatcher.sent["w1"][0], at=9.0)
    stage.turn(9.0)
    read = stage.catalog.open_jobs

    def refuse(*args, **kwargs):
        raise CatalogError("the catalog is locked")

    stage.catalog.open_jobs = refuse
    assert not stage.is_over
    stage.catalog.open_jobs = read
    assert stage.is_over


def test_whoever_watches_sees_what_the_plan_foresees_now(scene):
    # given two jobs of 10 s, promised by nobody yet
    stage = scene(2)
    assert stage.catalog.outlook("b1") is None
    stage.turn(0.0)
    stage.turn(2.0)
    first = stage.catalog.outlook("b1")
    assert first is not None
    assert 19.0 < first.finish_p50_at < 22.0

    # when the first takes four times as long
    beats = [(0, 0.0), (6, 10.0)]
    (order,) = stage.dispatcher.sent["w1"]
    stage.dispatcher.events = [
        Progress(order.job.id, 1, "w1", "denoise", step, 24, at) for step, at in beats
    ]
    stage.world.plan_age.call(urgent=True)
    stage.turn(12.0)
    stage.turn(14.0)
    later = stage.catalog.outlook("b1")
    assert later is not None
    assert later.finish_p50_at > first.finish_p50_at + 10


def test_a_video_committed_after_its_job_was_cancelled_is_there_in_both_places(scene):
    # given a job that is cancelled while its worker stores the video
    stage = scene(2)
    stage.turn(0.0)
    (order,) = stage.dispatcher.sent["w1"]
    stage.catalog.cancel("b1", now=1.0)
    stage.commits(order)
    stage.dispatcher.finishes(order, at=2.0)

    # when
    stage.turn(2.0)

    # then the store has the last word, and the rest stays cancelled
    assert stage.states() == {JobState.DONE: 1, JobState.CANCELLED: 1}
    assert stage.catalog.batch_state("b1") == "cancelled"
    (record,) = stage.catalog.jobs("b1", states=[JobState.DONE])
    assert (record.started_at, record.finished_at, record.phases) == (1.0, 2.0, {"denoise": 1.0})
    assert [each.ended for each in stage.catalog.attempts("b1", order.job.id)] == ["done"]


def test_a_batch_that_another_process_took_over_is_left_to_it(scene):
    stage = scene(2)
    stage.turn(0.0)
    stage.now = 1000.0
    stage.catalog.hold_batch("b1", "other:2:2", lease_s=60.0)
    with pytest.raises(HoldLost, match="another process works on batch b1"):
        stage.turn(1000.0)


def test_a_method_that_a_worker_refuses_costs_the_job_nothing_but_that_method(scene):
    stage = scene(1, max_attempts=1)
    stage.turn(0.0)
    (order,) = stage.dispatcher.sent["w1"]
    failure = Failure(FailureKind.METHOD, "hsa cannot be used here")
    stage.dispatcher.finishes(order, at=1.0, failure=failure)
    stage.turn(1.0)
    assert [each.attempt for each in stage.dispatcher.sent["w1"]] == [1, 2]
    refused = (order.job.model.id, order.assignment.point.accelerator)
    assert refused in stage.world.learner.knowledge.refused

    # and it still has its one attempt at what may fail
    stage.dispatcher.finishes(stage.dispatcher.sent["w1"][1], at=2.0)
    stage.turn(2.0)
    assert stage.states() == {JobState.DONE: 1}


def test_a_failing_worker_becomes_the_last_choice(scene):
    # given a worker on which three different jobs fail
    stage = scene(6, "w1", "w2", look_ahead_s=100.0)
    stage.turn(0.0)
    for order in stage.dispatcher.sent["w1"][:3]:
        stage.dispatcher.finishes(order, at=1.0, failure=Failure(FailureKind.JOB, "no"))
    stage.turn(1.0)
    assert {w.id: w.suspect for w in stage.world.worker_states(stage.dispatcher.seats(), 1.0)} == {
        "w1": True,
        "w2": False,
    }


def test_only_a_window_of_a_long_queue_is_held_and_it_is_refilled(scene):
    stage = scene(30, window=10)
    assert len(observe(stage.world).jobs) == 10
    (backlog,) = stage.world.window.queue().backlog()
    assert backlog.count == 20
    for n in range(30):
        stage.turn(20.0 * n)
        stage.dispatcher.finishes(stage.dispatcher.sent["w1"][n], at=20.0 * n + 10)
    stage.turn(700.0)
    assert stage.states() == {JobState.DONE: 30}


def test_jobs_put_back_by_another_process_are_found_before_the_run_ends(scene):
    # given a batch whose only job failed for good
    stage = scene(1)
    stage.turn(0.0)
    failure = Failure(FailureKind.REQUEST, "refused")
    stage.dispatcher.finishes(stage.dispatcher.sent["w1"][0], at=5.0, failure=failure)
    stage.turn(5.0)

    # when someone retries it before the run has ended
    stage.catalog.retry_failed("b1", now=5.0)

    # then the run goes on
    assert not stage.is_over
    stage.turn(6.0)
    assert [order.attempt for order in stage.dispatcher.sent["w1"]] == [1, 2]


def test_a_backed_off_job_waits_for_its_time(scene):
    stage = scene(1)
    job: OpenJob = stage.catalog.open_jobs("b1")[0]
    stage.turn(0.0)
    (order,) = stage.dispatcher.sent["w1"]
    stage.dispatcher.finishes(
        order, at=1.0, failure=Failure(FailureKind.INFRASTRUCTURE, "disk full")
    )
    stage.turn(1.0)
    (again,) = stage.catalog.open_jobs("b1")
    assert again.job.id == job.job.id
    assert again.not_before > 1.0
    stage.turn(again.not_before - 0.01)
    assert len(stage.dispatcher.sent["w1"]) == 1
    stage.turn(again.not_before + 0.5)
    assert len(stage.dispatcher.sent["w1"]) == 2
