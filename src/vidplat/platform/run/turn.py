"""One turn of the loop: hear what happened, observe, plan, carry out.

A plan is made anew when something happened that it did not foresee (a worker came or went, a job
failed or took other than its p90 said, a worker has nothing left to do), not after every job; in
between it is followed. What an event means is said in `heeding`, what is due in `following`, how
leases are kept in `heartbeat`; `world` is all that lives between two turns.

Left to others: whether to begin (`promise`), failures (`scheduler.retry`), transport (`dispatch`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from vidplat.errors import CatalogError
from vidplat.platform.dispatch.dispatcher import Event, Order
from vidplat.platform.run.following import Due, Following, why_stuck
from vidplat.platform.run.hands import InHand
from vidplat.platform.run.heartbeat import beat
from vidplat.platform.run.heeding import heed
from vidplat.platform.run.plan_records import claim
from vidplat.platform.run.world import World
from vidplat.scheduler import plan
from vidplat.scheduler.decision import Plan, Snapshot
from vidplat.storage.catalog_words import BatchState

_LINGER_S = 0.02  # when every worker has plenty to do


def begin(world: World) -> None:
    """The workers are about to be asked for; read what there is to do."""
    now = world.now()
    world.asked_at |= {seat.worker_id: now for seat in world.dispatcher.seats()}
    world.read_window()


def take_turn(world: World) -> None:
    # 1. Hear.
    for event in _listen(world):
        heed(world, event)
    world.endings.write()
    if _needs_plan(world):
        # 2. Observe.
        snapshot = observe(world)
        # 3. Plan.
        decided = plan(
            snapshot, world.policy, world.learner.knowledge, world.window.queue().backlog()
        )
        # 4. Carry out.
        _adopt(world, decided, observed_at=snapshot.now)
    _send_what_is_due(world)
    beat(world)


def is_over(world: World) -> bool:
    """Nothing in hand, nothing unwritten, and nothing left to begin (or no wish to)."""
    if len(world.hands) or len(world.endings):
        return False
    if world.draining or world.stuck or world.state is not BatchState.OPEN:
        return True
    if not world.window.jobs and not world.read_window():  # others may have put jobs back
        return False
    return not world.window.jobs


def drain(world: World) -> None:
    """Start nothing more, and take back what has not begun."""
    if world.draining:
        return
    world.draining = True
    for seat in world.dispatcher.seats():
        waiting = {held.order.job.id: held for held in world.hands.of(seat.worker_id)[1:]}
        taken = world.dispatcher.recall(seat.worker_id, list(waiting))
        back = [held for job_id, held in waiting.items() if job_id in taken]
        for held in back:
            world.hands.take(seat.worker_id, held.order.job.id, held.order.attempt)
        world.endings.give_back(back)
    world.endings.write()


# --- the steps ------------------------------------------------------------------------------------


def _listen(world: World) -> list[Event]:
    """What happened since the last turn; waits for something to happen, or something to be due."""
    world.note_device_classes()
    events = world.dispatcher.poll(world.following.wait_s(world.standing()))
    if events and world.standing().all_have_plenty:
        # Very short jobs: one transaction for many of them costs little more than for one.
        time.sleep(_LINGER_S)
        events += world.dispatcher.poll(0.0)
    return events


def _needs_plan(world: World) -> bool:
    """Whether the plan being followed has been overtaken, and it is time for the next."""
    if world.window.is_low and not len(world.endings):
        world.read_window()
    if world.draining or not world.window.jobs or world.state is not BatchState.OPEN:
        return False
    idle = world.following.has_idle(world.standing())
    return world.plan_age.is_due(world.now(), idle=idle, deadlines=world.deadlines_ahead)


def observe(world: World) -> Snapshot:
    now = world.now()
    return Snapshot(
        now=now,
        jobs=world.offered(),
        workers=world.worker_states(world.makers(), now),
        deadline_at=world.batch.deadline_at,
        finishers=world.hand_over.finishers(now),
    )


def _adopt(world: World, decided: Plan, observed_at: float) -> None:
    """Follow this plan from now on."""
    world.following, world.untold = Following.of(decided), decided
    world.listener.planned(decided, None)
    standing = world.standing()
    world.stuck = why_stuck(decided, standing)
    for seat in standing.seats:
        if moved := world.following.moved_ends(seat.worker_id, standing):
            _hurry(world, seat.worker_id, moved)
    world.plan_age.made(world.now(), world.now() - observed_at)


def _hurry(world: World, worker_id: str, ends: Mapping[str, float | None]) -> None:
    """Tell running jobs their new latest ends."""
    for held in world.hands.of(worker_id):
        job_id = held.order.job.id
        if job_id in ends:
            held.order = replace(held.order, finish_by=ends[job_id])
    world.dispatcher.hurry(worker_id, ends)


def _send_what_is_due(world: World) -> None:
    """Claim it in the catalog, then send it."""
    if world.draining or world.state is not BatchState.OPEN:
        return
    due, rest = world.following.due(world.standing())
    now = world.now()
    attempts = _claimed(world, due, now) if due else {}
    if attempts is None:
        return  # the catalog refuses for now: all of it stays due
    world.following = rest
    orders: dict[str, list[Order]] = {}
    for each in due:
        open_job, planned = world.window.jobs.pop(each.planned.job_id), each.planned
        if planned.job_id not in attempts:
            continue  # cancelled, or another process has it
        hand_over = world.hand_over.light_by(now + planned.p50_s, now)
        order = Order(planned, open_job.job, attempts[planned.job_id], each.finish_by, hand_over)
        held = InHand(order, open_job, each.stages, now, each.closing_s)
        world.hands.put(planned.worker_id, held)
        orders.setdefault(planned.worker_id, []).append(order)
    for worker_id, sent in orders.items():
        world.dispatcher.send(worker_id, sent)
    if due:
        world.site.crash_point("sent")


def _claimed(world: World, due: Sequence[Due], now: float) -> Mapping[str, int] | None:
    """The attempt of each job that is ours now, by its id; None where the catalog refuses."""
    claims = [claim(each.planned, world.site.owner) for each in due]
    catalog, batch_id = world.site.catalog, world.batch.id
    try:
        world.give_back_doubtful()
        attempts = catalog.claim(batch_id, claims, now=now, lease_s=world.config.lease_s)
    except CatalogError as error:
        world.in_doubt |= {each.job_id for each in claims}
        world.endings.excuse(error)
        return None
    world.site.crash_point("claimed")
    world.tally.dispatched(now)
    return attempts
