"""Who sits where: the workers of a dispatcher by id, and who follows a lost one on its seat.

When a seat's worker dies, the next one there has a new id (`cloud-1`, then `cloud-1.2`), since
failures are counted per worker. A seat is refilled however often that happens: when to give up is
for the run to say, which knows what was made meanwhile. Only a model that cannot be loaded ends it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from vidplat import times
from vidplat.platform.dispatch.dispatcher import Event, Seat, WorkerLost, WorkerUp


class Seats:
    """`seats` are what the plan should know of each worker before it is up."""

    def __init__(self, seats: Sequence[Seat]) -> None:
        self.by_worker = {seat.worker_id: seat for seat in seats}
        self._sat: Counter[str] = Counter()  # workers after the first, by seat

    def all(self) -> tuple[Seat, ...]:
        return tuple(self.by_worker.values())

    def place(self, worker_id: str) -> None:
        """Its process has found room, and starts."""
        seat = self.by_worker[worker_id]
        if not seat.has_place:
            self.by_worker[worker_id] = replace(seat, has_place=True, since=times.now())

    def note(self, event: Event) -> None:
        """A worker that is up is what it says it is."""
        if isinstance(event, WorkerUp):
            self.by_worker[event.worker_id] = replace(
                self.by_worker[event.worker_id],
                device_class=event.device_class,
                free_bytes=event.free_bytes,
                up=True,
                has_place=True,
                since=event.at,
            )

    def lose(
        self,
        worker_id: str,
        reason: str,
        *,
        request_is_wrong: bool = False,
        has_place: bool = True,
    ) -> WorkerLost:
        """Take a worker from its seat; its successor sits there, unless no other can work."""
        seat, now = self.by_worker.pop(worker_id), times.now()
        successor = None if request_is_wrong else self._next_id(worker_id)
        if successor is not None:
            spec = replace(seat.spec, worker_id=successor, calibrate=False)
            self.by_worker[successor] = replace(
                seat, spec=spec, up=False, since=now, has_place=has_place
            )
        return WorkerLost(worker_id, reason, now, successor, request_is_wrong)

    def _next_id(self, worker_id: str) -> str:
        seat = worker_id.split(".", 1)[0]
        self._sat[seat] += 1
        return f"{seat}.{1 + self._sat[seat]}"
