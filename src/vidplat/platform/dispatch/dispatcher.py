"""What a dispatcher must do: bring workers up, carry orders to them, and bring back what they say.

A dispatcher decides nothing. Which job goes where is the plan's business; what an event means is
the turn's. It promises three things: an order sent to a live worker is started at most once, orders
of one worker start in the order they were sent, and a worker that dies is reported once, after
everything that was still heard from it. Two implementations: `in_process` (threads of this
process) and `on_ray` (one actor per worker).

A *seat* is a place for a worker; who follows a dead one on it is told in `seats`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from vidplat.config import InputConfig, PoolConfig
from vidplat.domain import Job, ModelRef, Outcome, Progress, WorkerState
from vidplat.scheduler.decision import Assignment
from vidplat.workers.draft import Draft

DRAFT_PART_WITHIN_S = 300.0  # of a link that is gone: then the draft is made again
DRAFT_BYTES = "draft_bytes"  # metric of a video that another worker finished: what travelled


@dataclass(frozen=True)
class WorkerSpec:
    """Everything a worker must know to set itself up; travels as plain values."""

    worker_id: str
    pool: PoolConfig
    batch_id: str
    model: ModelRef  # loaded at start; others are loaded when a job first asks for them
    store_url: str
    calibrate: bool = False  # measure the device before the first job
    inputs: InputConfig = field(default_factory=InputConfig)  # as intake had them
    store_patience_s: float = 0.0  # a video that the store refuses is offered again for so long


@dataclass(frozen=True)
class Order:
    """Make this job like that. `finish_by` (epoch seconds) asks for fewer steps if need be.

    With `hand_over` a video of which frames were left out comes back as a draft. With `drafted`
    that draft is finished instead.
    """

    assignment: Assignment
    job: Job
    attempt: int
    finish_by: float | None = None
    hand_over: bool = False
    drafted: HandedOver | None = None


@dataclass(frozen=True)
class Seat:
    """A place for a worker, as the dispatcher knows it."""

    spec: WorkerSpec
    device_class: str  # expected, until the worker has told its own
    since: float  # when it came up, or was asked to
    up: bool = False  # False: still coming
    free_bytes: int = 0  # not known until it is up
    has_place: bool = True  # False: its process waits for room on the cluster

    @property
    def worker_id(self) -> str:
        return self.spec.worker_id

    @property
    def light(self) -> bool:
        """Takes drafts alone."""
        return self.spec.pool.light

    def state(self, ready_at: float, **known: Any) -> WorkerState:
        """As a snapshot has it; `known` are further fields."""
        return WorkerState(
            id=self.worker_id,
            pool=self.spec.pool.name,
            device_class=self.device_class,
            free_bytes=self.free_bytes,
            ready_at=ready_at,
            price_per_s=self.spec.pool.price_per_s,
            **known,
        )


def light_class(device_class: str) -> str:
    """What a light worker's device counts as: the same stages take other seconds there, beside
    other work and behind another link to the store than a maker's on equal hardware."""
    return f"{device_class} light"


@dataclass(frozen=True)
class WorkerUp:
    """A worker has loaded its model and takes orders."""

    worker_id: str
    device_class: str
    free_bytes: int
    load_s: float  # from process start to model loaded
    observations: tuple[Mapping[str, Any], ...] = ()  # of the micro-benchmark, when there was one
    at: float = 0.0


@dataclass(frozen=True)
class WorkerLost:
    """A worker is gone, with whatever it had in hand."""

    worker_id: str
    reason: str
    at: float
    successor: str | None = None  # the next worker on its seat; None: the seat is given up
    request_is_wrong: bool = False  # it could not load the model: no other worker will
    is_blameless: bool = False  # its machine went: nothing that it had in hand is to blame
    stalled: str | None = None  # the job that it was given up for


@dataclass(frozen=True)
class Room:
    """What a cluster has for the workers of a pool, at one moment."""

    places: int  # that exist, at most as many as are wanted
    free: int  # of them, that nobody has
    why: str = ""  # a sentence, where that is less than wanted


@dataclass(frozen=True)
class Absence:
    """Why a worker has no place yet."""

    pool: str
    why: str
    is_taken: bool  # there are places, which others have: worth waiting for


@dataclass(frozen=True)
class HandedOver:
    """A worker is through with its part of a job and leaves a draft."""

    job_id: str
    attempt: int
    worker_id: str
    draft: Draft
    started_at: float
    at: float


Event = Progress | Outcome | HandedOver | WorkerUp | WorkerLost


class Dispatcher(Protocol):
    def start(self) -> None:
        """Ask for the workers, and do not wait. Raises ClusterError when there is no cluster."""

    def seats(self) -> tuple[Seat, ...]: ...

    def send(self, worker_id: str, orders: Sequence[Order]) -> None:
        """Append to the worker's queue. A dead one swallows them: its WorkerLost is on the way."""

    def hurry(self, worker_id: str, finish_by: Mapping[str, float | None]) -> None:
        """New finish times, by job id. Takes effect at the next step boundary."""

    def recall(self, worker_id: str, job_ids: Collection[str]) -> frozenset[str]:
        """Take back orders that have not begun; returns those taken."""

    def cancel(self, worker_id: str, job_ids: Collection[str]) -> None:
        """Stop these jobs at their next step boundary; each still ends in an Outcome."""

    def dismiss(self, worker_id: str, reason: str, stalled: str | None = None) -> None:
        """Give a worker up, which does not answer any more or hangs in a job: its WorkerLost is the
        next thing heard, and nothing after it."""

    def absent(self) -> Mapping[str, Absence]:
        """The workers that wait for a place, by id."""

    def poll(self, timeout_s: float) -> list[Event]:
        """What was heard, oldest first; waits up to `timeout_s` for the first event."""

    def close(self) -> None:
        """Let the workers go. Safe to call twice."""
