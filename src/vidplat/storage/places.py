"""Which places for bytes there are, and whether one can be trusted.

    memory://name              this process only; the same name is the same store
    ./renders, file:///a/b     a folder (local.py)
    s3://bucket/prefix         S3 or anything that speaks it (s3.py); `?endpoint=http://host:port`
                               for others

boto3 is loaded when the first bucket is opened. A store whose conditional put does not work is
refused by `probe` before anything is generated.
"""

from __future__ import annotations

import re
import secrets
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from vidplat.config import in_home, is_plain
from vidplat.errors import StoreError, UsageError, printable
from vidplat.storage.local import LocalStore
from vidplat.storage.memory import MemoryStore
from vidplat.storage.stores import Store

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
# `s3:/bucket`, `s3:bucket`: a folder of that name would be taken for the bucket
_HALF_A_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(?!/)|(?i:(s3|file|memory|https?)):(?!//)")


def scheme_of(place: str) -> str:
    """`s3` of `S3://bucket/key`; "" of a path."""
    found = _SCHEME.match(place)
    return found[1].lower() if found else ""


def half_a_url(place: str) -> str:
    """What is wrong with a URL that lacks a slash, to be read on from its name; "" of any other."""
    found = _HALF_A_URL.match(place)
    if found is None:
        return ""
    scheme = (found[1] or found[2]).lower()
    slashes = "file:///" if scheme == "file" else f"{scheme}://"
    return f"looks like a URL but has too few slashes: write {slashes}..., or ./ before a path"


def file_of(url: str) -> Path:
    """The file or folder of a file:// URL. Raises UsageError with the rest of a sentence."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UsageError("is not a URL that can be understood") from error
    if parts.netloc.lower() not in ("", "localhost"):
        raise UsageError("names a host; a file URL has three slashes: file:///folder/name")
    if "?" in url or "#" in url:
        raise UsageError("holds a ? or #: write %3F or %23 in a file URL")
    path = unquote(parts.path)
    if "\0" in path:
        raise UsageError("holds a NUL")
    return Path(path)


def open_store(url: str) -> Store:
    """The store at `url`, unchecked: nothing is contacted or created before the first use (see
    `probe`). Raises UsageError for a URL that names no place."""
    if not url or not is_plain(url):
        raise UsageError(
            "the output prefix is empty or holds a control character: give a folder or a URL such "
            "as s3://bucket/prefix"
        )
    if said := half_a_url(url):
        raise UsageError(f"{printable(url)} {said}")
    match scheme_of(url):
        case "":
            return _folder(url)
        case "memory":
            return MemoryStore.named(url.partition("://")[2])
        case "file":
            try:
                return _folder(str(file_of(url)))
            except UsageError as error:
                raise UsageError(f"{printable(url)} {error}") from error
        case "s3":
            from vidplat.storage.s3 import S3Store

            return S3Store(url)
        case scheme:
            raise UsageError(
                f"no store is known for {printable(scheme, 20)}:// URLs: give a folder, file://, "
                f"s3:// or memory://, not {printable(url)}"
            )


def _folder(path: str) -> LocalStore:
    if not is_plain(path):  # what was percent-encoded, too
        raise UsageError(f"the output prefix {printable(path)} holds a control character")
    return LocalStore(in_home(path, "output"))


def probe(store: Store) -> None:
    """Check in four small requests that `store` can be written and that its conditional put holds.

    Raises StoreError: unreachable, wrong credentials, not writable, full, or a put that overwrites
    although it was told not to (some servers accept the condition silently; two workers could then
    both win a job).
    """
    key, checked = f"batches/.probe/{secrets.token_hex(8)}", store.impatient()
    first = checked.put_if_absent(key, b"first")
    try:
        second, kept = checked.put_if_absent(key, b"second"), checked.get(key)
    finally:
        with suppress(StoreError):
            checked.delete(key)
    if b"<html" in kept[:2000].lower():
        raise StoreError.lasting(
            f"{printable(store.url)} answers with web pages, not as a store: check the endpoint"
        )
    if not first or second or kept != b"first":
        raise StoreError.lasting(
            f"{printable(store.url)} does not honour conditional puts (If-None-Match: *): two "
            "workers could commit the same job. Use another store"
        )
