"""Whatever bytes a prompt file has, it is read or refused: rows or a VidplatError, soon and small.

Files of every format are made with strange rows, then damaged: cut, flipped, spliced, repeated. The
same numbers make the same files, so a failure names the file that fails. 250 of them go along with
every run, 50,000 with the thorough ones.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import random
import resource
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.storage.test_prompt_bytes import by_arrow
from vidplat.cli.app import main
from vidplat.domain import Prompt
from vidplat.errors import VidplatError
from vidplat.storage.prompt_columns import COLUMNS
from vidplat.storage.prompts import read_prompts

NAMES = [name for names in COLUMNS.values() for name in names]
TEXTS = (
    "a red circle", "", " ", "\0", "\ud800", "../../x", "/etc/passwd", "s3://b/k?endpoint=http://h",
    "file://[", "NaN", "-1", "1e999", "29.97", "64x64", "0x0", "=cmd()", '"', "\\", '\\"', "a\nb",
    "a\rb", "{", "[" * 500, "x" * 20_000, "é" * 9_000, "\x1b[2J", "~nobody/x", "%2e%2e", "\u202e",
    "9" * 400, "12:60", "60s", "9999-99-99", "lipar", "sparse:masks=/etc/passwd", "fake", "a;b|d",
)  # fmt: skip
NUMBERS = (
    0,
    -1,
    1,
    64,
    2**31,
    2**63,
    2**70,
    10**400,
    0.5,
    29.97,
    1e308,
    float("inf"),
    float("nan"),
)
SECONDS_EACH, PEAK_MIB = 10.0, 1_500


def a_value(chance: random.Random) -> Any:
    match chance.randrange(9):
        case 0 | 1 | 2 | 3:
            return chance.choice(TEXTS)
        case 4 | 5:
            return chance.choice(NUMBERS)
        case 6:
            return chance.choice((None, True, False))
        case 7:
            return [a_value(chance)] * chance.randrange(3)
        case _:
            return {chance.choice(NAMES): a_value(chance)}


def some_rows(chance: random.Random) -> list[dict[str, Any]]:
    names = chance.sample(NAMES, chance.randrange(5)) + ["prompt"] * chance.randrange(4)
    names += chance.sample(["other", "\x1b[31m", "", "x" * 5_000, " Prompt "], chance.randrange(2))
    return [{name: a_value(chance) for name in names} for _ in range(chance.randrange(1, 30))]


def as_jsonl(chance: random.Random) -> bytes:
    rows = some_rows(chance)
    if chance.random() < 0.2:
        return b'{"prompt": ' + b"[" * chance.choice((10, 100_000)) + b"\n"
    wrap = chance.random() < 0.3
    lines = (json.dumps({"body": row, "custom_id": "x"} if wrap else row) for row in rows)
    return "\n".join(lines).encode()


def as_csv(chance: random.Random) -> bytes:
    out, rows, mark = io.StringIO(newline=""), some_rows(chance), chance.choice(",;\t|")
    out.write(chance.choice(("", "", "sep=;\n", "\n\n", f"sep={mark}\r\n")))
    table = csv.writer(out, delimiter=mark, lineterminator=chance.choice(("\n", "\r\n", "\r")))
    table.writerow(rows[0])
    table.writerows([list(row.values())[: chance.choice((99, 99, 1))] for row in rows])
    return out.getvalue().encode("utf-8", "surrogatepass")


def as_text(chance: random.Random) -> bytes:
    lines = [str(a_value(chance)) for _ in range(chance.randrange(1, 9))]
    return chance.choice(("\n", "\r\n", "\r")).join(lines).encode("utf-8", "surrogatepass")


def as_parquet(chance: random.Random) -> bytes:
    columns, rows = {}, chance.randrange(1, 40)
    for name in (*chance.sample(NAMES, chance.randrange(6)), chance.choice(("prompt", "caption"))):
        columns[name] = a_column(chance, name, rows)
    sink, delta = io.BytesIO(), chance.random() < 0.4
    encoding = {
        name: chance.choice(("DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY", "PLAIN"))
        for name, values in columns.items()
        if delta and pa.types.is_string(values.type)
    }
    pq.write_table(
        pa.table(columns),
        sink,
        use_dictionary=not delta,
        column_encoding=encoding or None,
        compression=chance.choice(("NONE", "SNAPPY", "ZSTD", "GZIP")),
        data_page_version=chance.choice(("1.0", "2.0")),
        row_group_size=chance.choice((1, 7, 99)),
    )
    return sink.getvalue()


def a_column(chance: random.Random, name: str, rows: int) -> pa.Array:
    texts = [text for text in TEXTS if text != "\ud800"]
    kinds: list[Callable[[], pa.Array]] = [
        lambda: pa.array([chance.randrange(-5, 1 << 40) for _ in range(rows)]),
        lambda: pa.array([chance.choice((1.5, 64.0, float("nan"), None)) for _ in range(rows)]),
        lambda: pa.array([[1, 2]] * rows),
        lambda: pa.array([{"a": "b"}] * rows),
        lambda: pa.array([b"\xff\0" * 8] * rows, pa.binary()),
        lambda: pa.array([b"0123456789abcdef"] * rows, pa.uuid()),
        lambda: pa.array([chance.randrange(-(1 << 62), 1 << 62)] * rows, pa.duration("ns")),
        lambda: pa.array([chance.randrange(-(1 << 62), 1 << 62)] * rows, pa.timestamp("us")),
        lambda: pa.array([chance.randrange(-(1 << 30), 1 << 30)] * rows, pa.date32()),
        lambda: pa.array([chance.randrange(86_399)] * rows, pa.time32("s")),
        lambda: pa.nulls(rows),
    ]
    if name in COLUMNS["text"] or chance.random() < 0.5:
        return pa.array([chance.choice((*texts, None)) for _ in range(rows)], pa.string())
    return chance.choice(kinds)()


def as_archive(chance: random.Random) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(chance.choice(("../../x.txt", "xl/workbook.xml")), as_text(chance))
    return out.getvalue()


#: What makes a file, and the suffix that tells the truth about it.
MAKERS = ((as_jsonl, ".jsonl"), (as_csv, ".csv"), (as_text, ".txt"), (as_parquet, ".parquet"),
          (as_parquet, ".pq"), (as_archive, ".zip"))  # fmt: skip
PACKED: tuple[Callable[[bytes], bytes], ...] = (
    gzip.compress, bz2.compress, lambda data: lzma.compress(data, preset=0),
    by_arrow("zstd"), by_arrow("lz4"),
    lambda data: data.decode("utf-8", "replace").encode("utf-16"),
    lambda data: data.decode("utf-8", "replace").encode("utf-32"),
    lambda data: data.decode("utf-8", "replace").encode("utf-16-le"),
    lambda data: gzip.compress(data + b"\n" * (2 << 20)),
)  # fmt: skip
SUFFIXES = (
    "",
    ".txt",
    ".csv",
    ".jsonl",
    ".parquet",
    ".tsv",
    ".json",
    ".csv.gz",
    ".py",
    ".parquet.xz",
)


def damaged(chance: random.Random, data: bytes) -> bytes:
    bytes_ = bytearray(data)
    for _ in range(chance.choice((0, 1, 1, 3))):
        at, length = chance.randrange(len(bytes_) + 1), chance.choice((1, 4, 100))
        match chance.randrange(5):
            case 0:
                del bytes_[at:]
            case 1:
                del bytes_[at : at + length]
            case 2:
                bytes_[at : at + length] = chance.randbytes(length)
            case 3:
                bytes_[at:at] = bytes_[:length] * chance.choice((1, 50))
            case _:
                if at < len(bytes_):
                    bytes_[at] ^= 1 << chance.randrange(8)
    return bytes(bytes_)


def a_file(number: int) -> tuple[str, bytes]:
    """The name and the bytes of a file."""
    chance = random.Random(number)
    made, suffix = chance.choice(MAKERS)
    data = made(chance)
    if chance.random() < 0.2:
        data = chance.choice(PACKED)(damaged(chance, data) if chance.random() < 0.3 else data)
    name = f"a{suffix if chance.random() < 0.8 else chance.choice(SUFFIXES)}"
    return name, damaged(chance, data) if chance.random() < 0.5 else data


def check(number: int, folder: Path) -> bool:
    """Whether the file was read; raises AssertionError for what must not be."""
    name, content = a_file(number)
    path = folder / name
    path.write_bytes(content)
    began = time.process_time()
    format = random.Random(number).choice((None, None, None, "txt", "csv", "jsonl"))
    try:
        for batch in read_prompts(str(path), format=format, warn=lambda text: None):
            for row in batch:
                assert isinstance(row, Prompt) or str(row).isprintable()
        return True
    except VidplatError as error:
        assert str(error).isprintable() and len(str(error)) < 2_000
        return False
    finally:
        assert time.process_time() - began < SECONDS_EACH
        path.unlink()


def check_all(numbers: range, folder: Path) -> int:
    read = 0
    for number in numbers:
        try:
            read += check(number, folder)
        except Exception as error:
            pytest.fail(f"file {number}, {a_file(number)[0]}: {type(error).__name__}: {error}")
    assert list(folder.iterdir()) == []  # reading leaves nothing
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10 < PEAK_MIB
    return read


def test_any_file_is_read_or_refused(tmp_path: Path) -> None:
    assert 50 < check_all(range(250), tmp_path) < 200  # some of both


@pytest.mark.thorough
@pytest.mark.parametrize("first", range(1_000, 51_000, 10_000))
def test_fifty_thousand_files_are_read_or_refused(tmp_path: Path, first: int) -> None:
    assert check_all(range(first, first + 10_000), tmp_path) > 1_000


def test_what_rows_say_never_makes_a_file_outside_of_the_prefix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VIDPLAT_CATALOG", f"sqlite:///{tmp_path}/state/catalog.db")
    hostile = ("../../out", "/tmp/out", "..", ".", "a/../../b", "%2e%2e/x", "C:\\x", "~", "$HOME/x")
    rows = [{"prompt": text, "id": text, "negative_prompt": text} for text in hostile]
    Path("rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    asked = ["submit", "rows.jsonl", "--model", "fake", "--local", "--output", "made/here"]
    assert main([*asked, "--deadline", "10m", "--num-frames", "5"]) == 0
    assert main(["export", "made/there/"]) == 0
    made = {path.name for path in tmp_path.iterdir()} - {".vidplat"}  # its own logs
    assert made == {"rows.jsonl", "state", "made"}
    assert {path.name for path in (tmp_path / "made").iterdir()} == {"here", "there"}
    assert not (tmp_path.parent / "out").exists()
