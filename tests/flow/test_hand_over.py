"""Jobs whose frames are filled in by light workers: the same end, with threads and on a Ray
cluster.
"""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.flow.cluster import Cluster
from tests.flow.stage import Stage
from tests.flow.test_crashes import wait_for
from tests.platform.builders import Memory, a_seat
from vidplat.config import PoolConfig, RayConfig
from vidplat.domain import JobState, OperatingPoint, Outcome
from vidplat.platform.dispatch import on_ray
from vidplat.platform.dispatch.dispatcher import (
    Dispatcher,
    Event,
    HandedOver,
    WorkerLost,
    WorkerUp,
)
from vidplat.platform.dispatch.ray_cluster import RayCluster
from vidplat.workers.draft import Draft

POOLS = (PoolConfig("cloud"), PoolConfig("edge", workers=2, light=True))


@pytest.mark.parametrize(
    "local", [True, pytest.param(False, marks=[pytest.mark.ray, pytest.mark.thorough])]
)
def test_light_workers_fill_in_what_the_cloud_left_out(
    tmp_path: Path, local: bool, request: pytest.FixtureRequest
):
    # given one worker with a model, and two without that take as long as it does
    address = None if local else request.getfixturevalue("ray_cluster").address
    model = "fake:step_s=0.02,reconstruct_s=0.16"
    stage = Stage(tmp_path, model=model, pools=POOLS, local=local, address=address)
    heard = Memory()

    # when
    result = stage.submit(40, heard, method="eco")

    # then every video was begun in the cloud, and once the edge was up its workers finished what
    # was
    assert result.exit_code == 0
    assert stage.counts() == {JobState.DONE: 40}
    stage.check_nothing_lost_or_twice()
    assert all("cloud-1" in (outcome.drafted_by, outcome.worker_id) for outcome in heard.outcomes)
    at_the_edge = [outcome for outcome in heard.outcomes if outcome.worker_id.startswith("edge")]
    assert len(at_the_edge) >= 8
    for outcome in at_the_edge:
        assert outcome.drafted_by == "cloud-1"
        assert {"denoise", "network", "reconstruct", "store"} <= set(outcome.phases)
        assert outcome.metrics["draft_bytes"] == 256


def test_other_methods_stay_in_the_cloud(tmp_path: Path):
    stage, heard = Stage(tmp_path, model="fake:step_s=0.01", pools=POOLS), Memory()
    assert stage.submit(4, heard, method="steps").exit_code == 0
    assert {outcome.worker_id for outcome in heard.outcomes} == {"cloud-1"}


def test_a_platform_killed_while_a_draft_is_on_its_way_is_resumed_to_the_end(tmp_path: Path):
    stage = Stage(tmp_path, model="fake:reconstruct_s=0.05", pools=POOLS)
    process = stage.in_a_process(
        "submit", stage.write(3), "method=eco", env={"CRASH_AT": "handed-over"}
    )
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 137, said

    result = stage.resume()

    assert result.exit_code == 0
    assert stage.counts() == {JobState.DONE: 3}
    stage.check_nothing_lost_or_twice()


@pytest.mark.ray
@pytest.mark.timeout(400)
def test_a_worker_that_falls_silent_with_a_draft_in_hand_costs_no_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_cluster: Cluster
):
    # given a run on Ray whose light workers take drafts, and one of them stops without dying, as
    # behind a dead link
    monkeypatch.setattr(on_ray, "LONG_POLL_S", 1.0)
    monkeypatch.setattr(on_ray, "_SILENT_S", 2.0)
    model, address = "fake:step_s=0.02,reconstruct_s=0.2", ray_cluster.address
    stage = Stage(tmp_path, model=model, pools=POOLS, local=False, address=address)
    stopped: list[int] = []

    class Stopping(Memory):
        def outcome(self, outcome: Outcome) -> None:
            super().outcome(outcome)
            at_work = {each.worker_id for each in self.outcomes}
            if {
                "edge-1",
                "edge-2",
            } <= at_work and not stopped:  # one that is still starting is waited for
                stopped.append(ray_cluster.workers()[-1])
                os.kill(stopped[0], signal.SIGSTOP)

    # when there is more to do than the silence may last, whether or not that worker holds a draft
    heard = Stopping()
    result = stage.submit(50, heard, method="eco")

    # then
    assert stopped
    assert result.exit_code == 0, result.message
    assert stage.counts() == {JobState.DONE: 50}
    assert any("was not heard of" in text for text in heard.warnings)
    stage.check_nothing_lost_or_twice()


@pytest.mark.ray
@pytest.mark.thorough
@pytest.mark.timeout(400)
def test_killed_light_workers_and_makers_cost_no_video(tmp_path: Path, ray_cluster: Cluster):
    # given a run on Ray in mid-batch, with drafts on their way
    model, address = "fake:step_s=0.02,reconstruct_s=0.2", ray_cluster.address
    stage = Stage(tmp_path, model=model, pools=POOLS, local=False, address=address)
    process = stage.in_a_process("submit", stage.write(30), "method=eco")
    wait_for(stage, 4, process, limit_s=240)

    # when every worker that is there is killed, one after the other
    for done in (8, 12, 16):
        workers = ray_cluster.workers()
        assert workers
        os.kill(min(workers), signal.SIGKILL)
        wait_for(stage, done, process, limit_s=240)
    said, _ = process.communicate(timeout=240)

    # then
    assert process.returncode == 0, said
    assert json.loads(said.splitlines()[-1])["computed"] == 30
    assert stage.counts() == {JobState.DONE: 30}
    stage.check_nothing_lost_or_twice()


@pytest.mark.ray
@pytest.mark.timeout(120)
def test_a_worker_that_does_not_answer_to_a_recall_is_lost_with_all_it_holds(
    monkeypatch: pytest.MonkeyPatch, ray_cluster: Cluster
):
    # given a worker that has stopped without dying
    monkeypatch.setattr(on_ray, "_RECALL_WITHIN_S", 1.0)
    dispatcher = on_ray.RayDispatcher(
        [a_seat("cloud-1", up=False)], RayCluster(RayConfig(address=ray_cluster.address))
    )
    dispatcher.start()
    try:
        until(dispatcher, WorkerUp)
        worker = the_only_worker(ray_cluster)
        os.kill(worker, signal.SIGSTOP)

        # when
        taken = dispatcher.recall("cloud-1", ["j"])

        # then what it may have given back is not in hand for ever
        assert taken == frozenset()
        heard = until(dispatcher, WorkerLost)
        assert [each.worker_id for each in heard if isinstance(each, WorkerLost)] == ["cloud-1"]
    finally:
        dispatcher.close()
    os.kill(worker, signal.SIGKILL)


def the_only_worker(cluster: Cluster) -> int:
    """Its process id, once those of batches before have ended."""
    limit = time.monotonic() + 30
    while len(found := cluster.workers()) != 1:
        assert time.monotonic() < limit, found
        time.sleep(0.1)
    return found[0]


def until(dispatcher: Dispatcher, kind: type) -> list[Event]:
    """What is heard until an event of that kind."""
    heard: list[Event] = []
    limit = time.monotonic() + 60
    while not any(isinstance(event, kind) for event in heard):
        assert time.monotonic() < limit, heard
        heard += dispatcher.poll(0.2)
    return heard


@dataclass
class Maker:
    """The handle of a worker that keeps drafts."""

    forgotten: list[str] = field(default_factory=list)

    @property
    def forget(self) -> SimpleNamespace:
        return SimpleNamespace(remote=self.forgotten.append)


def test_a_draft_is_kept_until_its_own_attempt_has_ended() -> None:
    maker, point = Maker(), OperatingPoint(4)
    dispatcher = on_ray.RayDispatcher((), RayCluster(RayConfig()))

    def handed_over(attempt: int) -> HandedOver:
        handle = on_ray.DraftHandle(maker, f"draft {attempt}")
        return HandedOver("j", attempt, "cloud-1", Draft(handle, 1, {}, {}, {}, {}, 4), 0.0, 1.0)

    def ended(attempt: int) -> Outcome:
        return Outcome("j", attempt, "edge-1", point, 0.0, 2.0)

    for event, forgotten in (
        (handed_over(1), []),
        (handed_over(2), ["draft 1"]),
        (ended(1), ["draft 1"]),  # late word of the attempt before
        (ended(2), ["draft 1", "draft 2"]),
        (ended(2), ["draft 1", "draft 2"]),
    ):
        dispatcher._note_draft(event)
        assert maker.forgotten == forgotten
