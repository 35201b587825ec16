"""Ctrl-C, SIGTERM: the first drains the run (what runs ends, nothing starts), the second aborts.
While a run lets go of its workers and its claims no signal breaks that off: it is over soon.

Signals reach a program's main thread only; elsewhere (tests, servers) this does nothing.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


class Interrupts:
    """Read `draining` between turns; the second signal raises KeyboardInterrupt."""

    def __init__(self, on_first: Callable[[], None] = lambda: None) -> None:
        self.draining = False
        self.leaving = False
        self._on_first = on_first
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                found = signal.signal(number, self._hear)
                if found is not None:
                    self._before[number] = found
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.leaving:
            return
        if self.draining:
            raise KeyboardInterrupt
        self.draining = True
        self._on_first()
