"""A prompt file, opened: seekable, and with its format known.

The format is told by content that cannot be mistaken (PAR1), then by the file's name, then by its
first lines. What is not a seekable file (stdin, a pipe, a URL) is first copied to a temporary one.

What cannot be read at all is an InputError in one sentence.
"""

from __future__ import annotations

import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EDQUOT, ENOSPC
from pathlib import Path
from ssl import SSLError
from typing import BinaryIO, cast

from vidplat.errors import (
    InputError,
    StoreError,
    UsageError,
    holds_loose_password,
    plain_place,
    printable,
)
from vidplat.storage.prompt_columns import COLUMNS
from vidplat.storage.prompt_formats import PromptFile, delimiter_of
from vidplat.storage.stores import NotFound

FORMATS = ("parquet", "csv", "jsonl", "txt")
_BY_SUFFIX = {f".{name}": name for name in FORMATS}
_BY_SUFFIX |= {".pq": "parquet", ".tsv": "csv", ".ndjson": "jsonl"}
_HEAD_BYTES = 64 << 10


@contextmanager
def open_prompt_file(
    source: str, stdin: BinaryIO | None, wanted_format: str | None
) -> Iterator[PromptFile]:
    """The file at a path, at a URL, or on stdin ("-"), seekable and with its format known."""
    if wanted_format is not None and wanted_format not in FORMATS:
        raise UsageError(
            f"unknown format '{printable(wanted_format, 20)}': choose one of {', '.join(FORMATS)}"
        )
    where = "stdin" if source == "-" else printable(plain_place(source))
    with tempfile.TemporaryFile(prefix="vidplat-intake-") as scratch:
        spooled = cast(BinaryIO, scratch)
        try:
            file = _opened(source, stdin, spooled, where)
        except (OSError, NotFound, RuntimeError) as error:  # RuntimeError: a home of nobody
            raise _unopened(error, where) from error
        with file:
            head = file.read(_HEAD_BYTES)
            file.seek(0)
            if not head:
                raise InputError(f"{where} is empty: needed at least one row")
            yield PromptFile(file, _format(head, source, wanted_format, where), where)


# --- opening --------------------------------------------------------------------------------------


def _opened(source: str, stdin: BinaryIO | None, scratch: BinaryIO, where: str) -> BinaryIO:
    """A seekable file with the bytes of `source`: itself, or `scratch` with a copy."""
    if source == "-":
        if stdin is None:
            raise InputError("no stdin to read prompts from")
        shutil.copyfileobj(stdin, scratch, 1 << 20)
    elif "\0" in source or not source:
        raise InputError(f"{where!r} is not a path: it is empty or holds a NUL")
    elif "://" in source and not source.startswith("file://"):
        _download(source, scratch, where)
    else:
        path = Path(source.removeprefix("file://")).expanduser()
        kind = path.stat().st_mode
        if stat.S_ISDIR(kind):
            raise InputError(f"{where} is a folder: name one file in it")
        if stat.S_ISREG(kind):
            return path.open("rb")
        if not stat.S_ISFIFO(kind):
            raise InputError(f"{where} is a device, not a file: use - to read stdin")
        with path.open("rb") as pipe:
            shutil.copyfileobj(pipe, scratch, 1 << 20)
    scratch.seek(0)
    return scratch


def _download(url: str, into: BinaryIO, where: str) -> None:
    if url.startswith("s3://"):
        from vidplat.storage.s3 import download

        return download(url, into)
    if holds_loose_password(url):
        raise InputError(
            f"{where}: percent-encode @ as %40, / as %2F, ? as %3F and # as %23 in its password"
        )
    import fsspec

    try:
        with fsspec.open(url, "rb") as remote:
            shutil.copyfileobj(remote, into, 1 << 20)
    except Exception as error:  # each of fsspec's file systems has exceptions of its own
        if isinstance(error, OSError) and error.errno in (ENOSPC, EDQUOT):
            raise  # it is our copy that has no room
        raise _undownloaded(error, where) from error
    return None


def _undownloaded(error: BaseException, where: str) -> InputError | StoreError:
    """fsspec makes a FileNotFoundError of nearly everything: what is behind it tells the truth."""
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    told = (getattr(cause, "status", None) for cause in causes)
    status = next((status for status in told if isinstance(status, int)), None)
    broken = next((c for c in causes[::-1] if isinstance(c, OSError)), None)
    if status in (401, 403, 407):
        return InputError(
            f"{where}: the server answered {status}: check user and password, or whether the "
            "URL's signature has run out"
        )
    if status is not None and status not in (404, 410):
        answered = f"{where} cannot be read: the server answered {status}"
        may_pass = status >= 500 or status == 429
        return StoreError(answered) if may_pass else StoreError.lasting(answered)
    if isinstance(broken, SSLError):
        return StoreError.lasting(
            f"{where} cannot be reached safely: check http or https, and the server's certificate "
            f"({printable(broken.strerror or broken)})"
        )
    if broken is not None and not isinstance(broken, FileNotFoundError):
        return StoreError(f"{where} cannot be reached: {printable(broken.strerror or broken)}")
    if status is None and not isinstance(causes[-1], FileNotFoundError):
        said = error if not isinstance(error, FileNotFoundError) else causes[-1]
        why = printable(said)
        return InputError(f"{where} cannot be read: {'it names no host' if why == where else why}")
    return _unopened(FileNotFoundError(), where)


def _unopened(error: Exception, where: str) -> InputError:
    if isinstance(error, FileNotFoundError | NotFound | NotADirectoryError):
        return InputError(f"{where} does not exist: check the path of the prompt file")
    if isinstance(error, PermissionError):
        return InputError(f"{where} cannot be read: permission denied")
    return InputError(
        f"{where} cannot be read: {printable(getattr(error, 'strerror', None) or error)}"
    )


def _format(head: bytes, source: str, wanted: str | None, where: str) -> str:
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"\x1f\x8b"):
        raise InputError(f"{where} is compressed with gzip: unpack it first")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{where} is UTF-16 text: save it as UTF-8")
    told = wanted or _BY_SUFFIX.get(Path(source.partition("?")[0]).suffix.lower()) or _sniffed(head)
    if told == "parquet":
        raise InputError(
            f"{where} is not a parquet file: it begins with {printable(head[:8], 60)}, not with "
            "b'PAR1'"
        )
    if told == "jsonl" and head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        raise InputError(f"{where} is one JSON array: write one object per line instead")
    return told


def _sniffed(head: bytes) -> str:
    """jsonl, csv or txt, from the first lines of text without a telling name."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text[:1] in (b"{", b"["):
        return "jsonl"
    header = text.partition(b"\n")[0].decode("utf-8", "replace")
    cells = {cell.strip(' "\r').lower() for cell in header.split(delimiter_of(header))}
    known = cells & {name for names in COLUMNS.values() for name in names}
    is_header = bool(cells & set(COLUMNS["text"])) and 2 * len(known) >= len(cells)
    return "csv" if is_header else "txt"
