"""The same stories on a real local Ray cluster: one actor per worker, which may die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from subprocess import DEVNULL, PIPE

import pytest

from tests.flow.cluster import PLACES, Cluster, children_of, listening, name_of
from tests.flow.stage import Stage
from tests.flow.test_crashes import wait_for
from tests.platform.builders import Memory
from vidplat.config import PoolConfig, RayConfig, RunConfig
from vidplat.domain import JobState
from vidplat.errors import ClusterError
from vidplat.machines import Machines
from vidplat.platform.dispatch.ray_cluster import RayCluster
from vidplat.storage import open_catalog

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]


# 127.0.0.1 as the kernel writes it, alone and as an IPv6 address
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}


def refuses_without_token(port: int) -> bool:
    """Whether Ray's control service says no to whoever shows no token."""
    import grpc

    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        ask = channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetAllNodeInfo")
        try:
            ask(b"", timeout=10)
        except grpc.RpcError as refused:
            return refused.code() is grpc.StatusCode.UNAUTHENTICATED
    return False


TWO_NODES = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(
    initialize_head=True, head_node_args={"num_cpus": 2, "resources": {"pool_cloud": 2}}
)
cluster.add_node(num_cpus=2, resources={"pool_edge": 2})
print(cluster.address, flush=True)
sys.stdin.read()
"""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_prompt_that_kills_its_worker_is_quarantined_and_the_others_are_made(
    tmp_path: Path, ray_cluster: Cluster
):
    # given one prompt that takes its worker process down every time
    address, heard = ray_cluster.address, Memory()
    stage = Stage(tmp_path, model="fake:step_s=0.01", local=False, address=address)

    # when
    result = stage.submit([*(f"good {n}" for n in range(10)), "[abort] poison"], heard)

    # then
    assert result.exit_code == 4
    assert stage.counts() == {JobState.DONE: 10, JobState.QUARANTINED: 1}
    stage.check_nothing_lost_or_twice()
    # three attempts, each on another worker, and every death was told
    catalog = open_catalog(stage.config.catalog)
    (poison,) = catalog.jobs(result.batch.id, states=[JobState.QUARANTINED])
    attempts = [each for each in catalog.attempts(result.batch.id, poison.job.id) if each.counts]
    catalog.close()
    assert len({each.worker_id for each in attempts}) == len(attempts) == 3
    assert poison.failure is not None
    assert "lost" in poison.failure.message
    assert sum("was lost" in warning for warning in heard.warnings) == 3
    # no other job was blamed for it
    assert all(outcome.ok for outcome in heard.outcomes if outcome.job_id != poison.job.id)


def test_kill_minus_nine_takes_the_workers_along_and_resume_finishes(tmp_path: Path):
    # given a run on Ray in mid-batch
    stage = Stage(tmp_path, model="fake:step_s=0.02", local=False)
    process = stage.in_a_process("submit", stage.write(24))
    wait_for(stage, 4, process, limit_s=240)
    names = {pid: name_of(pid) for pid in children_of(process.pid)}
    workers = {pid for pid, name in names.items() if "WorkerActor" in name}
    assert len(workers) == 2
    # which starts neither Ray's autoscaler nor its log reader (`ray_cluster._one_machine`)
    assert any("raylet" in name for name in names.values())
    assert not [name for name in names.values() if "monitor.py" in name]
    # and listens where nobody else can reach it, and to nobody without its token
    ports = listening(names)
    assert len(ports) > 5
    assert set(ports.values()) <= LOOPBACK
    (control,) = [pid for pid, name in names.items() if "gcs_server" in name]
    assert all(refuses_without_token(port) for port in listening([control]))

    # when the driver is killed
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()

    # then its workers end too (Ray's own helpers follow in their own time)
    until = time.monotonic() + 60
    while any(map(is_alive, workers)) and time.monotonic() < until:
        time.sleep(0.2)
    assert not any(map(is_alive, workers))

    # and another run, without Ray, makes what is missing
    committed = stage.committed()
    stage.local = True
    result = stage.resume()
    assert result.exit_code == 0
    assert result.computed <= 24 - committed
    assert stage.counts() == {JobState.DONE: 24}
    stage.check_nothing_lost_or_twice()


def test_ctrl_c_drains_on_ray_too(tmp_path: Path, ray_cluster: Cluster):
    address = ray_cluster.address
    stage = Stage(tmp_path, model="fake:step_s=0.05", local=False, address=address)
    process = stage.in_a_process("submit", stage.write(60))
    wait_for(stage, 2, process, limit_s=240)

    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=120)

    assert process.returncode == 130, said
    assert json.loads(said.splitlines()[-1])["code"] == 130
    assert set(stage.counts()) == {JobState.DONE, JobState.QUEUED}
    stage.check_nothing_lost_or_twice()


@pytest.mark.thorough
@pytest.mark.parametrize("ahead_s", [600, -600])
def test_workers_whose_clocks_are_minutes_off_neither_hurry_nor_confuse_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead_s: int
):
    # given a run on Ray with time enough, whose workers believe it to be ten minutes later or
    # earlier
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    (wrong / "sitecustomize.py").write_text(
        "import sys, time\n"
        "if any('default_worker' in word for word in sys.orig_argv):\n"
        f"    time.time = lambda right=time.time: right() + {ahead_s}\n"
    )
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join(filter(None, [str(wrong), os.environ.get("PYTHONPATH")]))
    )
    stage, heard = Stage(tmp_path, model="fake:step_s=0.02", local=False), Memory()

    # when
    began = time.time()
    result = stage.submit(12, heard, deadline="60s")

    # then every video has all its steps, and the record tells our time
    assert result.exit_code == 0
    assert stage.counts() == {JobState.DONE: 12}
    for outcome in heard.outcomes:
        assert outcome.steps_done == 8
        assert began <= outcome.started_at <= outcome.finished_at <= time.time()


@pytest.mark.thorough
@pytest.mark.parametrize("part", ["gcs_server", "raylet/raylet"])
def test_a_cluster_that_dies_is_replaced_within_the_run(tmp_path: Path, part: str):
    # given a run on its own cluster in mid-batch
    stage = Stage(tmp_path, model="fake:step_s=0.05", local=False)
    process = stage.in_a_process("submit", stage.write(40))
    wait_for(stage, 4, process, limit_s=240)

    # when one of the two processes dies that hold the cluster together
    (victim,) = [pid for pid in children_of(process.pid) if part in name_of(pid)]
    killed_at = time.time()
    os.kill(victim, signal.SIGKILL)
    said, _ = process.communicate(timeout=240)

    # then the run goes on with another, half a minute later at most, and blames no job for it
    assert process.returncode == 0, said
    assert stage.counts() == {JobState.DONE: 40}
    stage.check_nothing_lost_or_twice()
    catalog = open_catalog(stage.config.catalog)
    (batch,) = catalog.batches()
    records = catalog.jobs(batch.id)
    attempts = [each for r in records for each in catalog.attempts(batch.id, r.job.id)]
    catalog.close()
    assert all(record.failure is None for record in records)
    began = [each.started_at for each in attempts if each.worker_id.endswith(".2")]
    assert min(began) - killed_at < 30
    # and Ray's own words are on neither stream
    assert said.count("\n") == 1, said


@pytest.mark.thorough
def test_ten_rows_that_kill_cost_the_twenty_behind_them_nothing(
    tmp_path: Path, ray_cluster: Cluster
):
    stage = Stage(tmp_path, model="fake:step_s=0.01", local=False, address=ray_cluster.address)
    rows = [*(f"[abort] poison {n}" for n in range(10)), *(f"good {n}" for n in range(20))]

    result = stage.submit(rows)

    assert result.exit_code == 4
    assert stage.counts() == {JobState.DONE: 20, JobState.QUARANTINED: 10}
    stage.check_nothing_lost_or_twice()


def test_a_batch_asks_for_no_more_than_a_running_cluster_has_and_says_so(
    tmp_path: Path, ray_cluster: Cluster
):
    # given a cluster with four places in each pool, of which eight are wanted in one
    pools = (PoolConfig("cloud", workers=8),)
    stage = Stage(tmp_path, local=False, address=ray_cluster.address, pools=pools)
    heard = Memory()

    # when
    result = stage.submit(4, heard)

    # then
    assert result.exit_code == 0
    assert any("room for 4 of 8" in text for text in heard.warnings)


def test_nodes_that_are_marked_later_are_waited_for_and_other_pools_stay_off_them(
    tmp_path: Path, ray_cluster: Cluster
):
    # given a cluster whose nodes are marked for pools, none of them for this one
    pools, run = (PoolConfig("studio"),), RunConfig(start_timeout_s=4.0)
    stage = Stage(tmp_path, local=False, address=ray_cluster.address, pools=pools, run=run)
    heard = Memory()

    # when
    with pytest.raises(ClusterError, match="no worker came up within 4 s: no node with the label"):
        stage.submit(4, heard)

    # then why it waited was told, and the jobs are kept
    assert any("waiting for workers of pool studio" in text for text in heard.phases)
    assert stage.counts() == {JobState.QUEUED: 4}


@pytest.mark.thorough
def test_a_deadline_is_refused_while_all_places_are_taken_and_a_batch_without_one_waits(
    tmp_path: Path, ray_cluster: Cluster
):
    # given a batch that has all four places of a pool, at work for a while
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    pools, address = (PoolConfig("cloud", workers=4),), ray_cluster.address
    first = Stage(tmp_path / "first", model="fake:step_s=0.3", local=False, pools=pools)
    first.address = address
    busy = first.in_a_process("submit", first.write(16))
    wait_for(first, 1, busy, limit_s=240)
    second = Stage(tmp_path / "second", local=False, address=address, pools=pools)

    # when
    refused, heard = second.submit(2, deadline="10m"), Memory()
    made = second.submit(3, heard)

    # then
    assert refused.exit_code == 3
    assert "no worker has a place" in refused.message
    assert made.exit_code == 0
    assert any("places are taken by others" in text for text in heard.phases)
    busy.communicate(timeout=240)
    assert busy.returncode == 0


def test_of_a_running_cluster_the_cores_and_gpus_are_known(ray_cluster: Cluster) -> None:
    with closing(RayCluster(RayConfig(address=ray_cluster.address))) as cluster:
        cluster.connect()
        assert cluster.machines() == Machines(cores=2 * PLACES)


@pytest.mark.thorough
def test_a_node_that_dies_costs_its_jobs_seconds_and_no_blame(tmp_path: Path):
    # given a cluster of two nodes, each with a worker of one batch
    with subprocess.Popen(
        [sys.executable, "-c", TWO_NODES], stdin=PIPE, stdout=PIPE, stderr=DEVNULL, text=True
    ) as cluster:
        assert cluster.stdout is not None
        address = cluster.stdout.readline().strip()
        pools = (PoolConfig("cloud"), PoolConfig("edge"))
        stage = Stage(tmp_path, model="fake:step_s=0.2", local=False, pools=pools, address=address)
        process = stage.in_a_process("submit", stage.write(30))
        wait_for(stage, 4, process, limit_s=240)

        # when the second node's raylet dies
        _, second = sorted(
            pid for pid in children_of(cluster.pid) if "raylet/raylet" in name_of(pid)
        )
        killed_at = time.time()
        os.kill(second, signal.SIGKILL)
        said, _ = process.communicate(timeout=240)
        cluster.terminate()

    # then its jobs are back in the queue within five seconds, and no attempt counts
    assert process.returncode == 0, said
    assert stage.counts() == {JobState.DONE: 30}
    catalog = open_catalog(stage.config.catalog)
    (batch,) = catalog.batches()
    events = [catalog.attempts(batch.id, record.job.id) for record in catalog.jobs(batch.id)]
    catalog.close()
    assert not [each for tries in events for each in tries if each.counts]
    given_back = [
        each.finished_at for tries in events for each in tries if each.ended == "released"
    ]
    assert given_back
    assert all(at is not None and 0 < at - killed_at < 5 for at in given_back), given_back
