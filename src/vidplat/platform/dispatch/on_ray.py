"""The dispatcher that works on a Ray cluster: one actor per worker.

It and `ray_cluster` are the only files that import Ray.

    driver                                    actor process
    put(orders)            ──────────────►    WorkerThread: a queue, and a thread that makes videos
    take(), always one out ◄──────────────    its outbox: heartbeats, outcomes

Events come up by a long poll: each actor always holds one unanswered `take`, which it answers as
soon as it has something to say; heartbeats of one second are one answer. A dead actor is noticed at
once because its `take` fails.

Ray is disposable: it places processes and moves small messages. What is true is in the catalog.
Actors are never restarted or retried by Ray; a dead one is replaced here by another with a new id.
A cluster that is lost (`ray_cluster`) takes all its workers along, without blame for what they had
in hand; they come up anew on the next one, which is started here, or waited for where it was
attached to.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections import defaultdict, deque
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import ray
from ray.exceptions import RayActorError, RayError

from vidplat import times
from vidplat.domain import Outcome
from vidplat.errors import ClusterError, printable
from vidplat.platform.dispatch import clocks
from vidplat.platform.dispatch.dispatcher import (
    DRAFT_PART_WITHIN_S,
    Absence,
    Event,
    HandedOver,
    Order,
    Seat,
    WorkerLost,
    WorkerSpec,
    WorkerUp,
)
from vidplat.platform.dispatch.ray_cluster import RayCluster
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
_CALL_TIMEOUT_S = 5.0
_RECALL_WITHIN_S = 10.0
# without an answer that was due: then a worker hangs, or nothing comes through to it any more
_SILENT_S = 45.0
_LONGEST_LOOK_S = 1.0  # a process that slept itself has not heard how silent others were
_PART_BYTES = 32 * 1024  # of a draft: below what Ray answers directly, from process to process
_PARTS_AT_ONCE = 8
_BACK_WITHIN_S = 300.0  # that a cluster we attached to may be away
_PARENT_LOOK_S = 0.5
_NODE_IS_GONE = "its node does not answer any more"
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
        threading.Thread(target=_end_with_parent, daemon=True).start()
        self.start()

    def take(self, wait_s: float) -> list[WorkerEvent]:
        return self._outbox.take(wait_s, GATHER_S)

    def node(self) -> str:
        """The id of the node that it is on."""
        return str(ray.get_runtime_context().get_node_id())

    def clock(self) -> float:
        return times.now()

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


def _end_with_parent() -> None:
    """A worker whose node died is gone for everybody: it must not go on beside its successor."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(_PARENT_LOOK_S)
    os._exit(1)


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
            video += ray.get(coming.popleft(), timeout=DRAFT_PART_WITHIN_S)
    except RayError as error:
        raise ClusterError(
            f"a draft was lost on its way between two workers: {printable(error, limit=200)}"
        ) from error
    if len(video) != draft.size_bytes:
        raise ClusterError(f"of a draft of {draft.size_bytes} bytes its maker has {len(video)}")
    return video


class RayDispatcher:
    """`seats` are what the plan should know of each worker before it is up. The cluster, which may
    be connected already, is closed with the dispatcher."""

    def __init__(self, seats: Sequence[Seat], cluster: RayCluster) -> None:
        self._seats = Seats(seats)
        self._cluster = cluster
        self._actors: dict[str, Any] = {}
        self._takes: dict[Any, str] = {}  # unanswered `take` -> worker id
        # By job id: attempt and draft, while it is not finished.
        self._drafts: dict[str, tuple[int, DraftHandle]] = {}
        # By worker id: its clock beside ours, once it is up.
        self._ahead_s: defaultdict[str, float] = defaultdict(float)
        # By worker id: for how long its `take` has been unanswered.
        self._silent_s: defaultdict[str, float] = defaultdict(float)
        self._polled_at = time.monotonic()
        self._coming: dict[Any, str] = {}  # on which node it is: unanswered -> worker id
        self._node_of: dict[str, str] = {}  # of workers that have a place
        self._dismissed: list[Event] = []
        self._away_since: float | None = None  # monotonic: when the cluster was lost

    def start(self) -> None:
        self._cluster.connect([seat.spec for seat in self._seats.all()])
        try:
            for seat in self._seats.all():
                self._open_actor(seat.spec)
        except (RayError, ValueError, RuntimeError) as error:
            self.close()
            raise ClusterError(f"cannot place workers on Ray: {printable(error)}") from error

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

    def dismiss(self, worker_id: str, reason: str, stalled: str | None = None) -> None:
        if worker_id in self._actors:
            self._takes = {ref: who for ref, who in self._takes.items() if who != worker_id}
            self._dismissed.append(replace(self._lose(worker_id, reason), stalled=stalled))

    def absent(self) -> Mapping[str, Absence]:
        return self._cluster.absences(self._coming.values(), self._seats.all())

    def poll(self, timeout_s: float) -> list[Event]:
        events, self._dismissed = self._dismissed, []
        if self._away_since is not None:
            self._come_back(self._away_since, timeout_s)
            return events
        if (trouble := self._cluster.trouble()) is not None:
            return events + self._lose_all(trouble)
        if not self._takes:
            time.sleep(0.0 if events else timeout_s)
            return events
        ready, rest = ray.wait(
            list(self._takes), num_returns=1, timeout=0.0 if events else timeout_s
        )
        if ready and rest:
            more, _ = ray.wait(rest, num_returns=len(rest), timeout=0)
            ready += more
        for ref in ready:
            if self._away_since is None:
                events += self._answered(self._takes.pop(ref), ref)
        if self._away_since is not None:
            return events
        self._note_placed()
        return events + self._gone_with_nodes() + self._given_up()

    def close(self) -> None:
        self._takes.clear()
        if self._away_since is None:
            for actor in self._actors.values():
                ray.kill(actor, no_restart=True)
        self._actors.clear()
        self._cluster.close()

    # --- events ---------------------------------------------------------------------------------

    def _answered(self, worker_id: str, ref: Any) -> list[Event]:
        try:
            answer: list[WorkerEvent] = ray.get(ref)
        except RayError as error:
            if trouble := self._cluster.trouble(at_once=True):
                return self._lose_all(trouble)
            if self._cluster.has_lost(self._node_of.get(worker_id), at_once=True):
                return [replace(self._lose(worker_id, _NODE_IS_GONE), is_blameless=True)]
            is_death = isinstance(error, RayActorError)
            return [self._lose(worker_id, _cause_of_death(error) if is_death else printable(error))]
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

    def _gone_with_nodes(self) -> list[Event]:
        """Workers whose node does not answer any more, though Ray has not said so yet."""
        gone = [each for each in self._actors if self._cluster.has_lost(self._node_of.get(each))]
        self._takes = {ref: who for ref, who in self._takes.items() if who not in gone}
        return [replace(self._lose(each, _NODE_IS_GONE), is_blameless=True) for each in gone]

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
        self._coming = {ref: who for ref, who in self._coming.items() if who != worker_id}
        self._node_of.pop(worker_id, None)
        lost = self._seats.lose(
            worker_id,
            reason,
            request_is_wrong=request_is_wrong,
            has_place=self._cluster.is_own,
        )
        if lost.successor is not None:
            self._open_actor(self._seats.by_worker[lost.successor].spec)
        return lost

    # --- the cluster ----------------------------------------------------------------------------

    def _open_actor(self, spec: WorkerSpec) -> None:
        options: dict[str, Any] = {
            "num_cpus": spec.pool.threads,
            "num_gpus": spec.pool.gpus,
            "max_restarts": 0,
            "max_concurrency": 16,
            **self._cluster.placement(spec.pool.name),
        }
        actor = ray.remote(WorkerActor).options(**options).remote(spec)
        self._actors[spec.worker_id] = actor
        self._coming[actor.node.remote()] = spec.worker_id
        self._listen(spec.worker_id)

    def _note_placed(self) -> None:
        """Workers whose process answers have a place; they may still be loading."""
        if self._coming:
            answered, _ = ray.wait(list(self._coming), num_returns=len(self._coming), timeout=0)
            for ref in answered:
                worker_id = self._coming.pop(ref)
                with suppress(RayError):  # dead already, which will be noticed
                    self._node_of[worker_id] = node_id = ray.get(ref)
                    self._cluster.watch_node(node_id)
                    self._seats.place(worker_id)

    def _lose_all(self, reason: str) -> list[Event]:
        """The cluster is gone, and every worker with it."""
        self._away_since = time.monotonic()
        own = self._cluster.is_own
        lost = [self._seats.lose(each, reason, has_place=own) for each in list(self._actors)]
        for gone in (self._actors, self._takes, self._coming, self._node_of, self._drafts):
            gone.clear()
        self._silent_s.clear()
        return [replace(each, is_blameless=True) for each in lost]

    def _come_back(self, since: float, timeout_s: float) -> None:
        """Bring all workers up on the next cluster, once there is one. Raises ClusterError."""
        self._cluster.close()
        if not self._cluster.answers():
            away_s = time.monotonic() - since
            if away_s > _BACK_WITHIN_S:
                raise ClusterError(f"the Ray cluster was lost, and not back after {away_s:.0f} s")
            time.sleep(timeout_s)
            return
        self.start()
        self._away_since = None
        self._polled_at = time.monotonic()


def _cause_of_death(error: RayActorError) -> str:
    """One sentence of Ray's several paragraphs."""
    said = " ".join(str(error).split())
    found = re.search(r"worker exit detail: (.+?)\.?(?: some common causes|\. |$)", said, re.I)
    return f"its process died: {printable(found[1], limit=200)}" if found else "its process died"
