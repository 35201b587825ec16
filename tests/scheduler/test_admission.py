"""What a person is told, and whether the batch may start."""

from __future__ import annotations

import pytest

from tests.builders import a_policy, a_snapshot, a_spec, a_worker, an_open_job, knowledge, open_jobs
from vidplat.domain import OnInfeasible
from vidplat.scheduler import answer, plan, wording
from vidplat.scheduler.admission import Answer
from vidplat.scheduler.decision import Policy, Verdict

KNOWN = knowledge()
WORKERS = (a_worker("cloud-1", device_class="cpu-2"), a_worker("edge-1", pool="edge"))


def answered(
    deadline_at: float | None, policy: Policy | None = None, *, now: float = 0.0
) -> Answer:
    policy = policy or a_policy()
    decided = plan(
        a_snapshot(jobs=open_jobs(16), workers=WORKERS, deadline_at=deadline_at, now=now),
        policy,
        KNOWN,
    )
    return answer(decided, policy, now)


def test_a_feasible_plan_is_admitted():
    told = answered(60.0)

    assert told.admitted
    assert told.headline == "feasible: all 16 jobs at full quality in 55 s (p90)"


def test_a_degraded_plan_is_admitted_and_tells_how_many_jobs_lose_what():
    told = answered(54.0)

    assert told.admitted
    assert told.verdict is Verdict.DEGRADED
    assert told.headline.startswith("degraded: ")
    assert "of 24 steps" in told.headline
    assert told.headline.endswith("full quality needs 55 s")


def test_a_plan_where_all_jobs_lose_the_same_is_told_in_one_clause():
    decided = plan(a_snapshot(jobs=open_jobs(16), deadline_at=16 * 5.55), a_policy(), KNOWN)

    # 12 of 24 steps take 1 + 9 x 12 / 24 = 5.5 s, of them 0.02 s beside; their quality is 0.92
    assert answer(decided, a_policy(), 0.0).headline == (
        "degraded: 16 of 16 jobs at 12 of 24 steps, predicted quality 0.92; full quality needs "
        "2 min 41 s"
    )


def test_an_infeasible_plan_is_not_admitted_and_says_which_deadline_would_be():
    told = answered(1.0)

    assert not told.admitted
    assert "the earliest time that can be promised is 12 s from now" in told.details[-2]
    assert told.details[-3].startswith("best effort: expected finish in ")  # of no promise
    assert any("try --deadline 14s" in line for line in told.details)
    assert any("--on-infeasible best-effort" in line for line in told.details)


def test_the_deadline_that_is_advised_is_admitted_a_second_later():
    told = answered(1.0)
    seconds = int(
        next(line for line in told.details if "--deadline" in line)
        .split("--deadline ")[1]
        .rstrip("s")
    )

    assert answered(1.0 + seconds, now=1.0).admitted


def test_best_effort_admits_what_cannot_be_in_time():
    told = answered(1.0, a_policy(on_infeasible=OnInfeasible.BEST_EFFORT))

    assert told.admitted
    assert told.verdict is Verdict.INFEASIBLE


def test_a_plan_that_does_nothing_is_never_admitted_while_jobs_wait():
    policy = a_policy(on_infeasible=OnInfeasible.BEST_EFFORT)
    big = an_open_job(spec=a_spec(width=8192, height=8192))

    told = answer(
        plan(a_snapshot(jobs=[big], workers=[a_worker(free_gb=1)]), policy, KNOWN), policy, 0.0
    )

    assert not told.admitted
    assert told.headline.startswith("infeasible: 1 job of 1 cannot be placed: needs ")


@pytest.mark.parametrize(
    ("value_s", "text"),
    [
        (-3, "0.00 s"),
        (0.84, "0.84 s"),
        (9.96, "10 s"),
        (48.4, "48 s"),
        (59.7, "60 s"),
        (200, "3 min 20 s"),
        (3599.9, "1 h"),
        (7500, "2 h 5 min"),
        (273_600, "3 d 4 h"),
    ],
)
def test_durations_read_well(value_s: float, text: str):
    assert wording.seconds(value_s) == text
