"""Input videos between the row that names one and the job that is made of it: looked at, then kept.

`look` is what intake asks: where is it (storage), what is it (workers), which bytes (SHA-256). It
answers from memory for a place it has seen, and for another place with the same identity (a link, a
copy of an object), so a thousand rows with one source decode it once. Different videos are looked
at a few at a time; only facts stay in memory.

`keep` copies the sources of an accepted input into the output prefix, before any job is enqueued,
so that a job in the catalog always finds its source there. It reads them a second time, as nothing
is stored while rows are being checked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import BinaryIO

from vidplat.config import InputConfig
from vidplat.errors import InputError, UsageError, printable
from vidplat.platform.intake.edits import Source
from vidplat.storage.input_places import Found, look, opened
from vidplat.storage.inputs import is_kept, keep_input
from vidplat.storage.stores import Store

_AT_ONCE = 4  # hashing, decoding and waiting for a bucket leave Python's lock
_COPIES_AT_ONCE = 2  # each holds a whole file in memory
_REMEMBERED = 100_000  # places: beyond it what was seen is forgotten rather than memory filled


class SourceVideos:
    """Knowledge of input videos for one intake. Used by one thread."""

    def __init__(
        self, limits: InputConfig, on_look: Callable[[int], None] = lambda count: None
    ) -> None:
        self._limits, self._on_look = limits, on_look
        self._by_place: dict[str, Source | str] = {}
        self._by_identity: dict[str, Source | str] = {}

    def look(self, places: Sequence[str]) -> Mapping[str, Source | str]:
        """For each place the source, or the sentence why it cannot be used; `on_look` hears how
        many are new.

        Raises StoreError when a bucket cannot be reached: that is nobody's row.
        """
        if len(self._by_place) > _REMEMBERED:
            self._by_place.clear()
            self._by_identity.clear()
        new = [place for place in places if place not in self._by_place]
        if new:
            self._on_look(len(new))
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = dict(zip(new, pool.map(_found, new), strict=True))
            unseen: dict[str, str] = {}  # identity -> one place that has it
            for place, there in found.items():
                if not isinstance(there, str) and there.identity not in self._by_identity:
                    unseen.setdefault(there.identity, place)
            checked = pool.map(partial(_checked, limits=self._limits), unseen.values())
            self._by_identity.update(zip(unseen, checked, strict=True))
        for place, there in found.items():
            self._by_place[place] = (
                there if isinstance(there, str) else self._by_identity[there.identity]
            )
        return {place: self._by_place[place] for place in places}


def keep(store: Store, inputs: Mapping[str, str]) -> int:
    """Copy each input video (SHA-256 -> place) into the store unless it is there; returns how many
    were copied.

    Raises InputError when one is no longer what it was when it was looked at.
    """
    with ThreadPoolExecutor(_COPIES_AT_ONCE) as pool:
        return sum(pool.map(partial(_kept, store), inputs.items()))


def _found(place: str) -> Found | str:
    try:
        return look(place)
    except UsageError as error:
        return str(error)


def _checked(place: str, limits: InputConfig) -> Source | str:
    from vidplat.workers.source_video import look_at

    try:
        size_bytes = look(place).size_bytes
        if size_bytes > limits.max_bytes:
            return (
                f"has {_mib(size_bytes)}, at most {_mib(limits.max_bytes)} are taken: cut "
                "it "
                "(inputs.max_bytes)"
            )
        with opened(place) as file:
            facts = look_at(file, limits)
            file.seek(0)
            sha256 = _sha256(file)
    except (UsageError, InputError) as error:
        return str(error)
    return Source(sha256, facts.width, facts.height, facts.seconds, facts.notes)


def _kept(store: Store, one: tuple[str, str]) -> bool:
    sha256, place = one
    if is_kept(store, sha256):
        return False
    try:
        with opened(place) as file:
            keep_input(store, sha256, file.read())
    except (UsageError, InputError) as error:
        raise InputError(f"the input video {printable(place.partition('?')[0])} {error}") from error
    return True


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while part := file.read(1 << 20):
        digest.update(part)
    return digest.hexdigest()


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:,.0f} MiB"
