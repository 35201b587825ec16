"""When the plan that is being followed has been overtaken by events, and it is time for the next.

Planning two thousand jobs takes a tenth of a second: too long to do it after every job. So there
are three speeds:

    at once     a worker came or went, a job failed, the queue was read: the plan names wrong things
    soon        a worker has nothing left to do: once planning takes a third of the time at most
    by and by   a job took other than predicted: once planning stays under 5 % of the time
"""

from __future__ import annotations

import math

_PLAN_SHARE = 0.05  # of the time that planning may take when nothing urgent asks for it
_OLDEST_S = 10.0  # with a deadline ahead, a plan is never older
_LEAST_PAUSE_S = 0.25


class PlanAge:
    """Remembers whether the plan is stale and when the last one was made. Seconds of one clock."""

    def __init__(self) -> None:
        self._is_stale = self._is_urgent = True
        self._made_at, self._took_s = -math.inf, 0.0

    def call(self, *, urgent: bool = False) -> None:
        """Something happened that the plan did not foresee."""
        self._is_stale, self._is_urgent = True, self._is_urgent or urgent

    def made(self, at: float, took_s: float) -> None:
        self._is_stale = self._is_urgent = False
        self._made_at, self._took_s = at, took_s

    def is_due(self, now: float, *, idle: bool, deadlines: bool) -> bool:
        """`idle`: a worker could take a job that waits. `deadlines`: some lie ahead."""
        since = now - self._made_at
        if self._is_urgent and since > 2 * self._took_s:
            return True
        if idle and since > max(0.02, 2 * self._took_s):
            return True
        if deadlines and since > _OLDEST_S:
            return True
        return self._is_stale and since > max(_LEAST_PAUSE_S, self._took_s / _PLAN_SHARE)
