"""What handing a video over is worth: who would be through with a draft first, and what that makes time for.

A plan counts on makers alone (decision 0016), so the seconds it gives a job include filling in, compressing and storing
the video where it was begun. Where a light worker is predicted to do that part, its maker may spend those seconds on
more keyframes and steps instead: `with_what_is_saved` takes the best point that its maker makes within what the plan
gave it and that is finished elsewhere in time. So K follows the link and the load of the edge, job by job, and a lost
light worker costs no more than the few videos that were on their way to it.

`finisher` says who gets a draft once it is there, by what is then known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from vidplat.domain import Assignment, Job
from vidplat.eco_schedule import kept_latents
from vidplat.platform.dispatch import HandedOver, Seat
from vidplat.platform.hands import Hands, InHand
from vidplat.platform.learning import Learner
from vidplat.scheduler.profile import choices
from vidplat.scheduler.split import Limits, Rated, choose
from vidplat.scheduler.split_cost import SplitPoint, SplitTimes
from vidplat.scheduler.work import AFTER_DRAFT, NETWORK, decoded_frames


@dataclass(frozen=True)
class HandOver:
    """Asks who there is, what they hold and how long things take; changes nothing."""

    seats: Callable[[], Sequence[Seat]]
    hands: Hands
    learner: Learner

    def finisher(self, held: InHand, drafted: HandedOver, now: float) -> tuple[str, dict[str, float]] | None:
        """The worker that will be through with a draft first, with its seconds by stage: a light one, or its maker,
        whose queue it joins; when all of these are gone, whoever is up. None when nobody is."""
        order, size_bytes = held.order, drafted.draft.size_bytes
        ends: list[tuple[float, str, dict[str, float]]] = []
        for seat in self.seats():
            if seat.up and (seat.light or seat.worker_id == drafted.worker_id):
                rest = self._rest(seat, order.job, order.assignment, size_bytes)
                wait_s = self.hands.remaining_s(seat.worker_id, now)
                ends.append((wait_s + sum(rest.values()), seat.worker_id, rest))
        if not ends:
            ends = [(0.0, seat.worker_id, {}) for seat in self.seats() if seat.up]
        if not ends:
            return None
        _, worker_id, rest = min(ends, key=lambda end: end[:2])
        return worker_id, rest

    def with_what_is_saved(self, planned: Assignment, job: Job, now: float) -> Assignment:
        """`planned`, at the best point of its kind for which its maker has the time when it does not finish the video.

        Only for a method that leaves K open, a job that has a deadline and is planned to meet it, and with light
        workers up.
        """
        if not planned.point.accelerator.startswith("eco"):
            return planned
        if planned.finish_by is None or planned.finish_p50_at > planned.finish_by:
            return planned
        light = [seat for seat in self.seats() if seat.light and seat.up]
        maker = next((seat for seat in self.seats() if seat.worker_id == planned.worker_id), None)
        if maker is None or not light:
            return planned
        offered = choices(self.learner.shapes[job.model.id], job.spec, job.method)
        better = [
            replace(planned, point=point, quality=quality)
            for point, quality in zip(offered.points, offered.qualities, strict=True)
            if quality > planned.quality and point.accelerator.startswith("eco")
        ]
        if not better:
            return planned
        queued_s = self.hands.remaining_s(maker.worker_id, now)
        free_s = {
            seat.worker_id: self.hands.remaining_s(seat.worker_id, now) + self._pledged_s(seat) / len(light)
            for seat in light
        }
        rated = [self._rated(each, job, maker, light, queued_s, free_s) for each in better]
        sure = self.learner.denoising_spread(job, maker.device_class, planned.point)
        limits = Limits(time_s=(planned.finish_by - now - queued_s) / sure, cloud_s=planned.p50_s)
        found = choose(rated, limits)
        if not found.is_feasible:
            return planned
        chosen = next(each for each, its in zip(better, rated, strict=True) if its is found.chosen)
        return replace(chosen, reason=f"{found.reason}, finished elsewhere")

    def _rated(
        self,
        each: Assignment,
        job: Job,
        maker: Seat,
        light: Sequence[Seat],
        queued_s: float,
        free_s: Mapping[str, float],
    ) -> Rated:
        """What a point takes from the moment its maker turns to it until a light worker has stored the video."""
        shape = self.learner.shapes[job.model.id]
        estimate = self.learner.predict(job, maker.device_class, each.point).per_stage
        making_s = sum(seconds for stage, seconds in estimate.items() if stage not in AFTER_DRAFT)
        cloud_s = making_s / self.learner.speed(maker.worker_id)
        size_bytes = self._draft_bytes(job, each)
        ends = []
        for seat in light:
            rest = self._rest(seat, job, each, size_bytes)
            wait_s = max(0.0, free_s[seat.worker_id] - queued_s - cloud_s)
            ends.append((wait_s + sum(rest.values()), rest[NETWORK]))
        after_s, network_s = min(ends)
        times = SplitTimes(
            cloud_s=cloud_s,
            network_s=network_s,
            edge_s=after_s - network_s,
            total_s=cloud_s + after_s,
            sent_bytes=size_bytes,
            edge_bytes=0,
            bits_per_s=8 * size_bytes / max(network_s, 1e-3),
        )
        k = kept_latents(each.point.accelerator, shape.latent_frames(job.spec.num_frames))
        return Rated(SplitPoint(k, 1), times, each.quality)

    def _rest(self, seat: Seat, job: Job, planned: Assignment, size_bytes: int) -> dict[str, float]:
        """Seconds of the stages after a draft on that worker."""
        estimate = self.learner.predict(job, seat.device_class, planned.point).per_stage
        speed = self.learner.speed(seat.worker_id)
        rest = {stage: estimate.get(stage, 0.0) / speed for stage in AFTER_DRAFT}
        rest[NETWORK] = self.learner.fetching(job.model.id, seat.device_class, seat.worker_id, size_bytes)
        return rest

    def _draft_bytes(self, job: Job, planned: Assignment) -> int:
        decoded = decoded_frames(self.learner.shapes[job.model.id], job.spec, planned.point)
        return self.learner.draft_bytes(decoded * job.spec.width * job.spec.height)

    def _pledged_s(self, seat: Seat) -> float:
        """Seconds that videos now in the making would bring to that light worker."""
        seconds = 0.0
        for held in self.hands:
            order = held.order
            if order.hand_over and order.assignment.point.accelerator.startswith("eco"):
                size_bytes = self._draft_bytes(order.job, order.assignment)
                seconds += sum(self._rest(seat, order.job, order.assignment, size_bytes).values())
        return seconds
