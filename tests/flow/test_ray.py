"""The same stories on a real local Ray cluster: one actor per worker, which may die."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.flow.cluster import PLACES, Cluster, children_of, name_of
from tests.flow.stage import Stage
from tests.flow.test_crashes import wait_for
from tests.platform.builders import Memory
from vidplat.config import Machines
from vidplat.domain import JobState
from vidplat.platform.dispatch.on_ray import machines_of
from vidplat.storage import open_catalog

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]


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
    # which starts neither Ray's autoscaler nor its log reader (`_fewer_processes`)
    assert any("raylet" in name for name in names.values())
    assert not [name for name in names.values() if "monitor.py" in name]

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


@pytest.mark.parametrize("ahead_s", [600, pytest.param(-600, marks=pytest.mark.thorough)])
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


def test_of_a_running_cluster_the_cores_and_gpus_are_known(ray_cluster: Cluster) -> None:
    assert machines_of(ray_cluster.address) == Machines(cores=2 * PLACES)
