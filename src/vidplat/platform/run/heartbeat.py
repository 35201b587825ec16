"""Once a second: progress and outlook written, leases kept, other processes heard, absent workers
noticed."""

from __future__ import annotations

from vidplat.errors import CatalogError, ClusterError
from vidplat.platform.run.heeding import bind_waiting_anew
from vidplat.platform.run.world import World

_RENEWALS_PER_LEASE = 6


def beat(world: World) -> None:
    """Raises ClusterError when another process has the batch now, or no worker is left or came up,
    and CatalogError when the catalog has refused for minutes."""
    now, config = world.now(), world.config
    if now - world.beat_at < config.heartbeat_s:
        return
    world.beat_at = now
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
        raise ClusterError(f"another process has taken over batch {batch_id}; this one stops")
    catalog.save_workers(batch_id, world.worker_states(world.dispatcher.seats(), now), now=now)
    world.learner.save()


def _check_seats(world: World, now: float) -> None:
    seats, limit_s = world.makers(), world.config.start_timeout_s
    if not seats and not len(world.endings):
        raise ClusterError(f"every worker was lost; the last one: {world.last_loss}")
    if seats and all(not seat.up and now - seat.since > limit_s for seat in seats):
        raise ClusterError(
            f"no worker came up within {limit_s:.0f} s: see that the cluster has the CPUs, "
            "GPUs and pools asked for"
        )
