"""Jobs that cost the same and are due at the same time, taken together.

A batch of a million prompts has a handful of sizes and one deadline: the planner's work grows with
the number of groups, not of jobs.

Left to others: what a worker can offer a group (`menu`), who gets how many (`trials`). Not
promised: more than 256 different deadlines are told apart only to within 2 % of the time left (each
is rounded down to the earliest of its neighbours).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from vidplat.domain import Job, OpenJob
from vidplat.scheduler.decision import Deferred, Finisher, Snapshot
from vidplat.scheduler.menu import Menu, Rungs
from vidplat.scheduler.relay import lag_before, mean_ready_at

NEVER = math.inf  # the deadline of a job without one

_PRIORITY_WEIGHT = 1.5  # one step of priority makes a job's quality worth this much more
_MOST_DEADLINES = 256
_DEADLINE_GRAIN = 1.02  # neighbours differ by this factor in time left, when there are more


@dataclass(frozen=True)
class Backlog:
    """`count` more jobs like `like`, planned for without getting an assignment yet."""

    like: OpenJob
    count: int


@dataclass
class Group:
    """Jobs alike in cost, deadline, priority and allowed workers."""

    first: Job
    deadline_at: float  # of its maker's part, `lag_s` before that of the video; NEVER: none
    not_before: float
    weight: float  # what a unit of quality is worth
    full_quality: float  # of the best point the request allows
    guess: str  # what of the qualities comes from no profile, see `Choices`
    rungs: dict[int, Rungs]  # by index of the worker in the planner's list
    lag_s: float = 0.0  # kept free for light workers
    jobs: list[Job] = field(default_factory=list)  # in row order
    count: int = 0  # more than len(jobs) when there is a backlog

    @property
    def order(self) -> tuple[float, int, float, float, int, str]:
        """Earliest deadline, then priority, then free to start, then longest (a short tail)."""
        first, longest = self.first, max(r.p50_s[-1] for r in self.rungs.values())
        due = (self.deadline_at, -first.priority, self.not_before)
        return (*due, -longest, first.row, first.id)


def group_jobs(
    snapshot: Snapshot, menu: Menu, backlog: Sequence[Backlog], makers_at: float
) -> tuple[list[Group], list[Deferred]]:
    """Groups in the order they are to be made, and the jobs that nobody here can make, with why.

    A Group's `rungs` are keyed by the position of a worker in the menu's list. Where light workers
    are counted on, all of them have their part as much later than the makers as the longest lag of
    any rung, and as it takes to make up for being free later than the first maker, at `makers_at`.
    """
    due = _rounded_deadlines(snapshot, backlog)
    groups: dict[tuple[object, ...], Group] = {}
    deferred: list[Deferred] = []
    listed = sorted(snapshot.jobs, key=lambda o: (o.job.row, o.job.id))
    for open_job, count in [*((o, 0) for o in listed), *((b.like, b.count) for b in backlog)]:
        job, spec = open_job.job, open_job.job.spec
        not_before = open_job.not_before if open_job.not_before > snapshot.now else 0.0
        kind = (
            job.model.id, spec.width, spec.height, spec.num_frames, spec.num_inference_steps,
            spec.guidance_scale > 1.0, job.method, job.input_video is not None, open_job.rung_down,
            open_job.avoid,
        )  # fmt: skip
        offer = menu.offer(kind, open_job)
        if isinstance(offer, str):
            if not count:
                deferred.append(Deferred(job.id, offer))
            continue
        deadline = due[job.deadline_at]
        key = (kind, deadline, job.priority, not_before)
        if key not in groups:
            chosen, rungs = offer
            weight = _PRIORITY_WEIGHT ** max(-20, min(20, job.priority))
            best, guess = chosen.qualities[-1], chosen.guess
            groups[key] = Group(job, deadline, not_before, weight, best, guess, rungs)
        groups[key].count += count or 1
        if not count:
            groups[key].jobs.append(job)
    _leave_time(groups.values(), snapshot.finishers, makers_at)
    return sorted(groups.values(), key=lambda g: g.order), deferred


def stored_after(groups: Collection[Group], workers: int) -> list[float]:
    """Per worker: how long after it has made the last video of a queue that may be stored."""
    after_s = [0.0] * workers
    for rungs_of in {id(group.rungs): group.rungs for group in groups}.values():
        for i, rungs in rungs_of.items():
            after_s[i] = max(after_s[i], *map(rungs.beside_s, range(len(rungs.points))))
    return after_s


def _leave_time(groups: Collection[Group], finishers: Sequence[Finisher], makers_at: float) -> None:
    """Bring forward what makers are due to hand over; by one lag, as any may stand before any."""
    every = [relay for g in groups for r in g.rungs.values() for relay in r.relayed]
    relays = [relay for relay in every if relay.handed_s]
    if not relays:
        return
    lag_s, busy = max(relay.lag_p90_s for relay in relays), max(relay.busy for relay in relays)
    behind_s = mean_ready_at(finishers) - makers_at
    for group in groups:
        if any(relay.handed_s for rungs in group.rungs.values() for relay in rungs.relayed):
            due_s = group.deadline_at - makers_at
            group.lag_s = lag_before(due_s, lag_s, behind_s, busy, len(finishers))
            group.deadline_at -= group.lag_s


def _rounded_deadlines(snapshot: Snapshot, backlog: Sequence[Backlog]) -> dict[float | None, float]:
    """By a job's own deadline (None: the snapshot's); rounded down where there are too many."""
    own = {o.job.deadline_at for o in snapshot.jobs} | {b.like.job.deadline_at for b in backlog}
    default = NEVER if snapshot.deadline_at is None else snapshot.deadline_at
    rounded: dict[float | None, float] = {None: default}
    edge = NEVER
    for deadline in sorted(d for d in own if d is not None):
        beyond = snapshot.now + max(0.0, edge - snapshot.now) * _DEADLINE_GRAIN
        if len(own) <= _MOST_DEADLINES or edge == NEVER or deadline > beyond:
            edge = deadline
        rounded[deadline] = edge
    return rounded
