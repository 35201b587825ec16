"""What a place for bytes must do, which places there are, and how to tell whether one can be
trusted.

A `Store` is a flat map from keys to bytes under one prefix: a folder, a bucket, or memory. The word
that matters is `put_if_absent`: it is the commit point of every video (artifacts.py), so a store
whose conditional put does not work is refused by `probe` before anything is generated.

Keys are ours, never a user's: segments of `[A-Za-z0-9._-]` joined by `/`. No key can leave the
prefix.

    memory://name              this process only; the same name is the same store
    ./renders, file:///a/b     a folder (local.py)
    s3://bucket/prefix         S3 or anything that speaks it (s3.py); `?endpoint=http://host:port`
                               for others

Left to others: the order in which a video's keys are written (artifacts.py).
Not promised: listing order, or that two stores with different prefixes do not overlap.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from vidplat.errors import StoreError, UsageError, printable

#: Names of half-written files of the local store; such a name is never a key.
PARTIAL = ".partial-"

_SEGMENT = re.compile(r"[A-Za-z0-9._-]{1,128}")
_LONGEST_KEY = 800  # S3 allows 1024 bytes for prefix and key together


class NotFound(StoreError):
    """No object has this key. A retry cannot help."""

    retry_can_help = False


@dataclass(frozen=True)
class ObjectFacts:
    """What a store knows of one object."""

    size_bytes: int
    sha256: str | None  # of the content; None: not asked for, or written by someone who did not say
    modified_at: float  # by the store's own clock


class Store(Protocol):
    """Bytes under keys. Every method raises StoreError when the place itself fails, never anything
    else."""

    @property
    def url(self) -> str:
        """What `open_store` needs to open the same store again; holds no secret."""

    def put(self, key: str, data: bytes, *, content_type: str = "application/octet-stream") -> None:
        """Write or overwrite. Readers see the old object or all of the new one."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write unless the key exists: True for exactly one of all who ever try, until it is
        deleted."""

    def get(self, key: str) -> bytes:
        """All bytes of one object; NotFound when there is none."""

    def facts(self, key: str, *, digest: bool = True) -> ObjectFacts | None:
        """Size, age and, with `digest`, the SHA-256; None when there is no such object."""

    def copy(self, source: str, target: str) -> None:
        """Make `target` equal to `source`, atomically; NotFound when there is no source."""

    def move(self, source: str, target: str) -> None:
        """`copy` and delete the source; where the place can, in one step."""

    def delete(self, key: str) -> None:
        """Remove one object; nothing happens when there is none."""

    def list(self, prefix: str = "") -> Iterator[str]:
        """Keys below a folder (all keys for the empty one), in any order."""

    def uri(self, key: str) -> str:
        """Where a person finds this object: a path, or s3://bucket/key."""

    def impatient(self) -> Store:
        """The same store, giving up within seconds where it would otherwise retry for long: for
        checks."""

    def sweep_unfinished(self, prefix: str, older_than_s: float) -> int:
        """Remove what dead writers left invisibly below a folder (half-written files, parts); how
        many."""


def checked_key(key: str) -> str:
    """`key` itself when every segment is on the allow-list; StoreError otherwise."""
    segments = key.split("/")
    sound = len(key) <= _LONGEST_KEY and all(
        _SEGMENT.fullmatch(part) and part not in (".", "..") and not part.startswith(PARTIAL)
        for part in segments
    )
    if not sound:
        raise StoreError(
            f"object key '{printable(key, 80)}' is not made of names in [A-Za-z0-9._-] joined "
            "by '/'"
        )
    return key


def open_store(url: str) -> Store:
    """The store at `url`, unchecked: nothing is contacted or created before the first use (see
    `probe`)."""
    if not url or "\0" in url:
        raise UsageError(
            "the output prefix is empty or holds a NUL: give a folder or a URL such as "
            "s3://bucket/prefix"
        )
    scheme, found, _ = url.partition("://")
    if not found or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        return _folder(Path(url))
    match scheme.lower():
        case "memory":
            from vidplat.storage.memory import MemoryStore

            return MemoryStore.named(url.partition("://")[2])
        case "file":
            parts = urlsplit(url)
            if parts.netloc not in ("", "localhost"):
                raise UsageError(
                    f"{printable(url)} names a host; a file URL has three slashes: file:///folder"
                )
            return _folder(Path(unquote(parts.path)))
        case "s3":
            from vidplat.storage.s3 import S3Store

            return S3Store.at(url)
    raise UsageError(
        f"no store is known for {printable(scheme, 20)}:// URLs: give a folder, file://, s3:// "
        "or memory://, "
        f"not {printable(url)}"
    )


def _folder(path: Path) -> Store:
    from vidplat.storage.local import LocalStore

    return LocalStore(path)


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
    if not first or second or kept != b"first":
        raise StoreError(
            f"{printable(store.url)} does not honour conditional puts (If-None-Match: *): two "
            "workers could commit "
            "the same job. Use another store"
        )
