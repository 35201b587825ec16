"""One turn of the loop: hear what happened, observe, plan, carry out.

    take_turn(world, wait_s)
      1. hear        events from the workers become rows in the catalog       world.hear
      2. observe     open jobs, workers, clock: a Snapshot                    world.observe
      3. plan        arithmetic (scheduler)                                   plan(...)
      4. carry out   claim in the catalog, then send                          world.adopt,
         world.carry_out

A plan is made anew when something happened that it did not foresee (a worker came or went, a job
failed or took other than its p90 said, a worker has nothing left to do), not after every job; in
between its chains are followed. Jobs are bound late: a worker gets its next order when less than
`look_ahead_s` of work is left in its hand, so that most of the queue can still be planned
otherwise, and no worker waits.

The parts a World is made of, each in a file of its own:

    window      the queued jobs that are planned one by one
    hands       what each worker holds, and when it will be through
    plan_age    whether the plan has been overtaken
    endings     what ended, on its way into the catalog
    learning    what that teaches about seconds
    hand_over   who finishes a draft, and on whom plans may count for it

Left to others: whether to begin at all (`promise`), what follows a failure (`scheduler.retry`),
transport (`dispatch`). One World serves one batch; it is used by one thread.
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
    Batch,
    Failure,
    FailureKind,
    Job,
    OnInfeasible,
    Outcome,
    Progress,
    WorkerState,
)
from vidplat.errors import CatalogError, ClusterError, ModelError, StoreError, printable
from vidplat.methods.model_shape import ModelShape
from vidplat.platform.dispatch.dispatcher import (
    Dispatcher,
    Event,
    HandedOver,
    Order,
    Seat,
    WorkerLost,
    WorkerUp,
)
from vidplat.platform.interface import Listener
from vidplat.platform.run import endings as ending
from vidplat.platform.run import window as windows
from vidplat.platform.run.endings import Endings
from vidplat.platform.run.hand_over import HandOver
from vidplat.platform.run.hands import Hands, InHand
from vidplat.platform.run.learning import Learner
from vidplat.platform.run.plan_age import PlanAge
from vidplat.platform.run.plan_records import claim
from vidplat.platform.run.score import Tally, worked_s
from vidplat.platform.run.window import Window
from vidplat.scheduler import Policy, latest_free, plan
from vidplat.scheduler.decision import Assignment, Plan, Snapshot
from vidplat.scheduler.profile import quality_of
from vidplat.stages import (
    AFTER_DRAFT,
)
from vidplat.storage.catalog_words import BatchState, Claim, Hold

MOST_IN_HAND = 64  # orders per worker, however short they are
_HURRY_S = 0.25  # a finish time moves by so much before a running job hears of it
_CUSHION_S = (
    0.2  # a busy machine adds so much to any end: a thread that wakes late, a disk that flushes
)
_LONGEST_WAIT_S, _SHORTEST_WAIT_S = 0.25, 0.01  # between two turns without events
_LINGER_S = 0.02  # when every worker has plenty to do


class Ledger(windows.Queue, ending.History, Protocol):
    """What a turn needs of the catalog. `storage.catalog.Catalog`."""

    def batch_state(self, batch_id: str) -> BatchState: ...
    def claim(
        self, batch_id: str, claims: Sequence[Claim], *, now: float, lease_s: float
    ) -> dict[str, int]: ...
    def heartbeat(
        self, batch_id: str, progress: Sequence[Progress], *, now: float, lease_s: float
    ) -> set[str]: ...
    def renew(self, batch_id: str, owner: str, *, now: float, lease_s: float) -> int: ...
    def hold_batch(self, batch_id: str, owner: str, *, now: float, lease_s: float) -> Hold: ...
    def save_workers(self, batch_id: str, seen: Sequence[WorkerState], *, now: float) -> None: ...


@dataclass(frozen=True)
class Rules:
    """What holds for the whole run."""

    run: RunConfig
    policy: Policy
    owner: str
    passed_at: float = (
        0.0  # deadlines before this had passed when the run began, and no longer shape its plans
    )
    clock: Callable[[], float] = time.time
    crash_point: Callable[[str], None] = field(default=lambda name: None)


def take_turn(world: World, wait_s: float) -> None:
    # 1. Hear.
    world.hear(wait_s)
    if world.needs_plan():
        # 2. Observe.  3. Plan.
        snapshot = world.observe()
        decided = plan(snapshot, world.policy, world.learner.knowledge, world.window.backlog())
        world.adopt(decided, snapshot.now)
    # 4. Carry out.
    world.carry_out()
    world.beat()


class World:
    """Everything between two turns: the window of open jobs, what is in hand, the plan being
    followed."""

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
        # What is admitted is finished, late if it must be: a promise is never taken back for
        # another job.
        self.policy = replace(rules.policy, on_infeasible=OnInfeasible.BEST_EFFORT)
        self.hands = Hands()
        self.untidy = False  # attempts may have left files behind
        self.stuck: str | None = None  # why the rest cannot be placed
        self.draining = False
        self.state = BatchState.OPEN
        self._find_commit, self._describe = find_commit, describe
        self._now = rules.clock
        self.window = Window(ledger, batch.id, rules.run.window, self._know, rules.passed_at)
        self._endings = Endings(
            ledger,
            batch.id,
            self.window,
            self.policy,
            listener,
            tally,
            owner=rules.owner,
            clock=rules.clock,
            crash_point=rules.crash_point,
        )
        self._hand_over = HandOver(dispatcher.seats, self.hands, learner, batch.model.id)
        self._plan_age = PlanAge()
        self._chains: dict[str, deque[Assignment]] = {}  # what the plan has for each worker
        self._free_by: Mapping[
            str, float
        ] = {}  # worker id -> when it must be free for what the plan has next
        self._asked_at: dict[str, float] = {}  # worker id -> when it was asked to come
        self._fresh: dict[str, Progress] = {}  # heartbeats not yet in the catalog
        self._beat_at = self._renewed_at = -math.inf
        self._last_loss = ""

    def begin(self) -> None:
        """The workers are about to be asked for; read what there is to do."""
        now = self._now()
        self._asked_at |= {seat.worker_id: now for seat in self.dispatcher.seats()}
        self.look_again()

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
        self._endings.write()

    def _all_have_plenty(self) -> bool:
        """Whether no worker can run out of work while we wait a moment."""
        return len(self.hands) > 0 and all(
            self.hands.count(seat.worker_id) >= MOST_IN_HAND // 4
            for seat in self._makers()
            if seat.up
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
                    self._note_ending(held, event)
            case HandedOver():
                held = self.hands.take(event.worker_id, event.job_id, event.attempt)
                if held is not None:
                    self._pass_on(held, event)
            case WorkerUp():
                self._welcome(event)
            case WorkerLost():
                self._mourn(event)

    def _note_ending(self, held: InHand, outcome: Outcome) -> None:
        self._fresh.pop(outcome.job_id, None)
        job, promised = held.order.job, held.order.assignment
        if outcome.ok and outcome.point != promised.point:  # cut short by its `finish_by`
            outcome = replace(
                outcome,
                quality=quality_of(self.learner.shapes[job.model.id], job.spec, outcome.point),
            )
        self._endings.add(held, outcome)
        if not outcome.ok:
            self.untidy = True
            self._plan_age.call("a job failed", urgent=True)
            return
        drafted_on = self._device_class(outcome.drafted_by) if outcome.drafted_by else ""
        self.learner.finished(outcome, job, self._device_class(outcome.worker_id), drafted_on)
        took = worked_s(held.order, outcome)
        if self._deadlines_ahead and not 0.7 * promised.p50_s <= took <= promised.p90_s:
            self._plan_age.call(f"a job took {took:.2f} s, predicted {promised.p50_s:.2f} s")

    def _welcome(self, up: WorkerUp) -> None:
        asked_at = self._asked_at.get(up.worker_id)
        calibrated_s = sum(float(row["seconds"]) for row in up.observations)
        if asked_at is not None:
            startup_s = max(0.0, up.at - asked_at - up.load_s - calibrated_s)
            self.learner.started(up, self.batch.model.id, startup_s)
        self.tally.worker_up(up.at)
        for held in self.hands.of(up.worker_id):  # drafts that were bound to it before
            self._send_draft(held)
        self._plan_age.call(f"worker {up.worker_id} came up", urgent=True)

    def _mourn(self, lost: WorkerLost) -> None:
        """The oldest order in its hand takes the blame; those behind it had not begun and go back
        freely.

        An order whose video is committed already did end, only its Outcome was lost on the way.
        """
        self.untidy = True
        self._last_loss = printable(lost.reason)
        self._chains.pop(lost.worker_id, None)
        self.listener.warn(f"worker {lost.worker_id} was lost: {self._last_loss}")
        if lost.request_is_wrong:
            raise ModelError(self._last_loss)
        if lost.successor is not None:
            self._asked_at[lost.successor] = self._now()
        failure = Failure(
            FailureKind.WORKER_LOST, f"worker {lost.worker_id} was lost: {self._last_loss}"
        )
        blamed = False
        for held in self.hands.drop(lost.worker_id):
            artifact = self._committed(held.order.job.id)
            drafted = held.order.drafted
            if (
                artifact is None
                and drafted is not None
                and drafted.worker_id != lost.worker_id
                and not held.passed_on
            ):
                self._pass_on(
                    replace(held, passed_on=True), drafted
                )  # the draft is whole: its part is done once more
                continue
            if artifact is None and blamed:
                self._endings.give_back([held])
                continue
            blamed = blamed or artifact is None
            self.tally.worker_lost(held.order.job.id)
            outcome = Outcome(
                job_id=held.order.job.id,
                attempt=held.order.attempt,
                worker_id=lost.worker_id,
                point=held.order.assignment.point,
                started_at=held.sent_at,
                finished_at=self._now(),
                artifact=artifact,
                failure=failure if artifact is None else None,
                steps_done=held.progress.step if held.progress else 0,
            )
            self._endings.add(held, outcome)
        self._plan_age.call(f"worker {lost.worker_id} was lost", urgent=True)

    def _pass_on(self, held: InHand, drafted: HandedOver) -> None:
        """A draft goes to whoever will be through with it first."""
        now, order = self._now(), replace(held.order, hand_over=False, drafted=drafted)
        planned_s = sum(
            each.p50_s - each.handed_s for each in self._chains.get(drafted.worker_id, ())
        )
        found = self._hand_over.finisher(held, drafted, now, planned_s)
        if found is None:
            self._endings.give_back([replace(held, order=replace(order, drafted=None))])
            return
        worker_id, rest = found
        fresh = InHand(
            order,
            held.open_job,
            rest,
            now,
            passed_on=held.passed_on,
            held_by=worker_id,
            is_sent=False,
        )
        self.hands.put(worker_id, fresh)
        if any(seat.worker_id == worker_id and seat.up for seat in self.dispatcher.seats()):
            self._send_draft(fresh)  # else it waits here, see `_welcome`

    def _send_draft(self, held: InHand) -> None:
        if not held.is_sent:
            held.is_sent = True
            self.dispatcher.send(held.worker_id, [held.order])
            self.rules.crash_point("handed-over")

    def _bind_waiting_anew(self) -> None:
        """Drafts that wait for a light worker to come up go to whoever will be through first by
        what is now known."""
        for seat in self.dispatcher.seats():
            if seat.light and not seat.up:
                for held in self.hands.drop(seat.worker_id):
                    assert held.order.drafted is not None, "light workers hold nothing else"
                    self._pass_on(held, held.order.drafted)

    def _makers(self) -> list[Seat]:
        """Seats whose workers have a model; only these are planned for."""
        return [seat for seat in self.dispatcher.seats() if not seat.light]

    def _committed(self, job_id: str) -> Artifact | None:
        try:
            return self._find_commit(job_id)
        except StoreError:  # then it runs again, and loses to the commit that is there
            return None

    # --- 2. observe -----------------------------------------------------------------------------

    def needs_plan(self) -> bool:
        """Whether the plan being followed has been overtaken, and it is time for the next."""
        if self.window.is_low and not len(self._endings):
            self.look_again()
        if self.draining or not len(self.window) or self.state is not BatchState.OPEN:
            return False
        return self._plan_age.is_due(
            self._now(), idle=self._has_idle_worker(), deadlines=self._deadlines_ahead
        )

    def observe(self) -> Snapshot:
        now = self._now()
        return Snapshot(
            now=now,
            jobs=tuple(self.window),
            workers=tuple(self._worker_state(seat, now) for seat in self._makers()),
            deadline_at=self.batch.deadline_at,
            quality_floor=self.batch.quality_floor,
            finishers=self._hand_over.finishers(now),
        )

    def workers(self, now: float) -> tuple[WorkerState, ...]:
        return tuple(self._worker_state(seat, now) for seat in self.dispatcher.seats())

    def _worker_state(self, seat: Seat, now: float) -> WorkerState:
        up_at = now if seat.up else self.learner.expected_up(self.batch.model.id, seat, now)
        return WorkerState(
            id=seat.worker_id,
            pool=seat.pool,
            device_class=seat.device_class,
            free_bytes=seat.free_bytes,
            ready_at=up_at + self.hands.remaining_s(seat.worker_id, now),
            speed=self.learner.speed(seat.worker_id),
            running=self.hands.running(seat.worker_id),
            price_per_s=seat.price_per_s,
            suspect=seat.worker_id in self._endings.suspects,
        )

    def look_again(self) -> None:
        """Read the window from the catalog: at the start, and when others may have changed it."""
        if self.window.read():
            self._plan_age.call("the queue was read", urgent=True)

    def _know(self, model_id: str) -> None:
        if model_id not in self.learner.shapes:
            self.learner.shapes[model_id] = self._describe(model_id)

    @property
    def _deadlines_ahead(self) -> bool:
        return self.batch.deadline_at is not None or self.window.has_deadlines

    def _has_idle_worker(self) -> bool:
        """Whether a worker could take a job that waits, and the plan has none for it."""
        now = self._now()
        return self.window.has_ready(now) and any(
            seat.up
            and not self._chains.get(seat.worker_id)
            and self.hands.remaining_s(seat.worker_id, now) < self.rules.run.look_ahead_s
            for seat in self._makers()
        )

    # --- 4. carry out ---------------------------------------------------------------------------

    def adopt(self, decided: Plan, observed_at: float) -> None:
        """Follow this plan from now on."""
        self._chains = {}
        for each in decided.assignments:
            self._chains.setdefault(each.worker_id, deque()).append(each)
        self._free_by = latest_free(decided)
        self.tally.planned(decided)
        self.listener.planned(decided, None)
        self.stuck = self._why_stuck(decided)
        self._hurry_running()
        self._plan_age.made(self._now(), self._now() - observed_at)

    def _why_stuck(self, decided: Plan) -> str | None:
        """A reason when nothing runs, nothing was placed, and nobody is on the way."""
        all_up = all(seat.up for seat in self._makers())
        if decided.assignments or len(self.hands) or not decided.deferred or not all_up:
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
        claims = [claim(each, self.rules.owner) for each in due]
        try:
            attempts = self.ledger.claim(
                self.batch.id, claims, now=now, lease_s=self.rules.run.lease_s
            )
        except CatalogError as error:
            for each in reversed(due):
                self._chains.setdefault(each.worker_id, deque()).appendleft(each)
            self._endings.excuse(error)
            return
        self.rules.crash_point("claimed")
        self.tally.dispatched(now)
        orders: dict[str, list[Order]] = {}
        for each in due:
            open_job = self.window.take(each.job_id)
            if each.job_id not in attempts:
                continue  # cancelled, or another process has it
            stages, closing_s = (
                self._stages(each, open_job.job),
                self._closing_s(each, open_job.job),
            )
            hand_over = self._hand_over.light_by(now + each.p50_s, now)
            order = Order(
                each, open_job.job, attempts[each.job_id], _finish_by(each, closing_s), hand_over
            )
            self.hands.put(each.worker_id, InHand(order, open_job, stages, now, closing_s))
            orders.setdefault(each.worker_id, []).append(order)
        for worker_id, sent in orders.items():
            self.dispatcher.send(worker_id, sent)
        self.rules.crash_point("sent")

    def _due(self) -> list[Assignment]:
        """What every worker should get now, from its chain."""
        now = self._now()
        due: list[Assignment] = []
        for seat in self.dispatcher.seats():
            chain = self._chains.get(seat.worker_id)
            if not seat.up or not chain:
                continue
            count, work_s = (
                self.hands.count(seat.worker_id),
                self.hands.remaining_s(seat.worker_id, now),
            )
            while (
                chain
                and count < MOST_IN_HAND
                and (count == 0 or work_s < self.rules.run.look_ahead_s)
            ):
                open_job = self.window.find(chain[0].job_id)
                if open_job is not None and open_job.not_before > now:
                    break
                each = chain.popleft()
                if open_job is None:
                    continue
                due.append(each)
                stages = self._stages(each, open_job.job)
                count, work_s = count + 1, work_s + sum(stages.values())
        return due

    def _stages(self, planned: Assignment, job: Job) -> dict[str, float]:
        """Seconds of each stage on its worker, by what is known now: the plan may be older."""
        estimate = self.learner.predict(job, self._device_class(planned.worker_id), planned.point)
        speed = self.learner.speed(planned.worker_id)
        elsewhere = AFTER_DRAFT if planned.handed_s else ()
        return {
            stage: seconds / speed
            for stage, seconds in estimate.per_stage.items()
            if stage not in elsewhere
        }

    def _closing_s(self, planned: Assignment, job: Job) -> float:
        """Seconds that a run leaves free when it is cut short to be in time: storing at p90, unless
        another stores."""
        if planned.handed_s:
            return _CUSHION_S
        storing = self.learner.storing(job, self._device_class(planned.worker_id), planned.point)
        return storing.p90_s / self.learner.speed(planned.worker_id) + _CUSHION_S

    def _hurry_running(self) -> None:
        """Tell running jobs the latest end that keeps those planned after them in time."""
        now = self._now()
        for seat in self.dispatcher.seats():
            latest = self._free_by.get(seat.worker_id, math.inf)
            changed: dict[str, float | None] = {}
            for index, held in reversed(list(enumerate(self.hands.of(seat.worker_id)))):
                due = held.order.job.deadline_at
                limit = min(
                    latest, math.inf if due is None else due - held.order.assignment.handed_s
                )
                finish_by = limit - held.closing_s if now < limit < math.inf else None
                before = held.order.finish_by
                if (before is None) != (finish_by is None) or abs(
                    (before or 0.0) - (finish_by or 0.0)
                ) > _HURRY_S:
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
        self._bind_waiting_anew()
        try:
            self._report(now)
            if now - self._renewed_at >= run.lease_s / 6:
                self._renewed_at = now
                self.ledger.renew(self.batch.id, self.rules.owner, now=now, lease_s=run.lease_s)
                hold = self.ledger.hold_batch(
                    self.batch.id, self.rules.owner, now=now, lease_s=run.lease_s
                )
                if hold.owner != self.rules.owner:
                    raise ClusterError(
                        f"another process has taken over batch {self.batch.id}; this one stops"
                    )
                self.ledger.save_workers(self.batch.id, self.workers(now), now=now)
                self.learner.save()
            self.state = self.ledger.batch_state(self.batch.id)
        except CatalogError as error:
            self._endings.excuse(error)
        self._check_seats(now)

    def _report(self, now: float) -> None:
        fresh, self._fresh = list(self._fresh.values()), {}
        if not fresh:
            return
        gone = self.ledger.heartbeat(self.batch.id, fresh, now=now, lease_s=self.rules.run.lease_s)
        for held in list(self.hands):
            if held.order.job.id in gone:
                self.dispatcher.cancel(held.worker_id, [held.order.job.id])

    def _check_seats(self, now: float) -> None:
        seats = self._makers()
        if not seats and not len(self._endings):
            raise ClusterError(f"every worker was lost; the last one: {self._last_loss}")
        limit_s = self.rules.run.start_timeout_s
        if seats and all(not seat.up and now - seat.since > limit_s for seat in seats):
            raise ClusterError(
                f"no worker came up within {limit_s:.0f} s: see that the cluster has the CPUs, "
                "GPUs and pools asked for"
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
            self._endings.give_back(back)
        self._endings.write()

    def is_over(self) -> bool:
        """Nothing in hand, nothing unwritten, and nothing left to begin (or no wish to)."""
        if len(self.hands) or len(self._endings):
            return False
        if self.draining or self.stuck or self.state is not BatchState.OPEN:
            return True
        if len(self.window):
            return False
        self.look_again()  # others may have put jobs back
        return not len(self.window)

    def wait_s(self) -> float:
        """How long the next turn may sleep when nothing is heard: until some worker is due its next
        order."""
        now, wait = self._now(), _LONGEST_WAIT_S
        for seat in self.dispatcher.seats():
            chain = self._chains.get(seat.worker_id)
            if not seat.up or not chain or self.hands.count(seat.worker_id) >= MOST_IN_HAND:
                continue
            due_in = self.hands.remaining_s(seat.worker_id, now) - self.rules.run.look_ahead_s
            open_job = self.window.find(chain[0].job_id)
            if open_job is not None:
                due_in = max(due_in, open_job.not_before - now)
            wait = min(wait, max(_SHORTEST_WAIT_S, due_in))
        return wait

    def _device_class(self, worker_id: str) -> str:
        for seat in self.dispatcher.seats():
            if seat.worker_id == worker_id:
                return seat.device_class
        return "cpu-1"


def _finish_by(assignment: Assignment, closing_s: float) -> float | None:
    """When its worker should be through, short of storing it; None when there is no need to
    hurry."""
    if assignment.finish_by is None:
        return None  # no deadline, or late whatever it does: then at its planned quality
    return assignment.finish_by - assignment.handed_s - closing_s
