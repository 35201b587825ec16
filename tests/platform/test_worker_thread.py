"""One worker: orders in, videos into the store, events out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.builders import a_job
from vidplat.config import PoolConfig
from vidplat.domain import Artifact, FailureKind, Job, ModelRef, OperatingPoint, Outcome, Progress
from vidplat.errors import (
    ClusterError,
    InputError,
    JobError,
    MethodRefused,
    ModelError,
    OutOfMemoryError,
    StoreError,
)
from vidplat.platform.dispatch import storing
from vidplat.platform.dispatch.dispatcher import HandedOver, Order, WorkerSpec, WorkerUp
from vidplat.platform.dispatch.worker_thread import (
    Outbox,
    SetupFailed,
    Tools,
    WorkerEvent,
    WorkerThread,
    least_steps,
    sort_failure,
)
from vidplat.scheduler.decision import Assignment
from vidplat.storage.stores import NotFound
from vidplat.testing import FakeModel
from vidplat.workers.draft import Draft, Raw, Rendered

FAKE = ModelRef("fake", "1")
SPEC = WorkerSpec("cloud-1", PoolConfig("cloud"), "b1", FAKE, "memory://")
ARTIFACT = Artifact("v", "p", "m", "0" * 64, 1, 1)


def an_order(
    row: int = 1, prompt: str | None = None, steps: int = 4, finish_by: float | None = None
) -> Order:
    job = replace(a_job(row=row, prompt=prompt), model=FAKE)
    point = OperatingPoint(steps)
    planned = Assignment(job.id, "cloud-1", "cloud", point, 0.0, 1.0, 1.5, 1.0, 1.0, 1.5)
    return Order(planned, job, attempt=1, finish_by=finish_by)


class Running:
    """A worker at work, and what it said."""

    def __init__(
        self,
        model: FakeModel | None = None,
        commit: Callable[..., Artifact] = lambda order, made: ARTIFACT,
        unpack: Callable[[Draft], bytes] = lambda draft: draft.video,
        spec: WorkerSpec = SPEC,
    ) -> None:
        self.outbox = Outbox()
        tools = Tools(lambda ref: model or FakeModel(), commit, unpack=unpack)
        self.thread = WorkerThread(spec, lambda spec: tools, self.outbox)
        self.heard: list[WorkerEvent] = []
        self.thread.start()

    def until(self, kind: type, count: int = 1) -> list[WorkerEvent]:
        """Everything heard until `count` events of that kind were."""
        limit = time.monotonic() + 30
        while sum(isinstance(event, kind) for event in self.heard) < count:
            assert time.monotonic() < limit, self.heard
            self.heard += self.outbox.take(0.1)
        return [event for event in self.heard if isinstance(event, kind)]

    def outcomes(self, count: int = 1) -> list[Outcome]:
        return [event for event in self.until(Outcome, count) if isinstance(event, Outcome)]


@pytest.fixture
def opened():
    opened_threads: list[Running] = []

    def open_(*args, **kwargs) -> Running:
        opened_threads.append(Running(*args, **kwargs))
        return opened_threads[-1]

    yield open_
    for each in opened_threads:
        each.thread.close(wait_s=10)


def test_a_worker_says_when_it_is_up_and_ends_each_order_in_an_outcome(opened):
    running = opened()
    running.thread.put([an_order(1), an_order(2)])
    first, second = running.outcomes(2)
    (up,) = running.until(WorkerUp)
    assert isinstance(up, WorkerUp)
    assert up.device_class == "fake"
    assert (first.ok, first.artifact, first.steps_done) == (True, ARTIFACT, 4)
    assert set(first.phases) >= {"denoise", "decode", "store"}
    assert first.job_id == an_order(1).job.id
    # a store that answers at once is waited for
    assert second.started_at >= first.finished_at - 1e-3


def test_a_failing_job_never_take_the_worker_down(opened):
    # given an order for each kind of trouble, and a good one behind them
    running = opened()
    prompts = ("[wrong]", "[fail]", "[oom]", "good")
    running.thread.put([an_order(n, prompt, steps=24) for n, prompt in enumerate(prompts, 1)])

    # then
    kinds = [outcome.failure.kind if outcome.failure else None for outcome in running.outcomes(4)]
    assert kinds == [FailureKind.REQUEST, FailureKind.JOB, FailureKind.OUT_OF_MEMORY, None]


def test_a_store_that_fails_is_the_surroundings_fault(opened):
    def refuse(order, made):
        raise StoreError("the disk is full")

    running = opened(commit=refuse)
    running.thread.put([an_order()])
    (outcome,) = running.outcomes()
    assert outcome.failure is not None
    assert (outcome.failure.kind, outcome.failure.message) == (
        FailureKind.INFRASTRUCTURE,
        "the disk is full",
    )


def test_what_nobody_foresaw_is_logged_without_secrets(opened, caplog):
    def break_down(order, made):
        raise ZeroDivisionError("https://me:hunter2@host/a?sig=hunter2")

    running = opened(commit=break_down)
    running.thread.put([an_order()])
    (outcome,) = running.outcomes()
    assert outcome.failure is not None and "hunter2" not in outcome.failure.message
    assert "Traceback" in caplog.text and "ZeroDivisionError" in caplog.text
    assert "hunter2" not in caplog.text


def test_a_model_that_cannot_be_loaded_is_told_once(caplog):
    outbox = Outbox()

    def no_model(spec):
        raise ModelError("no such model")

    thread = WorkerThread(SPEC, no_model, outbox)
    thread.start()
    (event,) = outbox.take(10.0)
    assert event == SetupFailed("cloud-1", "no such model", request_is_wrong=True)
    assert caplog.text == ""  # what is explained needs no traceback


def test_orders_that_have_not_begun_can_be_recalled(opened):
    running = opened(FakeModel(step_s=0.05))
    orders = [an_order(row) for row in (1, 2, 3)]
    running.thread.put(orders)
    running.until(Progress)
    taken = running.thread.recall([order.job.id for order in orders])
    assert taken == {orders[1].job.id, orders[2].job.id}
    assert len(running.outcomes(1)) == 1


def test_a_running_job_can_be_hurried_and_says_what_it_spent(opened):
    # given 12 steps of 0.1 s
    running = opened(FakeModel(step_s=0.1))
    order = an_order(steps=12)
    running.thread.put([order])
    running.until(Progress)

    # when it has no time left
    running.thread.hurry({order.job.id: time.time()})

    # then it still spends a third, and the outcome's point tells how much
    (outcome,) = running.outcomes()
    assert outcome.ok
    assert least_steps(OperatingPoint(12)) == 4
    assert 4 <= outcome.point.steps < 12
    assert outcome.point.steps == outcome.steps_done


def test_a_cancelled_job_stops_between_two_steps(opened):
    running = opened(FakeModel(step_s=0.05))
    order = an_order(steps=100)
    running.thread.put([order])
    running.until(Progress)
    running.thread.cancel([order.job.id])
    (outcome,) = running.outcomes()
    assert not outcome.ok
    assert outcome.steps_done < 100


def with_a_draft(row: int) -> Order:
    order = an_order(row)
    drafted = HandedOver(
        order.job.id, 1, "cloud-9", Draft(b"frames", 6, {"left_out": True}, {}, {}, {}, 4), 0.0, 1.0
    )
    return replace(order, drafted=drafted)


def test_the_next_draft_is_on_its_way_while_one_is_finished_and_no_more_than_that(opened):
    # given three drafts, of which none may be finished before the next one has come
    fetched: list[Draft] = []
    come = [threading.Event() for _ in range(3)]
    at_finish: list[int] = []

    def unpack(draft: Draft) -> bytes:
        fetched.append(draft)
        come[len(fetched) - 1].set()
        return bytes(draft.video)

    class Finisher(FakeModel):
        def finish(self, *given: Any, **more: Any) -> Rendered | Raw:
            assert come[min(len(at_finish) + 1, 2)].wait(10)
            time.sleep(0.05)  # for another to be fetched, were it allowed
            at_finish.append(len(fetched))
            return super().finish(*given, **more)

    running = opened(Finisher(), unpack=unpack)
    running.until(WorkerUp)

    # when
    running.thread.put([with_a_draft(1), with_a_draft(2), with_a_draft(3)])

    # then
    assert all(outcome.ok for outcome in running.outcomes(3))
    assert at_finish == [2, 3, 3]
    assert all(0 <= outcome.phases["network"] < 5 for outcome in running.outcomes(3))


def test_a_draft_that_does_not_come_fails_its_job_alone(opened):
    def unpack(draft: Draft) -> bytes:
        raise ClusterError("a draft was lost on its way")

    running = opened(unpack=unpack)
    running.until(WorkerUp)
    running.thread.put([with_a_draft(1), an_order(2)])

    lost, made = running.outcomes(2)

    assert lost.failure is not None
    assert (lost.failure.kind, lost.failure.message) == (
        FailureKind.INFRASTRUCTURE,
        "a draft was lost on its way",
    )
    assert made.ok


def test_a_draft_that_is_called_back_is_not_kept(opened):
    waits, begun = threading.Event(), threading.Event()

    class Finisher(FakeModel):
        def finish(self, *given: Any, **more: Any) -> Rendered | Raw:
            begun.set()
            assert waits.wait(10)
            return super().finish(*given, **more)

    running = opened(Finisher())
    running.until(WorkerUp)
    running.thread.put([with_a_draft(1), with_a_draft(2)])
    assert begun.wait(10)
    assert running.thread.recall([with_a_draft(2).job.id]) == {with_a_draft(2).job.id}
    waits.set()
    assert [outcome.job_id for outcome in running.outcomes(1)] == [with_a_draft(1).job.id]


# --- storing beside making ------------------------------------------------------------------------


class SlowStore:
    """A store whose commits wait until they are let through; with what comes of each."""

    def __init__(self, *ends: Artifact | Exception) -> None:
        self.begun: list[str] = []
        self.ends = list(ends)
        self.let_through = threading.Semaphore(0)

    def commit(self, order: Order, made: object) -> Artifact:
        self.begun.append(order.job.id)
        assert self.let_through.acquire(timeout=10)
        end = self.ends.pop(0) if self.ends else ARTIFACT
        if isinstance(end, Exception):
            raise end
        return end


def test_the_next_video_is_made_while_one_is_stored_and_one_at_most_waits(opened):
    # given a store that does not answer
    store, made = SlowStore(), []

    class Maker(FakeModel):
        def make(self, job: Job, *given: Any, **more: Any) -> Rendered | Raw | Draft:
            made.append(job.id)
            return super().make(job, *given, **more)

    running = opened(Maker(), commit=store.commit)
    orders = [an_order(row) for row in (1, 2, 3, 4)]
    jobs = [order.job.id for order in orders]
    running.thread.put(orders)

    # then three are made: one is being stored, one waits, and the third has nowhere to go
    wait_until(lambda: len(made) == 3)
    time.sleep(0.1)
    assert (made, store.begun) == (jobs[:3], jobs[:1])
    # which is told of the first before the second began
    told = [(each.job_id, each.phase) for each in running.until(Progress)]
    assert told.index((jobs[0], "store")) < [job for job, _ in told].index(jobs[1])

    # and each gets its own end, in the order they were made
    for _ in orders:
        store.let_through.release()
    assert [outcome.job_id for outcome in running.outcomes(4)] == jobs
    assert all(outcome.ok and outcome.phases["store"] > 0 for outcome in running.outcomes(4))


def test_a_video_is_compressed_while_the_next_is_made(opened):
    # given that the first is not compressed before the second is being made
    at_second, threads = threading.Event(), []

    class Maker(FakeModel):
        def make(self, job: Job, *given: Any, **more: Any) -> Rendered | Raw | Draft:
            if job.row == 2:
                at_second.set()
            made = super().make(job, *given, **more)
            assert isinstance(made, Raw)

            def compressed() -> Rendered:
                threads.append(threading.current_thread())
                assert at_second.wait(10)
                return made.compressed()

            return replace(made, compressed=compressed)

    running = opened(Maker())
    running.thread.put([an_order(1), an_order(2)])

    first, second = running.outcomes(2)

    assert (first.ok, second.ok, len(set(threads))) == (True, True, 1)
    assert threads[0] is not running.thread._thread
    assert set(first.phases) >= {"denoise", "mp4", "store"}
    told = [(each.job_id, each.phase) for each in running.until(Progress)]
    assert (first.job_id, "mp4") in told


def test_a_video_that_cannot_be_compressed_fails_alone(opened):
    class Maker(FakeModel):
        def make(self, job: Job, *given: Any, **more: Any) -> Rendered | Raw | Draft:
            made = super().make(job, *given, **more)

            def compressed() -> Rendered:
                raise JobError("the file holds other than was promised")

            return Raw(compressed, 4) if job.row == 1 else made

    running = opened(Maker())
    running.thread.put([an_order(1), an_order(2)])

    lost, kept = running.outcomes(2)

    assert lost.failure == sort_failure(JobError("the file holds other than was promised"))
    assert (lost.steps_done, kept.ok) == (4, True)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storing, "_FIRST_WAIT_S", 0.02)
    monkeypatch.setattr(storing, "_LOOK_S", 0.01)


def test_a_video_that_the_store_refused_is_offered_again_and_not_made_again(opened, impatient):
    # given a store that is away for three tries
    store = SlowStore(*[StoreError("the store is away")] * 3)
    running = opened(commit=store.commit, spec=replace(SPEC, store_patience_s=30.0))
    order = an_order()
    running.thread.put([order])
    for _ in range(4):
        store.let_through.release()

    (outcome,) = running.outcomes()

    assert outcome.ok
    assert store.begun == [order.job.id] * 4
    phases = [progress.phase for progress in running.until(Progress)]
    assert phases.count("denoise") <= 4, "it was made once"
    assert phases[-1] == "store"


@pytest.mark.parametrize(
    ("error", "patience_s", "tries"),
    [
        (StoreError("the disk is full"), 0.05, 2),  # 0.02 s, then 0.04 s would be too long
        (StoreError("the disk is full"), 0.0, 1),
        (NotFound("no such bucket"), 30.0, 1),  # no retry can help
        (ZeroDivisionError("a mistake"), 30.0, 1),
    ],
)
def test_patience_has_an_end_and_the_next_video_is_stored_all_the_same(
    opened, impatient, error, patience_s, tries
):
    store = SlowStore(*[error] * tries)
    running = opened(commit=store.commit, spec=replace(SPEC, store_patience_s=patience_s))
    first, second = an_order(1), an_order(2)
    running.thread.put([first, second])
    for _ in range(tries + 1):
        store.let_through.release()

    lost, kept = running.outcomes(2)

    assert (lost.job_id, kept.job_id) == (first.job.id, second.job.id)
    assert (lost.failure, kept.ok) == (sort_failure(error), True)
    assert store.begun == [first.job.id] * tries + [second.job.id]


@pytest.mark.parametrize("end", ["cancel", "close"])
def test_what_nobody_wants_any_more_is_not_offered_again(opened, monkeypatch, end):
    monkeypatch.setattr(storing, "_FIRST_WAIT_S", 60.0)
    store = SlowStore(*[StoreError("the store is away")] * 9)
    running = opened(commit=store.commit, spec=replace(SPEC, store_patience_s=600.0))
    order = an_order()
    running.thread.put([order])
    for _ in range(9):
        store.let_through.release()
    wait_until(lambda: store.begun)

    began = time.monotonic()
    running.thread.cancel([order.job.id]) if end == "cancel" else running.thread.close(wait_s=10)

    (outcome,) = running.outcomes()
    assert (outcome.ok, time.monotonic() - began < 10) == (False, True)
    assert len(store.begun) == 2


def test_a_worker_that_is_closed_stores_what_it_has_made(opened):
    store = SlowStore()
    running = opened(commit=store.commit)
    running.thread.put([an_order(1), an_order(2)])
    wait_until(lambda: store.begun and running.thread.recall([an_order(2).job.id]) == frozenset())
    threading.Timer(0.1, lambda: store.let_through.release(2)).start()
    running.thread.close(wait_s=10)
    assert not running.thread._thread.is_alive()
    assert running.outcomes(1)[0].ok


def wait_until(is_so: Callable[[], object], limit_s: float = 10.0) -> None:
    until = time.monotonic() + limit_s
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_that_a_video_is_being_stored_is_told_at_once():
    outbox, beat = Outbox(), Progress("a", 1, "w", "store", 4, 4, 1.0)
    threading.Timer(0.05, outbox.put, [beat]).start()
    outbox.put(replace(beat, phase="decode"))
    began = time.monotonic()
    assert outbox.take(10.0, gather_s=30.0) == [beat]
    assert time.monotonic() - began < 10


def test_a_slow_reader_hears_only_the_newest_heartbeat_of_a_job():
    outbox = Outbox()
    for step in range(10):
        outbox.put(Progress("a", 1, "w", "denoise", step, 10, float(step)))
    outbox.put(Progress("b", 1, "w", "denoise", 0, 10, 11.0))
    assert [(event.job_id, event.step) for event in outbox.take(0)] == [("a", 9), ("b", 0)]


def test_an_outbox_wakes_its_reader():
    outbox = Outbox()
    threading.Timer(0.05, outbox.put, [SetupFailed("w", "x", False)]).start()
    began = time.monotonic()
    assert len(outbox.take(10.0)) == 1
    assert time.monotonic() - began < 5


def test_heartbeats_are_gathered_for_a_while_and_what_ended_is_told_at_once():
    outbox, beat = Outbox(), Progress("a", 1, "w", "denoise", 1, 10, 1.0)
    outbox.put(beat)
    began = time.monotonic()
    assert outbox.take(10.0, gather_s=0.3) == [beat]
    assert 0.25 < time.monotonic() - began < 5

    outbox.put(beat)
    threading.Timer(0.05, outbox.put, [SetupFailed("w", "x", False)]).start()
    assert len(outbox.take(10.0, gather_s=30.0)) == 2
    assert time.monotonic() - began < 20


def test_failures_are_sorted_by_whose_fault_they_are():
    assert sort_failure(InputError("x")).kind is FailureKind.REQUEST
    assert sort_failure(OutOfMemoryError("x")).kind is FailureKind.OUT_OF_MEMORY
    assert sort_failure(MemoryError()).kind is FailureKind.OUT_OF_MEMORY
    assert sort_failure(JobError("x")).kind is FailureKind.JOB
    assert sort_failure(MethodRefused("x")).kind is FailureKind.METHOD
    assert sort_failure(OSError(28, "No space left on device")).kind is FailureKind.INFRASTRUCTURE
    assert sort_failure(ZeroDivisionError("a \x1b[31m thing")).kind is FailureKind.JOB
    assert sort_failure(ZeroDivisionError("a \x1b[31m thing")).message.isprintable()
