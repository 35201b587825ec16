"""What an event means: for what is in hand, for the plan, for what is known of seconds.

    Progress     of something in hand is kept for the next heartbeat
    Outcome      is on its way into the catalog, and taught from
    HandedOver   goes to whoever will be through with the draft first (`hand_over`), sent at once or
                 kept for a worker that is still starting
    WorkerUp     gets the drafts that waited for it; plans may count on it
    WorkerLost   what it was making takes the blame

What is said of an order that is in nobody's hand any more is of no interest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vidplat.domain import Artifact, Failure, FailureKind, Outcome, Progress
from vidplat.errors import ModelError, StoreError, printable
from vidplat.platform.dispatch.dispatcher import Event, HandedOver, WorkerLost, WorkerUp
from vidplat.platform.run.hands import InHand, in_making
from vidplat.platform.run.score import worked_s
from vidplat.platform.run.world import World
from vidplat.scheduler.profile import quality_of
from vidplat.storage.artifacts import repair

_LEAST_OF_P50 = 0.7  # a job that took less than this share of its p50 was quicker than foreseen


def heed(world: World, event: Event) -> None:
    match event:
        case Progress():
            if held := world.hands.find(event.worker_id, event.job_id, event.attempt):
                held.note(event)
                held.silent_since = None
                world.fresh[event.job_id] = event
                world.listener.progress(event)
        case Outcome():
            if held := world.hands.take(event.worker_id, event.job_id, event.attempt):
                _end(world, held, event)
        case HandedOver():
            if held := world.hands.take(event.worker_id, event.job_id, event.attempt):
                pass_on(world, held, event)
        case WorkerUp():
            _welcome(world, event)
        case WorkerLost():
            _mourn(world, event)


def _end(world: World, held: InHand, outcome: Outcome) -> None:
    world.fresh.pop(outcome.job_id, None)
    job, promised = held.order.job, held.order.assignment
    if outcome.ok and outcome.point != promised.point:  # cut short by its `finish_by`
        quality = quality_of(world.learner.shapes[job.model.id], job.spec, outcome.point)
        outcome = replace(outcome, quality=quality)
    world.endings.add(held, outcome)
    if not outcome.ok:
        world.untidy = True
        world.plan_age.call(urgent=True)
        if outcome.failure is not None and outcome.failure.kind is FailureKind.METHOD:
            world.learner.refused(job.model.id, promised.point)
        return
    world.losses = 0
    if world.killers:
        world.killers.discard(job.id)
        world.plan_age.call(urgent=True)
    world.learner.finished(outcome, job, world.device_classes)
    took_s = worked_s(held.order, outcome)
    if world.deadlines_ahead and not _LEAST_OF_P50 * promised.p50_s <= took_s <= promised.p90_s:
        world.plan_age.call()


def _welcome(world: World, up: WorkerUp) -> None:
    world.device_classes[up.worker_id] = up.device_class
    asked_at = world.asked_at.get(up.worker_id)
    if asked_at is not None:
        calibrated_s = sum(float(row["seconds"]) for row in up.observations)
        startup_s = max(0.0, up.at - asked_at - up.load_s - calibrated_s)
        world.learner.started(up, world.batch.model.id, startup_s)
    send_waiting(world, up.worker_id)
    world.plan_age.call(urgent=True)


def _mourn(world: World, lost: WorkerLost) -> None:
    """The order that it was making, or stalled in, takes the blame; those behind it, not begun, and
    those that were being stored go back freely, as all do when its machine went.

    An order whose video is committed already did end, only its Outcome was lost on the way. A draft
    of another worker is whole: what was to be done with it is done once more, elsewhere.
    """
    world.untidy = True
    world.last_loss = printable(lost.reason)
    world.following = world.following.without(lost.worker_id)
    world.listener.warn(f"worker {lost.worker_id} was lost: {world.last_loss}")
    if lost.request_is_wrong:
        raise ModelError(world.last_loss)
    if lost.successor is not None:
        world.asked_at[lost.successor] = world.now()
    open_ones: list[InHand] = []
    for held in world.hands.drop(lost.worker_id):
        artifact, drafted = _committed(world, held), held.order.drafted
        if artifact is not None:
            _end_lost(world, held, lost, artifact)
        elif drafted and drafted.worker_id != lost.worker_id and not held.passed_on:
            pass_on(world, replace(held, passed_on=True), drafted)
        else:
            open_ones.append(held)
    blamed = _to_blame(lost, open_ones)
    if blamed is not None:
        _end_lost(world, blamed, lost, None)
    world.endings.give_back(held for held in open_ones if held is not blamed)
    killer = None if blamed is None else blamed.order.job.id
    world.losses += killer not in world.killers
    if killer is not None:
        world.killers.add(killer)
    world.plan_age.call(urgent=True)


def _to_blame(lost: WorkerLost, held: Sequence[InHand]) -> InHand | None:
    if lost.is_blameless:
        return None
    if lost.stalled is None:
        return in_making(held)
    return next((each for each in held if each.order.job.id == lost.stalled), None)


def find_committed(world: World) -> None:
    """At the end of a run that was broken off: videos that are in the store, though nobody could
    tell us, are done."""
    for held in list(world.hands):
        if (artifact := _committed(world, held)) is not None:
            job_id = held.order.job.id
            world.site.catalog.mark_done(world.batch.id, job_id, artifact, world.now())


def _committed(world: World, held: InHand) -> Artifact | None:
    try:
        found = repair(world.site.store, world.batch.id, held.order.job.id)
    except StoreError:  # then it runs again, and loses to the commit that is there
        return None
    return found.artifact if found else None


def _end_lost(world: World, held: InHand, lost: WorkerLost, artifact: Artifact | None) -> None:
    """The end of an order that its worker can no longer tell: committed, or lost with it."""
    order, why = held.order, f"worker {lost.worker_id} was lost: {world.last_loss}"
    world.tally.worker_lost(order.job.id)
    outcome = Outcome(
        job_id=order.job.id,
        attempt=order.attempt,
        worker_id=lost.worker_id,
        point=order.assignment.point,
        started_at=held.sent_at,
        finished_at=world.now(),
        artifact=artifact,
        failure=None if artifact else Failure(FailureKind.WORKER_LOST, why),
        steps_done=held.progress.step if held.progress else 0,
    )
    world.endings.add(held, outcome)


# --- drafts --------------------------------------------------------------------------------------


def pass_on(world: World, held: InHand, drafted: HandedOver) -> None:
    """Give a draft to whoever will be through with it first."""
    now, order = world.now(), replace(held.order, hand_over=False, drafted=drafted)
    planned_s = world.following.planned_s(drafted.worker_id)
    found = world.hand_over.finisher(held, drafted, now, planned_s)
    if found is None:
        world.endings.give_back([replace(held, order=replace(order, drafted=None))])
        return
    worker_id, rest = found
    fresh = InHand(
        order, held.open_job, rest, now, passed_on=held.passed_on, held_by=worker_id, is_sent=False
    )
    world.hands.put(worker_id, fresh)
    if any(seat.worker_id == worker_id and seat.up for seat in world.dispatcher.seats()):
        send_waiting(world, worker_id)  # else it waits here until that worker is up


def send_waiting(world: World, worker_id: str) -> None:
    """Send a worker the drafts that waited for it to come up."""
    for held in world.hands.of(worker_id):
        if not held.is_sent:
            held.is_sent = True
            world.dispatcher.send(worker_id, [held.order])
            world.site.crash_point("handed-over")


def bind_waiting_anew(world: World) -> None:
    """Give drafts that wait for a light worker to whoever is now thought to be through first."""
    for seat in world.dispatcher.seats():
        if seat.light and not seat.up:
            for held in world.hands.drop(seat.worker_id):
                assert held.order.drafted is not None, "light workers hold nothing else"
                pass_on(world, held, held.order.drafted)
