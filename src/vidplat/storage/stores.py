"""What a place for bytes must do, and what it may be asked for.

A `Store` is a flat map from keys to bytes under one prefix: a folder (local.py), a bucket (s3.py),
or memory (memory.py). The word that matters is `put_if_absent`: it is the commit point of every
video (artifacts.py).

Keys are ours, never a user's: segments of `[A-Za-z0-9._-]` joined by `/`. No key can leave the
prefix. The prefix is the user's, as free as the place allows.

Not promised: listing order, or that two stores with different prefixes do not overlap.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Protocol

from vidplat.errors import StoreError, UsageError, printable

#: Names of half-written files of the local store; such a name is never a key.
PARTIAL = ".partial-"

_SEGMENT = re.compile(r"[A-Za-z0-9._-]{1,128}")
_LONGEST_KEY = 800  # S3 allows 1024 bytes for prefix and key together
_LONGEST_PREFIX = 600  # leaves room for our longest key, of an input video


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
    """Bytes under keys. Every method raises StoreError when the place fails, nothing else."""

    @property
    def url(self) -> str:
        """What `open_store` needs to open the same store again; holds no secret."""

    def put(self, key: str, data: bytes, *, content_type: str = "application/octet-stream") -> None:
        """Write or overwrite; the store has all of it then, checked by its digest where bytes
        travel. Readers see the old object or all of the new one."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write unless the key exists: True for exactly one of all who ever try."""

    def get(self, key: str) -> bytes:
        """All bytes of one object; NotFound when there is none."""

    def facts(self, key: str, *, digest: bool = True) -> ObjectFacts | None:
        """Size, age and, with `digest`, the SHA-256; None when there is no such object."""

    def sizes(self, keys: Collection[str]) -> dict[str, int]:
        """Bytes of each of these objects that there is, in as few requests as can be."""

    def move(self, source: str, target: str) -> None:
        """Make `target` equal to `source`, atomically, and delete the source; NotFound when there
        is none."""

    def delete(self, key: str) -> None:
        """Remove one object; nothing happens when there is none."""

    def list(self, prefix: str = "") -> Iterator[str]:
        """Keys below a folder (all keys for the empty one), in any order."""

    def uri(self, key: str) -> str:
        """Where a person finds this object: a path, or s3://bucket/key."""

    def impatient(self) -> Store:
        """The same store, giving up within seconds: for checks."""

    def sweep_unfinished(self, prefix: str, older_than_s: float) -> int:
        """Remove what dead writers left invisibly below a folder; how many."""


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


def checked_prefix(prefix: str) -> str:
    """A user's prefix in a bucket, if every client of S3 finds it again; UsageError otherwise."""
    if any(segment in ("", ".", "..") for segment in prefix.split("/")):
        raise UsageError(f"the output prefix {printable(prefix)!r} holds a '//', '.' or '..'")
    if len(prefix.encode()) > _LONGEST_PREFIX:
        raise UsageError(
            f"the output prefix is {len(prefix.encode())} bytes long, at most {_LONGEST_PREFIX} "
            "leave room for the names below it"
        )
    return prefix
