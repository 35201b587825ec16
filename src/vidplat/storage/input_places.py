"""Where the input videos of rows lie, and their bytes: somebody else's files, read once at intake.

A row may name its video in these ways; `resolve` brings each to one canonical place, which the
catalog remembers:

    clips/a.mp4                 relative to the prompt file's folder (stdin: the working directory)
    /data/a.mp4, file:///...    a file of this machine
    s3://bucket/a b.mp4         an object of the server that the configuration names
    memory://name/key           an object of a store of this process

Rows may be anybody's, so no row names a server: what stands in one is a bucket and a key, never an
endpoint, region, user or signature. Schemes, folders, buckets and the server are those of
`config.InputConfig`. The prompt file itself is named by the user, whose server counts for places
relative to it. A place never holds a secret, and no message here shows one. http(s) is not read.

Left to others: what the bytes are (workers.source_video), and their copy in the output prefix
(inputs.py). What rows can do at all is told in docs/security.md.
"""

from __future__ import annotations

import hashlib
import io
import os
import posixpath
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from vidplat.config import InputConfig
from vidplat.errors import StoreError, UsageError, printable
from vidplat.storage.memory import MemoryStore
from vidplat.storage.places import file_of, half_a_url, scheme_of
from vidplat.storage.stores import NotFound

# no ARN, port or user: with one, the name would decide which server is asked
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}", re.ASCII)


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
            path = file_of(source) if scheme else Path(source)
            return str(path.expanduser().absolute().parent)
        except (UsageError, RuntimeError):  # a file that opening it will refuse
            return ""
    if scheme == "s3":
        url, mark, options = source.partition("?")
        return f"s3{url[2:].rpartition('/')[0]}/{mark}{options}"
    return ""


def resolve(written: str, folder: str, allowed: InputConfig = InputConfig()) -> str:
    """The canonical place of what a row says. Raises UsageError as cells raise `Wrong`."""
    try:
        place = _resolved(written, folder, allowed)
        return _allowed(place, allowed)
    except (ValueError, RuntimeError, OSError) as error:  # a URL that is none, a home of nobody
        raise UsageError("is neither a path nor a URL that can be understood") from error


def _resolved(written: str, folder: str, allowed: InputConfig) -> str:
    if said := half_a_url(written):
        raise UsageError(said)
    match scheme_of(written):
        case "":
            return _beside(written, folder)
        case "file":
            return os.path.normpath("/" / file_of(written))
        case "s3":
            return _s3_place(written, allowed.endpoint)
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


def _allowed(place: str, allowed: InputConfig) -> str:
    """`place`, with links followed where folders are configured; UsageError outside of what is."""
    scheme = scheme_of(place) or "file"
    if scheme not in allowed.schemes:
        raise UsageError(
            f"lies at a {scheme}:// place, which this configuration does not allow "
            "(inputs.schemes in vidplat.toml)"
        )
    bucket = place.removeprefix("s3://").partition("/")[0]
    if scheme == "s3" and allowed.buckets and bucket not in allowed.buckets:
        raise UsageError(
            "lies in a bucket that this configuration does not allow (inputs.buckets in "
            "vidplat.toml)"
        )
    if scheme == "file" and allowed.folders:
        place = os.path.realpath(place)
        roots = [os.path.realpath(Path(root).expanduser()) for root in allowed.folders]
        if not any(Path(place).is_relative_to(root) for root in roots):
            raise UsageError(
                "lies outside of the folders that this configuration allows (inputs.folders in "
                "vidplat.toml)"
            )
    return place


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
def opened(place: str, most_bytes: int | None = None) -> Iterator[BinaryIO]:
    """The bytes at a place as a seekable file; look at its size first. Raises as `look`, and when
    a server sends more than `most_bytes`."""
    if place.startswith("s3://"):
        from vidplat.storage.s3 import download

        with tempfile.TemporaryFile(prefix="vidplat-input-") as scratch:
            try:
                download(place, cast(BinaryIO, scratch), most_bytes)
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
    url, _, options = folder.partition("?")
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    key = posixpath.normpath(posixpath.join(prefix, written))
    if key.startswith(".."):
        raise UsageError("leads out of the prompt file's bucket")
    return _object_at(bucket, key, options)


def _s3_place(url: str, endpoint: str) -> str:
    bucket, _, key = url.partition("://")[2].partition("/")
    if "@" in bucket:
        raise UsageError(
            "holds credentials: leave them out, and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if "?" in url:
        raise UsageError(
            "has options: a row names bucket and key alone, since a signed URL is a secret and the "
            "server is for the configuration to choose (inputs.endpoint in vidplat.toml, or "
            "AWS_ENDPOINT_URL and AWS_REGION)"
        )
    if not key.strip("/") or not _BUCKET.fullmatch(bucket):
        raise UsageError("must look like s3://bucket/key")
    if {".", ".."} & set(key.split("/")):
        raise UsageError("has a . or .. in its key, which servers understand differently")
    return _object_at(bucket, key.strip("/"), f"endpoint={endpoint}" if endpoint else "")


def _object_at(bucket: str, key: str, options: str) -> str:
    """The place of an object; `options` are the user's or the configuration's, never a row's."""
    if "?" in key or "#" in key:
        raise UsageError("holds a '?' or '#', which cannot be part of an s3:// key here")
    return f"s3://{bucket}/{key}" + (f"?{options}" if options else "")


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
