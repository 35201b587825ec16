"""A prompt file, opened: seekable, unpacked, in UTF-8, and with its format known.

The format is told by content that cannot be mistaken (PAR1), then by the file's name, then by its
first lines. What is not a seekable file (stdin, a pipe, a URL), is packed or in UTF-16 is first
written to a temporary one. Lines of text count as prompts only where nothing says that they are
something else (prompt_kinds.py), unless the user asked for `txt`.

What cannot be read at all is an InputError in one sentence.
"""

from __future__ import annotations

import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
from vidplat.storage.places import file_of, half_a_url, scheme_of
from vidplat.storage.prompt_bytes import PACKED_SUFFIXES, head_of, plain
from vidplat.storage.prompt_columns import is_header
from vidplat.storage.prompt_formats import PromptFile
from vidplat.storage.prompt_kinds import binary_kind, is_json, syntax_of
from vidplat.storage.stores import NotFound

FORMATS = ("parquet", "csv", "jsonl", "txt")
_BY_SUFFIX = {f".{name}": name for name in FORMATS}
_BY_SUFFIX |= {".pq": "parquet", ".tsv": "csv", ".ndjson": "jsonl"}
#: Names of lists of prompts; other endings in letters say that a file is something else.
_OF_LINES = ("", ".txt", ".text", ".prompt", ".prompts", ".list", ".lst")


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
    with ExitStack() as held:

        def scratch() -> BinaryIO:
            file = held.enter_context(tempfile.TemporaryFile(prefix="vidplat-intake-"))
            return cast(BinaryIO, file)

        try:
            file = held.enter_context(_opened(source, stdin, scratch(), where))
            file = plain(file, scratch, where)
        except (OSError, NotFound, RuntimeError) as error:  # RuntimeError: a home of nobody
            raise _unopened(error, where) from error
        head = head_of(file)
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
    elif said := half_a_url(source):
        raise InputError(f"{where} {said}")
    elif scheme_of(source) not in ("", "file"):
        _download(source, scratch, where)
    else:
        path = _path(source, where)
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


def _path(source: str, where: str) -> Path:
    if not scheme_of(source):
        return Path(source).expanduser()
    try:
        return file_of(source)
    except UsageError as error:
        raise InputError(f"{where} {error}") from error


def _download(url: str, into: BinaryIO, where: str) -> None:
    if scheme_of(url) == "s3":
        from vidplat.storage.s3 import download

        return download(f"s3{url[2:]}", into)
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


# --- formats --------------------------------------------------------------------------------------


def _format(head: bytes, source: str, wanted: str | None, where: str) -> str:
    if head.startswith(b"PAR1"):
        return "parquet"
    if said := binary_kind(head):
        raise InputError(f"{where} {said}")
    suffix = _suffix(source)
    told = wanted or _BY_SUFFIX.get(suffix) or _sniffed(head)
    if told == "parquet":
        raise InputError(
            f"{where} is not a parquet file: it begins with {printable(head[:8], 60)}, not with "
            "b'PAR1'"
        )
    if told == "jsonl":
        start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
        if start.startswith(b"["):
            raise InputError(f"{where} is one JSON array: write one object per line instead")
        if re.match(rb"\{[ \t]*[\r\n]", start):
            raise InputError(
                f"{where} is JSON over several lines: write each object in one line instead"
            )
    if told == "txt" and wanted is None and (said := _no_list(head, suffix)):
        raise InputError(
            f"{where} {said}, not a list of prompts: needed parquet, CSV, JSON lines or one "
            "prompt a line; --format txt takes every line for a prompt"
        )
    return told


def _suffix(source: str) -> str:
    """The ending of the file's name, without that of a packing: `.csv` of a/b.csv.gz."""
    name = plain_place(source).rpartition("/")[2].lower()
    for packed in PACKED_SUFFIXES:
        name = name.removesuffix(packed)
    return Path(name).suffix


def _sniffed(head: bytes) -> str:
    """jsonl, csv or txt, from the first lines of text without a telling name."""
    first = head.decode("utf-8-sig", "replace").lstrip().splitlines()[:1]
    if first and is_json(first):
        return "jsonl"
    return "csv" if first and is_header(first[0]) else "txt"


def _no_list(head: bytes, suffix: str) -> str:
    """What says that these lines are no prompts; "" when nothing does."""
    if suffix[1:].isalpha() and suffix not in _OF_LINES:
        return f"is a {printable(suffix, 20)} file"
    return syntax_of(head)
