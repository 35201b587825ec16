"""What runs inside one worker process: orders in, videos into the store, events out.

    WorkerThread(spec, open_tools, outbox)
      its own thread: open tools -> load -> calibrate? -> WorkerUp,
                      then for each order: make -> hand to the storer, or Outcome where that failed
      any thread: put, recall, hurry, cancel (short, never blocked by a running job)
      a second:   compress -> commit -> Outcome, while the next order is made (`storing`)
      a third:    fetches the draft that is next while a job is at work

It knows neither torch nor Ray: the video maker and the commit come through `Tools`, which
`worker_tools.open_tools` builds inside the process that uses them. A failing job never ends the
thread; one that cannot load its model ends with a `SetupFailed` event.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from vidplat import times
from vidplat.domain import (
    Artifact,
    Failure,
    FailureKind,
    Job,
    ModelRef,
    OperatingPoint,
    Outcome,
    Progress,
)
from vidplat.errors import (
    InfrastructureError,
    JobError,
    MethodRefused,
    OutOfMemoryError,
    RequestError,
    VidplatError,
    printable,
    told_traceback,
)
from vidplat.platform.dispatch.dispatcher import (
    DRAFT_BYTES,
    HandedOver,
    Order,
    WorkerSpec,
    WorkerUp,
    light_class,
)
from vidplat.platform.dispatch.storing import Parcel, Storer
from vidplat.stages import BESIDE, NETWORK, STORE
from vidplat.workers.draft import Draft, Raw, Rendered
from vidplat.workers.making import Control, OnStep

log = logging.getLogger(__name__)

_END_WITHIN_S = 60.0  # that a thread may take at the end of the process
_THREAD = "worker-"  # how names of their threads begin


@atexit.register
def _wait_for_threads() -> None:
    """Python must not be taken down around a thread that computes: that ends in an abort."""
    until = time.monotonic() + _END_WITHIN_S
    for thread in threading.enumerate():
        if thread.name.startswith(_THREAD):
            thread.join(max(0.0, until - time.monotonic()))


class VideoMaker(Protocol):
    """Turns jobs into videos: `workers.Worker`, or the fake one of `testing`."""

    @property
    def device_class(self) -> str: ...

    @property
    def free_bytes(self) -> int: ...

    def load(self) -> object: ...

    def prepare_to_finish(self) -> object:
        """A light worker's `load`: whatever its first draft would otherwise wait for."""

    def calibrate(self) -> Sequence[Mapping[str, Any]]:
        """Rows of a micro-benchmark: model_id, device_class, stage, spec, point, seconds."""

    def make(
        self,
        job: Job,
        point: OperatingPoint,
        control: Control,
        *,
        attempt: int,
        hand_over: bool,
        raw: bool,
    ) -> Rendered | Raw | Draft:
        """The video; with `hand_over` a draft of it, when frames were left out; with `raw`, what is
        to be compressed may be left to another thread."""

    def finish(
        self, job: Job, draft: Draft, *, attempt: int, on_progress: OnStep, raw: bool
    ) -> Rendered | Raw:
        """The video of a draft, whose `video` is bytes. Needs no loaded model."""


@dataclass(frozen=True)
class Tools:
    """What a worker works with."""

    maker: Callable[[ModelRef], VideoMaker]  # not loaded yet
    # Bytes into the store, and again when that failed; the winner's artifact.
    commit: Callable[[Order, Rendered], Artifact]
    clock: Callable[[], float] = times.now
    # On its way to another worker.
    pack: Callable[[bytes], Any] = field(default=lambda video: video)
    unpack: Callable[[Draft], bytes] = field(default=lambda draft: draft.video)


@dataclass(frozen=True)
class SetupFailed:
    """The worker could not set itself up."""

    worker_id: str
    reason: str
    request_is_wrong: bool


WorkerEvent = Progress | Outcome | HandedOver | WorkerUp | SetupFailed


class Outbox:
    """Events on their way up; of a job's heartbeats only the newest, for slow readers."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._events: list[WorkerEvent] = []

    def put(self, event: WorkerEvent) -> None:
        with self._changed:
            if self._events and _is_newer(event, self._events[-1]):
                self._events.pop()
            self._events.append(event)
            self._changed.notify_all()

    def take(self, wait_s: float, gather_s: float = 0.0) -> list[WorkerEvent]:
        """All events so far, oldest first; waits up to `wait_s` for the first. Heartbeats alone
        wait `gather_s` for more: every answer costs kilobytes of a link that may be thin. That a
        video is being stored is told at once: from then on it is another that may kill its worker.
        """
        with self._changed:
            if not self._events:
                self._changed.wait(wait_s)
            if self._events:
                self._changed.wait_for(self._has_news, gather_s)
            taken, self._events = self._events, []
            return taken

    def _has_news(self) -> bool:
        return any(not isinstance(each, Progress) or each.phase in BESIDE for each in self._events)


def _is_newer(event: WorkerEvent, last: WorkerEvent) -> bool:
    """Whether these are heartbeats of one job."""
    return (
        isinstance(event, Progress)
        and isinstance(last, Progress)
        and (last.job_id, last.attempt) == (event.job_id, event.attempt)
    )


class WorkerThread:
    """One worker: a queue of orders, the thread that makes them one at a time, and its storer."""

    def __init__(
        self, spec: WorkerSpec, open_tools: Callable[[WorkerSpec], Tools], outbox: Outbox
    ) -> None:
        self.spec = spec
        self._open_tools = open_tools
        self._outbox = outbox
        self._changed = threading.Condition()
        self._queue: deque[Order] = deque()
        self._finish_by: dict[str, float | None] = {}
        self._stopped: set[str] = set()  # job ids to stop at the next step boundary
        self._closing = False
        self._makers: dict[ModelRef, VideoMaker] = {}
        self._tools: Tools | None = None
        # By job id: a draft's video, and its seconds.
        self._fetching: dict[str, Future[tuple[bytes, float]]] = {}
        self._fetcher = ThreadPoolExecutor(1, thread_name_prefix=f"fetcher-{spec.worker_id}")
        name = f"{_THREAD}{spec.worker_id}"
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    # --- from any thread ------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def put(self, orders: Sequence[Order]) -> None:
        with self._changed:
            for order in orders:
                self._queue.append(order)
                self._finish_by[order.job.id] = order.finish_by
            self._fetch_ahead()
            self._changed.notify_all()

    def hurry(self, finish_by: Mapping[str, float | None]) -> None:
        with self._changed:
            for job in self._finish_by.keys() & finish_by.keys():
                self._finish_by[job] = finish_by[job]

    def recall(self, job_ids: Collection[str]) -> frozenset[str]:
        with self._changed:
            taken = frozenset(order.job.id for order in self._queue if order.job.id in job_ids)
            self._queue = deque(order for order in self._queue if order.job.id not in taken)
            for job in taken:
                self._finish_by.pop(job, None)
                self._fetching.pop(job, None)
            self._fetch_ahead()
            return taken

    def cancel(self, job_ids: Collection[str]) -> None:
        with self._changed:
            self._stopped.update(job for job in job_ids if job in self._finish_by)

    def close(self, *, wait_s: float = 0.0) -> None:
        """No further orders; the running job stops at its next step boundary."""
        with self._changed:
            self._closing = True
            self._queue.clear()
            self._stopped.update(self._finish_by)
            self._changed.notify_all()
        if wait_s > 0 and self._thread.is_alive():
            self._thread.join(wait_s)

    # --- its own thread --------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            tools = self._tools = self._open_tools(self.spec)
            self._outbox.put(self._set_up(tools))
        except Exception as error:  # the worker's edge: what stops it from starting is told upwards
            if self._closing:
                return  # nobody waits for it any more
            worker_id, is_wrong = self.spec.worker_id, isinstance(error, RequestError)
            if not isinstance(error, VidplatError):
                log.error("worker %s could not start\n%s", worker_id, told_traceback(error))
            self._outbox.put(SetupFailed(worker_id, _sentence(error), is_wrong))
            return
        storer = Storer(f"storer-{self.spec.worker_id}", self.spec.store_patience_s)
        while (order := self._next()) is not None:
            if (end := self._carry_out(order, tools, storer)) is not None:
                self._outbox.put(end)
        self._fetcher.shutdown(wait=False, cancel_futures=True)
        storer.close()

    def _set_up(self, tools: Tools) -> WorkerUp:
        began = time.monotonic()
        maker = self._maker(self.spec.model, tools)
        load_s = time.monotonic() - began
        spec, is_light = self.spec, self.spec.pool.light
        device = light_class(maker.device_class) if is_light else maker.device_class
        seen = tuple(maker.calibrate()) if spec.calibrate and not is_light else ()
        return WorkerUp(spec.worker_id, device, maker.free_bytes, load_s, seen, tools.clock())

    def _maker(self, model: ModelRef, tools: Tools) -> VideoMaker:
        if model not in self._makers:
            maker = tools.maker(model)
            if self.spec.pool.light:
                maker.prepare_to_finish()
            else:
                maker.load()
            self._makers[model] = maker
        return self._makers[model]

    def _next(self) -> Order | None:
        with self._changed:
            while not self._queue and not self._closing:
                self._changed.wait()
            if self._closing:
                return None
            order = self._queue.popleft()
            self._fetch_ahead()
            return order

    def _fetch_ahead(self) -> None:
        """Begin to fetch the draft at the head of the queue; more of them would take memory."""
        drafted = self._queue[0].drafted if self._queue else None
        if self._tools is None or drafted is None or drafted.job_id in self._fetching:
            return
        coming = self._fetcher.submit(_timed, self._tools.unpack, drafted.draft)
        self._fetching[drafted.job_id] = coming

    def _carry_out(self, order: Order, tools: Tools, storer: Storer) -> Outcome | HandedOver | None:
        """One order to its end, or to the storer, which tells of it then (None); never raises."""
        job, planned, worker_id = order.job, order.assignment.point, self.spec.worker_id
        end = _begun(order, worker_id, tools.clock())

        def report(phase: str, step: int, steps: int) -> None:
            nonlocal end
            end = replace(end, steps_done=step)
            self._outbox.put(
                Progress(job.id, order.attempt, worker_id, phase, step, steps, tools.clock())
            )

        try:
            report("starting", end.steps_done, planned.steps)
            made = self._make(order, tools, report)
            if isinstance(made, Draft):
                packed, now = replace(made, video=tools.pack(made.video)), tools.clock()
                self._forget(job.id)
                return HandedOver(job.id, order.attempt, worker_id, packed, end.started_at, now)
        except Exception as error:  # the edge of a job: it must never take the worker down
            return self._ended(end, tools, error)

        def ended(parcel: Parcel, came: Artifact | Exception) -> None:
            whole = end
            if isinstance(parcel.made, Rendered):
                whole = _with_facts(end, order, parcel.made, parcel.store_s)
            self._outbox.put(self._ended(whole, tools, came))

        steps = made.steps_done
        storer.put(
            Parcel(
                made,
                commit=partial(tools.commit, order),
                report=lambda phase: report(phase, steps, steps),
                is_unwanted=lambda: job.id in self._stopped,
                ended=ended,
            )
        )
        return None

    def _ended(self, end: Outcome, tools: Tools, came: Artifact | Exception) -> Outcome:
        """The outcome of a job of which that came."""
        self._forget(end.job_id)
        if isinstance(came, Artifact):
            end = replace(end, artifact=came)
        else:
            end = replace(end, failure=sort_failure(came))
            if not isinstance(came, VidplatError):
                log.error("job %s failed unexpectedly\n%s", end.job_id, told_traceback(came))
        return replace(end, finished_at=tools.clock())

    def _make(self, order: Order, tools: Tools, report: OnStep) -> Rendered | Raw | Draft:
        if order.drafted is not None:
            return self._finish(order, order.drafted.draft, tools, report)
        job, point = order.job, order.assignment.point
        control = Control(
            report,
            finish_by=lambda: self._finish_by.get(job.id),
            min_steps=least_steps(point),
            is_cancelled=lambda: job.id in self._stopped,
        )
        maker = self._maker(job.model, tools)
        return maker.make(
            job, point, control, attempt=order.attempt, hand_over=order.hand_over, raw=True
        )

    def _finish(self, order: Order, draft: Draft, tools: Tools, report: OnStep) -> Rendered | Raw:
        """The video of another's draft. Its way here is the stage `network`, even if it is over."""
        maker = self._maker(order.job.model, tools)
        if order.job.id in self._stopped:
            raise JobError("cancelled before its frames were filled in")
        report(NETWORK, draft.steps_done, draft.steps_done)
        with self._changed:
            coming = self._fetching.get(order.job.id)
        video, seconds = coming.result() if coming is not None else _timed(tools.unpack, draft)
        draft = replace(draft, video=video, phases={**draft.phases, NETWORK: seconds})
        return maker.finish(order.job, draft, attempt=order.attempt, on_progress=report, raw=True)

    def _forget(self, job_id: str) -> None:
        with self._changed:
            self._finish_by.pop(job_id, None)
            self._stopped.discard(job_id)
            self._fetching.pop(job_id, None)


def _begun(order: Order, worker_id: str, now: float) -> Outcome:
    """The outcome of an order that has done nothing yet; of one with a draft, what that has."""
    begun = Outcome(order.job.id, order.attempt, worker_id, order.assignment.point, now, now)
    if (drafted := order.drafted) is None:
        return begun
    return replace(
        begun,
        started_at=drafted.started_at,
        steps_done=drafted.draft.steps_done,
        drafted_by=drafted.worker_id,
    )


def _with_facts(end: Outcome, order: Order, made: Rendered, store_s: float) -> Outcome:
    """What was made; its point is what was spent, which may have been cut. Seconds of storing only
    where it was stored."""
    metrics = dict(made.metrics)
    if order.drafted is not None:
        metrics[DRAFT_BYTES] = float(order.drafted.draft.size_bytes)
    return replace(
        end,
        point=replace(end.point, steps=made.steps_done),
        phases={**made.phases, STORE: store_s} if store_s else made.phases,
        metrics=metrics,
        steps_done=made.steps_done,
    )


def _timed(fetch: Callable[[Draft], bytes], draft: Draft) -> tuple[bytes, float]:
    began = time.monotonic()
    video = fetch(draft)
    return video, time.monotonic() - began


def least_steps(point: OperatingPoint) -> int:
    """To a third of its steps `finish_by` may cut a job: below, late is better than blurred."""
    return -(-point.steps // 3)


def sort_failure(error: BaseException) -> Failure:
    """Whose fault it was. The kind decides about retries; the sentence is for people."""
    kind = FailureKind.JOB
    is_torchs = type(error).__name__ == "OutOfMemoryError"  # which is not loaded for its sake
    if is_torchs or isinstance(error, OutOfMemoryError | MemoryError):
        kind = FailureKind.OUT_OF_MEMORY
    elif isinstance(error, MethodRefused):
        kind = FailureKind.METHOD
    elif isinstance(error, RequestError):
        kind = FailureKind.REQUEST
    elif isinstance(error, InfrastructureError | OSError):
        kind = FailureKind.INFRASTRUCTURE
    return Failure(kind, _sentence(error))


def _sentence(error: BaseException) -> str:
    text = printable(error, limit=500)
    return text if isinstance(error, VidplatError) and text else f"{type(error).__name__}: {text}"
