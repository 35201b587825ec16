"""Packed prompt files and those in UTF-16 or UTF-32 are read like any other, within bounds."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from tests.storage.test_prompts import PROMPTS, ROWS, a_parquet, as_csv, jsonl, read
from vidplat.domain import Prompt
from vidplat.errors import InputError


def by_arrow(name: str) -> Callable[[bytes], bytes]:
    def packed(data: bytes) -> bytes:
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, name) as out:
            out.write(data)
        return sink.getvalue().to_pybytes()

    return packed


PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress, "bz2": bz2.compress, "xz": partial(lzma.compress, preset=0),
    "zst": by_arrow("zstd"), "lz4": by_arrow("lz4"),
}  # fmt: skip


@pytest.mark.parametrize("packing", PACKINGS)
def test_packed_files_are_read_whatever_is_inside(tmp_path: Path, packing: str) -> None:
    for name, content in {
        "a.csv": as_csv(ROWS).encode(),
        "a.jsonl": jsonl(ROWS).encode(),
        "a.parquet": a_parquet(tmp_path / "x", ROWS).read_bytes(),
        "nameless": as_csv(ROWS, ";").encode("utf-16"),
    }.items():
        path = tmp_path / f"{name}.{packing}"
        path.write_bytes(PACKINGS[packing](content))
        assert read(path) == PROMPTS, name
    (tmp_path / "a.txt").write_bytes(PACKINGS[packing](b"a red circle\n"))  # without telling it
    assert read(tmp_path / "a.txt") == [Prompt(1, "a red circle")]


def test_packings_that_were_joined_are_read_to_the_end(tmp_path: Path) -> None:
    for name in ("gz", "bz2", "xz", "zst"):
        parts = [PACKINGS[name](line) for line in (b"a red circle\n", b"a blue square\n")]
        (tmp_path / "a.txt").write_bytes(b"".join(parts))
        assert len(read(tmp_path / "a.txt")) == 2, name


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_packed_file_that_is_cut_or_damaged_says_so(tmp_path: Path, packing: str) -> None:
    whole = PACKINGS[packing]("".join(f"number {n * n}\n" for n in range(500)).encode())
    path = tmp_path / "a.txt"
    for cut in range(8, len(whole) - 4, max(1, len(whole) // 20)):
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError, match=r"is not a whole \w+ file \(truncated or damaged\)"):
            read(path)


def test_what_is_packed_twice_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(gzip.compress(bz2.compress(b"a red circle\n")))
    with pytest.raises(InputError, match="is packed more than once: unpack it first"):
        read(tmp_path / "a.txt")


@pytest.mark.parametrize("packing", PACKINGS)
def test_what_unpacks_without_end_is_stopped(
    tmp_path: Path, packing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 32 MiB are free, whatever they are packed from; here 2 MiB, and a file of 6 MiB of nothing
    monkeypatch.setattr("vidplat.storage.prompt_bytes._FREE_BYTES", 2 << 20)
    monkeypatch.setattr("vidplat.storage.prompt_bytes._MOST_TIMES", 20)
    bomb = PACKINGS[packing](b"\n" * (6 << 20))
    (tmp_path / "a.txt").write_bytes(bomb)
    written: list[int] = []
    real = tempfile.TemporaryFile

    def watched(*given: object, **named: object) -> object:
        file = real(*given, **named)  # type: ignore[call-overload]
        watch = file.write
        file.write = lambda data: written.append(len(data)) or watch(data)
        return file

    monkeypatch.setattr(tempfile, "TemporaryFile", watched)
    with pytest.raises(
        InputError, match=rf"unpacks to more than \d+ MiB, from {len(bomb):,} bytes"
    ):
        read(tmp_path / "a.txt")
    assert sum(written) <= max(2 << 20, 20 * len(bomb)) + (1 << 20)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_text_with_a_byte_order_mark_is_read_in_every_format(tmp_path: Path, encoding: str) -> None:
    for name, text in {
        "a.csv": as_csv(ROWS),
        "a.tsv": as_csv(ROWS, "\t"),
        "a.jsonl": jsonl(ROWS),
    }.items():
        (tmp_path / name).write_text(text, encoding=encoding)
        assert read(tmp_path / name) == PROMPTS, name
    (tmp_path / "big-endian.txt").write_bytes(b"\xfe\xff" + "a cut, 漢字\n🎈\n".encode("utf-16-be"))
    assert read(tmp_path / "big-endian.txt") == [Prompt(1, "a cut, 漢字"), Prompt(2, "🎈")]


def test_utf_16_that_is_cut_or_broken_says_so(tmp_path: Path) -> None:
    for broken in ("a cut".encode("utf-16")[:-1], b"\xff\xfe\x00\xd8a\x00"):
        (tmp_path / "a.txt").write_bytes(broken)
        with pytest.raises(InputError, match=r"is not whole UTF-16 text .*: save it as UTF-8"):
            read(tmp_path / "a.txt")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_line_ends_as_every_system_ends_it(tmp_path: Path, end: str) -> None:
    for name, text in {"a.csv": as_csv(ROWS), "a.jsonl": jsonl(ROWS)}.items():
        (tmp_path / name).write_bytes(text.replace("\n", end).encode())
        assert read(tmp_path / name) == PROMPTS, name
    (tmp_path / "a.txt").write_bytes(f"one{end}{end}two{end}three".encode())
    assert read(tmp_path / "a.txt") == [Prompt(1, "one"), Prompt(3, "two"), Prompt(4, "three")]


def test_lines_longer_than_what_is_read_at_once_stay_whole(tmp_path: Path) -> None:
    # a line end on either side of the first MiB, and CR and LF on both
    for length in ((1 << 20) - 2, (1 << 20) - 1, 1 << 20):
        (tmp_path / "a.jsonl").write_bytes(b" " * length + b'\r\n{"prompt": "a cut"}\r\n')
        assert read(tmp_path / "a.jsonl") == [Prompt(2, "a cut")]
