"""Who sits where: the workers of a dispatcher by id, and who follows a lost one on its seat.

When a seat's worker dies, the next one there has a new id (`cloud-1`, then `cloud-1.2`), since
failures are counted per worker. A seat is refilled until `most_losses` in a row; something that
came out of it in between clears the count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from vidplat import times
from vidplat.domain import Outcome
from vidplat.platform.dispatch.dispatcher import Event, HandedOver, Seat, WorkerLost, WorkerUp


class Seats:
    """`seats` are what the plan should know of each worker before it is up."""

    def __init__(self, seats: Sequence[Seat], most_losses: int = 6) -> None:
        self.by_worker = {seat.worker_id: seat for seat in seats}
        self._most_losses = most_losses
        self._losses: Counter[str] = Counter()  # in a row, by seat
        self._sat: Counter[str] = Counter()  # workers after the first, by seat

    def all(self) -> tuple[Seat, ...]:
        return tuple(self.by_worker.values())

    def note(self, event: Event) -> None:
        """A worker that is up is what it says it is; one that something came out of is sound."""
        if isinstance(event, WorkerUp):
            self.by_worker[event.worker_id] = replace(
                self.by_worker[event.worker_id],
                device_class=event.device_class,
                free_bytes=event.free_bytes,
                up=True,
                since=event.at,
            )
        elif isinstance(event, Outcome | HandedOver):
            del self._losses[_seat_of(event.worker_id)]

    def lose(self, worker_id: str, reason: str, *, request_is_wrong: bool = False) -> WorkerLost:
        """Take a worker from its seat; its successor sits there, unless the seat is given up."""
        seat, now = self.by_worker.pop(worker_id), times.now()
        successor = None if request_is_wrong else self._next_id(worker_id)
        if successor is not None:
            spec = replace(seat.spec, worker_id=successor, calibrate=False)
            self.by_worker[successor] = replace(seat, spec=spec, up=False, since=now)
        return WorkerLost(worker_id, reason, now, successor, request_is_wrong)

    def _next_id(self, worker_id: str) -> str | None:
        seat = _seat_of(worker_id)
        self._losses[seat] += 1
        if self._losses[seat] >= self._most_losses:
            return None
        self._sat[seat] += 1
        return f"{seat}.{1 + self._sat[seat]}"


def _seat_of(worker_id: str) -> str:
    return worker_id.split(".", 1)[0]
