"""Where drafts go: each to whoever will be through with it first (`hand_over`), sent or kept for a
worker that is still starting.
"""

from __future__ import annotations

from dataclasses import replace

from vidplat.platform.dispatch.dispatcher import HandedOver
from vidplat.platform.run.hands import InHand
from vidplat.platform.run.world import World


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
