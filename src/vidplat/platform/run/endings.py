"""How attempts end: outcomes become rows, failures become decisions, unbegun orders go back.

All that ended since the last turn is written in one transaction. While the catalog cannot be
written, endings wait here, for up to two minutes; nothing is lost by that, since leases are long
and the store's COMMIT.json files outlast everything.

Whether and where to try again is decided by `scheduler.retry`, from the history that it gets here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import replace

from vidplat.domain import FailureKind, JobState, Outcome
from vidplat.errors import CatalogError
from vidplat.platform.run.hands import InHand
from vidplat.platform.run.score import Tally
from vidplat.platform.run.site import Site
from vidplat.platform.run.window import Window
from vidplat.scheduler import after, suspects
from vidplat.storage.catalog_words import AttemptRecord, GiveUp, Requeue

CATALOG_PATIENCE_S = 120.0  # how long a run goes on without being able to write
_REMEMBERED = 500  # endings, for telling a sick worker
# No sign that the worker is sick.
_BLAMELESS = (FailureKind.REQUEST, FailureKind.OUT_OF_MEMORY, FailureKind.METHOD)


class Endings:
    """Endings of one batch, on their way into the catalog."""

    def __init__(self, site: Site, batch_id: str, window: Window, tally: Tally) -> None:
        self._site, self._batch_id, self._window, self._tally = site, batch_id, window, tally
        self._unwritten: list[tuple[InHand, Outcome]] = []
        self._unbegun: dict[str, InHand] = {}
        self._refused_since: float | None = None
        self._recent: deque[tuple[str, str, bool]] = deque(maxlen=_REMEMBERED)
        #: Workers on which several different jobs failed.
        self.suspects: frozenset[str] = frozenset()

    def __len__(self) -> int:
        """Endings that the catalog does not know of yet."""
        return len(self._unwritten) + len(self._unbegun)

    def add(self, held: InHand, outcome: Outcome) -> None:
        self._unwritten.append((held, outcome))
        if outcome.failure is None or outcome.failure.kind not in _BLAMELESS:
            self._recent.append((outcome.worker_id, outcome.job_id, outcome.ok))
        if not outcome.ok:
            self.suspects = suspects(self._recent)

    def give_back(self, unbegun: Iterable[InHand]) -> None:
        """Orders that never began return to the queue without blame."""
        self._unbegun |= {held.order.job.id: held for held in unbegun}

    def write(self) -> None:
        """Put what ended into the catalog. Raises CatalogError after minutes of refusals."""
        try:
            if self._unwritten:
                self._write_outcomes()
            if self._unbegun:
                self._write_unbegun()
        except CatalogError as error:
            self.excuse(error)
        else:
            self._refused_since = None

    def excuse(self, error: CatalogError) -> None:
        """A refusal of the catalog: tell it and go on, but not for ever."""
        now = self._site.clock()
        self._refused_since = now if self._refused_since is None else self._refused_since
        if now - self._refused_since > CATALOG_PATIENCE_S:
            raise error
        self._site.listener.warn(f"{error}; trying again")

    def _write_outcomes(self) -> None:
        outcomes = [outcome for _, outcome in self._unwritten]
        self._site.crash_point("before-finish")
        decisions = {o.job_id: self._decide(held, o) for held, o in self._unwritten if not o.ok}
        changed = self._site.catalog.finish(self._batch_id, outcomes, decisions)
        for outcome in outcomes:
            if outcome.artifact is not None and outcome.job_id not in changed:
                # Cancelled, or another attempt was under way: the store decides.
                self._site.catalog.mark_done(
                    self._batch_id,
                    outcome.job_id,
                    outcome.artifact,
                    outcome.finished_at,
                    started_at=outcome.started_at,
                    point=outcome.point,
                    phases=outcome.phases,
                    metrics=outcome.metrics,
                )
        self._site.crash_point("after-finish")
        for held, outcome in self._unwritten:
            if outcome.ok or outcome.job_id in changed:  # else cancelled meanwhile: of no interest
                self._settle(held, outcome, decisions.get(outcome.job_id))
        self._unwritten.clear()

    def _write_unbegun(self) -> None:
        released = self._site.catalog.release(
            self._batch_id, self._site.owner, now=self._site.clock(), job_ids=list(self._unbegun)
        )
        for job_id in released:
            held = self._unbegun[job_id]
            self._window.put(replace(held.open_job, attempt=held.order.attempt))
        self._unbegun.clear()

    def _decide(self, held: InHand, outcome: Outcome) -> Requeue | GiveUp:
        assert outcome.failure is not None, "an outcome has an artifact or a failure"
        before = self._site.catalog.attempts(self._batch_id, outcome.job_id)
        again = after(
            outcome.failure.kind,
            held.open_job,
            outcome.worker_id,
            attempt=sum(map(_counts, before)) + 1,
            max_attempts=self._site.config.run.max_attempts,
            now=self._site.clock(),
        )
        if isinstance(again, JobState):
            return GiveUp(again)
        return Requeue(again.not_before, again.avoid, again.rung_down)

    def _settle(self, held: InHand, outcome: Outcome, decision: Requeue | GiveUp | None) -> None:
        self._tally.ended(held.order, outcome)
        self._site.listener.outcome(outcome)
        if isinstance(decision, Requeue):
            # A Requeue has just those fields of an open job that a failure changes.
            again = replace(held.open_job, attempt=held.order.attempt, **vars(decision))
            self._window.put(again)


def _counts(attempt: AttemptRecord) -> bool:
    """Whether it counts towards the limit; that a method was refused is the plan's business."""
    is_refusal = attempt.failure is not None and attempt.failure.kind is FailureKind.METHOD
    return attempt.counts and not is_refusal
