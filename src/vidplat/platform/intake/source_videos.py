"""Input videos between the row that names one and the job that is made of it: looked at, then kept.

`look` is what intake asks: where is it (storage), what is it (workers), which bytes (SHA-256). It
answers from memory for a place it has seen, and for another place with the same identity (a link, a
copy of an object), so a thousand rows with one source decode it once. Different videos are looked
at a few at a time; only facts stay in memory.

`keep` copies the sources of an accepted input into the output prefix, before any job is enqueued,
so that a job in the catalog always finds its source there. It reads them a second time, as nothing
is stored while rows are being checked.

`too_short` and `conversions` tell what a spec makes of a source.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial, wraps
from typing import BinaryIO, ParamSpec, TypeVar

from vidplat.config import InputConfig
from vidplat.domain import VideoSpec
from vidplat.errors import InputError, UsageError, printable
from vidplat.storage.input_places import look, opened
from vidplat.storage.inputs import is_kept, keep_input
from vidplat.storage.stores import Store

_Asked = ParamSpec("_Asked")
_Answer = TypeVar("_Answer")
_AT_ONCE = 4  # hashing, decoding and waiting for a bucket leave Python's lock
_COPIES_AT_ONCE = 2  # each holds a whole file in memory
_REMEMBERED = 100_000  # places: beyond it what was seen is forgotten rather than memory filled


@dataclass(frozen=True)
class Source:
    """An input video that can be used."""

    sha256: str
    width: int  # as shown
    height: int
    seconds: float
    notes: tuple[str, ...] = ()  # what will be converted; read on from "with"


class SourceVideos:
    """Knowledge of input videos for one intake. Used by one thread."""

    def __init__(
        self, limits: InputConfig, on_look: Callable[[int], None] = lambda count: None
    ) -> None:
        self._limits, self._on_look = limits, on_look
        self._by_place: dict[str, Source | str] = {}
        self._by_identity: dict[str, Source | str] = {}

    def look(self, places: Sequence[str]) -> Mapping[str, Source | str]:
        """For each place the source, or why it cannot be used; `on_look` hears how many are new.
        Raises StoreError when a bucket cannot be reached: that is nobody's row."""
        if len(self._by_place) > _REMEMBERED:
            self._by_place.clear()
            self._by_identity.clear()
        new = [place for place in places if place not in self._by_place]
        if new:
            self._on_look(len(new))
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = dict(zip(new, pool.map(or_why(look), new), strict=True))
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


def keep(store: Store, inputs: Mapping[str, str], most_bytes: int | None = None) -> int:
    """Copy input videos (SHA-256 -> place) into the store; returns how many were not there yet.
    Raises InputError when one is no longer what it was when it was looked at."""
    with ThreadPoolExecutor(_COPIES_AT_ONCE) as pool:
        return sum(pool.map(partial(_kept, store, most_bytes), inputs.items()))


def too_short(source: Source, spec: VideoSpec) -> str:
    """What is wrong with a source that ends before the last frame asked for; "": nothing."""
    needed_s = (spec.num_frames - 1) / spec.fps
    if needed_s <= source.seconds + 1 / spec.fps:
        return ""
    fits = int(source.seconds * spec.fps) + 1
    return (
        f"lasts {source.seconds:.2f} s, {needed_s:.2f} s are needed for {spec.num_frames} "
        f"frames at {spec.fps} fps: "
        f"ask for at most {fits} frames, or give a longer one"
    )


def conversions(source: Source, spec: VideoSpec) -> list[str]:
    """What this spec makes of a source that has another length or shape."""
    found = []
    if source.seconds > spec.num_frames / spec.fps + 0.5:
        found.append("more seconds than are asked for: its beginning is used")
    if abs(source.width * spec.height / (source.height * spec.width) - 1) > 0.02:
        found.append("another shape than is asked for: its middle is used")
    return found


def or_why(ask: Callable[_Asked, _Answer]) -> Callable[_Asked, _Answer | str]:
    """`ask`, with an answer for what cannot be had: the sentence why not."""

    @wraps(ask)
    def told(*given: _Asked.args, **named: _Asked.kwargs) -> _Answer | str:
        try:
            return ask(*given, **named)
        except UsageError as error:
            return str(error)

    return told


def _checked(place: str, limits: InputConfig) -> Source | str:
    from vidplat.workers.source_video import look_at

    try:
        size_bytes = look(place).size_bytes
        if size_bytes > limits.max_bytes:
            most = f"at most {_mib(limits.max_bytes)} are taken: cut it (inputs.max_bytes)"
            return f"has {_mib(size_bytes)}, {most}"
        with opened(place, limits.max_bytes) as file:
            facts = look_at(file, limits)
            file.seek(0)
            sha256 = _sha256(file)
    except (UsageError, InputError) as error:
        return str(error)
    return Source(sha256, facts.width, facts.height, facts.seconds, facts.notes)


def _kept(store: Store, most_bytes: int | None, one: tuple[str, str]) -> bool:
    sha256, place = one
    if is_kept(store, sha256):
        return False
    try:
        with opened(place, most_bytes) as file:
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
