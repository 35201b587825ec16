"""A draft goes to whoever is through with it first, and plans count on the light workers that are
up. The workers are a script.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.builders import FLIPBOOK, a_job, a_shape, an_open_job
from tests.platform.builders import a_seat, an_assignment
from tests.platform.scene import SECONDS, Scene
from vidplat.domain import Artifact, JobState, OperatingPoint, Outcome, Progress
from vidplat.errors import ClusterError
from vidplat.methods.eco.budget import budgets
from vidplat.methods.frames import kept_latents
from vidplat.platform.dispatch.dispatcher import HandedOver, Order, WorkerUp
from vidplat.platform.run.hands import InHand
from vidplat.platform.run.promise import make_promise
from vidplat.platform.run.turn import observe
from vidplat.platform.run.window import Queue
from vidplat.scheduler import plan
from vidplat.scheduler.cost import Observation
from vidplat.scheduler.work import features
from vidplat.workers.draft import Draft


def with_light(stage: Scene, *worker_ids: str) -> None:
    for worker_id in worker_ids:
        stage.dispatcher.places[worker_id] = a_seat(worker_id, pool="edge", light=True)
        stage.dispatcher.sent[worker_id] = []


def hands_over(stage: Scene, order: Order, at: float, worker_id: str = "w1") -> HandedOver:
    draft = Draft(b"frames", 20_000, {}, {}, {"denoise": 8.0}, {}, 24)
    event = HandedOver(order.job.id, order.attempt, worker_id, draft, started_at=at - 8.0, at=at)
    stage.dispatcher.events.append(event)
    return event


def finishes(stage: Scene, order: Order, worker_id: str, at: float) -> None:
    assert order.drafted is not None
    artifact = Artifact("/o/v/video.mp4", "/o/v/p", "/o/v/m", "0" * 64, 1, order.attempt)
    phases = {"denoise": 8.0, "network": 0.1, "reconstruct": 0.3, "mp4": 0.1, "store": 0.1}
    stage.dispatcher.events.append(
        Outcome(
            order.job.id,
            order.attempt,
            worker_id,
            order.assignment.point,
            order.drafted.started_at,
            at,
            phases,
            artifact=artifact,
            metrics={"draft_bytes": 20_000.0},
            drafted_by=order.drafted.worker_id,
        )
    )


def test_without_light_workers_nobody_is_asked_for_a_draft(scene):
    stage = scene(1)
    stage.turn(0.0)
    assert [order.hand_over for order in stage.dispatcher.sent["w1"]] == [False]


def test_a_draft_goes_to_an_idle_light_worker_and_its_maker_gets_the_next_job(scene):
    # given
    stage = scene(2)
    with_light(stage, "e1")
    stage.turn(0.0)
    (order,) = stage.dispatcher.sent["w1"]
    assert order.hand_over

    # when
    drafted = hands_over(stage, order, at=8.0)
    stage.turn(8.0)

    # then
    (rest,) = stage.dispatcher.sent["e1"]
    assert (rest.job, rest.attempt, rest.drafted) == (order.job, order.attempt, drafted)
    assert stage.in_hand() == [1, 2]

    # and its end is the job's end
    finishes(stage, rest, "e1", at=8.6)
    stage.turn(8.6)
    assert stage.states() == {JobState.DONE: 1, JobState.RUNNING: 1}
    assert [outcome.drafted_by for outcome in stage.heard.outcomes] == ["w1"]


@pytest.mark.parametrize(("late_s", "is_asked"), [(0.0, True), (100.0, False)])
def test_a_draft_is_asked_for_when_a_light_worker_is_expected_before_it_is_there(
    scene, late_s, is_asked
):
    # given a light worker that is still coming, and one that should have been up long ago
    stage = scene(1)
    with_light(stage, "e1")
    seat = stage.dispatcher.places["e1"]
    startup_s = stage.world.learner.startup(FLIPBOOK.id, seat.device_class).p50_s
    assert startup_s < SECONDS
    stage.dispatcher.places["e1"] = replace(seat, up=False, since=-late_s)

    stage.turn(0.0)

    assert [order.hand_over for order in stage.dispatcher.sent["w1"]] == [is_asked]


def still_coming(stage: Scene, worker_id: str, since: float = 0.0) -> float:
    """Nobody has heard of that light worker yet; when it is expected."""
    seat = replace(stage.dispatcher.places[worker_id], up=False, since=since)
    stage.dispatcher.places[worker_id] = seat
    return since + stage.world.learner.startup(FLIPBOOK.id, seat.device_class).p50_s


def comes_up(stage: Scene, worker_id: str, at: float) -> None:
    stage.dispatcher.places[worker_id] = replace(
        stage.dispatcher.places[worker_id], up=True, since=at
    )
    stage.dispatcher.events.append(WorkerUp(worker_id, "cpu-2", 0, 1.0, at=at))


def a_draft_made_before_its_light_worker_is_up(scene, *makers: str, before_s: float = 1.0):
    """A stage at which a maker that needs 6 s to store hands over so long before its light worker
    is expected, and has not been heard; that draft, and when the light worker is expected."""
    stage = scene([a_job(method="eco:k=5")], *makers)
    behind_a_thin_link(stage)
    with_light(stage, "e1")
    stage.dispatcher.places["e1"] = replace(stage.dispatcher.places["e1"], device_class="cpu-2")
    up_at = still_coming(stage, "e1")
    stage.turn(0.0)
    (order,) = stage.dispatcher.sent["w1"]
    return stage, hands_over(stage, order, at=up_at - before_s), up_at


def drafts_sent(stage: Scene, worker_id: str) -> list[HandedOver | None]:
    return [order.drafted for order in stage.dispatcher.sent[worker_id]]


def test_a_draft_waits_for_a_light_worker_that_will_be_through_before_its_maker(scene):
    stage, drafted, up_at = a_draft_made_before_its_light_worker_is_up(scene)

    # nobody gets it until that is up
    stage.turn(up_at - 1.0)
    assert drafts_sent(stage, "w1") == [None]
    assert drafts_sent(stage, "e1") == []
    comes_up(stage, "e1", up_at)
    stage.turn(up_at)
    assert drafts_sent(stage, "e1") == [drafted]


def test_a_draft_that_is_heard_of_just_before_its_light_worker_is_up_is_sent_once(scene):
    stage, drafted, up_at = a_draft_made_before_its_light_worker_is_up(scene, before_s=0.0)
    comes_up(
        stage, "e1", up_at
    )  # both are heard in one turn, and by then its seat says that it is up
    stage.turn(up_at)
    assert drafts_sent(stage, "e1") == [drafted]


def test_a_draft_that_waited_in_vain_is_finished_by_its_maker(scene):
    stage, drafted, up_at = a_draft_made_before_its_light_worker_is_up(scene)
    stage.turn(up_at - 1.0)

    # when the light worker is late by more than its maker's storing takes
    stage.turn(up_at + 20.0)

    assert drafts_sent(stage, "w1") == [None, drafted]
    assert drafts_sent(stage, "e1") == []


def test_a_draft_that_waits_for_a_light_worker_that_is_lost_is_finished_by_its_maker(scene):
    stage, drafted, up_at = a_draft_made_before_its_light_worker_is_up(scene)
    stage.turn(up_at - 1.0)
    stage.dispatcher.loses("e1", up_at - 0.5)
    stage.turn(up_at - 0.5)
    assert drafts_sent(stage, "w1") == [None, drafted]


def test_a_draft_whose_maker_is_lost_does_not_wait_for_a_light_worker_that_may_never_come(scene):
    stage, drafted, up_at = a_draft_made_before_its_light_worker_is_up(scene, "w1", "w2")
    stage.turn(up_at - 1.0)
    stage.dispatcher.loses("w1", up_at - 0.5)
    for at in range(3):  # with the next heartbeat
        stage.turn(up_at + 100.0 + at)
    assert drafts_sent(stage, "w2") == [drafted]


@pytest.mark.parametrize(("late_s", "counts"), [(0.0, True), (100.0, False)])
def test_plans_count_on_a_light_worker_that_is_still_starting_until_it_should_be_up(
    scene, late_s, counts
):
    # given a video that its maker alone has no time to make well, and a light worker that is up
    # before the deadline
    stage = a_thin_scene(scene, "e1", deadline_at=12.0)
    still_coming(stage, "e1", since=-late_s)
    world = stage.world
    (alone,) = plan(
        replace(observe(world), finishers=()), world.policy, world.learner.knowledge
    ).assignments
    stage.turn(0.0)

    # then it is made better, and not said to be there before that worker is up
    planned = stage.dispatcher.sent["w1"][0].assignment
    assert (planned.quality > alone.quality + 0.01) is counts
    assert not counts or planned.finish_p50_at > 10.0


def test_of_two_light_workers_the_one_with_less_in_hand_gets_it(scene):
    stage = scene(3, "w1", "w2")
    with_light(stage, "e1", "e2")
    stage.turn(0.0)
    first, second = stage.dispatcher.sent["w1"][0], stage.dispatcher.sent["w2"][0]
    hands_over(stage, first, 8.0, "w1")
    hands_over(stage, second, 8.0, "w2")
    stage.turn(8.0)
    assert [len(stage.dispatcher.sent[worker]) for worker in ("e1", "e2")] == [1, 1]


def test_a_draft_stays_with_its_maker_when_light_workers_would_take_longer(scene):
    # given a light worker that is busy for far longer than filling in takes
    stage = scene(1)
    with_light(stage, "e1")
    stage.turn(0.0)
    (order,) = stage.dispatcher.sent["w1"]
    (held,) = stage.world.hands.of("w1")
    other = replace(order, job=replace(order.job, id="f" * 40))
    stage.world.hands.put(
        "e1", replace(held, order=other, stages={"reconstruct": 100.0}, sent_at=8.0)
    )

    # when
    hands_over(stage, order, at=8.0)
    stage.turn(8.0)

    # then
    assert stage.dispatcher.sent["e1"] == []
    assert [each.drafted is not None for each in stage.dispatcher.sent["w1"]] == [False, True]


def test_a_busy_maker_leaves_a_draft_to_a_light_worker_that_is_through_first(
    scene,
):
    # given a light worker that needs 15 s, and a maker that has 10 s in hand and 20 s planned
    # behind that
    stage = scene(4)
    with_light(stage, "e1")
    stage.turn(0.0)
    stage.turn(SECONDS - 0.5)
    order = stage.dispatcher.sent["w1"][0]
    (held, *_) = stage.world.hands.of("w1")
    other = replace(order, job=replace(order.job, id="f" * 40))
    stage.world.hands.put(
        "e1", replace(held, order=other, stages={"reconstruct": 15.0}, sent_at=SECONDS)
    )

    # when
    drafted = hands_over(stage, order, at=SECONDS)
    stage.turn(SECONDS)

    # then
    assert [each.drafted for each in stage.dispatcher.sent["e1"]] == [drafted]


@pytest.mark.parametrize(("maker_store_s", "whose"), [(10.0, "e1"), (0.02, "w1")])
def test_a_maker_does_not_store_over_the_link_that_drafts_are_still_to_travel_on(
    scene, maker_store_s, whose
):
    # given a link that takes 8 s for a draft
    stage = scene([a_job(row=row, method="eco:k=5") for row in (1, 2)])
    behind_a_thin_link(stage, store_s=maker_store_s)
    with_light(stage, "e1")
    stage.dispatcher.places["e1"] = replace(stage.dispatcher.places["e1"], device_class="cpu-2")
    seen = Outcome(
        "j",
        1,
        "e1",
        OperatingPoint(24, "eco:k=5"),
        0.0,
        8.0,
        {"network": 8.0},
        metrics={"draft_bytes": 20_000.0},
        drafted_by="w1",
    )
    stage.world.learner.finished(seen, a_job(), {"e1": "cpu-2", "w1": "cpu-1"})
    stage.turn(0.0)
    stage.turn(SECONDS - 0.5)

    # when the second of two comes at once: 16 s by the light worker; by its maker what storing
    # takes, alone on the link
    drafts = [hands_over(stage, order, at=SECONDS) for order in stage.dispatcher.sent["w1"]]
    stage.turn(SECONDS)

    # then
    assert [order.drafted for order in stage.dispatcher.sent[whose] if order.drafted] == drafts


def test_a_draft_whose_light_worker_dies_is_finished_by_another_without_blame(scene):
    stage = scene(1)
    with_light(stage, "e1")
    stage.turn(0.0)
    (order,) = stage.dispatcher.sent["w1"]
    hands_over(stage, order, at=8.0)
    stage.turn(8.0)

    stage.dispatcher.loses("e1", 8.2)
    stage.turn(8.2)

    # its maker has it, in the same attempt
    again = stage.dispatcher.sent["w1"][-1]
    assert (again.attempt, again.drafted is not None) == (order.attempt, True)
    finishes(stage, again, "w1", at=9.0)
    stage.turn(9.0)
    assert stage.states() == {JobState.DONE: 1}


def test_a_draft_that_kills_two_workers_is_a_failed_attempt(scene):
    stage = scene(1)
    with_light(stage, "e1", "e2")
    stage.turn(0.0)
    (order,) = stage.dispatcher.sent["w1"]
    hands_over(stage, order, at=8.0)
    stage.turn(8.0)
    for worker, at in (("e1", 8.2), ("e2", 8.4)):
        stage.dispatcher.loses(worker, at)
        stage.turn(at)
        stage.turn(at + 0.05)

    failed = [each for each in stage.catalog.attempts("b1", order.job.id) if each.counts]
    assert len(failed) == 1
    assert [outcome.worker_id for outcome in stage.heard.outcomes] == ["e2"]
    again = stage.dispatcher.sent["w1"][-1]
    assert (again.attempt, again.drafted) == (2, None)


def test_a_draft_outlives_its_maker(scene):
    stage = scene(1, "w1", "w2")
    with_light(stage, "e1")
    stage.turn(0.0)
    worker = next(w for w in ("w1", "w2") if stage.dispatcher.sent[w])
    order = stage.dispatcher.sent[worker][0]
    hands_over(stage, order, 8.0, worker)
    stage.turn(8.0)

    stage.dispatcher.loses(worker, 8.1)
    stage.turn(8.1)
    finishes(stage, stage.dispatcher.sent["e1"][0], "e1", at=8.6)
    stage.turn(8.6)

    assert stage.states() == {JobState.DONE: 1}


def test_light_workers_are_given_no_jobs_and_no_promise_rests_on_them(scene):
    stage = scene(6)
    with_light(stage, "e1", "e2")
    for at in range(5):
        stage.turn(float(at))
    assert stage.dispatcher.sent["e1"] == stage.dispatcher.sent["e2"] == []

    learner, jobs = stage.world.learner, list(stage.catalog.open_jobs("b1"))
    with_them, without = (
        make_promise(stage.batch, Queue(jobs, len(jobs)), seats, learner, 0.0)
        for seats in (stage.dispatcher.seats(), stage.dispatcher.seats()[:1])
    )
    assert with_them.plan == without.plan


def test_what_each_worker_did_teaches_about_its_own_device_class(scene):
    # given a light worker of another class
    stage = scene(2)
    with_light(stage, "e1")
    stage.dispatcher.places["e1"] = replace(stage.dispatcher.places["e1"], device_class="cpu-7")
    stage.turn(0.0)
    stage.turn(SECONDS - 0.5)  # its maker has the next job in hand by now
    order = stage.dispatcher.sent["w1"][0]
    hands_over(stage, order, at=SECONDS)
    stage.turn(SECONDS)

    finishes(stage, stage.dispatcher.sent["e1"][0], "e1", at=SECONDS + 1)
    stage.turn(SECONDS + 1)

    costs, model = stage.world.learner.costs, order.job.model.id
    assert costs.samples(model, "cpu-7", "denoise") == 0
    assert costs.samples(model, "cpu-7", "mp4") == 1
    assert costs.samples(model, "cpu-7", "network") == 1


def test_what_a_maker_did_teaches_about_its_class_when_it_is_gone(scene):
    # given a maker of another class than its fellow's, with more to do, whose draft is with a
    # light worker
    stage = scene(4, "w1", "w2")
    stage.dispatcher.places["w1"] = replace(stage.dispatcher.places["w1"], device_class="cpu-2")
    with_light(stage, "e1")
    stage.turn(0.0)
    (order,) = stage.dispatcher.sent["w1"]
    hands_over(stage, order, at=4.0)
    stage.turn(4.0)
    model = order.job.model.id

    def timings() -> list[int]:
        costs = stage.world.learner.costs
        return [costs.samples(model, name, "denoise") for name in ("cpu-1", "cpu-2")]

    others, its = timings()

    # when it is lost, and the video is finished
    stage.dispatcher.loses("w1", 4.1)
    stage.turn(4.1)
    finishes(stage, stage.dispatcher.sent["e1"][0], "e1", at=4.6)
    stage.turn(4.6)

    assert timings() == [others, its + 1]


def test_a_batch_with_only_light_workers_left_ends_with_that_reason(scene):
    stage = scene(1)
    with_light(stage, "e1")
    stage.turn(0.0)
    stage.dispatcher.loses("w1", 1.0)
    with pytest.raises(ClusterError, match="every worker was lost"):
        for at in range(2, 200):
            stage.turn(float(at))


# --- keyframes follow what a hand-over makes time for ---------------------------------------------


def behind_a_thin_link(stage: Scene, store_s: float = 6.0) -> None:
    """Storing takes makers (cpu-1) long, and light workers (cpu-2) next to nothing."""
    learner = stage.world.learner
    spec = a_job().spec
    counted = features(a_shape(), spec, OperatingPoint(spec.num_inference_steps))["store"]
    known = {
        key: cost for key, cost in learner.costs.stages.items() if key[1:] != ("cpu-1", "store")
    }
    learner.costs = replace(learner.costs, stages=known)
    for _ in range(40):
        learner.costs = learner.costs.observe(
            Observation(FLIPBOOK.id, "cpu-1", "store", counted, store_s)
        )


def kept(stage: Scene, worker_id: str = "w1") -> list[int]:
    """Latent frames, of nine, that each order sent is to keep."""
    return [
        kept_latents(order.assignment.point.method, 9) for order in stage.dispatcher.sent[worker_id]
    ]


def planned(stage: Scene) -> list[int]:
    """The same as a plan for makers alone has it."""
    world = stage.world
    decided = plan(replace(observe(world), finishers=()), world.policy, world.learner.knowledge)
    return [kept_latents(each.point.method, 9) for each in decided.assignments]


def a_thin_scene(
    scene, *light: str, method: str = "eco", deadline_at: float | None = 10.0
) -> Scene:
    stage = scene([a_job(method=method)], deadline_at=deadline_at)
    behind_a_thin_link(stage)
    with_light(stage, *light)
    for worker_id in light:
        stage.dispatcher.places[worker_id] = replace(
            stage.dispatcher.places[worker_id], device_class="cpu-2"
        )
    return stage


def test_what_the_edge_stores_leaves_its_maker_time_for_more_keyframes(scene):
    stage = a_thin_scene(scene, "e1")
    (few,) = planned(stage)
    stage.turn(0.0)

    (many,) = kept(stage)
    assert few < many
    # and that is what the catalog says of it
    (row,) = stage.catalog.jobs("b1")
    assert row.point is not None
    assert kept_latents(row.point.method, 9) == many


def test_when_the_light_workers_are_lost_plans_count_on_makers_alone(scene):
    stage = scene([a_job(row=row, method="eco") for row in (1, 2, 3)], deadline_at=28.0)
    behind_a_thin_link(stage)
    with_light(stage, "e1")
    stage.dispatcher.places["e1"] = replace(stage.dispatcher.places["e1"], device_class="cpu-2")
    stage.turn(0.0)
    assert [order.assignment.handed_s > 0 for order in stage.dispatcher.sent["w1"]] == [True]

    stage.dispatcher.loses("e1", 1.0)
    stage.turn(1.0)
    stage.turn(12.0)

    first, second = (order.assignment for order in stage.dispatcher.sent["w1"])
    assert second.handed_s == 0.0
    assert second.quality < first.quality - 0.05


def test_what_a_worker_leaves_to_another_is_not_in_its_way(scene):
    # given a job that its maker is through with 6 s before the video is stored
    stage = a_thin_scene(scene, "e1")
    stage.turn(0.0)
    (held,) = stage.world.hands.of("w1")
    assert "store" not in held.stages
    assert held.order.assignment.p50_s == pytest.approx(
        sum(held.stages.values()) + held.order.assignment.handed_s, rel=0.01
    )


def test_makers_whose_drafts_wait_for_one_light_worker_are_told_when_to_end(scene):
    # given two makers and one light worker, so that a video may come later than its own two halves
    # take
    stage = scene([a_job(row=row, method="eco") for row in (1, 2)], "w1", "w2", deadline_at=10.5)
    behind_a_thin_link(stage, store_s=4.0)
    with_light(stage, "e1")
    stage.dispatcher.places["e1"] = replace(stage.dispatcher.places["e1"], device_class="cpu-2")
    stage.turn(0.0)

    orders = [*stage.dispatcher.sent["w1"], *stage.dispatcher.sent["w2"]]
    assert [order.assignment.handed_s > 0 for order in orders] == [True, True]
    for order in orders:
        assert order.finish_by is not None
        assert order.finish_by <= 10.5 - order.assignment.handed_s


def test_a_busy_edge_leaves_the_plan_as_it_is(scene):
    stage = a_thin_scene(scene, "e1")
    other = a_job(row=9)
    order = Order(an_assignment(other.id, worker_id="e1"), other, 1)
    stage.world.hands.put("e1", InHand(order, an_open_job(other), {"reconstruct": 100.0}, 0.0))
    few = planned(stage)
    stage.turn(0.0)

    assert kept(stage) == few


def test_a_link_that_was_seen_to_be_slow_leaves_the_plan_as_it_is(scene):
    stage = a_thin_scene(scene, "e1")
    carried = Outcome(
        "j",
        1,
        "e1",
        OperatingPoint(24, "eco:k=5"),
        0.0,
        100.0,
        {"network": 90.0},
        metrics={"draft_bytes": 20_000.0},
        drafted_by="w1",
    )
    stage.world.learner.finished(carried, a_job(), {"e1": "cpu-2", "w1": "cpu-1"})
    few = planned(stage)
    stage.turn(0.0)

    assert kept(stage) == few


def test_a_draft_that_is_long_on_its_way_tells_that_the_link_has_become_slow(scene):
    # given a draft of 20 kB that has been on its way for 50 s
    stage = a_thin_scene(scene, "e1")
    stage.turn(0.0)
    (order,) = stage.dispatcher.sent["w1"]
    hands_over(stage, order, at=8.0)
    stage.turn(8.0)
    stage.dispatcher.events.append(
        Progress(order.job.id, order.attempt, "e1", "network", 24, 24, 8.0)
    )
    stage.turn(8.0)
    assert [each.bits_per_s for each in observe(stage.world).finishers] == [None]

    stage.now = 58.0
    (finisher,) = observe(stage.world).finishers
    assert finisher.bits_per_s == pytest.approx(8 * 20_000 / 50.0)


def test_keyframes_that_were_asked_for_stay(scene):
    stage = a_thin_scene(scene, "e1", method="eco:k=3")
    stage.turn(0.0)
    assert kept(stage) == [3]


def test_without_a_deadline_the_most_that_a_plan_offers_are_kept(scene):
    stage = a_thin_scene(scene, "e1", deadline_at=None)
    stage.turn(0.0)
    assert kept(stage) == [max(budgets(9))]
