"""Workers that hang, and jobs that take workers down: what is given up, blamed and tried next."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.builders import a_job
from tests.platform.scene import Scene
from vidplat.domain import Job, JobState, Progress
from vidplat.errors import ClusterError
from vidplat.platform.run.turn import drain, observe
from vidplat.platform.run.world import PROBED_AFTER


def seconds(stage: Scene, first: int, last: int) -> None:
    """A turn at each full second."""
    for second in range(first, last):
        stage.turn(float(second))


def heartbeat(stage: Scene, worker_id: str, at: float, step: int, phase: str = "denoise") -> None:
    order = stage.dispatcher.sent[worker_id][-1]
    told = Progress(order.job.id, order.attempt, worker_id, phase, step, 24, at)
    stage.dispatcher.events.append(told)


# --- workers that hang ----------------------------------------------------------------------------


def test_a_worker_that_says_nothing_of_its_job_is_given_up_and_the_job_tried_elsewhere(scene):
    # given a job whose steps take 0.4 s, and a worker that stops after the third
    stage = scene(1, "w1", "w2", stall_s=20.0)
    stage.turn(0.0)
    heartbeat(stage, "w1", 1.0, 3)
    seconds(stage, 1, 21)
    assert not stage.dispatcher.dismissed

    # when nothing is heard for as long as is waited at least
    seconds(stage, 21, 25)

    # then
    assert stage.dispatcher.dismissed.keys() == {"w1"}
    assert "hangs in denoise" in stage.dispatcher.dismissed["w1"]
    assert [order.attempt for order in stage.dispatcher.sent["w2"]] == [2]


def test_a_step_may_take_ten_times_as_long_as_predicted(scene):
    # given a job of 10 s whose next step counts as 10 s of a single one
    stage = scene(1, stall_s=1.0)
    stage.turn(0.0)
    order = stage.dispatcher.sent["w1"][0]
    told = Progress(order.job.id, 1, "w1", "denoise", 0, 1, 1.0)
    stage.dispatcher.events.append(told)

    # then
    seconds(stage, 1, 60)
    assert not stage.dispatcher.dismissed
    seconds(stage, 60, 110)
    assert stage.dispatcher.dismissed.keys() == {"w1"}


def test_an_hour_in_which_we_were_frozen_ourselves_is_no_silence_of_theirs(scene):
    stage = scene(1, stall_s=20.0, lease_s=86_400.0)
    stage.turn(0.0)
    heartbeat(stage, "w1", 1.0, 3)
    stage.turn(1.0)
    stage.turn(3601.0)
    stage.turn(3602.0)
    assert not stage.dispatcher.dismissed


def test_who_waits_behind_another_job_has_not_begun_and_does_not_hang(scene):
    # given two orders in one hand, the first at work for a minute
    stage = scene(2, look_ahead_s=100.0, stall_s=20.0)
    stage.turn(0.0)
    assert len(stage.dispatcher.sent["w1"]) == 2
    first = stage.dispatcher.sent["w1"][0]
    for second in range(1, 60):
        told = Progress(first.job.id, 1, "w1", "denoise", second % 24, 24, float(second))
        stage.dispatcher.events.append(told)
        stage.turn(float(second))

    # then
    assert not stage.dispatcher.dismissed


def test_only_the_job_that_it_hangs_in_is_blamed(scene):
    # given a worker that stores one video while it hangs in the next
    stage = scene(2, look_ahead_s=100.0, stall_s=20.0)
    stage.turn(0.0)
    storing, hanging = stage.dispatcher.sent["w1"]
    for order, phase in ((storing, "store"), (hanging, "denoise")):
        told = Progress(order.job.id, 1, "w1", phase, 1, 24, 1.0)
        stage.dispatcher.events.append(told)
    stage.turn(1.0)
    for second in range(2, 26):
        told = Progress(storing.job.id, 1, "w1", "store", second, 24, float(second))
        stage.dispatcher.events.append(told)
        stage.turn(float(second))

    # then
    assert stage.dispatcher.dismissed.keys() == {"w1"}
    failed = [outcome.job_id for outcome in stage.heard.outcomes if not outcome.ok]
    assert failed == [hanging.job.id]


def test_a_run_that_was_asked_to_end_does_not_wait_long_for_a_worker_that_hangs(scene):
    stage = scene(1, stall_s=1000.0)
    stage.turn(0.0)
    heartbeat(stage, "w1", 1.0, 3)
    stage.turn(1.0)
    drain(stage.world)
    seconds(stage, 2, 15)
    assert stage.dispatcher.dismissed.keys() == {"w1"}
    assert stage.is_over


# --- jobs that take workers down ------------------------------------------------------------------


def kill(stage: Scene, worker_id: str, at: float) -> str:
    """That worker dies and is replaced; the next one there."""
    successor = f"{worker_id.split('.')[0]}.{at:g}"
    stage.dispatcher.loses(worker_id, at, successor)
    stage.turn(at)
    seat = stage.dispatcher.places[successor]
    stage.dispatcher.places[successor] = replace(seat, up=True)
    stage.world.plan_age.call(urgent=True)
    return successor


def offered(stage: Scene) -> list[int]:
    return [each.job.row for each in observe(stage.world).jobs]


def test_jobs_that_took_a_worker_down_are_tried_one_at_a_time(scene):
    # given two workers that died with a job each
    stage = scene(6, "w1", "w2")
    stage.turn(0.0)
    kill(stage, "w1", 1.0)
    kill(stage, "w2", 2.0)
    assert not {1, 2} & set(offered(stage))

    # when another job is made
    stage.turn(3.0)
    stage.dispatcher.finishes(stage.dispatcher.sent["w2.2"][0], at=13.0)
    stage.turn(13.0)

    # then one of the two may begin, and the other not before that one has ended
    for second in (14.0, 24.0):
        stage.turn(second)
        rows = [held.order.job.row for held in stage.world.hands] + offered(stage)
        assert sorted({1, 2} & set(rows)) == [1]
        assert set(rows) - {1, 2}


def test_when_only_losses_are_heard_of_jobs_from_all_over_the_queue_are_tried(scene):
    # given a file that begins with rows that kill
    stage = scene(40)
    worker = "w1"
    stage.turn(0.0)
    for loss in range(1, PROBED_AFTER + 1):
        worker = kill(stage, worker, 10.0 * loss)
        stage.turn(10.0 * loss + 1)

    # then
    tried = [order.job.row for orders in stage.dispatcher.sent.values() for order in orders]
    assert tried[0] == 1
    assert tried[-1] > 10

    # and once something is made the queue is taken in its order again
    order = stage.dispatcher.sent[worker][-1]
    stage.dispatcher.finishes(order, at=50.0)
    stage.turn(50.0)
    assert stage.world.losses == 0
    assert len(offered(stage)) > 30


def test_a_run_in_which_nothing_but_losses_happens_ends(scene):
    stage = scene(40)
    worker = "w1"
    stage.turn(0.0)
    with pytest.raises(ClusterError, match=r"12 workers in a row were lost.*killed"):
        for loss in range(1, 30):
            worker = kill(stage, worker, 10.0 * loss)
            stage.turn(10.0 * loss + 5)
    assert stage.states().keys() <= {JobState.QUEUED, JobState.RUNNING}


def test_a_job_that_kills_alone_is_quarantined_and_no_sign_of_a_sick_cluster(scene):
    stage = scene([a_job(row=1)])
    worker = "w1"
    stage.turn(0.0)
    for loss in range(1, 4):
        worker = kill(stage, worker, 10.0 * loss)
        stage.turn(10.0 * loss + 5)
    assert stage.states() == {JobState.QUARANTINED: 1}
    assert stage.world.losses == 1


def test_a_cluster_that_dies_blames_none_of_the_jobs(scene):
    # given two workers with a job each
    jobs: list[Job] = [a_job(row=row) for row in (1, 2)]
    stage = scene(jobs, "w1", "w2")
    stage.turn(0.0)

    # when both go with their machine
    for worker in ("w1", "w2"):
        stage.dispatcher.loses(worker, 1.0, f"{worker}.2", is_blameless=True)
    stage.turn(1.0)

    # then both jobs wait again, and no attempt counts
    assert stage.states() == {JobState.QUEUED: 2}
    assert stage.heard.outcomes == []
    assert len(offered(stage)) == 2


def test_videos_that_were_stored_when_a_run_broke_off_are_done(scene):
    from vidplat.platform.run.heeding import find_committed

    stage = scene(2, look_ahead_s=100.0)
    stage.turn(0.0)
    stage.commits(stage.dispatcher.sent["w1"][0])
    find_committed(stage.world)
    assert stage.states() == {JobState.DONE: 1, JobState.RUNNING: 1}
