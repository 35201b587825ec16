"""The promise: what a batch can have by its deadline, worked out before anything is started.

The workers are those that would be started and have a place, free when their start-up is over at
p90; the jobs are the open ones, the first ten thousand by name and the rest as their number. Where
all places are taken by others no time can be promised: a deadline is refused then. The plan made
here is the one the user is shown, and by which the run is scored afterwards. Nothing is started or
stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from vidplat.domain import Batch, OnInfeasible
from vidplat.platform.dispatch.dispatcher import Seat
from vidplat.platform.run.learning import Learner
from vidplat.platform.run.window import Queue
from vidplat.scheduler import answer, plan
from vidplat.scheduler.admission import Answer
from vidplat.scheduler.decision import Plan, Policy, Snapshot, Verdict

PLANNED_BY_NAME = 10_000


@dataclass(frozen=True)
class Promise:
    plan: Plan
    answer: Answer
    startup_s: float  # p50, of the slowest worker
    inputs_sha256: str  # of everything the plan was made from


def make_promise(
    batch: Batch,
    queue: Queue,
    seats: Sequence[Seat],
    learner: Learner,
    now: float,
    asked_at: float | None = None,
) -> Promise:
    """`seats` are to be started now. Light ones are not counted on: they only help to keep it.
    What is told of it counts from `asked_at` (None: now), as deadlines do."""
    model_id, makers = batch.model.id, [seat for seat in seats if not seat.light]
    placed = [seat for seat in makers if seat.has_place]
    makers = placed or makers
    startups = [learner.startup(model_id, seat.device_class) for seat in makers]
    snapshot = Snapshot(
        now=now,
        jobs=tuple(queue.first),
        workers=tuple(
            seat.state(now + startup.p90_s) for seat, startup in zip(makers, startups, strict=True)
        ),
        deadline_at=batch.deadline_at,
        asked_at=asked_at,
    )
    policy, backlog = Policy(batch.on_infeasible, batch.quality_floor), queue.backlog()
    decided = plan(snapshot, policy, learner.knowledge, backlog)
    answered = answer(decided, policy, now if asked_at is None else asked_at)
    if not placed:
        has_deadline = batch.deadline_at or any(each.job.deadline_at for each in queue.first)
        answered = _without_places(answered, bool(has_deadline), policy)
    startup_s = max(each.p50_s for each in startups)
    inputs = hashlib.sha256(repr((snapshot, policy, learner.knowledge, backlog)).encode())
    return Promise(decided, answered, startup_s, inputs.hexdigest())


def _without_places(answered: Answer, has_deadline: bool, policy: Policy) -> Answer:
    """The same for a batch of which no worker has a place now: when one will, nobody knows."""
    if has_deadline and policy.on_infeasible is not OnInfeasible.BEST_EFFORT:
        advice = (
            "try again when there is room, or wait for it with --on-infeasible best-effort, or "
            "without a deadline"
        )
        headline = "infeasible: no worker has a place on the cluster now"
        return Answer(Verdict.INFEASIBLE, False, headline, (advice,))
    waits = "no worker has a place on the cluster now: times count from when one has"
    return replace(answered, details=(waits, *answered.details))
