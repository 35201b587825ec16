"""run_batch: the whole story of one batch, from stored jobs to the last artifact and the score.

    1. hold        one process works on a batch; others that submit it wait for this one
    2. reconcile   what a killed run left behind is put right
    3. promise     what the deadline allows; refused when not even the cheapest plan fits
    4. start       workers come up; from here on the plan follows what is observed
    5. turns       until every job is final, or the user asked to stop
    6. records     manifest.parquet and metrics.parquet beside the videos
    7. score       predicted against actual, and the exit code

Left to others: rows to jobs (`intake`, before this), one turn (`turn`), putting objects together
(`assemble`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from vidplat.config import Config
from vidplat.domain import Artifact, Batch, JobState, OnInfeasible
from vidplat.errors import ExitCode, InfrastructureError, StoreError
from vidplat.methods.model_shape import ModelShape
from vidplat.platform.dispatch.dispatcher import Dispatcher, Seat, WorkerSpec
from vidplat.platform.interface import (
    BatchResult,
    Listener,
    Score,
)
from vidplat.platform.run.interrupts import Interrupts
from vidplat.platform.run.learning import Learner
from vidplat.platform.run.owners import is_surely_gone
from vidplat.platform.run.plan_records import plan_record
from vidplat.platform.run.promise import PLANNED_BY_NAME, Promise, make_promise
from vidplat.platform.run.reconcile import reconcile
from vidplat.platform.run.score import Tally
from vidplat.platform.run.turn import Rules, World, take_turn
from vidplat.platform.run.window import without_passed
from vidplat.scheduler import Policy
from vidplat.storage.artifacts import batch_folder, repair, sweep
from vidplat.storage.catalog import Catalog
from vidplat.storage.catalog_words import BatchState
from vidplat.storage.records import export_manifest, export_metrics
from vidplat.storage.stores import Store

Places = Sequence[tuple[WorkerSpec, Seat]]
_FOLLOW_S = 0.5
_FAILED = (JobState.FAILED, JobState.QUARANTINED)
_MISSES_KEPT = 1_000  # causes remembered one by one


@dataclass(frozen=True)
class Site:
    """Everything a run uses, put together by `assemble`."""

    catalog: Catalog
    store: Store
    config: Config
    listener: Listener
    owner: str
    describe: Callable[
        [str], ModelShape
    ]  # model id -> what the scheduler must know; raises ModelError
    places: Callable[[Batch, Learner], Places]  # the workers to be started
    open_dispatcher: Callable[[Places], Dispatcher]
    clock: Callable[[], float] = time.time
    crash_point: Callable[[str], None] = field(default=lambda name: None)


@dataclass(frozen=True)
class Submitted:
    """What became of the rows of this submit; zeros for a resume."""

    at: float  # when the user asked
    new: bool = False
    resumed: bool = False  # by `resume`: what was admitted once is finished, whatever time it is
    inserted: int = 0
    reused: int = 0


def run_batch(site: Site, batch: Batch, submitted: Submitted) -> BatchResult:
    """Carry a stored batch to its end. Raises InfrastructureError and ModelError; other ends are
    exit codes."""
    interrupts = Interrupts(
        lambda: site.listener.warn("finishing what is running; once more to stop at once")
    )
    # 1. Hold.
    with interrupts, _held(site, batch, interrupts) as holds:
        if not holds:
            return _result(
                site, batch, submitted, ExitCode.INTERRUPTED, "interrupted while waiting"
            )
        # 2. Reconcile.
        if not submitted.new or _was_left(site, batch):
            _repair(site, batch)
        learner = Learner(site.catalog, batch.id)
        learner.shapes[batch.model.id] = site.describe(batch.model.id)
        if not _is_open(site, batch):
            return _told(site, _result(site, batch, submitted, *_verdict(site, batch, None)))
        site.listener.begun(batch, site.catalog.counts(batch.id))
        # 3. Promise.
        asked, batch = batch, _as_resumed(site, batch, submitted)
        places = site.places(batch, learner)
        promise = _promise(site, batch, places, learner, _passed_at(submitted))
        site.listener.planned(promise.plan, promise.answer)
        if not promise.answer.admitted:
            return _told(site, _refused(site, batch, submitted, promise))
        return _told(
            site,
            _carry(site, batch, submitted, places, promise, learner, interrupts, asked.deadline_at),
        )


def _carry(
    site: Site,
    batch: Batch,
    submitted: Submitted,
    places: Places,
    promise: Promise,
    learner: Learner,
    interrupts: Interrupts,
    deadline_at: float | None,
) -> BatchResult:
    """Steps 4 to 7, for a batch that was admitted."""
    site.catalog.set_batch_state(batch.id, BatchState.OPEN, at=site.clock())
    judged = replace(batch, submitted_at=submitted.at, deadline_at=deadline_at)
    tally = Tally(judged, len(places), promise.plan, promise.startup_s)
    dispatcher = site.open_dispatcher(places)
    world = _world(site, batch, dispatcher, learner, tally, _passed_at(submitted))
    aborted = False
    try:
        # 4. Start.
        site.listener.phase(f"starting {len(places)} workers")
        world.begin()
        dispatcher.start()
        interrupts.listen()  # Ray has put its own handlers in place of ours
        # 5. Turns.
        while not world.is_over():
            if interrupts.draining:
                world.drain()
            take_turn(world, world.wait_s())
    except KeyboardInterrupt:
        aborted = True
    finally:
        dispatcher.close()
        _leave_tidy(site, batch, world, learner)
    # 6. Records.
    if tally.computed:
        _write_records(site, batch)
    # 7. Score.
    code, message = _verdict(site, batch, tally)
    if world.stuck:
        message = f"{message}; the rest cannot be placed: {world.stuck}"
    if aborted or interrupts.draining:
        code, message = ExitCode.INTERRUPTED, f"interrupted; `vidplat resume {batch.id}` continues"
    score = tally.score()
    if tally.computed:
        _keep_score(site, batch, score)
    result = _result(site, batch, submitted, code, message)
    return replace(
        result, computed=tally.computed, plan=promise.plan, answer=promise.answer, score=score
    )


# --- 1. hold --------------------------------------------------------------------------------------


@contextmanager
def _held(site: Site, batch: Batch, interrupts: Interrupts) -> Iterator[bool]:
    """Be the one process that works on the batch; waits while another is. False: interrupted while
    waiting."""
    told = False
    while not _take_hold(site, batch):
        if not told:
            site.listener.phase(f"another process is making batch {batch.id}; waiting for it")
            told = True
        if interrupts.draining:
            yield False
            return
        time.sleep(_FOLLOW_S)
    try:
        yield True
    finally:
        site.catalog.leave_batch(batch.id, site.owner)


def _take_hold(site: Site, batch: Batch) -> bool:
    lease_s = site.config.run.lease_s
    hold = site.catalog.hold_batch(batch.id, site.owner, now=site.clock(), lease_s=lease_s)
    if hold.owner != site.owner and is_surely_gone(hold.owner):
        hold = site.catalog.hold_batch(
            batch.id, site.owner, now=site.clock(), lease_s=lease_s, instead_of=hold.owner
        )
    return hold.owner == site.owner


# --- 2. reconcile, 3. promise ---------------------------------------------------------------------


def _is_open(site: Site, batch: Batch) -> bool:
    counts = site.catalog.counts(batch.id)
    return bool(counts[JobState.QUEUED] or counts[JobState.RUNNING])


def _was_left(site: Site, batch: Batch) -> bool:
    """Whether another process had the batch before us, and died: of what we hold, nothing can be
    under way yet."""
    return site.catalog.counts(batch.id)[JobState.RUNNING] > 0


def _repair(site: Site, batch: Batch) -> None:
    if not _is_open(site, batch):
        return
    site.listener.phase("looking for what an earlier run left")
    if repairs := reconcile(site.catalog, site.store, batch.id, now=site.clock()):
        site.listener.phase(str(repairs))


def _as_resumed(site: Site, batch: Batch, submitted: Submitted) -> Batch:
    """A batch that was admitted once is not refused when it is resumed; a deadline that has passed
    binds no more."""
    if not submitted.resumed or site.catalog.batch_state(batch.id) is BatchState.INFEASIBLE:
        return batch
    if batch.deadline_at is not None and batch.deadline_at <= submitted.at:
        site.listener.warn(
            "the deadline has passed; the rest is made at full quality, and counts as late"
        )
        batch = replace(batch, deadline_at=None)
    return replace(batch, on_infeasible=OnInfeasible.BEST_EFFORT)


def _passed_at(submitted: Submitted) -> float:
    return submitted.at if submitted.resumed else 0.0


def _promise(
    site: Site, batch: Batch, places: Places, learner: Learner, passed_at: float
) -> Promise:
    found = site.catalog.open_jobs(batch.id, limit=PLANNED_BY_NAME)
    jobs = [without_passed(each, passed_at) for each in found]
    for each in jobs:
        if each.job.model.id not in learner.shapes:
            learner.shapes[each.job.model.id] = site.describe(each.job.model.id)
    now = site.clock()
    total = site.catalog.counts(batch.id)[JobState.QUEUED]
    promise = make_promise(
        batch, jobs, total, [seat for _, seat in places], learner, _policy(site, batch), now
    )
    site.catalog.save_plan(
        batch.id, plan_record(promise.plan, at=now, inputs_sha256=promise.inputs_sha256)
    )
    return promise


def _policy(site: Site, batch: Batch) -> Policy:
    return Policy(
        on_infeasible=batch.on_infeasible,
        quality_floor=batch.quality_floor,
        max_attempts=site.config.run.max_attempts,
    )


def _refused(site: Site, batch: Batch, submitted: Submitted, promise: Promise) -> BatchResult:
    counts = site.catalog.counts(batch.id)
    if counts[JobState.QUEUED] == sum(counts.values()):
        site.catalog.set_batch_state(batch.id, BatchState.INFEASIBLE, at=site.clock())
    result = _result(site, batch, submitted, ExitCode.INFEASIBLE, promise.answer.headline)
    return replace(result, plan=promise.plan, answer=promise.answer)


# --- 4. start, 5. turns ---------------------------------------------------------------------------


def _world(
    site: Site,
    batch: Batch,
    dispatcher: Dispatcher,
    learner: Learner,
    tally: Tally,
    passed_at: float,
) -> World:
    def find_commit(job_id: str) -> Artifact | None:
        found = repair(site.store, batch.id, job_id)
        return found.artifact if found else None

    rules = Rules(
        site.config.run, _policy(site, batch), site.owner, passed_at, site.clock, site.crash_point
    )
    return World(
        batch,
        site.catalog,
        dispatcher,
        learner,
        site.listener,
        rules,
        find_commit=find_commit,
        describe=site.describe,
        tally=tally,
    )


def _leave_tidy(site: Site, batch: Batch, world: World, learner: Learner) -> None:
    """However the turns ended: nothing of ours stays under way, what was learnt is kept, rubbish is
    swept."""
    try:
        site.catalog.release(batch.id, site.owner, now=site.clock())
        learner.save()
        if world.untidy and not _is_open(site, batch):
            sweep(
                site.store, batch.id, older_than_s=0.0
            )  # every job is final: no attempt can win any more
    except InfrastructureError as error:
        site.listener.warn(str(error))


# --- 6. records, 7. score -------------------------------------------------------------------------


def _write_records(site: Site, batch: Batch) -> None:
    site.listener.phase("writing manifest and metrics")
    folder, kind = batch_folder(batch.id), "application/vnd.apache.parquet"
    try:
        site.store.put(
            f"{folder}/manifest.parquet", export_manifest(site.catalog, batch.id), content_type=kind
        )
        site.store.put(
            f"{folder}/metrics.parquet", export_metrics(site.catalog, batch.id), content_type=kind
        )
    except StoreError as error:
        site.listener.warn(f"manifest and metrics were not written: {error}")


def _keep_score(site: Site, batch: Batch, score: Score) -> None:
    """One event for `logs`, and for reports that are written when this run is long over."""
    detail = {
        "jobs": score.jobs,
        "startup_s": round(score.startup_s, 3),
        "median_error": round(score.median_error, 4),
        "within_p90": round(score.within_p90, 4),
        "busy_share": round(score.busy_share, 4),
        "misses": len(score.misses),
        "causes": {miss.job_id: miss.cause for miss in score.misses[:_MISSES_KEPT]},
    }
    try:
        site.catalog.add_event(batch.id, None, "scored", detail, site.clock())
    except InfrastructureError as error:
        site.listener.warn(str(error))


def _verdict(site: Site, batch: Batch, tally: Tally | None) -> tuple[ExitCode, str]:
    """Exit code and sentence for a batch as the catalog tells it now; closes it when every job is
    final."""
    counts = site.catalog.counts(batch.id)
    open_jobs = counts[JobState.QUEUED] + counts[JobState.RUNNING]
    state = site.catalog.batch_state(batch.id)
    if not open_jobs and state is not BatchState.CANCELLED:
        site.catalog.set_batch_state(batch.id, BatchState.DONE, at=site.clock())
    done, failed = counts[JobState.DONE], sum(counts[state] for state in _FAILED)
    text = f"{done} of {sum(counts.values())} videos are there"
    if failed:
        text += f", {failed} failed"
    if counts[JobState.CANCELLED]:
        text += f", {counts[JobState.CANCELLED]} cancelled"
    if failed or open_jobs:
        return ExitCode.SOME_FAILED, text
    if tally is not None and tally.missed:
        return ExitCode.DEADLINE_MISSED, f"{text}, {tally.missed} after the deadline"
    return ExitCode.DONE, text


def _result(
    site: Site, batch: Batch, submitted: Submitted, code: ExitCode, message: str
) -> BatchResult:
    return BatchResult(
        batch=batch,
        exit_code=code,
        counts=site.catalog.counts(batch.id),
        inserted=submitted.inserted,
        reused=submitted.reused,
        wall_s=site.clock() - submitted.at,
        message=message,
    )


def _told(site: Site, result: BatchResult) -> BatchResult:
    site.listener.finished(result)
    return result
