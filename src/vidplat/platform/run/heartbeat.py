"""Once a second: progress and outlook written, leases kept, other processes heard; workers that are
absent, silent or lost too often noticed.

A worker says something at each phase and step of a job. One that has said nothing for ten times as
long as that should take, and for `run.stall_s` at least, hangs in it: it is given up, and the job
is tried elsewhere. A run that was asked to end waits three times as long, and ten seconds.
"""

from __future__ import annotations

from vidplat.errors import CatalogError, ClusterError
from vidplat.platform.dispatch.dispatcher import DRAFT_PART_WITHIN_S, Seat
from vidplat.platform.run.hands import InHand, in_making
from vidplat.platform.run.heeding import bind_waiting_anew
from vidplat.platform.run.owners import HoldLost
from vidplat.platform.run.world import World
from vidplat.stages import DENOISE, MP4, NETWORK, STORE

_RENEWALS_PER_LEASE = 6
_LONGEST_LOOK_S = 2.0  # between two beats, of what counts as silence: we may have slept ourselves
_STALLED = 10.0  # times the predicted seconds of a step or phase
_STALLED_AT_END = 3.0
_STALL_AT_END_S = 10.0
_FEWEST_LOSSES = 12  # in a row, that end a run
_LOSSES_PER_WORKER = 6


def beat(world: World) -> None:
    """Raises HoldLost when another process has the batch now, ClusterError when no worker came up
    or too many were lost, and CatalogError when the catalog has refused for minutes."""
    now, config = world.now(), world.config
    since_s = now - world.beat_at
    if 0 <= since_s < config.heartbeat_s:
        return
    world.beat_at = now
    world.watched_s += min(max(since_s, 0.0), _LONGEST_LOOK_S)
    bind_waiting_anew(world)
    try:
        _report(world)
        if now - world.renewed_at >= config.lease_s / _RENEWALS_PER_LEASE:
            world.renewed_at = now
            _renew(world, now)
        _tell_outlook(world)
        world.state = world.site.catalog.batch_state(world.batch.id)
    except CatalogError as error:
        world.endings.excuse(error)
    _check_stalls(world)
    _check_seats(world, now)


def _report(world: World) -> None:
    """Progress into the catalog; jobs that were cancelled there are stopped."""
    fresh, world.fresh = list(world.fresh.values()), {}
    if not fresh:
        return
    gone = world.site.catalog.heartbeat(world.batch.id, fresh, lease_s=world.config.lease_s)
    for held in world.hands:
        if held.order.job.id in gone:
            world.dispatcher.cancel(held.worker_id, [held.order.job.id])


def _tell_outlook(world: World) -> None:
    """For whoever watches from elsewhere."""
    if (plan := world.untold) is not None:
        world.site.catalog.foresee(world.batch.id, plan.finish_p50_at, plan.finish_p90_at)
        world.untold = None


def _renew(world: World, now: float) -> None:
    catalog, owner, batch_id = world.site.catalog, world.site.owner, world.batch.id
    lease_s = world.config.lease_s
    catalog.renew(batch_id, owner, lease_s=lease_s)
    if catalog.hold_batch(batch_id, owner, lease_s=lease_s) != owner:
        raise HoldLost(f"another process works on batch {batch_id} now; this one waits for it")
    catalog.save_workers(batch_id, world.worker_states(world.dispatcher.seats(), now), now=now)
    world.learner.save()


def _check_stalls(world: World) -> None:
    """Give up workers that have said nothing of their job for too long."""
    for seat in world.dispatcher.seats():
        its = world.hands.of(seat.worker_id)
        for held in its:
            has_begun = held.progress is not None or held is in_making(its)
            waits_to_store = held.phase == MP4 and any(each.is_made for each in its)
            if not seat.up or not held.is_sent or not has_begun or waits_to_store:
                held.silent_since = None
                continue
            if held.silent_since is None:
                held.silent_since = world.watched_s
            silent_s = world.watched_s - held.silent_since
            if silent_s > _patience_s(world, seat, held):
                where = held.phase or "starting"
                reason = f"it hangs in {where}: nothing was heard for {silent_s:.0f} s"
                world.dispatcher.dismiss(seat.worker_id, reason, held.order.job.id)
                break


def _patience_s(world: World, seat: Seat, held: InHand) -> float:
    """How long a worker may say nothing of what it does now."""
    job = held.order.job
    if held.phase in held.stages:
        predicted_s = held.stages[held.phase]
        if held.phase == DENOISE and held.progress is not None:
            predicted_s /= max(1, held.progress.steps)
    else:  # it may have to load another model first
        predicted_s = world.learner.startup(job.model.id, seat.device_class).p90_s
    least_s, times = world.config.stall_s, _STALLED
    if world.draining:
        least_s, times = min(least_s, _STALL_AT_END_S), _STALLED_AT_END
    if held.phase in (NETWORK, STORE):  # a request may take minutes of a thin link
        least_s = max(least_s, DRAFT_PART_WITHIN_S)
    return max(least_s, times * predicted_s)


def _check_seats(world: World, now: float) -> None:
    makers, limit_s = world.makers(), world.config.start_timeout_s
    if not makers and not len(world.endings):
        raise ClusterError(f"every worker was lost; the last one: {world.last_loss}")
    if world.losses >= max(_FEWEST_LOSSES, _LOSSES_PER_WORKER * len(makers)):
        raise ClusterError(
            f"{world.losses} workers in a row were lost, and nothing was made in between; the last "
            f"one: {world.last_loss}"
        )
    is_waited_for = any(not seat.has_place for seat in world.dispatcher.seats())
    absent = world.dispatcher.absent() if is_waited_for else {}
    world.tell_absent(absent)
    # What others have will be free one day; what nobody has may never come.
    hopeless = [
        seat
        for seat in makers
        if not seat.up
        and now - seat.since > limit_s
        and not ((found := absent.get(seat.worker_id)) and found.is_taken)
    ]
    if makers and len(hopeless) == len(makers):
        why = next((each.why for each in absent.values()), "see that workers can start there")
        raise ClusterError(f"no worker came up within {limit_s:.0f} s: {why}")
