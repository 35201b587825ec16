"""The answer to `vidplat plan` and `submit`: may it start, and what a person is told.

Left to others: making the plan (`planner`), acting on the answer (`platform`, `cli`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from vidplat.domain import OnInfeasible
from vidplat.scheduler import wording
from vidplat.scheduler.decision import Plan, Policy, Verdict


@dataclass(frozen=True)
class Answer:
    """What submit does with a plan, in values and in sentences."""

    verdict: Verdict
    admitted: bool  # False: generate nothing and exit 3
    # "degraded: 12 of 16 jobs at 8 of 24 steps, predicted quality 0.91; full quality needs 48 s"
    headline: str
    details: tuple[str, ...] = ()  # deferrals, notes, and what to do


def answer(plan: Plan, policy: Policy, now: float) -> Answer:
    """Admit feasible and degraded plans; an infeasible one under best-effort, if it does anything.

    Under `reject` the planner makes no plan below the quality floor, under `degrade` it may. Times
    are told as seconds from `now`.
    """
    infeasible = plan.verdict is Verdict.INFEASIBLE
    best_effort = policy.on_infeasible is OnInfeasible.BEST_EFFORT
    admitted = not infeasible or (best_effort and bool(plan.assignments))
    reasons = Counter(sorted(d.reason for d in plan.deferred)).most_common()
    details = [f"{wording.jobs(count)} cannot be placed: {reason}" for reason, count in reasons]
    details.extend(plan.notes)
    if plan.assignments:
        details.append(_expectation(plan, now))
    if infeasible and not admitted:
        details.extend(_advice(plan, policy, now))
    headline = f"{plan.verdict.value}: {plan.reason}"
    return Answer(plan.verdict, admitted, headline, tuple(details))


def _expectation(plan: Plan, now: float) -> str:
    takes_s = (plan.finish_p50_at - now, plan.finish_p90_at - now, plan.device_seconds)
    p50, p90, device = map(wording.seconds, takes_s)
    late = "best effort: " if plan.verdict is Verdict.INFEASIBLE else ""
    text = f"{late}expected finish in {p50} (p50), {p90} (p90); {device} of device time"
    if plan.verdict is Verdict.DEGRADED:
        text += f"; quality {plan.mean_quality:.3f}, no plan can exceed {plan.quality_bound:.3f}"
    return text


def _advice(plan: Plan, policy: Policy, now: float) -> list[str]:
    if plan.deferred:
        return ["use a smaller size or fewer frames, or add a worker that has room"]
    if not plan.assignments:
        return []
    # Rounded up and a little more: the clock runs between this answer and the next submit.
    seconds = int(1.05 * (plan.earliest_at - now)) + 2
    earliest = wording.seconds(plan.earliest_at - now)
    earlier = f"the earliest time that can be promised is {earliest} from now: "
    advice = [f"{earlier}try --deadline {seconds}s"]
    if policy.quality_floor > 0 and policy.on_infeasible is OnInfeasible.REJECT:
        advice.append("--on-infeasible degrade may go below the quality floor")
    anyway = "--on-infeasible best-effort runs anyway; late videos are kept and counted as missed"
    return [*advice, anyway]
