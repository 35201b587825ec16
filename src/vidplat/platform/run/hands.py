"""What each worker holds, the job it makes and those behind it, and when it will be through.

The remaining time of a running job comes from its heartbeats: the stages still to come at their
predicted seconds, the current one less what is done of it. A worker compresses and stores a video
while it makes the next: the oldest orders in its hand may be made already. The clock is an
argument.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from vidplat.domain import OpenJob, Progress
from vidplat.platform.dispatch.dispatcher import Order
from vidplat.stages import BESIDE, DENOISE, STAGES

# A stage that outlasts its prediction is taken to need this share of it still: nearly done, never
# done.
_OVERTIME = 0.05


@dataclass
class InHand:
    """An order that was sent and has not ended."""

    order: Order
    open_job: OpenJob  # as it was before this attempt
    stages: Mapping[str, float]  # predicted seconds of each stage, on this worker
    sent_at: float
    closing_s: float = 0.0  # that it leaves free before its limit when it is cut short
    progress: Progress | None = None
    phase_since: float | None = None  # when the current phase was first heard of
    phase_step: int = 0  # steps that were done by then
    passed_on: bool = False  # a worker was lost with its draft in hand
    held_by: str = ""  # where that is not the worker of the assignment
    is_sent: bool = True  # False: it waits for its worker to come up
    silent_since: float | None = None  # by `World.watched_s`; None: just heard of

    @property
    def worker_id(self) -> str:
        """Who has it; the plan's worker may have left a draft of it to another."""
        return self.held_by or self.order.assignment.worker_id

    @property
    def phase(self) -> str:
        return self.progress.phase if self.progress else ""

    @property
    def is_made(self) -> bool:
        """Whether it is compressed or stored, and its worker has turned to the next."""
        return self.phase in BESIDE

    @property
    def after_s(self) -> float:
        """Of compressing and storing it."""
        return sum(self.stages.get(stage, 0.0) for stage in BESIDE)

    @property
    def beside_s(self) -> float:
        """What it does not add to its worker's queue (`scheduler.relay.stored_beside`)."""
        return min(self.after_s, sum(self.stages.values()) - self.after_s)

    def note(self, progress: Progress) -> None:
        if self.progress is None or self.progress.phase != progress.phase:
            self.phase_since, self.phase_step = progress.at, progress.step
        self.progress = progress

    def remaining_s(self, now: float, *, is_first: bool) -> float:
        """Predicted seconds until it is done, from the moment its worker turns to it."""
        total = sum(self.stages.values())
        if not is_first:
            return total
        since = self.sent_at if self.phase_since is None else self.phase_since
        if self.phase not in STAGES:  # not heard of one yet: all of it, less the time that passed
            return max(total - (now - since), _OVERTIME * total)
        current = self.stages.get(self.phase, 0.0)
        left = current - (now - since)
        if self.phase == DENOISE and self.progress and self.progress.step > 0:
            left = self._steps_left_s(self.progress, since, current) - (now - self.progress.at)
        return max(left, _OVERTIME * current, 0.0) + self._behind_s(self.phase)

    def left_s(self, stage: str, now: float, *, is_first: bool) -> float:
        """The same until it is through with that stage."""
        return max(0.0, self.remaining_s(now, is_first=is_first) - self._behind_s(stage))

    def _steps_left_s(self, last: Progress, since: float, predicted_s: float) -> float:
        """From the last heartbeat on, at the pace of the steps heard of so far."""
        steps = max(1, last.steps)
        pace_s = predicted_s / steps
        if last.step > self.phase_step:
            pace_s = (last.at - since) / (last.step - self.phase_step)
        return pace_s * (steps - last.step)

    def _behind_s(self, stage: str) -> float:
        """Of the stages that come after that one."""
        return sum(self.stages.get(each, 0.0) for each in STAGES[STAGES.index(stage) + 1 :])


def in_making(held: Sequence[InHand]) -> InHand | None:
    """What a worker is at: the oldest that is not made, else the oldest."""
    return next((item for item in held if not item.is_made), held[0] if held else None)


class Hands:
    """In-hand orders of all workers, oldest first."""

    def __init__(self) -> None:
        self._held: dict[str, deque[InHand]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._held.values()))

    def __iter__(self) -> Iterator[InHand]:
        for held in self._held.values():
            yield from held

    def of(self, worker_id: str) -> tuple[InHand, ...]:
        return tuple(self._held.get(worker_id, ()))

    def count(self, worker_id: str) -> int:
        return len(self._held.get(worker_id, ()))

    def put(self, worker_id: str, item: InHand) -> None:
        self._held.setdefault(worker_id, deque()).append(item)

    def find(self, worker_id: str, job_id: str, attempt: int) -> InHand | None:
        for item in self._held.get(worker_id, ()):
            if item.order.job.id == job_id and item.order.attempt == attempt:
                return item
        return None

    def take(self, worker_id: str, job_id: str, attempt: int) -> InHand | None:
        """Remove and return an order that has ended or was called back, if it is there."""
        item = self.find(worker_id, job_id, attempt)
        if item is not None:
            self._held[worker_id].remove(item)
        return item

    def drop(self, worker_id: str) -> tuple[InHand, ...]:
        """Everything a lost worker held, oldest first."""
        return tuple(self._held.pop(worker_id, ()))

    def in_turn(self, worker_id: str) -> Iterator[tuple[InHand, bool]]:
        """What it holds, oldest first, each with whether the worker has turned to it."""
        is_turn = True
        for item in self.of(worker_id):
            yield item, is_turn
            is_turn = item.is_made

    def remaining_s(self, worker_id: str, now: float) -> float:
        """Predicted seconds until the worker is through with all it holds, but for storing the last
        of it, as far as that goes on beside the next."""
        made_s = stored_s = beside_s = 0.0
        for item, is_turn in self.in_turn(worker_id):
            left_s = item.remaining_s(now, is_first=is_turn)
            after_s = min(left_s, item.after_s)
            made_s += left_s - after_s
            stored_s, beside_s = max(made_s, stored_s) + after_s, item.beside_s
        return max(made_s, stored_s - beside_s)

    def running(self, worker_id: str) -> str | None:
        held = in_making(self.of(worker_id))
        return held.order.job.id if held else None
