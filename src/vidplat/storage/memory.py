"""A store in this process's memory: for tests, dry runs and as the plainest reading of the
protocol.

Named stores live as long as the process; `MemoryStore()` without a name is private to its holder.
Not promised: anything across processes; a Ray worker that opens memory://x sees its own.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Collection, Iterator

from vidplat.errors import StoreError, printable
from vidplat.storage.stores import NotFound, ObjectFacts, checked_key


class MemoryStore:
    """Bytes in a dictionary behind a lock."""

    _named: dict[str, MemoryStore] = {}  # noqa: RUF012 - shared on purpose: a name is one store per process
    _naming = threading.Lock()

    def __init__(self, name: str = "") -> None:
        self._name = name
        self._objects: dict[str, tuple[bytes, float]] = {}
        self._lock = threading.Lock()

    @classmethod
    def named(cls, name: str) -> MemoryStore:
        """The one store of that name in this process."""
        with cls._naming:
            return cls._named.setdefault(name, cls(name))

    @classmethod
    def at_uri(cls, uri: str) -> bytes:
        """The object that a store of this process calls `uri`; NotFound when none does."""
        whole = uri.partition("://")[2]
        with cls._naming:
            stores = list(cls._named.values())
        for store in stores:
            if whole.startswith(f"{store._name}/"):
                try:
                    return store.get(whole.removeprefix(f"{store._name}/"))
                except StoreError:
                    continue  # a longer or shorter name may be meant, or it is no key at all
        raise NotFound(f"{printable(uri)} does not exist")

    @property
    def url(self) -> str:
        return f"memory://{self._name}"

    def put(self, key: str, data: bytes, *, content_type: str = "application/octet-stream") -> None:
        with self._lock:
            self._objects[checked_key(key)] = (bytes(data), time.time())

    def put_if_absent(self, key: str, data: bytes) -> bool:
        with self._lock:
            if checked_key(key) in self._objects:
                return False
            self._objects[key] = (bytes(data), time.time())
            return True

    def get(self, key: str) -> bytes:
        return self._object(key)[0]

    def facts(self, key: str, *, digest: bool = True) -> ObjectFacts | None:
        try:
            data, written_at = self._object(key)
        except NotFound:
            return None
        return ObjectFacts(
            len(data), hashlib.sha256(data).hexdigest() if digest else None, written_at
        )

    def sizes(self, keys: Collection[str]) -> dict[str, int]:
        with self._lock:
            return {key: len(self._objects[key][0]) for key in keys if key in self._objects}

    def move(self, source: str, target: str) -> None:
        self.put(target, self.get(source))
        self.delete(source)

    def delete(self, key: str) -> None:
        with self._lock:
            self._objects.pop(checked_key(key), None)

    def list(self, prefix: str = "") -> Iterator[str]:
        below = f"{checked_key(prefix)}/" if prefix else ""
        with self._lock:
            keys = [key for key in self._objects if key.startswith(below)]
        return iter(keys)

    def uri(self, key: str) -> str:
        return f"{self.url}/{checked_key(key)}"

    def impatient(self) -> MemoryStore:
        return self

    def sweep_unfinished(self, prefix: str, older_than_s: float) -> int:
        return 0

    def _object(self, key: str) -> tuple[bytes, float]:
        with self._lock:
            found = self._objects.get(checked_key(key))
        if found is None:
            raise NotFound(f"{printable(self.uri(key))} does not exist")
        return found
