"""The plan that is being followed: what each worker should get, when, and until when it may take.

Jobs are bound late. A worker gets its next order when less than `look_ahead_s` of work is left in
its hand, so that most of the queue can still be planned otherwise, and no worker waits. What is in
hand may be hurried: it hears the latest end that keeps what is planned behind it in time.

Arithmetic on a plan and a `Standing`; nothing is sent, changed or read from a clock here. Left to
others: making plans (`scheduler`), claiming and sending what is due (`turn`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from vidplat.domain import OpenJob
from vidplat.platform.dispatch.dispatcher import Seat
from vidplat.platform.run.hands import Hands
from vidplat.platform.run.learning import Learner
from vidplat.scheduler import latest_free
from vidplat.scheduler.decision import Assignment, Plan
from vidplat.stages import AFTER_DRAFT, BESIDE

MOST_IN_HAND = 64  # orders per worker, however short they are
_LONGEST_WAIT_S = 0.25  # between two turns without events
_SHORTEST_WAIT_S = 0.01
_HURRY_S = 0.25  # a finish time moves by so much before a running job hears of it
# A busy machine adds so much to any end: a thread that wakes late, a disk that flushes.
_CUSHION_S = 0.2


@dataclass(frozen=True)
class Standing:
    """Who is there, what they hold, what waits and how long things take, at one moment."""

    now: float
    seats: Sequence[Seat]
    hands: Hands
    waiting: Mapping[str, OpenJob]  # by job id
    learner: Learner
    look_ahead_s: float

    def has_room(self, worker_id: str) -> bool:
        """Whether less than the look-ahead is left in that worker's hand."""
        return self.hands.remaining_s(worker_id, self.now) < self.look_ahead_s

    @property
    def all_have_plenty(self) -> bool:
        """Whether no worker that makes videos can run out of work while one waits a moment."""
        return len(self.hands) > 0 and all(
            self.hands.count(seat.worker_id) >= MOST_IN_HAND // 4
            for seat in self.seats
            if seat.up and not seat.light
        )


@dataclass(frozen=True)
class Due:
    """A job whose worker should have it now."""

    planned: Assignment
    open_job: OpenJob
    stages: Mapping[str, float]  # seconds of each, on its worker
    closing_s: float  # that it leaves free before its end when it is cut short

    @property
    def finish_by(self) -> float | None:
        """When its worker should be through, short of storing it; None: no need to hurry."""
        if self.planned.finish_by is None:
            return None
        return self.planned.finish_by - self.planned.handed_s - self.closing_s


@dataclass(frozen=True)
class Following:
    """What a plan has for each worker, next first, and how late each may become free for it."""

    chains: Mapping[str, Sequence[Assignment]] = field(default_factory=dict)
    free_by: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, plan: Plan) -> Following:
        chains: dict[str, list[Assignment]] = {}
        for each in plan.assignments:
            chains.setdefault(each.worker_id, []).append(each)
        return cls(chains, latest_free(plan))

    def without(self, worker_id: str) -> Following:
        """The same when a worker was lost."""
        kept = {worker: chain for worker, chain in self.chains.items() if worker != worker_id}
        return replace(self, chains=kept)

    def planned_s(self, worker_id: str) -> float:
        """Its own seconds of what is still planned for a worker."""
        return sum(each.p50_s - each.handed_s for each in self.chains.get(worker_id, ()))

    def due(self, at: Standing) -> tuple[list[Due], Following]:
        """What every worker should get now, and what is left to follow then."""
        due: list[Due] = []
        chains = dict(self.chains)
        for seat in at.seats:
            if seat.up and (chain := self.chains.get(seat.worker_id)):
                found, taken = _due_of(seat, chain, at)
                due += found
                chains[seat.worker_id] = chain[taken:]
        return due, replace(self, chains=chains)

    def has_idle(self, at: Standing) -> bool:
        """Whether a worker could take a job that waits, and the plan has none for it."""
        return any(each.not_before <= at.now for each in at.waiting.values()) and any(
            seat.up
            and not seat.light
            and not self.chains.get(seat.worker_id)
            and at.has_room(seat.worker_id)
            for seat in at.seats
        )

    def wait_s(self, at: Standing) -> float:
        """How long nothing needs to be done, if nothing is heard, before an order is due."""
        wait_s = _LONGEST_WAIT_S
        for seat in at.seats:
            chain = self.chains.get(seat.worker_id)
            if not seat.up or not chain or at.hands.count(seat.worker_id) >= MOST_IN_HAND:
                continue
            due_in = at.hands.remaining_s(seat.worker_id, at.now) - at.look_ahead_s
            if (open_job := at.waiting.get(chain[0].job_id)) is not None:
                due_in = max(due_in, open_job.not_before - at.now)
            wait_s = min(wait_s, max(_SHORTEST_WAIT_S, due_in))
        return wait_s

    def moved_ends(self, worker_id: str, at: Standing) -> dict[str, float | None]:
        """Latest ends, by job id, of what a worker holds, that keep all behind them in time; only
        those that moved. None: no need to hurry."""
        latest = self.free_by.get(worker_id, math.inf)
        moved: dict[str, float | None] = {}
        for held, is_turn in reversed(list(at.hands.in_turn(worker_id))):
            if held.is_made:
                break  # nothing can be left out any more
            order = held.order
            due = math.inf if order.job.deadline_at is None else order.job.deadline_at
            limit = min(latest + held.beside_s, due - order.assignment.handed_s)
            finish_by = limit - held.closing_s if at.now < limit < math.inf else None
            if _has_moved(order.finish_by, finish_by):
                moved[order.job.id] = finish_by
            latest = limit - held.remaining_s(at.now, is_first=is_turn)
        return moved


def why_stuck(decided: Plan, at: Standing) -> str | None:
    """A reason when nothing runs, nothing was placed, and nobody is on the way."""
    all_up = all(seat.up or seat.light for seat in at.seats)
    if decided.assignments or len(at.hands) or not decided.deferred or not all_up:
        return None
    return decided.deferred[0].reason


def _due_of(seat: Seat, chain: Sequence[Assignment], at: Standing) -> tuple[list[Due], int]:
    """What is due of a worker's chain, and how many of its links that uses up: jobs that no longer
    wait are passed over."""
    count = at.hands.count(seat.worker_id)
    work_s = at.hands.remaining_s(seat.worker_id, at.now)
    due: list[Due] = []
    for taken, planned in enumerate(chain):
        if count and (count >= MOST_IN_HAND or work_s >= at.look_ahead_s):
            return due, taken
        open_job = at.waiting.get(planned.job_id)
        if open_job is None:
            continue
        if open_job.not_before > at.now:
            return due, taken
        due.append(_as_due(planned, open_job, seat.device_class, at.learner))
        added = due[-1].stages
        after_s = sum(added.get(stage, 0.0) for stage in BESIDE)
        count, work_s = count + 1, work_s + max(after_s, sum(added.values()) - after_s)
    return due, len(chain)


def _as_due(planned: Assignment, open_job: OpenJob, device_class: str, learner: Learner) -> Due:
    """By what is known now: the plan may be older."""
    job, point, speed = open_job.job, planned.point, learner.speed(planned.worker_id)
    seconds = learner.predict(job, device_class, point).per_stage
    closing_s = _CUSHION_S
    if planned.handed_s:  # another stores it
        seconds = {stage: s for stage, s in seconds.items() if stage not in AFTER_DRAFT}
    else:
        closing_s += learner.storing(job, device_class, point).p90_s / speed
    return Due(planned, open_job, {stage: s / speed for stage, s in seconds.items()}, closing_s)


def _has_moved(before: float | None, after: float | None) -> bool:
    if before is None or after is None:
        return before is not after
    return abs(before - after) > _HURRY_S
