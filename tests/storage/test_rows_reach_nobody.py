"""Whatever stands in a row, only servers that the configuration names are asked.

Rows of every format name a listening socket, the canary, in every way that code might be talked
into asking it. What may be asked is asked of a server that is named by AWS_ENDPOINT_URL, which
answers with redirects to the canary, and with playlists that name it.
"""

from __future__ import annotations

import csv
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vidplat.cli.app import main
from vidplat.config import InputConfig
from vidplat.errors import StoreError, UsageError
from vidplat.storage.input_places import look, opened, resolve
from vidplat.storage.prompt_columns import COLUMNS

HOSTS = (
    "127.0.0.1", "LocalHost", "localhost.", "127.1", "2130706433", "0x7f000001", "0177.0.0.1",
    "[::ffff:127.0.0.1]", "[::1]", "0.0.0.0", "127.0.0.1%2e", "①②⑦.0.0.1",
)  # fmt: skip
SPELLINGS = (
    "http://{host}/a.mp4", "HTTPS://{host}/a.mp4", "http://me:secret@{host}/a.mp4",
    "//{host}/a.mp4", "http:/{host}/a.mp4", "http:{host}/a.mp4", "\\\\{host}\\a.mp4",
    "ftp://{host}/a.mp4", "gs://{host}/a.mp4", "webhdfs://{host}/a.mp4", "smb://{host}/a/b.mp4",
    "simplecache::http://{host}/a.mp4", "url::http://{host}/a.mp4", "file://{host}/a.mp4",
    "hls+http://{host}/a.m3u8", "concat:http://{host}/a.mp4", "async:http://{host}/a.mp4",
    "s3://{host}/a.mp4", "s3://b@{host}/a.mp4", "s3://{host}@b/a.mp4", "s3://b.{host}/a.mp4",
    "s3://b\\@{host}/a.mp4", "s3://b%40{host}/a.mp4", "s3://b/../{host}/a.mp4",
    "s3://b/a.mp4?endpoint=http://{host}", "S3://b/a.mp4?endpoint=http://{host}",
    "s3://b/a.mp4?endpoint=http%3A%2F%2F{host}", "s3://b/a.mp4?%65ndpoint=http://{host}",
    "s3://b/a.mp4?region=r&endpoint=http://{host}", "s3://b/a.mp4?endpoint_url=http://{host}",
    "s3://b/a.mp4;endpoint=http://{host}", "s3://b/a.mp4#?endpoint=http://{host}",
    "s3://b/a.mp4%3Fendpoint=http://{host}", "s3://b/a.mp4?region=@{host}/",
    "s3://b/a.mp4?profile=evil&endpoint=http://{host}", "s3:/b/a.mp4?endpoint=http://{host}",
    "s3://?endpoint=http://{host}", "s3://b?endpoint=http://{host}", " s3://b/a?endpoint={host}",
    "a.mp4?endpoint=http://{host}", "a.mp4?region=r&endpoint=http://{host}&region=",
    "x/../a.mp4?endpoint=http://{host}#", "memory://{host}/a.mp4",
    "s3://arn:aws:s3:us-east-1:123456789012:accesspoint/{host}/a.mp4",
    "s3://arn:aws:s3-outposts:{host}:123456789012:outpost/op-1/accesspoint/mine/a.mp4",
)  # fmt: skip
NAMES = (*COLUMNS["image"], *COLUMNS["input_video"])
ANSWERS = ((301, b""), (302, b""), (307, b""), (308, b""), (400, b""), (200, b"#EXTM3U\n"))


@pytest.fixture
def canary() -> Iterator[tuple[int, list[bytes]]]:
    """A port of this machine, on IPv4 and IPv6, and what arrived there."""
    heard: list[bytes] = []
    with socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:

        def listen() -> None:
            with suppress(OSError):
                while True:
                    caller, _ = server.accept()
                    with caller:
                        heard.append(caller.recv(1 << 12))

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        yield server.getsockname()[1], heard
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@pytest.fixture
def named(canary: tuple[int, list[bytes]], monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The one server that the environment names; it sends everybody on to the canary."""
    asked: list[str] = []
    answers = cycle(ANSWERS)
    elsewhere = f"http://127.0.0.1:{canary[0]}/a.mp4"

    class Sending(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append(self.path)
            status, body = next(answers)
            body = body and body + f"#EXTINF:1,\n{elsewhere}\n".encode()
            self.send_response(status)
            for name, value in (
                ("Location", elsewhere),
                ("x-amz-bucket-region", f"@127.0.0.1:{canary[0]}/"),
                ("ETag", '"e"'),
                ("Content-Length", str(len(body))),
            ):
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_GET = do_HEAD

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Sending) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_SESSION_TOKEN": "token",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            monkeypatch.setenv(name, value)
        yield asked
        server.shutdown()


def cells(port: int) -> list[str]:
    hosts = [f"{host}:{port}" for host in HOSTS]
    return [spelling.format(host=host) for spelling in SPELLINGS for host in hosts]


def files(folder: Path, rows: list[dict[str, str]]) -> Iterator[Path]:
    """The same rows as JSON lines, OpenAI batch lines, CSV and parquet."""
    (folder / "a.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    lines = (json.dumps({"custom_id": str(n), "body": row}) for n, row in enumerate(rows))
    (folder / "batch.jsonl").write_text("".join(f"{line}\n" for line in lines))
    with (folder / "a.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["prompt", *NAMES])
        table.writeheader()
        table.writerows(rows)
    pq.write_table(
        pa.table({n: [row.get(n) for row in rows] for n in ("prompt", *NAMES)}),
        folder / "a.parquet",
    )
    return iter(
        [folder / "a.jsonl", folder / "batch.jsonl", folder / "a.csv", folder / "a.parquet"]
    )


def test_no_row_of_any_format_reaches_a_server_that_the_configuration_does_not_name(
    canary: tuple[int, list[bytes]],
    named: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    port, heard = canary
    monkeypatch.chdir(tmp_path)
    # in tables of fixed columns the first name for a thing wins, so each row gets a name in turn
    names = cycle(NAMES)
    rows = [{"prompt": "x", next(names): cell} for cell in cells(port)]
    by_name = [{"prompt": "x", name: cell} for cell in cells(port)[:: len(HOSTS)] for name in NAMES]

    for file in files(tmp_path, rows + by_name):
        # 2 for the rows, or 1 for a server whose answer is none
        assert main(["plan", str(file), "--deadline", "1h", "--model", "fake"]) in (1, 2)
        assert "error: " in capsys.readouterr().err

    assert heard == []
    assert named  # what is a bucket and a key may be asked of the server that is named


def test_rows_beside_a_prompt_file_in_a_bucket_stay_with_its_server(
    canary: tuple[int, list[bytes]], named: list[str]
) -> None:
    # the user's own word: the prompt file's place, with an endpoint or without
    port, heard = canary
    for folder in ("s3://mine/data/", "s3://mine/data/?region=eu-west-1"):
        for cell in cells(port):
            with suppress(UsageError, StoreError):
                place = resolve(cell, folder, InputConfig())
                look(place)
                with opened(place, 1 << 20):
                    pass
    assert heard == []


def test_the_canary_hears_what_it_should(canary: tuple[int, list[bytes]]) -> None:
    port, heard = canary
    for host in ("127.0.0.1", "::1"):
        with socket.create_connection((host, port)) as call:
            call.sendall(b"hello")
            call.recv(1)
    assert heard == [b"hello", b"hello"]
