"""The dispatcher that works on a Ray cluster: one actor per worker. The only file that imports Ray.

    driver                                    actor process
    put(orders)            ──────────────►    WorkerThread: a queue, and a thread that makes videos
    take(), always one out ◄──────────────    its outbox: heartbeats, outcomes

Events come up by a long poll: each actor always holds one unanswered `take`, which it answers as
soon as it has something to say; heartbeats of one second are one answer. A dead actor is noticed at
once because its `take` fails.

Ray is disposable: it places processes and moves small messages. What is true is in the catalog.
Actors are never restarted or retried by Ray; a dead one is replaced here by another with a new id.

A cluster started here has one node; pools then are custom resources `pool_<name>`. On a cluster we
attach to, a pool takes nodes with the label `vidplat-pool=<name>`, or nodes with that custom
resource, or any node when neither exists; its nodes need vidplat installed.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partialmethod
from typing import Any
from uuid import uuid4

import ray
from ray.exceptions import RayActorError, RayError

from vidplat.config import Machines, RayConfig
from vidplat.domain import Outcome
from vidplat.errors import ClusterError, printable
from vidplat.platform.dispatch import clocks
from vidplat.platform.dispatch.dispatcher import (
    Event,
    HandedOver,
    Order,
    Seat,
    WorkerLost,
    WorkerSpec,
    WorkerUp,
)
from vidplat.platform.dispatch.seats import Seats
from vidplat.platform.dispatch.worker_thread import (
    Outbox,
    SetupFailed,
    Tools,
    WorkerEvent,
    WorkerThread,
)
from vidplat.workers.draft import Draft

log = logging.getLogger(__name__)

LONG_POLL_S = 20.0
GATHER_S = 1.0  # heartbeats are told so often; what has ended is told at once
POOL_LABEL = "vidplat-pool"
_CALL_TIMEOUT_S = 5.0
_RECALL_WITHIN_S = 10.0
# without an answer that was due: then a worker hangs, or nothing comes through to it any more
_SILENT_S = 45.0
_LONGEST_LOOK_S = 1.0  # a process that slept itself has not heard how silent others were
_PART_BYTES = 32 * 1024  # of a draft: below what Ray answers directly, from process to process
_PARTS_AT_ONCE = 8
_PART_WITHIN_S = 300.0  # of a link that is gone: then the draft is made again
_KIND = "accelerator_type:"  # how Ray's resources begin that name a node's GPU
_TROUBLES = (RayError, ConnectionError, ValueError, RuntimeError, OSError)
_TOLD_OF_CLOCK_S = 2.0  # who runs the machines should know of a clock that is further off


@dataclass(frozen=True)
class DraftHandle:
    """A draft's video in the process of its maker, from which it is read part by part.

    Not in Ray's object store: what that has not carried within ten seconds it sends again, so that
    thin links fill up with copies (measured: 52 s for what takes 11).
    """

    maker: Any  # the actor's handle
    name: str


class WorkerActor(WorkerThread):
    """A worker in an actor process. Methods answer at once, but for `take`, which waits."""

    def __init__(self, spec: WorkerSpec) -> None:
        super().__init__(spec, self._tools_here, Outbox())
        self._drafts: dict[str, bytes] = {}
        self.start()

    def take(self, wait_s: float) -> list[WorkerEvent]:
        return self._outbox.take(wait_s, GATHER_S)

    def clock(self) -> float:
        return time.time()

    def part(self, name: str, start: int) -> bytes:
        """Of a draft's video; nothing where there is none of that name."""
        return self._drafts.get(name, b"")[start : start + _PART_BYTES]

    def forget(self, name: str) -> None:
        self._drafts.pop(name, None)

    def _tools_here(self, spec: WorkerSpec) -> Tools:
        from vidplat.platform.dispatch.worker_tools import open_tools

        return replace(open_tools(spec), pack=self._lay_down, unpack=self._fetched)

    def _lay_down(self, video: bytes) -> DraftHandle:
        name = uuid4().hex
        self._drafts[name] = video
        return DraftHandle(ray.get_runtime_context().current_actor, name)

    def _fetched(self, draft: Draft) -> bytes:
        own = self._drafts.get(draft.video.name)
        return _carried(draft) if own is None else own


def _carried(draft: Draft) -> bytes:
    """A draft's video, from its maker. Raises `ClusterError` where it cannot be had."""
    handle: DraftHandle = draft.video
    starts = deque(range(0, draft.size_bytes, _PART_BYTES))
    coming: deque[Any] = deque()
    video = b""
    try:
        while starts or coming:
            while starts and len(coming) < _PARTS_AT_ONCE:
                coming.append(handle.maker.part.remote(handle.name, starts.popleft()))
            video += ray.get(coming.popleft(), timeout=_PART_WITHIN_S)
    except RayError as error:
        raise ClusterError(
            f"a draft was lost on its way between two workers: {printable(error, limit=200)}"
        ) from error
    if len(video) != draft.size_bytes:
        raise ClusterError(f"of a draft of {draft.size_bytes} bytes its maker has {len(video)}")
    return video


class RayDispatcher:
    """`seats` are what the plan should know of each worker before it is up."""

    def __init__(self, seats: Sequence[Seat], config: RayConfig) -> None:
        self._seats = Seats(seats)
        self._config = config
        self._actors: dict[str, Any] = {}
        self._takes: dict[Any, str] = {}  # unanswered `take` -> worker id
        # By job id: attempt and draft, while it is not finished.
        self._drafts: dict[str, tuple[int, DraftHandle]] = {}
        # By worker id: its clock beside ours, once it is up.
        self._ahead_s: defaultdict[str, float] = defaultdict(float)
        # By worker id: for how long its `take` has been unanswered.
        self._silent_s: defaultdict[str, float] = defaultdict(float)
        self._polled_at = time.monotonic()
        self._started_here = False
        self._attached = False

    def start(self) -> None:
        try:
            self._connect()
            for seat in self._seats.all():
                self._open_actor(seat.spec)
        except _TROUBLES as error:
            self.close()
            raise _no_cluster(self._config.address, error) from error

    def seats(self) -> tuple[Seat, ...]:
        return self._seats.all()

    def send(self, worker_id: str, orders: Sequence[Order]) -> None:
        if actor := self._actors.get(worker_id):
            ahead_s = self._ahead_s[worker_id]
            actor.put.remote([clocks.in_worker_time(order, ahead_s) for order in orders])

    def hurry(self, worker_id: str, finish_by: Mapping[str, float | None]) -> None:
        if actor := self._actors.get(worker_id):
            actor.hurry.remote(clocks.ends_in_worker_time(finish_by, self._ahead_s[worker_id]))

    def recall(self, worker_id: str, job_ids: Collection[str]) -> frozenset[str]:
        if (actor := self._actors.get(worker_id)) is None:
            return frozenset()
        try:
            taken: frozenset[str] = ray.get(
                actor.recall.remote(frozenset(job_ids)), timeout=_RECALL_WITHIN_S
            )
        except RayError:
            # Dead, or it may have given back what nobody will carry out then: all it holds comes
            # with its WorkerLost.
            ray.kill(actor, no_restart=True)
            return frozenset()
        return taken

    def cancel(self, worker_id: str, job_ids: Collection[str]) -> None:
        if actor := self._actors.get(worker_id):
            actor.cancel.remote(frozenset(job_ids))

    def poll(self, timeout_s: float) -> list[Event]:
        if not self._takes:
            time.sleep(timeout_s)
            return []
        ready, rest = ray.wait(list(self._takes), num_returns=1, timeout=timeout_s)
        if ready and rest:
            more, _ = ray.wait(rest, num_returns=len(rest), timeout=0)
            ready += more
        events: list[Event] = []
        for ref in ready:
            events += self._answered(self._takes.pop(ref), ref)
        return events + self._given_up()

    def close(self) -> None:
        self._takes.clear()
        for actor in self._actors.values():
            ray.kill(actor, no_restart=True)
        self._actors.clear()
        if self._started_here or self._attached:
            ray.shutdown()
        self._started_here = self._attached = False

    # --- events ---------------------------------------------------------------------------------

    def _answered(self, worker_id: str, ref: Any) -> list[Event]:
        try:
            answer: list[WorkerEvent] = ray.get(ref)
        except RayActorError as error:
            return [self._lose(worker_id, _cause_of_death(error))]
        except RayError as error:
            return [self._lose(worker_id, printable(error))]
        events: list[Event] = []
        for said in answer:
            if isinstance(said, SetupFailed):
                lost = self._lose(worker_id, said.reason, request_is_wrong=said.request_is_wrong)
                return [*events, lost]
            if isinstance(said, WorkerUp):
                self._compare_clocks(worker_id)
            event = clocks.in_our_time(said, self._ahead_s[worker_id])
            self._seats.note(event)
            if isinstance(event, Outcome | HandedOver):
                self._note_draft(event)
            events.append(event)
        self._listen(worker_id)
        return events

    def _note_draft(self, event: Outcome | HandedOver) -> None:
        """Let a draft's maker forget it once its attempt has ended or a later one made another."""
        attempt, old = self._drafts.get(event.job_id, (0, None))
        if event.attempt < attempt:
            return
        if old is not None:
            del self._drafts[event.job_id]
            old.maker.forget.remote(old.name)
        if isinstance(event, HandedOver):
            self._drafts[event.job_id] = event.attempt, event.draft.video

    def _compare_clocks(self, worker_id: str) -> None:
        actor = self._actors[worker_id]
        try:
            ahead = clocks.ahead_of_ours(
                lambda: float(ray.get(actor.clock.remote(), timeout=_CALL_TIMEOUT_S))
            )
        except RayError:
            return  # dead or unreachable: that will be noticed, and then it has no times to tell
        self._ahead_s[worker_id] = ahead
        if abs(ahead) > _TOLD_OF_CLOCK_S:
            way = "ahead" if ahead > 0 else "behind"
            text = "the clock of worker %s is %.0f s %s; its times are corrected"
            log.warning(text, worker_id, abs(ahead), way)

    def _given_up(self) -> list[Event]:
        """Workers from which nothing is heard, though they should have answered long ago."""
        now = time.monotonic()
        passed_s, self._polled_at = min(now - self._polled_at, _LONGEST_LOOK_S), now
        lost: list[Event] = []
        for ref, worker_id in list(self._takes.items()):
            self._silent_s[worker_id] += passed_s
            silent_s = self._silent_s[worker_id]
            if self._seats.by_worker[worker_id].up and silent_s > LONG_POLL_S + _SILENT_S:
                del self._takes[ref]
                lost.append(self._lose(worker_id, f"it was not heard of for {silent_s:.0f} s"))
        return lost

    def _listen(self, worker_id: str) -> None:
        self._silent_s[worker_id] = 0.0
        self._takes[self._actors[worker_id].take.remote(LONG_POLL_S)] = worker_id

    def _lose(self, worker_id: str, reason: str, *, request_is_wrong: bool = False) -> WorkerLost:
        ray.kill(self._actors.pop(worker_id), no_restart=True)
        lost = self._seats.lose(worker_id, reason, request_is_wrong=request_is_wrong)
        if lost.successor is not None:
            self._open_actor(self._seats.by_worker[lost.successor].spec)
        log.warning("worker %s lost: %s", worker_id, reason)
        return lost

    # --- the cluster ----------------------------------------------------------------------------

    def _connect(self) -> None:
        if self._config.address:
            _attach(self._config.address)
            self._attached = True
            return
        quiet = _quiet()
        # Ray would run workers at almost the lowest priority; here theirs is the work that counts.
        os.environ.setdefault("RAY_worker_niceness", "0")
        specs = [seat.spec for seat in self._seats.all()]
        with _fewer_processes():
            ray.init(
                address="local",
                # Every actor gets its place, also where threads outnumber cores: the user decides.
                num_cpus=max(1, sum(spec.pool.threads for spec in specs)),
                num_gpus=sum(spec.pool.gpus for spec in specs) or None,
                resources=Counter(pool_resource(spec.pool.name) for spec in specs),
                include_dashboard=self._config.dashboard,
                # Videos go from workers to the store; Ray carries small messages only.
                object_store_memory=80 * 2**20,
                **quiet,
            )
        self._started_here = True

    def _open_actor(self, spec: WorkerSpec) -> None:
        options: dict[str, Any] = {
            "num_cpus": spec.pool.threads,
            "num_gpus": spec.pool.gpus,
            "max_restarts": 0,
            "max_concurrency": 16,
            **self._placement(spec.pool.name),
        }
        self._actors[spec.worker_id] = ray.remote(WorkerActor).options(**options).remote(spec)
        self._listen(spec.worker_id)

    def _placement(self, pool: str) -> dict[str, Any]:
        """How Ray finds the nodes of a pool."""
        if self._started_here or pool_resource(pool) in ray.cluster_resources():
            return {"resources": {pool_resource(pool): 1}}
        alive = (node for node in ray.nodes() if node.get("Alive"))
        if any(node.get("Labels", {}).get(POOL_LABEL) == pool for node in alive):
            return {"label_selector": {POOL_LABEL: pool}}
        return {}


def machines_of(address: str) -> Machines:
    """What the nodes of a running cluster have: the most cores of one, and all GPUs. Raises
    `ClusterError`."""
    try:
        _attach(address)
        nodes = [node.get("Resources", {}) for node in ray.nodes() if node.get("Alive")]
        cards = int(ray.cluster_resources().get("GPU", 0))
    except _TROUBLES as error:
        raise _no_cluster(address, error) from error
    finally:
        ray.shutdown()
    kinds = [name for node in nodes for name in node if name.startswith(_KIND)]
    kind = kinds[0].removeprefix(_KIND) if kinds else "NVIDIA"
    cores = max((int(node.get("CPU", 0)) for node in nodes), default=1)
    return Machines(max(1, cores), (kind,) * cards)


def _attach(address: str) -> None:
    quiet = _quiet()
    _check_reachable(address)
    ray.init(address=address, **quiet)


def _quiet() -> dict[str, Any]:
    """What keeps Ray from talking; it has remarks before `logging_level` takes effect."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    logging.getLogger("ray").setLevel(logging.ERROR)
    return {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}


def _no_cluster(address: str | None, error: Exception) -> ClusterError:
    if address is None:
        return ClusterError(f"cannot start Ray on this machine: {printable(error)}")
    return ClusterError(
        f"cannot use the Ray cluster at {printable(address)}: {printable(error)}. It must run Ray "
        f"{ray.__version__}; if it asks for tokens, set RAY_AUTH_MODE=token here"
    )


@contextmanager
def _fewer_processes() -> Iterator[None]:
    """While open, a cluster is started without its autoscaler and its log reader.

    One machine has nothing to scale, and nobody reads the logs (`log_to_driver` is off), but each
    is a Python process that starts beside the ones we wait for: 1.9 s of processor time (decision
    0009). Ray has no public setting for it in `ray.init`; a test looks whether they stay away.
    """
    parameters: Any = ray._private.parameter.RayParams
    usual = parameters.__init__
    parameters.__init__ = partialmethod(usual, no_monitor=True, include_log_monitor=False)
    try:
        yield
    finally:
        parameters.__init__ = usual


def _check_reachable(address: str) -> None:
    """Raise ConnectionError in seconds where nobody listens; Ray would try for minutes."""
    if "://" in address:
        raise ConnectionError(
            "write it as host:port, the address that `ray start --head` shows; ray:// is not "
            "supported"
        )
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CALL_TIMEOUT_S).close()


def pool_resource(pool: str) -> str:
    """Name of the custom Ray resource that marks a pool's places."""
    return f"pool_{pool}"


def _cause_of_death(error: RayActorError) -> str:
    """One sentence of Ray's several paragraphs."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "exit" in line.lower() or "killed" in line.lower()]
    return printable((telling or lines or ["the worker process died"])[0], limit=300)
