"""A worker's second thread: it stores a finished video while the next one is being made.

    put      hands a video over; one may wait while another is being stored, a second one blocks
    storing  what the store refuses is offered again, for minutes: a video is dearer than a wait

A store that answers within a moment is waited for, so that who dies while making a video has no
other one in hand; a slower one is told of, and goes on beside the next video.

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

log = logging.getLogger(__name__)

_MOMENT_S = 0.01
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 15.0  # between two tries
_LOOK_S = 0.1  # whether anybody still wants it


@dataclass(frozen=True)
class Parcel:
    """A video on its way into the store."""

    commit: Callable[[], Artifact]
    report: Callable[[], None]  # that it is being stored, or still is
    is_unwanted: Callable[[], bool]  # then it is not offered again
    ended: Callable[[Artifact | Exception, float], None]  # with the seconds of the last try
    is_over: threading.Event = field(default_factory=threading.Event)


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
            parcel.report()

    def close(self) -> None:
        """Wait until all that was handed over has ended."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (parcel := self._waiting.get()) is not None:
            parcel.ended(*self._stored(parcel))
            parcel.is_over.set()

    def _stored(self, parcel: Parcel) -> tuple[Artifact | Exception, float]:
        give_up_at, wait_s = time.monotonic() + self._patience_s, _FIRST_WAIT_S
        while True:
            began = time.monotonic()
            try:
                artifact = parcel.commit()
                return artifact, time.monotonic() - began
            except Exception as error:  # the edge of a job: told by `ended`
                now = time.monotonic()
                may_pass = isinstance(error, StoreError) and error.retry_can_help
                if not may_pass or parcel.is_unwanted() or now + wait_s > give_up_at:
                    return error, now - began
                log.warning("a finished video is offered again in %.0f s: %s", wait_s, error)
            until = time.monotonic() + wait_s
            while time.monotonic() < until and not parcel.is_unwanted():
                time.sleep(_LOOK_S)
            parcel.report()
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
