"""A worker's second thread: it compresses and stores a video while the next one is being made.

    put      hands a video over; one may wait while another is being stored, a second one blocks
    storing  what the store refuses is offered again, for minutes: a video is dearer than a wait

What is over within a moment is waited for, so that who dies while making a video has no other one
in hand; what takes longer is told of, and goes on beside the next video.

Left to others: the commit itself (`storage.artifacts`; the same token at each try), and what an end
means. Not promised: that videos whose process ends are stored.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import Queue

from vidplat.domain import Artifact
from vidplat.errors import StoreError
from vidplat.stages import MP4, STORE
from vidplat.workers.draft import Raw, Rendered

log = logging.getLogger(__name__)

_MOMENT_S = 0.01
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 15.0  # between two tries
_LOOK_S = 0.1  # whether anybody still wants it


@dataclass
class Parcel:
    """A video on its way into the store."""

    made: Rendered | Raw
    commit: Callable[[Rendered], Artifact]
    report: Callable[[str], None]  # its phase, or that it is still in it
    is_unwanted: Callable[[], bool]  # then it is not offered again
    ended: Callable[[Parcel, Artifact | Exception], None]
    store_s: float = 0.0  # of the last try
    is_over: threading.Event = field(default_factory=threading.Event)

    @property
    def phase(self) -> str:
        return MP4 if isinstance(self.made, Raw) else STORE


class Storer:
    """Stores what one maker hands over, in that order."""

    def __init__(self, name: str, patience_s: float) -> None:
        self._patience_s = patience_s
        self._waiting: Queue[Parcel | None] = Queue(1)
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def put(self, parcel: Parcel) -> None:
        self._waiting.put(parcel)
        if not parcel.is_over.wait(_MOMENT_S):
            parcel.report(parcel.phase)

    def close(self) -> None:
        """Wait until all that was handed over has ended."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (parcel := self._waiting.get()) is not None:
            try:
                came: Artifact | Exception = self._stored(parcel)
            except Exception as error:  # the edge of a job: it must never take the worker down
                came = error
            parcel.ended(parcel, came)
            parcel.is_over.set()

    def _stored(self, parcel: Parcel) -> Artifact:
        if isinstance(parcel.made, Raw):
            parcel.made = parcel.made.compressed()
            parcel.report(parcel.phase)
        give_up_at, wait_s = time.monotonic() + self._patience_s, _FIRST_WAIT_S
        while True:
            began = time.monotonic()
            try:
                artifact = parcel.commit(parcel.made)
                parcel.store_s = time.monotonic() - began
                return artifact
            except StoreError as error:
                is_late = time.monotonic() + wait_s > give_up_at
                if not error.retry_can_help or parcel.is_unwanted() or is_late:
                    raise
                log.warning("a finished video is offered again in %.0f s: %s", wait_s, error)
            until = time.monotonic() + wait_s
            while time.monotonic() < until and not parcel.is_unwanted():
                time.sleep(_LOOK_S)
            parcel.report(parcel.phase)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
