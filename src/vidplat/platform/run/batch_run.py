"""run_batch: the whole story of one batch, from stored jobs to the last artifact and the score.

    1. hold        one process works on a batch; others that submit it wait for this one
    2. reconcile   what a killed run left behind is put right
    3. promise     what the deadline allows; refused when not even the cheapest plan fits
    4. start       workers come up; from here on the plan follows what is observed
    5. turns       until every job is final, or the user asked to stop
    6. records     manifest.parquet and metrics.parquet beside the videos
    7. score       predicted against actual, and the exit code

Left to others: rows to jobs (`intake`, before this), one turn (`turn`), objects (`assemble`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from vidplat.domain import Batch, JobState, OnInfeasible, OpenJob
from vidplat.errors import ExitCode, InfrastructureError, printable
from vidplat.methods.language import is_known
from vidplat.platform.dispatch.dispatcher import Seat
from vidplat.platform.interface import BatchResult
from vidplat.platform.run.heeding import find_committed
from vidplat.platform.run.interrupts import Interrupts
from vidplat.platform.run.learning import Learner
from vidplat.platform.run.owners import HoldLost, held
from vidplat.platform.run.plan_records import plan_record
from vidplat.platform.run.promise import PLANNED_BY_NAME, Promise, make_promise
from vidplat.platform.run.reconcile import reconcile
from vidplat.platform.run.records import Ended, keep_score, verdict, write_tables
from vidplat.platform.run.score import Tally
from vidplat.platform.run.site import Site
from vidplat.platform.run.turn import begin, drain, is_over, take_turn
from vidplat.platform.run.window import Window
from vidplat.platform.run.world import World
from vidplat.storage.artifacts import sweep
from vidplat.storage.catalog_words import BatchState


@dataclass(frozen=True)
class Submitted:
    """What became of the rows of this submit; zeros for a resume."""

    at: float  # when the user asked
    new: bool = False
    resumed: bool = False  # by `resume`: what was admitted once is finished, whatever time it is
    inserted: int = 0
    reused: int = 0

    @property
    def passed_at(self) -> float:
        """Deadlines before this shape no plan: of a resumed batch they have been missed already."""
        return self.at if self.resumed else 0.0


def run_batch(site: Site, batch: Batch, submitted: Submitted) -> BatchResult:
    """Carry a batch to its end. Raises InfrastructureError and ModelError; else: exit codes."""
    interrupts = Interrupts(
        lambda: site.listener.warn("finishing what is running; once more to stop at once")
    )
    with interrupts:
        while True:
            # 1. Hold.
            with held(site, batch.id, interrupts) as is_ours:
                if not is_ours:
                    ended = ExitCode.INTERRUPTED, "interrupted while waiting"
                    return _result(site, batch, submitted, ended)
                try:
                    result = _run_held(site, batch, submitted, interrupts)
                except HoldLost as lost:
                    site.listener.warn(str(lost))
                    submitted = replace(submitted, new=False)
                    continue
                site.listener.finished(result)
                return result


def _run_held(
    site: Site, batch: Batch, submitted: Submitted, interrupts: Interrupts
) -> BatchResult:
    # 2. Reconcile.
    _repair(site, batch, is_new=submitted.new)
    learner = Learner(site.describe, site.catalog, batch.id)
    learner.know(batch.model.id)
    if not _is_open(site, batch):
        return _result(site, batch, submitted, verdict(site, batch.id))
    site.listener.begun(batch, site.catalog.counts(batch.id))
    # 3. Promise.
    due_at, batch = batch.deadline_at, _as_resumed(site, batch, submitted)
    seats = site.seats(batch, learner)
    promise = _promise(site, batch, seats, learner, submitted)
    site.listener.planned(promise.plan, promise.answer)
    if not promise.answer.admitted:
        return _refused(site, batch, submitted, promise)
    # 4. Start.
    cancelled = BatchState.CANCELLED  # meanwhile, from elsewhere
    site.catalog.set_batch_state(batch.id, BatchState.OPEN, at=site.clock(), unless=cancelled)
    judged = replace(batch, submitted_at=submitted.at, deadline_at=due_at)
    tally = Tally(judged, len(seats), promise.plan, promise.startup_s)
    dispatcher = site.open_dispatcher(seats)
    world = World(site, batch, dispatcher, learner, tally, submitted.passed_at)
    # 5. Turns.
    is_aborted = _turn_until_over(world, interrupts)
    # 6. Records.
    if tally.computed:
        write_tables(site, batch.id)
    # 7. Score.
    code, message = verdict(site, batch.id, tally.missed)
    if world.stuck:
        message = f"{message}; the rest cannot be placed: {world.stuck}"
    if is_aborted or interrupts.draining:
        code, message = ExitCode.INTERRUPTED, f"interrupted; `vidplat resume {batch.id}` continues"
    score = tally.score()
    if tally.computed:
        keep_score(site, batch.id, score)
    result = _result(site, batch, submitted, (code, message), promise)
    return replace(result, computed=tally.computed, score=score)


def _turn_until_over(world: World, interrupts: Interrupts) -> bool:
    """Steps 4 and 5; whether the user broke them off."""
    try:
        many = len(world.dispatcher.seats())
        where = " in this process" if world.config.local else ""
        world.listener.phase(f"starting {many} worker{'' if many == 1 else 's'}{where}")
        begin(world)
        world.dispatcher.start()
        while not is_over(world):
            if interrupts.draining:
                drain(world)
            take_turn(world)
    except KeyboardInterrupt:
        return True
    finally:
        interrupts.leaving = True
        world.dispatcher.close()
        _leave_tidy(world)
        interrupts.leaving = False
    return False


def _leave_tidy(world: World) -> None:
    """Nothing of ours stays under way, what was learnt is kept, rubbish is swept."""
    site, batch = world.site, world.batch
    try:
        find_committed(world)
        site.catalog.release(batch.id, site.owner, now=site.clock())
        world.learner.save()
        if world.untidy and not _is_open(site, batch):
            # Every job is final: no attempt can win any more.
            sweep(site.store, batch.id, 0.0, site.catalog.tried_again(batch.id))
    except InfrastructureError as error:
        site.listener.warn(str(error))


# --- 2. reconcile ---------------------------------------------------------------------------------


def _is_open(site: Site, batch: Batch) -> bool:
    counts = site.catalog.counts(batch.id)
    return bool(counts[JobState.QUEUED] or counts[JobState.RUNNING])


def _repair(site: Site, batch: Batch, is_new: bool) -> None:
    """Put right what an earlier run left. A new batch was left by one only where something runs:
    of what we hold, nothing can be under way yet."""
    counts = site.catalog.counts(batch.id)
    if not counts[JobState.RUNNING] and (is_new or not counts[JobState.QUEUED]):
        return
    site.listener.phase("looking for what an earlier run left")
    if repairs := reconcile(site.catalog, site.store, batch.id, now=site.clock()):
        site.listener.phase(str(repairs))


# --- 3. promise -----------------------------------------------------------------------------------


def _as_resumed(site: Site, batch: Batch, submitted: Submitted) -> Batch:
    """What was admitted once is not refused when resumed; a deadline passed binds no more."""
    if not submitted.resumed or site.catalog.batch_state(batch.id) is BatchState.INFEASIBLE:
        return batch
    if batch.deadline_at is not None and batch.deadline_at <= submitted.at:
        site.listener.warn(
            "the deadline has passed; the rest is made at full quality, and counts as late"
        )
        batch = replace(batch, deadline_at=None)
    return replace(batch, on_infeasible=OnInfeasible.BEST_EFFORT)


def _promise(
    site: Site, batch: Batch, seats: Sequence[Seat], learner: Learner, submitted: Submitted
) -> Promise:
    passed_at = submitted.passed_at
    window = Window(site.catalog, batch.id, PLANNED_BY_NAME, learner.know, passed_at)
    window.read()
    _tell_of_gone(site, window.jobs.values())
    queue, asked_at = window.queue(), submitted.at
    promise = make_promise(batch, queue, seats, learner, site.clock(), asked_at)
    record = plan_record(promise.plan, at=asked_at, inputs_sha256=promise.inputs_sha256)
    site.catalog.save_plan(batch.id, record)
    return promise


def _tell_of_gone(site: Site, found: Iterable[OpenJob]) -> None:
    """One warning where jobs were stored with methods that there are no more."""
    asked = [each.job.method for each in found if each.job.method is not None]
    gone = [method for method in asked if not is_known(method)]
    if gone:
        told = ", ".join(printable(method, 60) for method in sorted(set(gone)))
        videos = "1 video" if len(gone) == 1 else f"{len(gone):,} videos"
        site.listener.warn(f"{videos} asked for what is gone ({told}): the planner chooses instead")


def _refused(site: Site, batch: Batch, submitted: Submitted, promise: Promise) -> BatchResult:
    counts = site.catalog.counts(batch.id)
    if counts[JobState.QUEUED] == sum(counts.values()):
        site.catalog.set_batch_state(batch.id, BatchState.INFEASIBLE, at=site.clock())
    ended = ExitCode.INFEASIBLE, promise.answer.headline
    return _result(site, batch, submitted, ended, promise)


def _result(
    site: Site, batch: Batch, submitted: Submitted, ended: Ended, promise: Promise | None = None
) -> BatchResult:
    return BatchResult(
        batch=batch,
        exit_code=ended[0],
        counts=site.catalog.counts(batch.id),
        inserted=submitted.inserted,
        reused=submitted.reused,
        plan=promise.plan if promise else None,
        answer=promise.answer if promise else None,
        asked_at=submitted.at,
        wall_s=site.clock() - submitted.at,
        message=ended[1],
    )
