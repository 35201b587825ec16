"""Attaching to a Ray cluster that is there, or is not."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from tests.flow.cluster import Cluster
from tests.flow.stage import Stage
from vidplat.config import Config, RayConfig
from vidplat.domain import JobState
from vidplat.errors import ClusterError, UsageError
from vidplat.platform import checkup, submit
from vidplat.platform.interface import Listener, SubmitRequest

pytestmark = pytest.mark.ray


def config_for(stage: Stage, address: str) -> Config:
    from dataclasses import replace

    return replace(stage.config, ray=RayConfig(address=address))


def test_an_address_where_nobody_listens_is_one_message_within_seconds(tmp_path: Path):
    # given a port that was free a moment ago
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    stage = Stage(tmp_path, local=False)
    began = time.monotonic()

    # when
    with pytest.raises(ClusterError, match="cannot use the Ray cluster") as caught:
        submit(SubmitRequest(stage.write(2)), config_for(stage, address), Listener())

    # then the jobs are kept for another try
    assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 60
    assert stage.counts() == {JobState.QUEUED: 2}


@pytest.mark.thorough  # a refusal takes Ray twenty seconds
def test_the_doctor_finds_out_whether_a_cluster_lets_runs_in(
    ray_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
):
    health, found = checkup._ray(ray_cluster.address)[:2]
    assert health is checkup.Health.OK and "lets runs in" in found

    # when this machine no longer shows the cluster's token
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    health, found = checkup._ray(ray_cluster.address)[:2]

    assert health is checkup.Health.FAIL and "lets no run in" in found


@pytest.mark.parametrize(
    "address", ["ray://somewhere:10001", "head", ":6379", "head:0", "head:99999", "a:b:c", "h#:1"]
)
def test_what_is_no_address_is_refused_before_anything_is_stored(tmp_path: Path, address: str):
    stage = Stage(tmp_path, local=False)
    with pytest.raises(UsageError, match="must be host:port"):
        submit(SubmitRequest(stage.write(2)), config_for(stage, address), Listener())
    assert stage.counts() == {}
    # who does not use it is not bothered
    stage.local = True
    assert submit(SubmitRequest(stage.write(2)), config_for(stage, address), Listener())
