"""The promise: what a batch can have by its deadline, worked out before anything is started.

The workers are those that would be started, free when their start-up is over at p90; the jobs are
the open ones, the first ten thousand by name and the rest as their number. The plan made here is
the one the user is shown, and by which the run is scored afterwards. Nothing here starts or stores
anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from vidplat.domain import Batch, OpenJob, WorkerState
from vidplat.platform.dispatch.dispatcher import Seat
from vidplat.platform.run.learning import Learner
from vidplat.scheduler import Answer, Backlog, Policy, answer, plan
from vidplat.scheduler.decision import Plan, Snapshot

PLANNED_BY_NAME = 10_000


@dataclass(frozen=True)
class Promise:
    plan: Plan
    answer: Answer
    startup_s: float  # p50, of the slowest worker
    inputs_sha256: str  # of everything the plan was made from


def make_promise(
    batch: Batch,
    jobs: Sequence[OpenJob],
    total: int,
    seats: Sequence[Seat],
    learner: Learner,
    policy: Policy,
    now: float,
) -> Promise:
    """`jobs` are the first of `total` open ones; `seats` are the workers to be started now.

    Light ones are not counted on: what they take over only makes a promise come true sooner.
    """
    seats = [seat for seat in seats if not seat.light]
    startups = {
        seat.worker_id: learner.startup(batch.model.id, seat.device_class) for seat in seats
    }
    snapshot = Snapshot(
        now=now,
        jobs=tuple(jobs),
        workers=tuple(
            WorkerState(
                id=seat.worker_id,
                pool=seat.pool,
                device_class=seat.device_class,
                free_bytes=seat.free_bytes,
                ready_at=now + startups[seat.worker_id].p90_s,
                price_per_s=seat.price_per_s,
            )
            for seat in seats
        ),
        deadline_at=batch.deadline_at,
        quality_floor=batch.quality_floor,
    )
    rest = total - len(jobs)
    backlog = (Backlog(jobs[-1], rest),) if rest > 0 and jobs else ()
    decided = plan(snapshot, policy, learner.knowledge, backlog)
    startup_s = max(each.p50_s for each in startups.values())
    inputs = hashlib.sha256(repr((snapshot, policy, learner.knowledge, backlog)).encode())
    return Promise(decided, answer(decided, policy, now), startup_s, inputs.hexdigest())
