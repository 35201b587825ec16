"""Handing videos over: who would be through with a draft first, what to expect of light workers.

Plans count on light workers (`scheduler.relay`), by their speed, their link as it was last seen,
and what they have in hand or is on its way to them: `finishers` says so. One that is still starting
counts from when nine in ten are up, and no longer once that has passed. Which of them finishes a
video, or whether its maker does after all, is decided when the draft is there, by what is then
known: `finisher`. It may name a worker that is not up yet. A maker that stores more slowly than a
light worker is taken to store over the link that drafts travel on, and so after those on their way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from vidplat.platform.dispatch.dispatcher import HandedOver, Seat
from vidplat.platform.run.hands import Hands, InHand, in_making
from vidplat.platform.run.learning import Learner
from vidplat.scheduler.decision import Finisher
from vidplat.stages import NETWORK, STORE


@dataclass(frozen=True)
class HandOver:
    """Asks who there is, what they hold and how long things take; changes nothing."""

    seats: Callable[[], Sequence[Seat]]
    hands: Hands
    learner: Learner
    model_id: str  # of the batch: what workers load while they start

    def finisher(
        self, held: InHand, drafted: HandedOver, now: float, planned_s: float
    ) -> tuple[str, Mapping[str, float]] | None:
        """The worker that will be through with a draft first, with its seconds by stage: a light
        one, which may be on its way up while the maker is there to fall back on, or its maker,
        whose queue it joins, behind `planned_s` seconds of what is still planned for it; when none
        of these is up, whoever is. None when nobody is."""
        job, point, maker_id = held.order.job, held.order.assignment.point, drafted.worker_id
        has_maker = any(seat.up and seat.worker_id == maker_id for seat in self.seats())
        able = [
            seat
            for seat in self.seats()
            if (seat.light and (seat.up or has_maker)) or (seat.up and seat.worker_id == maker_id)
        ]
        workers = {
            each.worker_id: self._finisher(each, now, self._up_at(each, now)) for each in able
        }
        rests = {
            name: self.learner.finishing(job, point, each, drafted.draft)
            for name, each in workers.items()
        }
        quickest_store_s = min((rest[STORE] for rest in rests.values()), default=0.0)

        def end_s(worker_id: str) -> float:
            rest = rests[worker_id]
            stored_from_s = workers[worker_id].ready_at - now + sum(rest.values()) - rest[STORE]
            if worker_id == maker_id:
                stored_from_s += planned_s
                if rest[STORE] > quickest_store_s:
                    stored_from_s = max(stored_from_s, self._on_the_way_s(now))
            return stored_from_s + rest[STORE]

        if rests:
            worker_id = min(rests, key=lambda name: (end_s(name), name))
            return worker_id, rests[worker_id]
        up = [seat.worker_id for seat in self.seats() if seat.up]
        return (min(up), {}) if up else None

    def finishers(self, now: float) -> tuple[Finisher, ...]:
        """The light workers to be counted on, each behind its share of the drafts in the making."""
        light = [(seat, self._surely_up_at(seat, now)) for seat in self.seats() if seat.light]
        counted = [(seat, at) for seat, at in light if at >= now]
        coming_s = sum(
            held.order.assignment.handed_s for held in self.hands if held.order.drafted is None
        )
        return tuple(self._finisher(seat, now, at, coming_s / len(counted)) for seat, at in counted)

    def light_by(self, at: float, now: float) -> bool:
        """Whether a light worker is up, or is expected to be by then."""
        return any(seat.light and self._up_at(seat, now) <= at for seat in self.seats())

    def _up_at(self, seat: Seat, now: float) -> float:
        return now if seat.up else self.learner.expected_up(self.model_id, seat, now)

    def _surely_up_at(self, seat: Seat, now: float) -> float:
        """The same at p90, which may have passed."""
        startup = self.learner.startup(self.model_id, seat.device_class)
        return now if seat.up else seat.since + startup.p90_s

    def _on_the_way_s(self, now: float) -> float:
        """Seconds until the drafts on their way have come, by the links when each left."""
        light = (self.hands.in_turn(seat.worker_id) for seat in self.seats() if seat.light)
        left_s = (
            sum(held.left_s(NETWORK, now, is_first=is_turn) for held, is_turn in its)
            for its in light
        )
        return max(left_s, default=0.0)

    def _finisher(self, seat: Seat, now: float, up_at: float, coming_s: float = 0.0) -> Finisher:
        return Finisher(
            device_class=seat.device_class,
            ready_at=up_at + self.hands.remaining_s(seat.worker_id, now) + coming_s,
            speed=self.learner.speed(seat.worker_id),
            bits_per_s=self._bits_per_s(seat.worker_id, now),
        )

    def _bits_per_s(self, worker_id: str, now: float) -> float | None:
        """Of its link as last seen; less where a draft takes longer than that allows."""
        seen = self.learner.bits_per_s(worker_id)
        held = in_making(self.hands.of(worker_id))
        if held is None or (drafted := held.order.drafted) is None or held.phase != NETWORK:
            return seen
        passed_s = 0.0 if held.phase_since is None else now - held.phase_since
        if passed_s <= held.stages.get(NETWORK, 0.0):
            return seen
        at_most = 8 * drafted.draft.size_bytes / passed_s
        return at_most if seen is None else min(seen, at_most)
