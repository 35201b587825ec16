"""One turn of the loop: hear what happened, observe, plan, carry out.

    take_turn(world, wait_s)
      1. hear        events from the workers become rows in the catalog       world.hear
      2. observe     open jobs, workers, clock: a Snapshot                    world.observe
      3. plan        arithmetic (scheduler)                                   plan(...)
      4. carry out   claim in the catalog, then send                          world.adopt, world.carry_out

A plan is made anew when something happened that it did not foresee (a worker came or went, a job failed or
took other than its p90 said, a worker has nothing left to do), not after every job; in between its chains
are followed. Jobs are bound late: a worker gets its next order when less than `look_ahead_s` of work is left
in its hand, so that most of the queue can still be planned otherwise, and no worker waits.

The catalog is written once per turn, however many events there were. If it cannot be written, what ended
waits here and is written later; leases and the COMMIT.json files keep anything from being lost or done twice.

Left to others: whether to begin at all (`promise`), what follows a failure (`scheduler.retry`), transport
(`dispatch`). One World serves one batch; it is used by one thread.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from vidplat.config import RunConfig
from vidplat.domain import (
    Artifact,
    Assignment,
    Batch,
    Failure,
    FailureKind,
    Job,
    JobState,
    ModelShape,
    OnInfeasible,
    OpenJob,
    OperatingPoint,
    Outcome,
    Plan,
    Progress,
    Snapshot,
    WorkerState,
)
from vidplat.errors import CatalogError, ClusterError, ModelError, StoreError, printable
from vidplat.platform.dispatch import Dispatcher, Event, Order, Seat, WorkerLost, WorkerUp
from vidplat.platform.hands import Hands, InHand
from vidplat.platform.interface import Listener
from vidplat.platform.learning import Learner
from vidplat.platform.score import Tally
from vidplat.scheduler import Again, Backlog, Policy, after, latest_free, plan, suspects
from vidplat.scheduler.profile import quality_of
from vidplat.storage.catalog_words import AttemptRecord, BatchState, Claim, GiveUp, Hold, Requeue

MOST_IN_HAND = 64  # orders per worker, however short they are
_PLAN_SHARE = 0.05  # of the time that planning may take when nothing urgent asks for it
_REPLAN_S = 10.0  # with a deadline ahead, a plan is never older
_HURRY_S = 0.25  # a finish time moves by so much before a running job hears of it
_CATALOG_PATIENCE_S = 120.0  # how long the run goes on without being able to write
_LONGEST_WAIT_S, _SHORTEST_WAIT_S = 0.25, 0.01  # between two turns without events
_LINGER_S = 0.02  # when every worker has plenty to do
_REMEMBERED = 500  # endings, for telling a sick worker


class Ledger(Protocol):
    """What a turn needs of the catalog. `storage.catalog.Catalog`."""

    def open_jobs(self, batch_id: str, *, limit: int | None = None) -> list[OpenJob]: ...
    def counts(self, batch_id: str) -> dict[JobState, int]: ...
    def batch_state(self, batch_id: str) -> BatchState: ...
    def claim(self, batch_id: str, claims: Sequence[Claim], *, now: float, lease_s: float) -> dict[str, int]: ...
    def heartbeat(self, batch_id: str, progress: Sequence[Progress], *, now: float, lease_s: float) -> set[str]: ...
    def renew(self, batch_id: str, owner: str, *, now: float, lease_s: float) -> int: ...
    def finish(
        self, batch_id: str, outcomes: Sequence[Outcome], decisions: Mapping[str, Requeue | GiveUp] | None = None
    ) -> set[str]: ...
    def mark_done(self, batch_id: str, job_id: str, artifact: Artifact, attempt: int, at: float) -> bool: ...
    def release(
        self, batch_id: str, owner: str | None = None, *, now: float, job_ids: Sequence[str] | None = None
    ) -> list[str]: ...
    def attempts(self, batch_id: str, job_id: str) -> list[AttemptRecord]: ...
    def hold_batch(self, batch_id: str, owner: str, *, now: float, lease_s: float) -> Hold: ...
    def save_plan(self, batch_id: str, plan: Plan, *, now: float, inputs_sha256: str) -> None: ...
    def save_workers(self, batch_id: str, seen: Sequence[WorkerState], *, now: float) -> None: ...


@dataclass(frozen=True)
class Rules:
    """What holds for the whole run."""

    run: RunConfig
    policy: Policy
    owner: str
    clock: Callable[[], float] = time.time
    crash_point: Callable[[str], None] = field(default=lambda name: None)


def take_turn(world: World, wait_s: float) -> None:
    # 1. Hear.
    world.hear(wait_s)
    if world.needs_plan():
        # 2. Observe.  3. Plan.
        snapshot = world.observe()
        decided = plan(snapshot, world.policy, world.learner.knowledge, world.backlog())
        world.adopt(decided)
    # 4. Carry out.
    world.carry_out()
    world.beat()


class World:
    """Everything between two turns: the window of open jobs, what is in hand, the plan being followed."""

    def __init__(
        self,
        batch: Batch,
        ledger: Ledger,
        dispatcher: Dispatcher,
        learner: Learner,
        listener: Listener,
        rules: Rules,
        *,
        find_commit: Callable[[str], Artifact | None],
        describe: Callable[[str], ModelShape],
        tally: Tally,
    ) -> None:
        self.batch, self.ledger, self.dispatcher, self.learner = batch, ledger, dispatcher, learner
        self.listener, self.rules, self.tally = listener, rules, tally
        # What is admitted is finished, late if it must be: a promise is never taken back for another job.
        self.policy = replace(rules.policy, on_infeasible=OnInfeasible.BEST_EFFORT)
        self.hands = Hands()
        self.untidy = False  # attempts may have left files behind
        self.stuck: str | None = None  # why the rest cannot be placed
        self.draining = False
        self.state = BatchState.OPEN
        self._find_commit, self._describe = find_commit, describe
        self._now = rules.clock

        self._queue: dict[str, OpenJob] = {}  # the window, in the catalog's order
        self._beyond = 0  # queued jobs that are not in the window
        self._deadlines_ahead = batch.deadline_at is not None
        self._chains: dict[str, deque[Assignment]] = {}  # what the plan has for each worker
        self._free_by: Mapping[str, float] = {}
        self._stale = "first plan"
        self._urgent = True
        self._planned_at, self._plan_took = -math.inf, 0.0

        self._asked_at: dict[str, float] = {}  # worker id -> when it was asked to come
        self._unwritten: list[tuple[InHand, Outcome]] = []
        self._unwritten_since: float | None = None
        self._fresh: dict[str, Progress] = {}  # heartbeats not yet in the catalog
        self._endings: deque[tuple[str, str, bool]] = deque(maxlen=_REMEMBERED)
        self._suspects: frozenset[str] = frozenset()
        self._beat_at = self._renewed_at = self._saved_at = -math.inf
        self._last_loss = ""

    # --- 1. hear --------------------------------------------------------------------------------

    def hear(self, wait_s: float) -> None:
        """Wait for events and write down what they mean."""
        events = self.dispatcher.poll(wait_s)
        if events and self._all_have_plenty():
            # Very short jobs: one transaction for many of them costs little more than for one.
            time.sleep(_LINGER_S)
            events += self.dispatcher.poll(0.0)
        for event in events:
            self._heed(event)
        self._write_endings()

    def _all_have_plenty(self) -> bool:
        """Whether no worker can run out of work while we wait a moment."""
        return len(self.hands) > 0 and all(
            self.hands.count(seat.worker_id) >= MOST_IN_HAND // 4 for seat in self.dispatcher.seats() if seat.up
        )

    def _heed(self, event: Event) -> None:
        match event:
            case Progress():
                held = self.hands.find(event.worker_id, event.job_id, event.attempt)
                if held is not None:
                    held.note(event)
                    self._fresh[event.job_id] = event
                    self.listener.progress(event)
            case Outcome():
                held = self.hands.take(event.worker_id, event.job_id, event.attempt)
                if held is not None:
                    self._ended(held, event)
            case WorkerUp():
                self._welcome(event)
            case WorkerLost():
                self._mourn(event)

    def _ended(self, held: InHand, outcome: Outcome) -> None:
        self._fresh.pop(outcome.job_id, None)
        if outcome.ok and outcome.point != held.order.assignment.point:  # cut short by its `finish_by`
            job = held.order.job
            outcome = replace(outcome, quality=quality_of(self.learner.shapes[job.model.id], job.spec, outcome.point))
        self._unwritten.append((held, outcome))
        blames_worker = outcome.failure is None or outcome.failure.kind not in (
            FailureKind.REQUEST,
            FailureKind.OUT_OF_MEMORY,
        )
        if blames_worker:
            self._endings.append((outcome.worker_id, outcome.job_id, outcome.ok))
        took = outcome.finished_at - outcome.started_at
        promised = held.order.assignment
        if outcome.ok:
            self.learner.finished(outcome, held.order.job, self._device_class(outcome.worker_id))
            if self._deadlines_ahead and not 0.7 * promised.p50_s <= took <= promised.p90_s:
                self._call_for_plan(f"a job took {took:.2f} s, predicted {promised.p50_s:.2f} s")
        else:
            self.untidy = True
            self._suspects = suspects(self._endings, self.policy)
            self._call_for_plan("a job failed", urgent=True)

    def _welcome(self, up: WorkerUp) -> None:
        asked_at = self._asked_at.get(up.worker_id)
        calibrated_s = sum(float(row["seconds"]) for row in up.observations)
        if asked_at is not None:
            startup_s = max(0.0, up.at - asked_at - up.load_s - calibrated_s)
            self.learner.started(up, self.batch.model.id, startup_s)
        self.tally.worker_up(up.at)
        self._call_for_plan(f"worker {up.worker_id} came up", urgent=True)

    def _mourn(self, lost: WorkerLost) -> None:
        """The oldest order in its hand takes the blame; those behind it had not begun and go back freely.

        An order whose video is committed already did end, only its Outcome was lost on the way.
        """
        self.untidy = True
        self._last_loss = lost.reason
        self._chains.pop(lost.worker_id, None)
        self.listener.warn(f"worker {lost.worker_id} was lost: {printable(lost.reason)}")
        if lost.request_is_wrong:
            raise ModelError(lost.reason)
        now = self._now()
        if lost.successor is not None:
            self._asked_at[lost.successor] = now
        blamed = False
        free: list[InHand] = []
        for held in self.hands.drop(lost.worker_id):
            artifact = self._committed(held.order.job.id)
            failure = None
            if artifact is None and blamed:
                free.append(held)
                continue
            if artifact is None:
                blamed = True
                failure = Failure(
                    FailureKind.WORKER_LOST, f"worker {lost.worker_id} was lost: {printable(lost.reason)}"
                )
            step = held.progress.step if held.progress else 0
            outcome = Outcome(
                job_id=held.order.job.id,
                attempt=held.order.attempt,
                worker_id=lost.worker_id,
                point=held.order.assignment.point,
                started_at=held.sent_at,
                finished_at=now,
                artifact=artifact,
                failure=failure,
                steps_done=step,
            )
            self._unwritten.append((held, outcome))
            self._endings.append((lost.worker_id, outcome.job_id, outcome.ok))
            self.tally.worker_lost(outcome.job_id)
        self._give_back(free)
        self._call_for_plan(f"worker {lost.worker_id} was lost", urgent=True)

    def _committed(self, job_id: str) -> Artifact | None:
        try:
            return self._find_commit(job_id)
        except StoreError:  # then it runs again, and loses to the commit that is there
            return None

    def _give_back(self, unstarted: Sequence[InHand]) -> None:
        """Orders that never began return to the queue without blame."""
        if not unstarted:
            return
        by_id = {held.order.job.id: held for held in unstarted}
        released = self.ledger.release(self.batch.id, self.rules.owner, now=self._now(), job_ids=list(by_id))
        for job_id in released:
            held = by_id[job_id]
            self._queue[job_id] = replace(held.open_job, attempt=held.order.attempt)

    # --- writing down ---------------------------------------------------------------------------

    def _write_endings(self) -> None:
        """Everything that ended since the last turn, in one transaction."""
        if not self._unwritten:
            return
        now = self._now()
        decisions = {o.job_id: self._decide(held, o) for held, o in self._unwritten if not o.ok}
        outcomes = [outcome for _, outcome in self._unwritten]
        self.rules.crash_point("before-finish")
        try:
            changed = self.ledger.finish(self.batch.id, outcomes, {job: d[0] for job, d in decisions.items()})
            for outcome in outcomes:
                if outcome.artifact is not None and outcome.job_id not in changed:
                    # Its lease had run out, or another attempt was under way: the store has the last word.
                    self.ledger.mark_done(
                        self.batch.id, outcome.job_id, outcome.artifact, outcome.artifact.attempt, outcome.finished_at
                    )
        except CatalogError as error:
            self._unwritten_since = self._unwritten_since or now
            if now - self._unwritten_since > _CATALOG_PATIENCE_S:
                raise
            self.listener.warn(f"{error}; trying again")
            return
        self.rules.crash_point("after-finish")
        self._unwritten_since = None
        for held, outcome in self._unwritten:
            self._settle(held, outcome, decisions.get(outcome.job_id), outcome.job_id in changed)
        self._unwritten.clear()

    def _settle(
        self, held: InHand, outcome: Outcome, decision: tuple[Requeue | GiveUp, str] | None, changed: bool
    ) -> None:
        if not changed and not outcome.ok:
            return  # cancelled meanwhile: the failure is of no interest
        self.tally.ended(held.order, outcome)
        self.listener.outcome(outcome)
        if decision is not None and isinstance(decision[0], Requeue):
            again = decision[0]
            self._queue[outcome.job_id] = OpenJob(
                held.order.job, held.order.attempt, again.not_before, again.avoid, again.rung_down
            )

    def _decide(self, held: InHand, outcome: Outcome) -> tuple[Requeue | GiveUp, str]:
        assert outcome.failure is not None, "an outcome has an artifact or a failure"
        before = self.ledger.attempts(self.batch.id, outcome.job_id)
        attempts = sum(each.counts for each in before) + 1
        decision = after(
            outcome.failure,
            job_id=outcome.job_id,
            worker_id=outcome.worker_id,
            attempt=attempts,
            now=self._now(),
            policy=self.policy,
            avoid=held.open_job.avoid,
            rung_down=held.open_job.rung_down,
            deadline_at=held.order.job.deadline_at,
        )
        if isinstance(decision, Again):
            return Requeue(decision.not_before, decision.avoid, decision.rung_down), decision.reason
        return GiveUp(decision.state), decision.reason

    # --- 2. observe -----------------------------------------------------------------------------

    def needs_plan(self) -> bool:
        """Whether the plan being followed has been overtaken, and it is time for the next."""
        self._refill()
        if self.draining or not self._queue or self.state is not BatchState.OPEN:
            return False
        since = self._now() - self._planned_at
        if self._urgent and since > 2 * self._plan_took:
            return True
        if self._idle_worker() and since > max(0.02, 2 * self._plan_took):
            self._stale = "a worker has nothing left to do"
            return True
        if self._deadlines_ahead and since > _REPLAN_S:
            self._stale = "time passed"
            return True
        return bool(self._stale) and since > max(0.25, self._plan_took / _PLAN_SHARE)

    def observe(self) -> Snapshot:
        now = self._now()
        return Snapshot(
            now=now,
            jobs=tuple(self._queue.values()),
            workers=self.workers(now),
            deadline_at=self.batch.deadline_at,
            quality_floor=self.batch.quality_floor,
        )

    def workers(self, now: float) -> tuple[WorkerState, ...]:
        return tuple(self._worker_state(seat, now) for seat in self.dispatcher.seats())

    def _worker_state(self, seat: Seat, now: float) -> WorkerState:
        if seat.up:
            ready_at = now + self.hands.remaining_s(seat.worker_id, now)
        else:
            ready_at = max(now, seat.since + self.learner.startup(self.batch.model.id, seat.device_class).p50_s)
        return WorkerState(
            id=seat.worker_id,
            pool=seat.pool,
            device_class=seat.device_class,
            free_bytes=seat.free_bytes,
            ready_at=ready_at,
            speed=self.learner.speed(seat.worker_id),
            running=self.hands.running(seat.worker_id),
            price_per_s=seat.price_per_s,
            suspect=seat.worker_id in self._suspects,
        )

    def backlog(self) -> tuple[Backlog, ...]:
        """Queued jobs beyond the window, as more of the window's last one."""
        if not self._beyond or not self._queue:
            return ()
        return (Backlog(next(reversed(self._queue.values())), self._beyond),)

    def _refill(self) -> None:
        """Keep the window at least half full while the catalog has more."""
        if self._beyond <= 0 or len(self._queue) > self.rules.run.window // 2 or self._unwritten:
            return
        self.look_again()

    def look_again(self) -> None:
        """Read the window from the catalog: at the start, and when others may have changed it."""
        found = self.ledger.open_jobs(self.batch.id, limit=self.rules.run.window)
        self._queue = {each.job.id: each for each in found}
        for each in found:
            if each.job.model.id not in self.learner.shapes:
                self.learner.shapes[each.job.model.id] = self._describe(each.job.model.id)
        self._deadlines_ahead = any(each.job.deadline_at is not None for each in found)
        full = len(found) == self.rules.run.window
        self._beyond = self.ledger.counts(self.batch.id)[JobState.QUEUED] - len(found) if full else 0
        if found:
            self._call_for_plan("the queue was read", urgent=True)

    # --- 4. carry out ---------------------------------------------------------------------------

    def adopt(self, decided: Plan) -> None:
        """Follow this plan from now on."""
        now = self._now()
        self._chains = {}
        for each in decided.assignments:
            self._chains.setdefault(each.worker_id, deque()).append(each)
        self._free_by = latest_free(decided)
        self._plan_took, self._planned_at = self._now() - now, self._now()
        self._stale, self._urgent = "", False
        self.tally.planned(decided)
        self.listener.planned(decided, None)
        self.stuck = self._why_stuck(decided)
        self._hurry_running()

    def _why_stuck(self, decided: Plan) -> str | None:
        """A reason when nothing runs, nothing was placed, and nobody is on the way."""
        seats = self.dispatcher.seats()
        if decided.assignments or len(self.hands) or not decided.deferred or any(not seat.up for seat in seats):
            return None
        return decided.deferred[0].reason

    def carry_out(self) -> None:
        """Claim what is due and send it."""
        if self.draining or self.state is not BatchState.OPEN:
            return
        due = self._due()
        if not due:
            return
        now = self._now()
        claims = [Claim(each, self.rules.owner) for each in due]
        try:
            attempts = self.ledger.claim(self.batch.id, claims, now=now, lease_s=self.rules.run.lease_s)
        except CatalogError as error:
            self.listener.warn(f"{error}; trying again")
            for each in reversed(due):
                self._chains.setdefault(each.worker_id, deque()).appendleft(each)
            return
        self.rules.crash_point("claimed")
        self.tally.dispatched(now)
        orders: dict[str, list[Order]] = {}
        for each in due:
            open_job = self._queue.pop(each.job_id)
            if each.job_id not in attempts:
                continue  # cancelled, or another process has it
            stages = self._stages(each.worker_id, open_job.job, each.point)
            order = Order(each, open_job.job, attempts[each.job_id], _finish_by(each, stages))
            self.hands.put(each.worker_id, InHand(order, open_job, stages, now))
            orders.setdefault(each.worker_id, []).append(order)
        for worker_id, batch in orders.items():
            self.dispatcher.send(worker_id, batch)
        self.rules.crash_point("sent")

    def _due(self) -> list[Assignment]:
        """What every worker should get now, from its chain."""
        now = self._now()
        due: list[Assignment] = []
        for seat in self.dispatcher.seats():
            chain = self._chains.get(seat.worker_id)
            if not seat.up or not chain:
                continue
            count, work_s = self.hands.count(seat.worker_id), self.hands.remaining_s(seat.worker_id, now)
            while chain and count < MOST_IN_HAND and (count == 0 or work_s < self.rules.run.look_ahead_s):
                open_job = self._queue.get(chain[0].job_id)
                if open_job is not None and open_job.not_before > now:
                    break
                each = chain.popleft()
                if open_job is None:
                    continue
                due.append(each)
                stages = self._stages(each.worker_id, open_job.job, each.point)
                count, work_s = count + 1, work_s + sum(stages.values())
        return due

    def _stages(self, worker_id: str, job: Job, point: OperatingPoint) -> dict[str, float]:
        """Seconds of each stage on that worker, by what is known now: the plan may be older."""
        estimate = self.learner.predict(job, self._device_class(worker_id), point)
        speed = self.learner.speed(worker_id)
        return {stage: seconds / speed for stage, seconds in estimate.per_stage.items()}

    def _hurry_running(self) -> None:
        """Tell running jobs the latest end that keeps those planned after them in time."""
        now = self._now()
        for seat in self.dispatcher.seats():
            latest = self._free_by.get(seat.worker_id, math.inf)
            changed: dict[str, float | None] = {}
            for index, held in reversed(list(enumerate(self.hands.of(seat.worker_id)))):
                due = held.order.job.deadline_at
                limit = min(latest, due if due is not None else math.inf)
                finish_by = limit - held.stages.get("store", 0.0) if now < limit < math.inf else None
                before = held.order.finish_by
                if (before is None) != (finish_by is None) or abs((before or 0.0) - (finish_by or 0.0)) > _HURRY_S:
                    held.order = replace(held.order, finish_by=finish_by)
                    changed[held.order.job.id] = finish_by
                latest = limit - held.remaining_s(now, is_first=index == 0)
            if changed:
                self.dispatcher.hurry(seat.worker_id, changed)

    # --- keeping alive --------------------------------------------------------------------------

    def beat(self) -> None:
        """Heartbeats, leases, and word from other processes; each as seldom as it may be."""
        now, run = self._now(), self.rules.run
        if now - self._beat_at < run.heartbeat_s:
            return
        self._beat_at = now
        try:
            self._report(now)
            if now - self._renewed_at >= run.lease_s / 6:
                self._renewed_at = now
                self.ledger.renew(self.batch.id, self.rules.owner, now=now, lease_s=run.lease_s)
                hold = self.ledger.hold_batch(self.batch.id, self.rules.owner, now=now, lease_s=run.lease_s)
                if hold.owner != self.rules.owner:
                    raise ClusterError(f"another process has taken over batch {self.batch.id}; this one stops")
                self.ledger.save_workers(self.batch.id, self.workers(now), now=now)
                self.learner.save()
            self.state = self.ledger.batch_state(self.batch.id)
        except CatalogError as error:
            self._unwritten_since = self._unwritten_since or now
            if now - self._unwritten_since > _CATALOG_PATIENCE_S:
                raise
            self.listener.warn(f"{error}; trying again")
        self._check_seats(now)

    def _report(self, now: float) -> None:
        fresh, self._fresh = list(self._fresh.values()), {}
        if not fresh:
            return
        gone = self.ledger.heartbeat(self.batch.id, fresh, now=now, lease_s=self.rules.run.lease_s)
        for held in list(self.hands):
            if held.order.job.id in gone:
                self.dispatcher.cancel(held.order.assignment.worker_id, [held.order.job.id])

    def _check_seats(self, now: float) -> None:
        seats = self.dispatcher.seats()
        if not seats and not self._unwritten:
            raise ClusterError(f"every worker was lost; the last one: {printable(self._last_loss)}")
        limit_s = self.rules.run.start_timeout_s
        if seats and all(not seat.up and now - seat.since > limit_s for seat in seats):
            raise ClusterError(
                f"no worker came up within {limit_s:.0f} s: see that the cluster has the CPUs, GPUs and pools asked for"
            )

    # --- ending ---------------------------------------------------------------------------------

    def drain(self) -> None:
        """Start nothing more, and take back what has not begun."""
        if self.draining:
            return
        self.draining = True
        for seat in self.dispatcher.seats():
            waiting = self.hands.of(seat.worker_id)[1:]
            taken = self.dispatcher.recall(seat.worker_id, [held.order.job.id for held in waiting])
            back = [held for held in waiting if held.order.job.id in taken]
            for held in back:
                self.hands.take(seat.worker_id, held.order.job.id, held.order.attempt)
            self._give_back(back)

    def is_over(self) -> bool:
        """Nothing in hand, nothing unwritten, and nothing left to begin (or no wish to)."""
        if len(self.hands) or self._unwritten:
            return False
        if self.draining or self.stuck or self.state is not BatchState.OPEN:
            return True
        if self._queue:
            return False
        self.look_again()  # others may have put jobs back
        return not self._queue

    def wait_s(self) -> float:
        """How long the next turn may sleep when nothing is heard: until some worker is due its next order."""
        now, wait = self._now(), _LONGEST_WAIT_S
        for seat in self.dispatcher.seats():
            chain = self._chains.get(seat.worker_id)
            if not seat.up or not chain or self.hands.count(seat.worker_id) >= MOST_IN_HAND:
                continue
            due_in = self.hands.remaining_s(seat.worker_id, now) - self.rules.run.look_ahead_s
            open_job = self._queue.get(chain[0].job_id)
            if open_job is not None:
                due_in = max(due_in, open_job.not_before - now)
            wait = min(wait, max(_SHORTEST_WAIT_S, due_in))
        return wait

    # --- small questions ------------------------------------------------------------------------

    def _call_for_plan(self, reason: str, *, urgent: bool = False) -> None:
        self._stale = reason
        self._urgent = self._urgent or urgent

    def _idle_worker(self) -> bool:
        """Whether a worker could take a job that waits, and the plan has none for it."""
        now = self._now()
        if not any(each.not_before <= now for each in self._queue.values()):
            return False
        return any(
            seat.up
            and not self._chains.get(seat.worker_id)
            and self.hands.remaining_s(seat.worker_id, now) < self.rules.run.look_ahead_s
            for seat in self.dispatcher.seats()
        )

    def _device_class(self, worker_id: str) -> str:
        for seat in self.dispatcher.seats():
            if seat.worker_id == worker_id:
                return seat.device_class
        return "cpu-1"

    def expect_workers(self) -> None:
        """Remember when the first workers were asked for."""
        now = self._now()
        self._asked_at |= {seat.worker_id: now for seat in self.dispatcher.seats()}


def _finish_by(assignment: Assignment, stages: Mapping[str, float]) -> float | None:
    """When the video should be made, short of storing it; None when there is no need to hurry."""
    if assignment.finish_by is None or assignment.finish_p50_at > assignment.finish_by:
        return None  # no deadline, or late whatever it does: then at its planned quality
    return assignment.finish_by - stages.get("store", 0.0)
