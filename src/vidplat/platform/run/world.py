"""World: everything that lives between two turns of one batch's loop.

It holds and tells; what happens to it is said elsewhere:

    window      the queued jobs that are planned one by one
    hands       what each worker holds, and when it will be through
    following   the plan being followed: what is due, and when
    plan_age    whether that plan has been overtaken
    endings     what ended, on its way into the catalog
    learning    what that teaches about seconds
    hand_over   who finishes a draft, and on whom plans may count for it

One World serves one batch, in one thread.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping

from vidplat.domain import Batch, OnInfeasible, OpenJob, Progress, WorkerState
from vidplat.errors import CatalogError
from vidplat.platform.dispatch.dispatcher import Absence, Dispatcher, Seat
from vidplat.platform.run.endings import Endings
from vidplat.platform.run.following import Following, Standing
from vidplat.platform.run.hand_over import HandOver
from vidplat.platform.run.hands import Hands
from vidplat.platform.run.learning import Learner
from vidplat.platform.run.plan_age import PlanAge
from vidplat.platform.run.score import Tally
from vidplat.platform.run.site import Site
from vidplat.platform.run.window import Window
from vidplat.scheduler.decision import Plan, Policy
from vidplat.storage.catalog_words import BatchState

PROBED_AFTER = 3  # losses in a row


class World:
    def __init__(
        self,
        site: Site,
        batch: Batch,
        dispatcher: Dispatcher,
        learner: Learner,
        tally: Tally,
        passed_at: float = 0.0,
    ) -> None:
        """Deadlines before `passed_at` shape no plan: they had passed when the run began."""
        self.site, self.batch, self.dispatcher = site, batch, dispatcher
        self.learner, self.tally, self.listener = learner, tally, site.listener
        self.config = site.config.run
        # What is admitted is finished, late if it must be: no promise is taken back for another.
        self.policy = Policy(OnInfeasible.BEST_EFFORT, batch.quality_floor)
        self.hands = Hands()
        self.window = Window(site.catalog, batch.id, self.config.window, learner.know, passed_at)
        self.endings = Endings(site, batch.id, self.window, tally)
        self.hand_over = HandOver(dispatcher.seats, self.hands, learner, batch.model.id)
        self.following = Following()
        self.plan_age = PlanAge()
        self.state = BatchState.OPEN  # of the batch, as the catalog last told it
        self.draining = False
        self.stuck: str | None = None  # why the rest cannot be placed
        self.untidy = False  # attempts may have left files behind
        self.last_loss = ""  # why the last lost worker was lost
        self.killers: set[str] = set()  # jobs with which a worker was lost
        self.losses = 0  # of workers, in a row, that no known killer explains
        self.watched_s = 0.0  # for how long workers have been listened to, at least
        self.asked_at: dict[str, float] = {}  # worker id -> when it was asked to come
        self.device_classes: dict[str, str] = {}  # of every worker that was ever there
        self.fresh: dict[str, Progress] = {}  # heartbeats not yet in the catalog
        self._told_absent: set[tuple[str, str]] = set()
        self.beat_at = self.renewed_at = -math.inf
        self.in_doubt: set[str] = set()  # jobs whose claim was not answered
        self.untold: Plan | None = None  # the plan that is followed, until the catalog has its end

    def now(self) -> float:
        return self.site.clock()

    def note_device_classes(self) -> None:
        """Before anything is heard: what a worker made may be heard of when it is gone."""
        for seat in self.dispatcher.seats():
            self.device_classes[seat.worker_id] = seat.device_class

    def makers(self) -> list[Seat]:
        """Seats whose workers have a model; only these are planned for. Those that wait for a place
        are not counted on while another has one."""
        makers = [seat for seat in self.dispatcher.seats() if not seat.light]
        return [seat for seat in makers if seat.has_place] or makers

    def offered(self) -> tuple[OpenJob, ...]:
        """The queued jobs that may begin now. One that a worker was lost with is tried again once
        something was made, which shows that workers can work, and while no other such is in hand,
        so that it holds up one of them. When nothing but losses was heard of lately, jobs from all
        over the queue are tried before those next in line."""
        waiting = list(self.window.jobs.values())
        if not self.killers:
            return tuple(waiting)
        sound = [each for each in waiting if each.job.id not in self.killers]
        if sound and self.losses >= PROBED_AFTER:
            few = max(1, len(self.makers()))
            return tuple(sorted(sound, key=lambda each: _scattered(each.job.id))[:few])
        if (sound and self.losses) or any(h.order.job.id in self.killers for h in self.hands):
            return tuple(sound)
        first = next((each for each in waiting if each.job.id in self.killers), None)
        return tuple(each for each in waiting if each is first or each.job.id not in self.killers)

    def tell_absent(self, absent: Mapping[str, Absence]) -> None:
        """Say why workers have no place yet, once for each reason."""
        for pool, why in {(each.pool, each.why) for each in absent.values()} - self._told_absent:
            self._told_absent.add((pool, why))
            self.listener.phase(f"waiting for workers of pool {pool}: {why}")

    def standing(self) -> Standing:
        seats, waiting = self.dispatcher.seats(), self.window.jobs
        ahead_s = self.config.look_ahead_s
        return Standing(self.now(), seats, self.hands, waiting, self.learner, ahead_s)

    def worker_states(self, seats: Iterable[Seat], now: float) -> tuple[WorkerState, ...]:
        model_id = self.batch.model.id
        return tuple(
            seat.state(
                (now if seat.up else self.learner.expected_up(model_id, seat, now))
                + self.hands.remaining_s(seat.worker_id, now),
                speed=self.learner.speed(seat.worker_id),
                running=self.hands.running(seat.worker_id),
                suspect=seat.worker_id in self.endings.suspects,
            )
            for seat in seats
        )

    @property
    def deadlines_ahead(self) -> bool:
        return self.batch.deadline_at is not None or self.window.has_deadlines

    def give_back_doubtful(self) -> None:
        """Jobs that a claim may have begun without our hearing of it are queued again."""
        if self.in_doubt:
            batch_id, owner = self.batch.id, self.site.owner
            self.site.catalog.release(batch_id, owner, now=self.now(), job_ids=self.in_doubt)
            self.in_doubt.clear()

    def read_window(self) -> bool:
        """Read the window from the catalog: at the start, and when others may have changed it.
        False: it refuses for now."""
        try:
            self.give_back_doubtful()
            if self.window.read():
                self.plan_age.call(urgent=True)
        except CatalogError as error:
            self.endings.excuse(error)
            return False
        return True


def _scattered(job_id: str) -> bytes:
    """An order that has nothing to do with the file's: rows that kill often stand together."""
    return hashlib.sha256(job_id.encode()).digest()
