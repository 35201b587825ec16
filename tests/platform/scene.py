"""A scene for tests of the loop: a real catalog, scripted workers, time that stands still."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tests.builders import FLIPBOOK, a_shape, knowledge
from tests.platform.builders import Memory, a_seat
from vidplat.config import Config, RunConfig
from vidplat.domain import Artifact, Batch, Failure, Job, JobState, Outcome
from vidplat.platform.dispatch.dispatcher import Absence, Event, Order, Seat, WorkerLost
from vidplat.platform.run.learning import Learner
from vidplat.platform.run.score import Tally
from vidplat.platform.run.site import Site
from vidplat.platform.run.turn import begin, is_over, take_turn
from vidplat.platform.run.world import World
from vidplat.scheduler.decision import Plan, Verdict
from vidplat.storage import open_catalog
from vidplat.storage.artifacts import commit
from vidplat.storage.memory import MemoryStore

ME = "host:1:1"
SECONDS = 10.0  # of one job at full quality, by `knowledge()`


class ScriptedDispatcher:
    """Workers that do what the test says."""

    def __init__(self, *worker_ids: str) -> None:
        self.places = {worker_id: a_seat(worker_id) for worker_id in worker_ids}
        self.sent: dict[str, list[Order]] = {w: [] for w in worker_ids}
        self.events: list[Event] = []
        self.hurried: dict[str, float | None] = {}
        self.cancelled: set[str] = set()
        self.dismissed: dict[str, str] = {}

    def start(self) -> None: ...

    def seats(self) -> tuple[Seat, ...]:
        return tuple(self.places.values())

    def send(self, worker_id: str, orders: Sequence[Order]) -> None:
        self.sent[worker_id] += orders

    def hurry(self, worker_id: str, finish_by: Mapping[str, float | None]) -> None:
        self.hurried |= finish_by

    def recall(self, worker_id: str, job_ids: Collection[str]) -> frozenset[str]:
        return frozenset(job_ids)

    def cancel(self, worker_id: str, job_ids: Collection[str]) -> None:
        self.cancelled |= set(job_ids)

    def dismiss(self, worker_id: str, reason: str, stalled: str | None = None) -> None:
        self.dismissed[worker_id] = reason
        seat = self.places[worker_id]
        self.loses(worker_id, seat.since, f"{worker_id}.2", stalled=stalled)

    def absent(self) -> Mapping[str, Absence]:
        return {}

    def poll(self, timeout_s: float) -> list[Event]:
        heard, self.events = self.events, []
        return heard

    def close(self) -> None: ...

    # --- the script -------------------------------------------------------------------------------

    def finishes(self, order: Order, at: float, failure: Failure | None = None) -> None:
        planned = order.assignment
        artifact = (
            None
            if failure
            else Artifact("/o/v/video.mp4", "/o/v/p", "/o/v/m", "0" * 64, 1, order.attempt)
        )
        self.events.append(
            Outcome(
                order.job.id,
                order.attempt,
                planned.worker_id,
                planned.point,
                at - 1,
                at,
                {"denoise": 1.0},
                artifact=artifact,
                failure=failure,
            )
        )

    def loses(self, worker_id: str, at: float, successor: str | None = None, **more: Any) -> None:
        seat = self.places.pop(worker_id)
        if successor:
            spec = replace(seat.spec, worker_id=successor)
            self.places[successor] = replace(seat, spec=spec, up=False, since=at)
            self.sent[successor] = []
        self.events.append(WorkerLost(worker_id, "killed", at, successor, **more))


class Scene:
    """A world over a real catalog, at second 0, with jobs of 10 seconds."""

    def __init__(
        self, tmp_path, jobs: Sequence[Job], *workers: str, deadline_at: float | None = None, **run
    ) -> None:
        self.now = 0.0
        self.catalog = open_catalog(f"sqlite:///{tmp_path}/c.db")
        self.catalog.database.clock = lambda: self.now
        self.batch = Batch(
            "b1", "x", "/o", FLIPBOOK, submitted_at=0.0, deadline_at=deadline_at, total=len(jobs)
        )
        self.catalog.add_batch(self.batch, jobs)
        self.catalog.hold_batch("b1", ME, lease_s=60.0)
        self.dispatcher = ScriptedDispatcher(*(workers or ("w1",)))
        self.heard, self.store = Memory(), MemoryStore()
        site = Site(
            self.catalog,
            self.store,
            Config(run=RunConfig(**run)),
            self.heard,
            ME,
            describe=lambda model_id: (FLIPBOOK, a_shape()),
            seats=lambda batch, learner: (),
            open_dispatcher=lambda seats: self.dispatcher,
            clock=lambda: self.now,
        )
        learner = Learner(site.describe, self.catalog, "b1")
        learner.costs = knowledge().costs
        tally = Tally(self.batch, 1, Plan(Verdict.FEASIBLE, ()), 0.0)
        self.world = World(site, self.batch, self.dispatcher, learner, tally)
        begin(self.world)

    def turn(self, at: float | None = None) -> None:
        self.now = self.now + 0.1 if at is None else at
        take_turn(self.world)

    @property
    def is_over(self) -> bool:
        return is_over(self.world)

    def commits(self, order: Order) -> None:
        """The video of an order is in the store, whether or not anybody hears of it."""
        commit(
            self.store,
            batch_id="b1",
            job_id=order.job.id,
            attempt=order.attempt,
            token="t",
            video=b"v",
            poster=b"p",
            meta={},
        )

    def in_hand(self, worker_id: str = "w1") -> list[int]:
        """Rows of what was sent to a worker, in order."""
        return [order.job.row for order in self.dispatcher.sent[worker_id]]

    def states(self) -> dict[JobState, int]:
        return {state: count for state, count in self.catalog.counts("b1").items() if count}
