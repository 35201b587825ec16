"""Whatever a person types, sets or writes into vidplat.toml: an answer or one sentence, never an
exception, never a host that was not named, never a file elsewhere.

Texts are made of what broke programs before, put together and cut at random; the same ones in every
run of `make test`, many more of them in the thorough tier. Two ways in: the functions that read
texts of one kind, thousands in a second, and whole commands.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from vidplat import platform
from vidplat.cli.app import main
from vidplat.config import catalog_file, load_config, parse_pool
from vidplat.errors import ExitCode, VidplatError, plain_place, printable
from vidplat.methods.language import asked
from vidplat.storage import open_store
from vidplat.storage.database import Database
from vidplat.times import parse_deadline

NOW = 1_800_000_000.0
PIECES = [
    *(
        "",
        " ",
        "~",
        "~nobody9",
        "a",
        "ä",
        "\u202e",
        "👩‍🚀",
        "\udcff",
        "\0",
        "\n",
        "\x1b[2J",
        "٣",
        "²",
    ),
    *(
        "0",
        "-1",
        "1",
        "7",
        "24",
        "nan",
        "inf",
        "-inf",
        "1e400",
        "1e-400",
        "0x10",
        "1_0",
        "+1",
        "00",
    ),
    *("9" * 22, "9" * 400, "9" * 5000, "a" * 300, "a/" * 600, "[" * 60, "%", "%00", "%zz", "%40"),
    *(
        ".",
        "..",
        "/",
        "//",
        "\\",
        ":",
        ";",
        ",",
        "=",
        "?",
        "#",
        "@",
        "&",
        "|",
        "'",
        '"',
        "[",
        "]",
        "{",
    ),
    *("-", "--", "--json", "auto", "none", "null", "true", "on", "off", "fake", "flipbook", "a/b"),
    *(
        "s3://",
        "file://",
        "memory://",
        "http://",
        "ftp://",
        "ray://",
        "sqlite:///",
        "postgresql://",
    ),
    *("u:p@", "127.0.0.1", "127.0.0.1:1", "[::1]", "localhost", ":99999", "bucket", "host.invalid"),
    *("?endpoint=", "&region=", "?sslmode=", "?password=", "?mode=ro", "$HOME", "x.db", ":memory:"),
    *(
        "60s",
        "1h30m",
        "06:00",
        "24:00",
        "2027-01-01",
        "T10:00",
        "+25:00",
        "Z",
        "9999-12-31",
        "d",
        "m",
    ),
    *(
        "full",
        "steps:",
        "eco:",
        "hsa:50",
        "early:0.5",
        "+",
        "sparse:k=",
        "masks=searched",
        "teacache:",
    ),
    *(
        "cloud=1",
        "edge=2:light",
        "cloud",
        ":4",
        "degrade",
        "parquet",
        "csv",
        "done",
        "latest",
        "b1",
    ),
]
#: Whole texts that each reader takes, for others to be made of.
SOUND = [
    *("sqlite:///x.db", "postgresql://u:p@127.0.0.1:1/v?sslmode=disable", "s3://bucket/date=2026"),
    *("s3://b/k?endpoint=http://127.0.0.1:9&region=eu", "renders", "file:///tmp/x", "memory://x"),
    *(
        "1h30m",
        "06:00:30",
        "2027-01-01T10:00:00+02:00",
        "eco:5+hsa:50",
        "steps:12",
        "cloud=2:4:light",
    ),
    *("early:0.5", "sparse:k=3", "owner/name", "https://127.0.0.1:9/a.csv", "127.0.0.1:6379"),
]
KEYS = [
    *("catalog", "output", "model", "pools", "pools.cloud", "pools.'x y'", "ray", "run", "inputs"),
    *(
        "workers",
        "threads",
        "gpus",
        "price_per_s",
        "light",
        "name",
        "address",
        "dashboard",
        "local",
    ),
    *("max_attempts", "lease_s", "heartbeat_s", "look_ahead_s", "window", "start_timeout_s"),
    *("max_bytes", "max_seconds", "max_frames", "max_frame_pixels", "endpoint", "''", "a.b.c"),
]
OPTIONS = [
    *("deadline", "model", "method", "seed", "width", "height", "num-frames", "fps", "steps"),
    *("guidance-scale", "priority", "pool", "address", "format", "quality-floor", "on-infeasible"),
    *("output", "catalog"),
]
VARIABLES = [
    *("VIDPLAT_CATALOG", "VIDPLAT_OUTPUT", "VIDPLAT_MODEL", "RAY_ADDRESS", "AWS_PROFILE"),
    *("AWS_REGION", "AWS_ENDPOINT_URL", "AWS_SESSION_TOKEN", "VIDPLAT_MEASURED", "HF_HOME"),
    *("CUDA_VISIBLE_DEVICES", "NO_COLOR", "XDG_DATA_HOME", "AWS_CA_BUNDLE", "AWS_MAX_ATTEMPTS"),
]


class Texts:
    """Texts of one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def text(self) -> str:
        draw = self.random
        made = draw.choice(SOUND) if draw.random() < 0.4 else ""
        for _ in range(draw.randint(0 if made else 1, 3)):
            at, piece = draw.randint(0, len(made)), draw.choice(PIECES)
            made = made[:at] + piece + made[at + draw.choice((0, 0, 1, 4)) :]
        return made

    def value(self) -> str:
        """As TOML, or nearly."""
        draw = self.random
        number = draw.choice(
            ["0", "-1", "1", "3.5", "nan", "inf", "-inf", "1e300", "0x" + "f" * 400]
        )
        quoted = '"' + self.text().replace("\\", "\\\\").replace('"', '\\"') + '"'
        simple = [number, quoted, "true", "1979-05-27", "9" * 400, "9" * 5000, self.text()]
        chosen = draw.choice(simple)
        return draw.choice([chosen, chosen, f"[{chosen}]", f"{{a = {chosen}}}"])

    def toml(self) -> str:
        draw, lines = self.random, []
        for _ in range(draw.randint(1, 5)):
            key = draw.choice(KEYS)
            lines.append(f"[{key}]" if draw.random() < 0.4 else f"{key} = {self.value()}")
        return "\n".join(lines)


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The hosts that were asked for; none answers. Paths lead into the test's own folder."""
    here = tmp_path.joinpath(*"abcdefgh")
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "HOME": str(tmp_path),
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "a-key-of-somebody",
        "HF_HUB_OFFLINE": "1",
    }.items():
        monkeypatch.setenv(name, value)
    hosts: list[str] = []

    def refused(_: object, address: Any) -> None:
        hosts.append(str(address[0]))
        raise ConnectionRefusedError("nobody listens")

    def unknown(host: Any, *_: object, **__: object) -> None:
        hosts.append(host.decode() if isinstance(host, bytes) else str(host))
        raise socket.gaierror("no such host")

    def no_postgres(text: str = "", **options: Any) -> None:
        make_conninfo(text, **options)
        hosts.append(str(options.get("host", "")))
        raise psycopg.OperationalError("connection refused")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(psycopg, "connect", no_postgres)
    monkeypatch.setattr("vidplat.storage.s3._READING_S", 0.0)
    beside = sorted(tmp_path.parent.iterdir())
    yield hosts
    assert sorted(tmp_path.parent.iterdir()) == beside, "a file outside its folder"


def is_outside(text: str) -> bool:
    """Whether a catalog there would be made, or opened, where the test has no business."""
    try:
        file = catalog_file(text)
    except VidplatError:
        return False
    return file is not None and (file.is_absolute() or ".." in file.parts)


def connected(url: str) -> None:
    if not is_outside(url):
        database = Database(url, lock_timeout_s=0.01)
        try:
            database.revision()
        finally:
            database.close()


def configured(text: str) -> None:
    Path("vidplat.toml").write_text(text, encoding="utf-8", errors="surrogateescape")
    load_config({})


DOORS: dict[str, Callable[[str], object]] = {
    "deadline": lambda text: parse_deadline(text, NOW),
    "pool": parse_pool,
    "catalog": connected,
    "output": open_store,
    "method": asked,
    "model": platform.describe_model,
    "place": plain_place,
    "message": printable,
    "option": lambda text: load_config({"catalog": text, "output": text, "model": text}),
}


def through_the_doors(seed: int, count: int) -> list[str]:
    """What came out of `count` texts that is neither a value nor a sentence."""
    texts, odd = Texts(seed), []
    for number in range(count):
        door, text = texts.random.choice([*DOORS, "file"]), texts.text()
        read = DOORS.get(door, configured)
        text = texts.toml() if door == "file" else text
        try:
            read(text)
        except VidplatError as error:
            if not 0 < len(str(error)) < 2_000:
                odd.append(f"{number} {door} {text!r}: {error}")
        except Exception as error:
            odd.append(f"{number} {door} {text!r}: {error!r}")
    return odd


def command(texts: Texts) -> list[str]:
    """Arguments of a command that makes nothing."""
    draw = texts.random
    options = [f"--{draw.choice(OPTIONS)}={texts.text()}" for _ in range(draw.randint(1, 3))]
    verb = draw.choice(["plan", "plan", "plan", "read", "doctor", "models"])
    if verb == "plan":
        source = draw.choice(["one.txt", "one.txt", "one.txt", texts.text()])
        model = ["--model=fake"] if draw.random() < 0.7 else []
        return ["plan", source, *model, *options]
    if verb == "models":
        return ["models", texts.text()]
    if verb == "doctor":
        return ["doctor", "--quick", f"--catalog={texts.text()}"]
    reading = draw.choice(
        [
            *(["status"], ["ls"], ["ls", texts.text()], ["show", texts.text()], ["logs", "b1"]),
            *(["report", texts.text()], ["watch", "--once"], ["ls", f"--state={texts.text()}"]),
            *(["ls", f"--limit={texts.text()}"], ["cancel", texts.text()], ["retry", texts.text()]),
        ]
    )
    return [*reading, f"--catalog={texts.text()}"]


def whole_commands(
    seed: int, count: int, named: list[str], capsys: pytest.CaptureFixture[str]
) -> list[str]:
    texts, odd = Texts(seed), []
    Path("one.txt").write_text("a red circle\n")
    for number in range(count):
        arguments = command(texts)
        if any(is_outside(one.partition("=")[2]) for one in arguments):
            continue
        variable, value = texts.random.choice(VARIABLES), texts.text().replace("\0", "")
        toml = texts.toml() if texts.random.random() < 0.3 else ""
        if is_outside(value) or "sqlite" in toml:
            continue
        Path("vidplat.toml").write_text(toml, encoding="utf-8", errors="surrogateescape")
        with pytest.MonkeyPatch.context() as patch:
            if texts.random.random() < 0.3:
                patch.setenv(variable, value)
            named.clear()
            code = main([*arguments, *(["--json"] if number % 4 == 0 else [])])
        shown = capsys.readouterr()
        given = " ".join((*arguments, value, toml)).lower()
        strange = [host for host in named if host.lower() not in given and "amazonaws" not in host]
        unforeseen = "did not expect" in shown.out + shown.err
        if code not in set(ExitCode) or unforeseen or "Traceback" in shown.err or strange:
            odd.append(
                f"{number} {arguments} {variable}={value!r} {toml!r}: {code} {strange} {shown}"
            )
    return odd


def test_texts_of_every_kind_are_read_or_refused(named: list[str]) -> None:
    assert through_the_doors(seed=1, count=1_200) == []


def test_commands_answer_or_say_what_is_wrong(
    named: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert whole_commands(1, 30, named, capsys) == []


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(2, 7))
def test_many_more_texts_and_commands(
    seed: int, named: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert through_the_doors(seed, 10_000) == []
    assert whole_commands(seed, 300, named, capsys) == []
