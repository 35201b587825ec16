"""Config becomes objects: the only place that constructs stores, catalogs, dispatchers and workers.

Each public function is one verb of the command line. Rooms that must not know each other meet here:
intake is handed what the workers know of models, the run is handed its dispatcher. What a worker
process puts together is in `dispatch/worker_tools`: it need not load what only the platform uses.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from vidplat import times
from vidplat.config import Config, PoolConfig, missing_catalog
from vidplat.domain import Batch, JobState, ModelRef, OpenJob
from vidplat.errors import ClusterError, UsageError, plain_place, printable
from vidplat.machines import has_gpus
from vidplat.methods.model_shape import ModelShape
from vidplat.platform.dispatch.dispatcher import (
    Dispatcher,
    Room,
    Seat,
    WorkerSpec,
    light_class,
)
from vidplat.platform.dispatch.worker_tools import crash_points_for, is_fake, open_tools
from vidplat.platform.intake.source_videos import SourceVideos, keep
from vidplat.platform.intake.strange_words import looked_over
from vidplat.platform.intake.take_in import Taken, take_in
from vidplat.platform.interface import BatchResult, Listener, PlanAnswer, SubmitRequest
from vidplat.platform.run.batch_run import Submitted, run_batch
from vidplat.platform.run.learning import Learner
from vidplat.platform.run.owners import this_owner
from vidplat.platform.run.promise import PLANNED_BY_NAME, make_promise
from vidplat.platform.run.reconcile import put_back_lost
from vidplat.platform.run.site import Site
from vidplat.platform.run.window import Queue
from vidplat.scheduler import wording
from vidplat.storage import open_catalog, open_store, read_prompts
from vidplat.storage.catalog_words import BatchState
from vidplat.storage.places import probe

if TYPE_CHECKING:
    from vidplat.platform.dispatch.ray_cluster import RayCluster
    from vidplat.storage.catalog import Catalog
    from vidplat.storage.stores import Store
    from vidplat.workers.models.vocabulary import Vocabulary

_FEW_SAMPLES = 6  # timings of a device class below which a worker measures itself first
_ROWS_PER_NOTE = 100_000


# --- the verbs ------------------------------------------------------------------------------------


def submit(request: SubmitRequest, config: Config, listener: Listener) -> BatchResult:
    """Make the batch so: intake, catalog, plan, workers, videos, records, score.

    Raises RequestError for a request that is wrong (every bad row at once, nothing enqueued) and
    InfrastructureError when catalog, store or cluster cannot be used. An infeasible plan, failed
    jobs, a missed deadline and Ctrl-C are ends of the story and come back in `exit_code`.
    """
    asked_at = request.submitted_at or times.now()
    _check_address(config)
    _need_gpus(config, config.model)
    store = open_store(config.output)
    with _taken(request, config, store, listener, asked_at) as taken:
        probe(store)
        if taken.inputs:
            listener.phase(f"keeping {_videos(len(taken.inputs))}")
            keep(store, taken.inputs, config.inputs.max_bytes)
        with closing(open_catalog(config.catalog)) as catalog:
            with suppress(UsageError):  # not submitted before
                _check_made(catalog.batch(taken.batch.id), catalog, store, listener)
            listener.phase(f"looking for {wording.jobs(taken.batch.total)} in the catalog")
            added = catalog.add_batch(taken.batch, taken.jobs)
            reused = added.reused
            if reused:
                reused -= _check_made(added.batch, catalog, store, listener)
            if to_make := added.inserted - reused:
                there = f"; {reused:,} are made already" if reused else ""
                listener.phase(f"enqueued {wording.jobs(to_make)}{there}")
            submitted = Submitted(asked_at, added.new, inserted=added.inserted, reused=reused)
            with _site(catalog, store, config, listener) as site:
                return run_batch(site, added.batch, submitted)


def plan_only(request: SubmitRequest, config: Config, listener: Listener) -> PlanAnswer:
    """What `submit` would promise. Reads rows and catalog; starts nothing and enqueues nothing."""
    now = request.submitted_at or times.now()
    _check_address(config)
    store = open_store(config.output)
    with _taken(request, config, store, listener, now) as taken, ExitStack() as stack:
        batch = taken.batch
        if (catalog := _catalog_if_there(config.catalog)) is not None:
            stack.enter_context(closing(catalog))
        learner = Learner(_describe, catalog, batch.id)
        learner.shapes |= taken.models
        queue = _still_open(catalog, taken)
        # Only one that runs already has anything to say: else Ray need not be loaded.
        cluster = stack.enter_context(_cluster(config)) if config.ray.address else None
        try:
            _need_gpus(config, batch.model.id)
        except UsageError as error:
            listener.warn(f"{error}; planned as if there were some, and submit refuses it here")
        try:
            seats = _seats(config, cluster, listener, store.url, batch, learner)
        except ClusterError as error:
            listener.warn(f"{error}; planned for the workers as they are configured")
            seats = _seats(config, None, listener, store.url, batch, learner)
        promise = make_promise(batch, queue, seats, learner, times.now(), now)
        reused = batch.total - queue.total
        return PlanAnswer(batch, promise.plan, promise.answer, batch.total, reused)


def resume(batch_id: str, config: Config, listener: Listener) -> BatchResult:
    """Repair catalog and store of an interrupted batch from each other, then run what is open.
    `batch_id` may be any unique prefix; raises RequestError when there is no such batch."""
    asked_at = times.now()
    _check_address(config)
    with closing(open_catalog(config.catalog)) as catalog:
        batch = catalog.batch(batch_id)
        if catalog.batch_state(batch.id) is BatchState.CANCELLED:
            raise UsageError(
                f"batch {batch.id} was cancelled: `vidplat retry {batch.id}` puts its jobs back"
            )
        _need_gpus(config, batch.model.id)
        store = open_store(batch.output_prefix)
        probe(store)
        _check_made(batch, catalog, store, listener)
        with _site(catalog, store, config, listener) as site:
            return run_batch(site, batch, Submitted(asked_at, resumed=True))


def cancel(batch_id: str, job_id: str | None, config: Config) -> int:
    """Cancel one job, or all open ones; returns how many. A running platform hears of it soon.
    Raises UsageError where there is nothing but what is finished."""
    with closing(open_catalog(config.catalog)) as catalog:
        batch = catalog.batch(batch_id)
        one = _whole_id(catalog, batch, job_id)
        if many := catalog.cancel(batch.id, one, now=times.now()):
            return many
        if one is None:
            is_cancelled = catalog.batch_state(batch.id) is BatchState.CANCELLED
        else:
            is_cancelled = catalog.find_job(one, batch.id)[0].state is JobState.CANCELLED
        if not is_cancelled:
            what = f"batch {batch.id}" if one is None else f"job {one[:12]} of {batch.id}"
            raise UsageError(f"{what} is finished: nothing is left to cancel, and videos stay")
        return 0


def retry(batch_id: str, job_id: str | None, config: Config) -> int:
    """Put failed, quarantined and cancelled jobs back; returns how many. `resume` runs them."""
    with closing(open_catalog(config.catalog)) as catalog:
        batch = catalog.batch(batch_id)
        return catalog.retry_failed(batch.id, _whole_id(catalog, batch, job_id), now=times.now())


# --- the parts of a run ---------------------------------------------------------------------------


def _need_gpus(config: Config, model_id: str) -> None:
    """Raises UsageError where workers are to use GPUs of this machine, and it has none: each would
    fail to start, and the one after it."""
    if (config.ray.address and not config.run.local) or is_fake(model_id):
        return
    asking = next((pool for pool in config.pools if pool.gpus and pool.workers), None)
    if asking is not None and not has_gpus(config.machines):
        raise UsageError(
            f"pool {asking.name} takes {asking.gpus:g} GPU for each worker, and this machine has "
            "none that can be used: leave gpus out, or name a cluster with --address"
        )


def _check_made(batch: Batch, catalog: Catalog, store: Store, listener: Listener) -> int:
    """What is called done is relied on: videos that the store has no more are made again."""
    lost = put_back_lost(catalog, store, batch.id, now=times.now())
    if lost:
        videos = "1 video is" if lost == 1 else f"{lost:,} videos are"
        listener.warn(f"{videos} gone from the store, or cut short there: made again")
    return lost


@contextmanager
def _site(catalog: Catalog, store: Store, config: Config, listener: Listener) -> Iterator[Site]:
    with _cluster(config) as cluster:
        yield Site(
            catalog=catalog,
            store=store,
            config=config,
            listener=listener,
            owner=this_owner(),
            describe=_describe,
            seats=partial(_seats, config, cluster, listener, store.url),
            open_dispatcher=partial(_open_dispatcher, cluster),
            crash_point=crash_points_for(config.model),
        )


def _check_address(config: Config) -> None:
    """Before anything is read or stored."""
    if not config.run.local:
        config.ray.check()


@contextmanager
def _cluster(config: Config) -> Iterator[RayCluster | None]:
    """The Ray cluster of a run, not connected yet; None where it works in this process."""
    if config.run.local:
        yield None
        return
    from vidplat.platform.dispatch.ray_token import offer_token

    offer_token()  # before Ray is imported
    from vidplat.platform.dispatch.ray_cluster import RayCluster

    with closing(RayCluster(config.ray)) as cluster:
        yield cluster


def _seats(
    config: Config,
    cluster: RayCluster | None,
    listener: Listener,
    store_url: str,
    batch: Batch,
    learner: Learner,
) -> list[Seat]:
    """The workers to be started: what is not configured of them is as their machines have it.
    Raises ClusterError where a cluster that should be running cannot be asked."""
    now = times.now()
    seats: list[Seat] = []
    rooms: Mapping[str, Room] = {}
    if cluster is not None and not cluster.is_own:
        cluster.connect()
        if config.told_pools is not None:
            machines = cluster.machines()
            config = replace(config, machines=machines, pools=config.told_pools.on(machines))
        rooms = cluster.rooms(config.pools)
    for pool in config.pools:
        room = rooms.get(pool.name, Room(pool.workers, pool.workers))
        if room.free < pool.workers and pool.workers:
            listener.warn(f"pool {pool.name}: {room.why}; {room.free} are counted on")
        device_class = _device_class(pool, config.machines.cards, batch.model.id)
        known = learner.costs.samples(batch.model.id, device_class)
        is_measured = known >= _FEW_SAMPLES or pool.light or is_fake(batch.model.id)
        for number in range(1, pool.workers + 1):
            spec = WorkerSpec(
                worker_id=f"{pool.name}-{number}",
                pool=pool,
                batch_id=batch.id,
                model=batch.model,
                store_url=store_url,
                calibrate=not is_measured,
                inputs=config.inputs,
                store_patience_s=config.run.store_patience_s,
            )
            seats.append(Seat(spec, device_class, now, has_place=number <= room.free))
    return seats


def _device_class(pool: PoolConfig, cards: Sequence[str], model_id: str) -> str:
    """What is expected of a pool's workers until they tell their own."""
    if is_fake(model_id):
        expected = "fake"
    elif pool.gpus > 0:
        expected = cards[0] if cards else "NVIDIA"
    else:
        expected = f"cpu-{pool.threads}"
    return light_class(expected) if pool.light else expected


def _open_dispatcher(cluster: RayCluster | None, seats: Sequence[Seat]) -> Dispatcher:
    if cluster is None:
        from vidplat.platform.dispatch.in_process import LocalDispatcher

        return LocalDispatcher(seats, open_tools)
    from vidplat.platform.dispatch.on_ray import RayDispatcher

    return RayDispatcher(seats, cluster)


@contextmanager
def _taken(
    request: SubmitRequest, config: Config, store: Store, listener: Listener, asked_at: float
) -> Iterator[Taken]:
    """The request's rows as jobs, in a spool that is gone afterwards."""
    shown = plain_place(request.source)
    listener.phase(f"reading {shown}")
    # sys.stdin is None in a process that began without one
    here = getattr(sys.stdin, "buffer", None)
    stdin = (request.stdin or here) if request.source == "-" else None
    sources = SourceVideos(
        config.inputs, lambda count: listener.phase(f"looking at {_videos(count)}")
    )
    noted = 0

    def on_rows(count: int) -> None:
        nonlocal noted
        while count >= noted + _ROWS_PER_NOTE:
            noted += _ROWS_PER_NOTE
            listener.phase(f"reading {shown}: {noted:,} rows")

    wishes = replace(request, model=request.model or config.model)
    pages = read_prompts(
        request.source,
        stdin=stdin,
        format=request.format,
        ignore_columns=request.ignore_columns,
        allowed=config.inputs,
        warn=listener.warn,
    )
    taken = take_in(
        looked_over(pages, wishes.model, _vocabulary, listener.warn),
        source=shown,
        output_prefix=store.url,
        wishes=wishes,
        models=_Models(),
        look=sources.look,
        now=asked_at,
        on_rows=on_rows,
        warn=listener.warn,
    )
    with closing(taken):
        yield taken


def _videos(count: int) -> str:
    return f"{count:,} input video{'' if count == 1 else 's'}"


def _still_open(catalog: Catalog | None, taken: Taken) -> Queue:
    """The open jobs of a batch; all of them, when it was never submitted."""
    if catalog is not None:
        with suppress(UsageError):
            known = catalog.batch(taken.batch.id)
            counts = catalog.counts(known.id)
            total = counts[JobState.QUEUED] + counts[JobState.RUNNING]
            return Queue(catalog.open_jobs(known.id, limit=PLANNED_BY_NAME), total)
    first = islice(taken.jobs, PLANNED_BY_NAME)
    return Queue([OpenJob(job) for job in first], taken.batch.total)


def _catalog_if_there(url: str) -> Catalog | None:
    """The catalog, unless that would create one: a plan leaves nothing behind."""
    return open_catalog(url) if missing_catalog(url) is None else None


def _whole_id(catalog: Catalog, batch: Batch, job_id: str | None) -> str | None:
    """The full id of the one job of `batch` that is meant."""
    if job_id is None:
        return None
    found = catalog.find_job(job_id, batch.id, limit=2)
    if len(found) != 1:
        which = "several jobs fit" if found else "there is no job"
        raise UsageError(
            f"{which} {printable(job_id, 40)!r} in batch {batch.id}: see `vidplat ls {batch.id}`"
        )
    return found[0].job.id


# --- what is known of models ----------------------------------------------------------------------


def _describe(model_id: str) -> tuple[ModelRef, ModelShape]:
    if is_fake(model_id):
        from vidplat.testing import describe_fake

        return describe_fake(model_id)
    from vidplat.workers.models.catalogue import describe_model

    return describe_model(model_id)


def _vocabulary(model_id: str) -> Vocabulary | None:
    from vidplat.workers.models.vocabulary import closed_vocabulary

    return None if is_fake(model_id) else closed_vocabulary(model_id)


class _Models:
    """Knowledge of models for intake, without loading torch."""

    describe = staticmethod(_describe)

    def searched_masks(self, model_id: str, latent_frames: int) -> str:
        if is_fake(model_id):
            return ""
        from vidplat.workers.models.catalogue import searched_masks

        return searched_masks(model_id, latent_frames)
