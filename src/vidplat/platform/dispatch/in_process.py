"""The dispatcher that works in this process: one thread per worker. For `--local`, tests and small
machines.

It needs no cluster and is ready at once. It promises less than Ray: the threads share one Python
interpreter and one torch thread pool, and a job that crashes the process takes everything with it
(the catalog and the store survive, so `resume` continues).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from vidplat.domain import Outcome
from vidplat.platform.dispatch.dispatcher import (
    Event,
    HandedOver,
    Order,
    Seat,
    Succession,
    WorkerLost,
    WorkerSpec,
    WorkerUp,
)
from vidplat.platform.dispatch.worker_thread import Outbox, SetupFailed, Tools, WorkerThread


class LocalDispatcher:
    """`seats` pairs each worker's spec with what the plan should know of it before it is up."""

    def __init__(
        self,
        seats: Sequence[tuple[WorkerSpec, Seat]],
        open_tools: Callable[[WorkerSpec], Tools],
        *,
        succession: Succession | None = None,
    ) -> None:
        self._specs = {spec.worker_id: spec for spec, _ in seats}
        self._seats = {seat.worker_id: seat for _, seat in seats}
        self._open_tools = open_tools
        self._succession = succession or Succession()
        self._outbox = Outbox()
        self._threads: dict[str, WorkerThread] = {}

    def start(self) -> None:
        for worker_id in tuple(self._seats):
            self._open_thread(worker_id)

    def seats(self) -> tuple[Seat, ...]:
        return tuple(self._seats.values())

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

    def poll(self, timeout_s: float) -> list[Event]:
        events: list[Event] = []
        for event in self._outbox.take(timeout_s):
            if isinstance(event, SetupFailed):
                events.append(self._lose(event))
                continue
            if isinstance(event, WorkerUp):
                self._seats[event.worker_id] = replace(
                    self._seats[event.worker_id],
                    device_class=event.device_class,
                    free_bytes=event.free_bytes,
                    up=True,
                    since=event.at,
                )
            elif isinstance(event, Outcome | HandedOver):
                self._succession.worked(event.worker_id)
            events.append(event)
        return events

    def close(self) -> None:
        for thread in self._threads.values():
            thread.close()
        for thread in self._threads.values():
            thread.close(wait_s=5.0)
        self._threads.clear()

    def _open_thread(self, worker_id: str) -> None:
        thread = WorkerThread(self._specs[worker_id], self._open_tools, self._outbox)
        self._threads[worker_id] = thread
        thread.start()

    def _lose(self, failed: SetupFailed) -> WorkerLost:
        seat, spec = self._seats.pop(failed.worker_id), self._specs.pop(failed.worker_id)
        self._threads.pop(failed.worker_id, None)
        successor = None if failed.request_is_wrong else self._succession.next_id(failed.worker_id)
        if successor is not None:
            self._specs[successor] = replace(spec, worker_id=successor)
            self._seats[successor] = replace(seat, worker_id=successor, up=False, since=time.time())
            self._open_thread(successor)
        return WorkerLost(
            failed.worker_id, failed.reason, time.time(), successor, failed.request_is_wrong
        )
