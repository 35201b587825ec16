"""Where the input videos of rows lie, and their bytes: somebody else's files, read once at intake.

A row may name its video in these ways; `resolve` brings each to one canonical place, which the
catalog remembers:

    clips/a.mp4                 relative to the prompt file's folder (stdin: the working directory)
    /data/a.mp4, file:///...    a file of this machine
    s3://bucket/a b.mp4         any object, `?endpoint=` and `&region=` as for stores
    memory://name/key           an object of a store of this process

A place never holds a secret: URLs with a user name, a signature or any other option are refused,
and no message here shows one. http(s) is not read, as the stores do not speak it.

Left to others: what the bytes are (workers.source_video), and their copy in the output prefix
(inputs.py).
"""

from __future__ import annotations

import hashlib
import io
import os
import posixpath
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from vidplat.errors import StoreError, UsageError, printable
from vidplat.storage.memory import MemoryStore
from vidplat.storage.places import scheme_of
from vidplat.storage.stores import NotFound

_S3_OPTIONS = ("endpoint", "region")


@dataclass(frozen=True)
class Found:
    """What a place tells without its content."""

    size_bytes: int
    # equal identities, equal bytes: device, inode, size and mtime of a file; the ETag of an object
    identity: str


def folder_of(source: str) -> str:
    """What places in a prompt file are relative to: a folder, a URL, or "" for none."""
    if source == "-":
        return str(Path.cwd())
    scheme = scheme_of(source)
    if scheme in ("", "file"):
        try:
            path = unquote(urlsplit(source).path) if scheme else source
            return str(Path(path).expanduser().absolute().parent)
        except (ValueError, RuntimeError):  # a file that opening it will refuse
            return ""
    if scheme == "s3":
        url, mark, options = source.partition("?")
        return f"{url.rpartition('/')[0]}/{mark}{options}"
    return ""


def resolve(written: str, folder: str) -> str:
    """The canonical place of what a row says. Raises UsageError as cells raise `Wrong`."""
    try:
        return _resolved(written, folder)
    except (ValueError, RuntimeError) as error:  # a URL that is none, a home of nobody
        raise UsageError("is neither a path nor a URL that can be understood") from error


def _resolved(written: str, folder: str) -> str:
    match scheme_of(written):
        case "":
            return _beside(written, folder)
        case "file":
            parts = urlsplit(written)
            if parts.netloc not in ("", "localhost"):
                raise UsageError(
                    "names a host; a file URL has three slashes: file:///folder/video.mp4"
                )
            return os.path.normpath(Path("/") / unquote(parts.path))
        case "s3":
            return _s3_place(written)
        case "memory":
            if "?" in written or "@" in written:
                raise UsageError("holds credentials or options: write memory://name/key")
            return f"memory://{written.partition('://')[2]}"
        case "http" | "https":
            raise UsageError(
                "is an http(s) URL, which is not read: download the video, or put it into a bucket"
            )
        case scheme:
            raise UsageError(
                f"cannot be read from {printable(scheme, 20)}:// URLs: give a path, file:// or "
                "s3://"
            )


def look(place: str) -> Found:
    """Size and identity of what lies at a canonical place.

    Raises UsageError with the rest of a sentence when there is nothing to read, and StoreError when
    the place itself fails in a way that may pass.
    """
    if place.startswith("s3://"):
        from vidplat.storage.s3 import head

        try:
            size_bytes, etag = head(place)
        except StoreError as error:
            raise _refused(error, place) from error
        return Found(size_bytes, f"{etag} {size_bytes}")
    if place.startswith("memory://"):
        data = _in_memory(place)
        return Found(len(data), hashlib.sha256(data).hexdigest())
    try:
        about = Path(place).stat()
    except (OSError, ValueError) as error:
        raise _unreadable(error, place) from error
    if stat.S_ISDIR(about.st_mode):
        raise UsageError(f"is a folder: {printable(place)}")
    if not stat.S_ISREG(about.st_mode):
        raise UsageError(f"is a device or pipe, not a file: {printable(place)}")
    return Found(
        about.st_size, f"{about.st_dev} {about.st_ino} {about.st_size} {about.st_mtime_ns}"
    )


@contextmanager
def opened(place: str) -> Iterator[BinaryIO]:
    """The bytes at a place as a seekable file; look at its size first. Raises as `look`."""
    if place.startswith("s3://"):
        from vidplat.storage.s3 import download

        with tempfile.TemporaryFile(prefix="vidplat-input-") as scratch:
            try:
                download(place, cast(BinaryIO, scratch))
            except StoreError as error:
                raise _refused(error, place) from error
            scratch.seek(0)
            yield cast(BinaryIO, scratch)
    elif place.startswith("memory://"):
        yield io.BytesIO(_in_memory(place))
    else:
        try:
            # not around the caller's block, whose errors are not ours to explain
            file = Path(place).open("rb")  # noqa: SIM115
        except OSError as error:
            raise _unreadable(error, place) from error
        with file:
            yield file


# --- inside ---------------------------------------------------------------------------------------


def _beside(written: str, folder: str) -> str:
    path = Path(written).expanduser() if written.startswith("~") else Path(written)
    if path.is_absolute():
        return os.path.normpath(path)
    if not folder:
        raise UsageError(
            "is a relative path, and the prompt file has no folder to start from: give a whole one"
        )
    if not folder.startswith("s3://"):
        return os.path.normpath(Path(folder) / path)
    url, mark, options = folder.partition("?")
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    key = posixpath.normpath(posixpath.join(prefix, written))
    if key.startswith(".."):
        raise UsageError("leads out of the prompt file's bucket")
    return _s3_place(f"s3://{bucket}/{key}{mark}{options}")


def _s3_place(url: str) -> str:
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise UsageError(
            "holds credentials: leave them out, and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if parts.fragment or "#" in url:
        raise UsageError("holds a '#', which cannot be part of an s3:// URL here")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if options.keys() - set(_S3_OPTIONS):
        raise UsageError(
            "has options other than endpoint and region; a signed URL is a secret, so give the "
            "plain s3:// URL, and credentials in the environment"
        )
    endpoint = urlsplit(options.get("endpoint", ""))
    if endpoint.username or endpoint.password or endpoint.query:
        raise UsageError(
            "has an endpoint with credentials or options: give scheme, host and port alone"
        )
    key = parts.path.strip("/")
    if not parts.netloc or not key:
        raise UsageError("must look like s3://bucket/key")
    chosen = [(name, options[name]) for name in _S3_OPTIONS if name in options]
    return f"s3://{parts.netloc}/{key}" + (f"?{urlencode(chosen, safe=':/')}" if chosen else "")


def _in_memory(place: str) -> bytes:
    try:
        return MemoryStore.at_uri(place)
    except StoreError as error:
        raise _refused(error, place) from error


def _refused(error: StoreError, place: str) -> StoreError | UsageError:
    """What a store said, as the row's fault unless it may pass."""
    if isinstance(error, NotFound):
        return UsageError(f"does not exist: {printable(place.partition('?')[0])}")
    return error if error.retry_can_help else UsageError(f"cannot be read: {printable(error)}")


def _unreadable(error: OSError | ValueError, place: str) -> UsageError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return UsageError(f"does not exist: {printable(place)}")
    said = error.strerror if isinstance(error, OSError) else None
    return UsageError(f"cannot be read ({printable(said or 'not a path')}): {printable(place)}")
