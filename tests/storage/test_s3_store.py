"""A bucket as a store, through everything a network does: each request of a commit fails once, in
each way.
"""

from __future__ import annotations

import http.client
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from tests.servers_s3 import S3Server
from tests.storage.test_commit import BATCH, FOLDER, JOB, assert_whole, make
from vidplat.errors import StoreError
from vidplat.storage import open_store, s3_bucket
from vidplat.storage.artifacts import sweep
from vidplat.storage.memory import MemoryStore
from vidplat.storage.places import probe
from vidplat.storage.s3 import MULTIPART_ABOVE_BYTES, S3Store

LATE_S = 2.0  # after which the proxy forwards a late body
FAULTS = ("503", "409", "reset", "lost answer", "truncated body")
#: Those that differ most come in every run, all of them in the thorough tier.
FAULTS_TRIED = [
    pytest.param(fault, marks=pytest.mark.thorough if fault in ("409", "reset") else ())
    for fault in FAULTS
]


class Proxy(ThreadingHTTPServer):
    """Forwards to a server, but does something bad to one request, counted from 1."""

    daemon_threads = True

    def __init__(self, endpoint: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = urlsplit(endpoint).netloc
        self.seen = 0
        self.bad_request = 0
        self.fault = ""
        self.late_above_bytes = sys.maxsize  # bodies above this are held back
        self.counting = threading.Lock()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def spoil(self, request: int, fault: str) -> None:
        self.seen, self.bad_request, self.fault = 0, request, fault

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hung up is part of the plan."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else a body waits 40 ms for its head to be acknowledged
    server: Proxy

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.server.counting:
            self.server.seen += 1
            fault = self.server.fault if self.server.seen == self.server.bad_request else ""
        if len(body) > self.server.late_above_bytes:
            time.sleep(LATE_S)
        if fault.isdigit():
            return self._answer(
                int(fault),
                [("Content-Type", "application/xml")],
                b"<Error><Code>Bad</Code></Error>",
            )
        if fault == "reset":
            return self._hang_up()
        if fault == "harmed":
            body = b"?" + body[1:]
        connection = http.client.HTTPConnection(self.server.target, timeout=10)
        connection.request(self.command, self.path, body, dict(self.headers.items()))
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if fault == "lost answer":
            return self._hang_up()
        return self._answer(
            answer.status, answer.getheaders(), content, cut=fault == "truncated body"
        )

    def _answer(
        self, status: int, headers: list[tuple[str, str]], content: bytes, *, cut: bool = False
    ) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        declared = {name.lower(): value for name, value in headers}.get(
            "content-length", str(len(content))
        )
        self.send_header(
            "Content-Length", declared if self.command == "HEAD" else str(len(content))
        )
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if cut else content)
        if cut:
            self._hang_up()

    def _hang_up(self) -> None:
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _forward

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@contextmanager
def a_proxy(endpoint: str) -> Iterator[Proxy]:
    proxy = Proxy(endpoint)
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        thread.join()
        proxy.server_close()


@pytest.fixture
def proxy(moto_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    moto_server.with_credentials(monkeypatch)
    with a_proxy(moto_server.endpoint) as proxy:
        yield proxy


def each_request_once(
    server: S3Server, proxy: Proxy, fault: str, run: Callable[[S3Store], None]
) -> int:
    """`run` on empty stores with request 1, 2, 3, ... spoiled, until a run ends without reaching
    it."""
    url = server.bucket_url().replace(server.endpoint, proxy.endpoint)
    for request in range(1, 200):
        store = S3Store(url.replace("/prefix", f"/run-{request}"), patience_s=20)
        proxy.spoil(request, fault)
        run(store)
        if proxy.seen < request:
            return request - 1
    raise AssertionError("a run takes more than 200 requests")


@pytest.mark.parametrize("fault", FAULTS_TRIED)
def test_a_commit_survives_any_single_fault_of_the_network(
    moto_server: S3Server, proxy: Proxy, fault: str
) -> None:
    def run(store: S3Store) -> None:
        done = make(store)
        assert done.won
        assert_whole(store, done)

    assert each_request_once(moto_server, proxy, fault, run) >= 4


@pytest.mark.parametrize(
    "server", ["moto_server", pytest.param("s3_server", marks=pytest.mark.server)]
)
def test_a_commit_is_four_requests(
    server: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: S3Server = request.getfixturevalue(server)
    real.with_credentials(monkeypatch)
    with a_proxy(real.endpoint) as proxy:
        store = open_store(real.bucket_url().replace(real.endpoint, proxy.endpoint))
        assert make(store).won
    assert proxy.seen == 4, "three files and COMMIT.json"


def test_what_was_harmed_on_its_way_is_told(moto_server: S3Server, proxy: Proxy) -> None:
    # by a server that looks at no digest but tells its own
    store = S3Store(moto_server.bucket_url().replace(moto_server.endpoint, proxy.endpoint))
    proxy.spoil(1, "harmed")
    with pytest.raises(StoreError, match=r"jobs/a has other content than was sent"):
        store.put("jobs/a", b"the video")
    assert proxy.seen == 2, "it was read back"


@pytest.mark.server
def test_a_server_that_checks_digests_is_sent_again_what_was_harmed(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_server.with_credentials(monkeypatch)
    with a_proxy(s3_server.endpoint) as proxy:
        store = S3Store(s3_server.bucket_url().replace(s3_server.endpoint, proxy.endpoint))
        proxy.spoil(1, "harmed")
        store.put("jobs/a", b"the video")
        assert proxy.seen == 2
        assert store.get("jobs/a") == b"the video"


def test_an_upload_is_waited_for_as_long_as_its_size_needs(
    moto_server: S3Server, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_bucket, "_ANSWER_WITHIN_S", (1, 6))  # seconds; the proxy takes two
    store = open_store(moto_server.bucket_url().replace(moto_server.endpoint, proxy.endpoint))
    proxy.late_above_bytes = 1024

    store.put("a/video.mp4", bytes(8000))

    assert proxy.seen == 1, "begun anew"
    assert store.get("a/video.mp4") == bytes(8000)


def test_the_answer_to_a_small_request_is_not_waited_for_long() -> None:
    assert [s3_bucket.answer_within_s(size) for size in (0, 1000, 15_000, 64_000, 8 << 20)] == [
        10,
        10,
        40,
        160,
        320,
    ]


@pytest.mark.parametrize(
    "fault",
    ["503", *(pytest.param(f, marks=pytest.mark.thorough) for f in ("lost answer", "reset"))],
)
def test_an_upload_in_parts_survives_any_single_fault(
    moto_server: S3Server, proxy: Proxy, fault: str
) -> None:
    data = bytes(MULTIPART_ABOVE_BYTES + 1)

    def run(store: S3Store) -> None:
        store.put("large", data)
        assert store.get("large") == data

    assert each_request_once(moto_server, proxy, fault, run) >= 5


@pytest.mark.server  # moto says that every upload began in 2010
def test_what_a_dead_uploader_left_is_invisible_and_swept(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_server.with_credentials(monkeypatch)
    url = s3_server.bucket_url()
    client, bucket = s3_server.client(), url.split("/")[2]
    store = open_store(url)
    upload = client.create_multipart_upload(Bucket=bucket, Key="some/prefix/jobs/x")["UploadId"]
    client.upload_part(
        Bucket=bucket, Key="some/prefix/jobs/x", UploadId=upload, PartNumber=1, Body=b"part"
    )

    assert list(store.list()) == []
    assert store.sweep_unfinished("jobs", older_than_s=3600) == 0
    assert store.sweep_unfinished("jobs", older_than_s=-60) == 1
    assert "Uploads" not in client.list_multipart_uploads(Bucket=bucket)


@pytest.mark.server
def test_a_sweep_of_a_finished_batch_ends_the_uploads_of_dead_attempts(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a job that is done
    s3_server.with_credentials(monkeypatch)
    url = s3_server.bucket_url()
    client, bucket, store = s3_server.client(), url.split("/")[2], open_store(url)
    done = make(store)
    where = {"Bucket": bucket, "Key": f"some/prefix/{FOLDER}/2-u/video.mp4"}

    for jobs in (None, [JOB]):
        # when another attempt of it dies between two parts
        upload = client.create_multipart_upload(**where)["UploadId"]
        client.upload_part(**where, UploadId=upload, PartNumber=1, Body=b"part")

        # then a sweep removes them once they are old, and nothing else
        assert sweep(store, BATCH, older_than_s=3600, jobs=jobs) == 0
        assert sweep(store, BATCH, older_than_s=-60, jobs=jobs) == 1
        assert "Uploads" not in client.list_multipart_uploads(Bucket=bucket)
    assert_whole(store, done)


def test_a_listing_of_several_pages_is_complete(
    moto_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    moto_server.with_credentials(monkeypatch)
    monkeypatch.setattr("vidplat.storage.s3_bucket.PAGE_KEYS", 7)
    store = open_store(moto_server.bucket_url())
    for number in range(22):
        store.put(f"jobs/{number}", b"")
    assert sorted(store.list("jobs")) == sorted(f"jobs/{number}" for number in range(22))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_listing_is_complete_whichever_page_fails_at_first(
    moto_server: S3Server, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr("vidplat.storage.s3_bucket.PAGE_KEYS", 7)
    url = moto_server.bucket_url().replace(moto_server.endpoint, proxy.endpoint)
    store = open_store(url)
    for number in range(22):
        store.put(f"jobs/{number}", b"")

    for page in (1, 2, 3, 4):
        proxy.spoil(page, fault)
        found = list(store.list("jobs"))
        assert len(found) == len(set(found)) == 22
        assert proxy.seen == 5, "four pages, and one of them again"


# --- what a person is told ------------------------------------------------------------------------


def test_an_endpoint_where_nobody_answers_is_told_within_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    S3Server("", "canary-key", "canary-secret").with_credentials(monkeypatch)
    started = time.monotonic()
    with pytest.raises(StoreError, match=r"at http://127\.0\.0\.1:9 cannot be reached") as caught:
        probe(open_store("s3://bucket/prefix?endpoint=http://127.0.0.1:9"))
    assert time.monotonic() - started < 10
    assert "canary" not in str(caught.value)
    assert caught.value.retry_can_help


def test_missing_credentials_are_told_with_where_to_put_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    with pytest.raises(
        StoreError, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    ) as caught:
        probe(open_store("s3://bucket/prefix?endpoint=http://127.0.0.1:9"))
    assert not caught.value.retry_can_help


def test_a_bucket_that_is_not_there_is_named(
    moto_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    moto_server.with_credentials(monkeypatch)
    with pytest.raises(StoreError, match="no bucket 'missing-bucket' at"):
        probe(open_store(f"s3://missing-bucket/x?endpoint={moto_server.endpoint}"))


@pytest.mark.server
@pytest.mark.parametrize("wrong", ["access_key", "secret_key"])
def test_wrong_credentials_are_told_without_showing_them(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    url = s3_server.bucket_url()
    keys = {"access_key": s3_server.access_key, "secret_key": s3_server.secret_key} | {
        wrong: "canary-of-a-secret"
    }
    S3Server(s3_server.endpoint, **keys).with_credentials(monkeypatch)
    with pytest.raises(StoreError, match="S3 refused the credentials for") as caught:
        probe(open_store(url))
    assert "canary" not in str(caught.value)
    assert not caught.value.retry_can_help


def test_a_store_that_ignores_the_condition_is_refused() -> None:
    class Careless(MemoryStore):
        def put_if_absent(self, key: str, data: bytes) -> bool:
            self.put(key, data)
            return True

    store = Careless()
    with pytest.raises(StoreError, match="does not honour conditional puts"):
        probe(store)
    assert list(store.list()) == []
