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
    BenchSpec,
    Event,
    HandedOver,
    Order,
    Seat,
    Succession,
    WorkerLost,
    WorkerUp,
)
from vidplat.platform.dispatch.workbench import Bench, BenchFailed, Outbox, Tools


class LocalDispatcher:
    """`seats` pairs each worker's bench with what the plan should know of it before it is up."""

    def __init__(
        self,
        seats: Sequence[tuple[BenchSpec, Seat]],
        open_tools: Callable[[BenchSpec], Tools],
        *,
        succession: Succession | None = None,
    ) -> None:
        self._specs = {spec.worker_id: spec for spec, _ in seats}
        self._seats = {seat.worker_id: seat for _, seat in seats}
        self._open_tools = open_tools
        self._succession = succession or Succession()
        self._outbox = Outbox()
        self._benches: dict[str, Bench] = {}

    def start(self) -> None:
        for worker_id in tuple(self._seats):
            self._open_bench(worker_id)

    def seats(self) -> tuple[Seat, ...]:
        return tuple(self._seats.values())

    def send(self, worker_id: str, orders: Sequence[Order]) -> None:
        if bench := self._benches.get(worker_id):
            bench.put(orders)

    def hurry(self, worker_id: str, finish_by: Mapping[str, float | None]) -> None:
        if bench := self._benches.get(worker_id):
            bench.hurry(finish_by)

    def recall(self, worker_id: str, job_ids: Collection[str]) -> frozenset[str]:
        bench = self._benches.get(worker_id)
        return bench.recall(job_ids) if bench else frozenset()

    def cancel(self, worker_id: str, job_ids: Collection[str]) -> None:
        if bench := self._benches.get(worker_id):
            bench.cancel(job_ids)

    def poll(self, timeout_s: float) -> list[Event]:
        events: list[Event] = []
        for event in self._outbox.take(timeout_s):
            if isinstance(event, BenchFailed):
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
        for bench in self._benches.values():
            bench.close()
        for bench in self._benches.values():
            bench.close(wait_s=5.0)
        self._benches.clear()

    def _open_bench(self, worker_id: str) -> None:
        bench = Bench(self._specs[worker_id], self._open_tools, self._outbox)
        self._benches[worker_id] = bench
        bench.start()

    def _lose(self, failed: BenchFailed) -> WorkerLost:
        seat, spec = self._seats.pop(failed.worker_id), self._specs.pop(failed.worker_id)
        self._benches.pop(failed.worker_id, None)
        successor = None if failed.request_is_wrong else self._succession.next_id(failed.worker_id)
        if successor is not None:
            self._specs[successor] = replace(spec, worker_id=successor)
            self._seats[successor] = replace(seat, worker_id=successor, up=False, since=time.time())
            self._open_bench(successor)
        return WorkerLost(
            failed.worker_id, failed.reason, time.time(), successor, failed.request_is_wrong
        )
