"""Real S3-compatible servers for tests: each starts on a free loopback port, once per test session.

    s3_server     Ceph's radosgw with one monitor and one disk: real signatures, real durability, 20
                  s to start
    moto_server   in memory, without authentication, 3 s to start: for most tests

Both skip with one line where their programs cannot be had. `bucket_url` makes a fresh bucket on a
server and `with_credentials` puts its keys into the environment, where boto3 looks for them.
"""

from __future__ import annotations

import functools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

_CEPH_CONF = """
[global]
fsid = {cluster}
mon host = [v2:127.0.0.1:{mon_port},v1:127.0.0.1:{old_mon_port}]
mon initial members = a
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
# "auth none" cannot give the secure mode that radosgw would otherwise wait for, for 300 s
ms mon client mode = crc
ms cluster mode = crc
ms service mode = crc
ms client mode = crc
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
mon allow pool size one = true
mon max pg per osd = 1000
osd crush chooseleaf type = 0
osd objectstore = bluestore
bluestore block size = 4294967296
bluestore block create = true
osd memory target = 939524096
bluestore cache autotune = false
bluestore cache size = 134217728
mon data = {home}/mon
osd data = {home}/osd
rgw data = {home}/rgw
run dir = {home}/run
admin socket = {home}/run/$name.$pid.asok
log file = {home}/log/$name.log
pid file =
ms bind ipv6 = false
ms bind port min = {first_port}
ms bind port max = {last_port}
"""


@dataclass(frozen=True)
class S3Server:
    endpoint: str
    access_key: str
    secret_key: str

    @functools.cache  # noqa: B019 - one per server of a test session
    def client(self):  # type: ignore[no-untyped-def]
        """A plain boto3 client, to look at the server from outside of the code under test."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(s3={"addressing_style": "path"}),
        )

    def bucket_url(self) -> str:
        """The URL of a prefix in a bucket that did not exist before."""
        bucket = f"vidplat-{secrets.token_hex(6)}"
        self.client().create_bucket(Bucket=bucket)
        return f"s3://{bucket}/some/prefix?endpoint={self.endpoint}"

    def with_credentials(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", self.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", self.secret_key)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)


@pytest.fixture(scope="session")
def moto_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    pytest.importorskip("moto", reason="moto[server] is not installed")
    port = _free_port()
    with (tmp_path_factory.mktemp("moto") / "log").open("wb") as log:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        endpoint = f"http://127.0.0.1:{port}"
        _wait("moto_server", 60, lambda: _answers(endpoint))
        yield S3Server(endpoint, "testak", "testsecretsecret")
    finally:
        _stop(process)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    needed = ("radosgw", "radosgw-admin", "ceph", "ceph-mon", "ceph-osd", "monmaptool")
    if missing := [name for name in needed if shutil.which(name) is None]:
        pytest.skip(
            f"no real S3 server: {', '.join(missing)} not found (Debian packages radosgw "
            "ceph-mon ceph-osd)"
        )
    if os.geteuid() != 0:
        pytest.skip("no real S3 server: ceph starts as root only here")
    home = tmp_path_factory.mktemp("ceph")
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        yield _started_radosgw(home, daemons)
    finally:
        for daemon in reversed(daemons):
            _stop(daemon)
        shutil.rmtree(home, ignore_errors=True)  # the disk of the cluster is a sparse file of 4 GiB


def _started_radosgw(home: Path, daemons: list[subprocess.Popen[bytes]]) -> S3Server:
    for folder in ("mon", "osd", "run", "log", "rgw"):
        (home / folder).mkdir()
    conf, port, mon_port, old_mon_port = (
        home / "ceph.conf",
        _free_port(),
        _free_port(),
        _free_port(),
    )
    cluster, disk, first_port = (
        str(uuid.uuid4()),
        str(uuid.uuid4()),
        20103 + os.getpid() % 100 * 100,
    )
    conf.write_text(
        _CEPH_CONF.format(
            cluster=cluster,
            mon_port=mon_port,
            old_mon_port=old_mon_port,
            home=home,
            first_port=first_port,
            last_port=first_port + 99,
        )
    )

    def run(*command: str) -> None:
        subprocess.run(command, capture_output=True, timeout=60, check=True)

    def start(*command: str) -> None:
        with (home / "log" / f"{command[0]}.out").open("wb") as log:
            daemons.append(
                subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
            )

    def ceph_says(expected: bytes, *words: str) -> bool:
        try:
            told = subprocess.run(
                ("ceph", "-c", str(conf), *words), capture_output=True, timeout=10, check=False
            )
        except subprocess.TimeoutExpired:
            return False
        return told.returncode == 0 and expected in told.stdout

    # 1. a monitor  2. a disk  3. the S3 gateway  4. a user
    address = f"[v2:127.0.0.1:{mon_port},v1:127.0.0.1:{old_mon_port}]"
    run(
        "monmaptool",
        "--create",
        "--clobber",
        "--fsid",
        cluster,
        "--addv",
        "a",
        address,
        str(home / "monmap"),
    )
    run("ceph-mon", "-c", str(conf), "-i", "a", "--mkfs", "--monmap", str(home / "monmap"))
    start("ceph-mon", "-c", str(conf), "-i", "a", "-f")
    _wait("ceph-mon", 60, lambda: ceph_says(b"", "mon", "stat"))
    run("ceph", "-c", str(conf), "osd", "new", disk, "0")
    run("ceph-osd", "-c", str(conf), "-i", "0", "--mkfs", "--osd-uuid", disk)
    start("ceph-osd", "-c", str(conf), "-i", "0", "-f")
    _wait("ceph-osd", 60, lambda: ceph_says(b"1 up", "osd", "stat"))
    gateway = ("radosgw", "-c", str(conf), "-n", "client.rgw", "-f")
    start(*gateway, "--rgw-frontends", f"beast endpoint=127.0.0.1:{port}")
    endpoint = f"http://127.0.0.1:{port}"
    _wait("radosgw", 120, lambda: _answers(endpoint))
    server = S3Server(endpoint, "testak", "testsecretsecret")
    admin = (
        "radosgw-admin",
        "-c",
        str(conf),
        "user",
        "create",
        "--uid",
        "vid",
        "--display-name",
        "vid",
    )
    run(*admin, "--access-key", server.access_key, "--secret-key", server.secret_key)
    return server


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _answers(endpoint: str) -> bool:
    try:
        with urllib.request.urlopen(endpoint, timeout=2):
            return True
    except urllib.error.HTTPError as answer:
        answer.close()
        return True
    except OSError:
        return False


def _wait(what: str, patience_s: float, ready: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + patience_s
    while not ready():
        assert time.monotonic() < give_up_at, f"{what} did not start within {patience_s:.0f} s"
        time.sleep(0.2)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a server that this session started, by its pid."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
