"""What servers answer that are no store, or none for us: which sentence, and whether a retry helps.

The server answers every request of one test as the test says.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from vidplat.errors import StoreError, UsageError
from vidplat.storage import open_store
from vidplat.storage.places import probe

HTML = b"<!doctype html><html><body>Please log in</body></html>"


class Server(ThreadingHTTPServer):
    """Remembers objects; `status` and `body` answer instead: all, or conditional puts alone."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.forget()

    def forget(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.status, self.body, self.kind = 200, b"", "application/xml"
        self.conditional_alone = False
        self.requests = 0

    def answer(self, status: int, code: str = "", *, conditional_alone: bool = False) -> None:
        self.status, self.conditional_alone = status, conditional_alone
        self.body = f"<Error><Code>{code}</Code></Error>".encode() if code else b""

    @property
    def url(self) -> str:
        return f"s3://bucket/videos?endpoint=http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def _say(self, status: int, body: bytes, kind: str = "application/xml") -> None:
        self.send_response(status)
        for name, value in (("Content-Length", len(body)), ("Content-Type", kind), ("ETag", "x")):
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _serve(self) -> None:
        server, here = self.server, self.path.partition("?")[0]
        server.requests += 1
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        is_meant = "If-None-Match" in self.headers or not server.conditional_alone
        if is_meant and (server.status != 200 or server.body):
            return self._say(server.status, server.body, server.kind)
        if self.command == "PUT":
            if "If-None-Match" in self.headers and here in server.objects:
                return self._say(412, b"<Error><Code>PreconditionFailed</Code></Error>")
            server.objects[here] = sent
        found = server.objects.get(here)
        if self.command != "GET":
            return self._say(204 if self.command == "DELETE" else 200, b"")
        return self._say(200 if found is not None else 404, found or b"")

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _serve

    def log_message(self, format: str, *words: object) -> None: ...


@pytest.fixture(scope="module")
def listening() -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield running
        running.shutdown()


@pytest.fixture
def server(listening: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2hunter2")
    listening.forget()
    return listening


def refusal(url: str) -> StoreError:
    """How a store at `url` is refused."""
    with pytest.raises(StoreError) as caught:
        probe(open_store(url))
    assert "hunter2" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (403, "RequestTimeTooSkewed", "set the clock"),
        (400, "RequestExpired", "set the clock"),
        (403, "QuotaExceeded", "raise its quota"),
        (507, "XMinioStorageFull", "free some space"),
        (507, "", "free some space"),
        (400, "ExpiredToken", "refused the credentials"),
        (400, "AuthorizationHeaderMalformed", "in another region"),
        (301, "PermanentRedirect", "region"),
        (404, "NoSuchBucket", "create it"),
        (405, "MethodNotAllowed", "405 MethodNotAllowed"),
    ],
)
def test_an_answer_that_lasts_is_told_at_once_with_what_to_do(
    server: Server, status: int, code: str, words: str
) -> None:
    server.answer(status, code)
    began = time.monotonic()
    error = refusal(server.url)
    if words != "405 MethodNotAllowed":  # to a conditional put it says more
        assert words in str(error)
    assert not error.retry_can_help
    assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    ("status", "code"),
    [(501, "NotImplemented"), (400, "InvalidArgument"), (400, ""), (405, ""), (304, "")],
)
def test_a_store_that_does_not_know_conditional_puts_is_refused_with_what_that_means(
    server: Server, status: int, code: str
) -> None:
    server.answer(status, code, conditional_alone=True)
    error = refusal(server.url)
    assert "does not know conditional puts" in str(error)
    assert "two workers could commit the same job" in str(error)
    assert f"{status} {status}" not in str(error)
    assert not error.retry_can_help


@pytest.mark.parametrize("status", [200, 403, 404])
def test_a_web_page_is_no_store(server: Server, status: int) -> None:
    server.status, server.body, server.kind = status, HTML, "text/html; charset=utf-8"
    error = refusal(server.url)
    assert "web page" in str(error) and "check the endpoint" in str(error)
    assert not error.retry_can_help


def test_tls_where_there_is_none_is_told_at_once(server: Server) -> None:
    spoken = refusal(server.url.replace("http:", "https:"))
    assert "check https or http in the endpoint" in str(spoken)
    assert not spoken.retry_can_help
    assert server.requests == 0


@pytest.mark.parametrize("prefix", ["date=2026-12-01", "my videos/a+b", "vidéos/100%/x,y'(1)"])
def test_a_prefix_is_as_free_as_s3_allows(server: Server, prefix: str) -> None:
    url = server.url.replace("videos", prefix)
    store = open_store(url)
    probe(store)
    store.put("batches/a.mp4", b"video")
    assert store.get("batches/a.mp4") == b"video"
    assert store.uri("batches/a.mp4") == f"s3://bucket/{prefix}/batches/a.mp4"


@pytest.mark.parametrize(
    "url",
    [
        "s3://[b/p",
        "s3://",
        "s3://host:9000/bucket",
        "s3://bucket/a#b",
        "s3://bucket/a//b",
        "s3://bucket/../b",
        "s3://bucket/a\nb",
        f"s3://bucket/{'a' * 700}",
        "s3://user:hunter2@bucket/a",
        "s3://bucket/a?endpoint=http://user:hunter2@host",
        "s3://bucket/a?endpoint=host:9000",
        "s3://bucket/a?endpoint=http://host:port",
        "s3://bucket/a?endpoint=",
        "s3://bucket/a?profile=me",
        "file:///a%00b",
        "file://[a/b",
        "~nobody-at-all/renders",
    ],
)
def test_a_place_that_is_none_is_a_mistake_of_usage(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_store(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("AWS_PROFILE", "nope"),
        ("AWS_CA_BUNDLE", "/nowhere/ca.pem"),
        ("AWS_SESSION_TOKEN", "hunter2hunter2\nX-Other: 1"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/nowhere/token"),
        ("AWS_ENDPOINT_URL", "nowhere"),
    ],
)
def test_settings_of_boto3_that_are_wrong_are_told_in_one_sentence(
    server: Server, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    url = server.url
    if variable == "AWS_CA_BUNDLE":
        url = url.replace("http:", "https:")
    if variable == "AWS_WEB_IDENTITY_TOKEN_FILE":
        monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/x")
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    if variable == "AWS_ENDPOINT_URL":
        url = url.partition("?")[0]
    monkeypatch.setenv(variable, value)
    with pytest.raises((StoreError, UsageError)) as caught:
        probe(open_store(url))
    assert "hunter2" not in str(caught.value)
    assert not caught.value.retry_can_help
