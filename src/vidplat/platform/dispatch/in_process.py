"""The dispatcher that works in this process, a thread per worker: `--local`, tests, small machines.

It needs no cluster and is ready at once. It promises less than Ray: the threads share one Python
interpreter and one torch thread pool, and a job that crashes the process takes everything with it
(the catalog and the store survive, so `resume` continues).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from vidplat.platform.dispatch.dispatcher import (
    Absence,
    Event,
    Order,
    Seat,
    WorkerLost,
    WorkerSpec,
)
from vidplat.platform.dispatch.seats import Seats
from vidplat.platform.dispatch.worker_thread import (
    Outbox,
    SetupFailed,
    Tools,
    WorkerEvent,
    WorkerThread,
)


class LocalDispatcher:
    """`seats` are what the plan should know of each worker before it is up."""

    def __init__(self, seats: Sequence[Seat], open_tools: Callable[[WorkerSpec], Tools]) -> None:
        self._seats = Seats(seats)
        self._open_tools = open_tools
        self._outbox = Outbox()
        self._threads: dict[str, WorkerThread] = {}
        self._dismissed: list[Event] = []

    def start(self) -> None:
        for seat in self._seats.all():
            self._open_thread(seat.spec)

    def seats(self) -> tuple[Seat, ...]:
        return self._seats.all()

    def send(self, worker_id: str, orders: Sequence[Order]) -> None:
        if thread := self._threads.get(worker_id):
            thread.put(orders)

    def hurry(self, worker_id: str, finish_by: Mapping[str, float | None]) -> None:
        if thread := self._threads.get(worker_id):
            thread.hurry(finish_by)

    def recall(self, worker_id: str, job_ids: Collection[str]) -> frozenset[str]:
        thread = self._threads.get(worker_id)
        return thread.recall(job_ids) if thread else frozenset()

    def cancel(self, worker_id: str, job_ids: Collection[str]) -> None:
        if thread := self._threads.get(worker_id):
            thread.cancel(job_ids)

    def dismiss(self, worker_id: str, reason: str, stalled: str | None = None) -> None:
        """A thread cannot be ended from outside: it is left to itself, and no longer heard."""
        if (thread := self._threads.pop(worker_id, None)) is not None:
            thread.close()
            lost = self._seats.lose(worker_id, reason)
            self._dismissed.append(replace(self._followed(lost), stalled=stalled))

    def absent(self) -> Mapping[str, Absence]:
        return {}

    def poll(self, timeout_s: float) -> list[Event]:
        events, self._dismissed = self._dismissed, []
        heard = self._outbox.take(0.0 if events else timeout_s)
        known = [each for each in heard if each.worker_id in self._threads]
        return events + [self._understood(each) for each in known]

    def close(self) -> None:
        for wait_s in (0.0, 5.0):  # all are asked before one is waited for
            for thread in self._threads.values():
                thread.close(wait_s=wait_s)
        self._threads.clear()

    def _open_thread(self, spec: WorkerSpec) -> None:
        thread = WorkerThread(spec, self._open_tools, self._outbox)
        self._threads[spec.worker_id] = thread
        thread.start()

    def _understood(self, said: WorkerEvent) -> Event:
        if not isinstance(said, SetupFailed):
            self._seats.note(said)
            return said
        self._threads.pop(said.worker_id, None)
        lost = self._seats.lose(said.worker_id, said.reason, request_is_wrong=said.request_is_wrong)
        return self._followed(lost)

    def _followed(self, lost: WorkerLost) -> WorkerLost:
        if lost.successor is not None:
            self._open_thread(self._seats.by_worker[lost.successor].spec)
        return lost
