"""What a plan promises, job by job. In this world a default job takes 10 s at p50 on cpu-1 at full
quality (24 steps), 1 s of which does not depend on steps, so s steps take 1 + 9 s / 24; cpu-2 is
twice as fast.
"""

from __future__ import annotations

import time

import pytest

from tests.builders import (
    a_job,
    a_policy,
    a_shape,
    a_snapshot,
    a_spec,
    a_worker,
    an_open_job,
    knowledge,
    open_jobs,
)
from vidplat.domain import OnInfeasible, OperatingPoint
from vidplat.scheduler import latest_free, plan
from vidplat.scheduler.decision import Deferred, Plan, Policy, Snapshot, Verdict
from vidplat.scheduler.groups import Backlog

KNOWN = knowledge()
CLOUD_AND_EDGE = (a_worker("cloud-1", device_class="cpu-2"), a_worker("edge-1", pool="edge"))


def planned(snapshot: Snapshot, policy: Policy | None = None) -> Plan:
    return plan(snapshot, policy or a_policy(), KNOWN)


def test_without_a_deadline_everything_is_made_at_full_quality():
    decided = planned(a_snapshot(jobs=open_jobs(5)))

    assert decided.verdict is Verdict.FEASIBLE
    assert {a.point for a in decided.assignments} == {OperatingPoint(24)}
    assert {a.reason for a in decided.assignments} == {"full quality"}
    # of each 10 s, 0.02 s are for compressing and storing it beside the next
    assert decided.finish_p50_at == pytest.approx(5 * 9.98 + 0.02)
    assert {a.finish_by for a in decided.assignments} == {None}


def test_work_is_shared_out_by_speed_so_that_the_tail_is_short():
    # 16 jobs, 5 s each on the cloud worker and 10 s on the edge one: 11 and 5, done after 55 s
    decided = planned(a_snapshot(jobs=open_jobs(16), workers=CLOUD_AND_EDGE))

    by_worker = [a.worker_id for a in decided.assignments]
    assert (by_worker.count("cloud-1"), by_worker.count("edge-1")) == (11, 5)
    assert decided.finish_p50_at == pytest.approx(11 * 4.99 + 0.01)


def test_the_longest_jobs_start_first_when_nothing_else_decides():
    jobs = [an_open_job(row=row, spec=a_spec(steps=8)) for row in (1, 2)] + [an_open_job(row=3)]

    decided = planned(a_snapshot(jobs=jobs))

    assert [a.point.steps for a in decided.assignments] == [24, 8, 8]


def test_a_deadline_with_room_changes_nothing():
    decided = planned(a_snapshot(jobs=open_jobs(16), workers=CLOUD_AND_EDGE, deadline_at=60.0))

    assert decided.verdict is Verdict.FEASIBLE
    assert decided.mean_quality == 1.0


def test_a_tight_deadline_is_met_with_fewer_steps_and_each_job_says_why():
    decided = planned(a_snapshot(jobs=open_jobs(16), workers=CLOUD_AND_EDGE, deadline_at=25.0))

    assert decided.verdict is Verdict.DEGRADED
    assert decided.finish_p90_at <= 25.0
    assert all(a.point.steps < 24 and a.point.method == "steps" for a in decided.assignments)
    # full quality takes until 55.5 s at p90: 30 s short
    assert decided.assignments[0].reason == (
        f"{decided.assignments[0].point.steps} of 24 steps: full quality for all jobs is 30 s short"
    )
    assert decided.quality_bound - decided.mean_quality < 0.01


def test_equal_jobs_share_the_loss_instead_of_some_taking_all_of_it():
    decided = planned(a_snapshot(jobs=open_jobs(10), deadline_at=60.0))

    steps = {a.point.steps for a in decided.assignments}
    assert max(steps) - min(steps) <= 2


def test_a_deadline_nobody_can_meet_is_infeasible_and_the_earliest_time_is_told():
    # 16 jobs at 3 steps: 1 + 9 x 3 / 24 = 2.125 s on the edge and half on the cloud worker
    decided = planned(a_snapshot(jobs=open_jobs(16), workers=CLOUD_AND_EDGE, deadline_at=1.0))

    assert decided.verdict is Verdict.INFEASIBLE
    assert decided.earliest_at == pytest.approx(11.7, abs=0.2)
    assert decided.reason.startswith("16 of 16 jobs cannot be promised in time")
    assert len(decided.assignments) == 16  # best effort may still run it
    assert decided.assignments[0].reason.startswith("3 of 24 steps: late, ")


def test_the_earliest_time_told_can_be_promised():
    jobs = open_jobs(16)
    told = planned(a_snapshot(jobs=jobs, workers=CLOUD_AND_EDGE, deadline_at=1.0)).earliest_at

    assert (
        planned(a_snapshot(jobs=jobs, workers=CLOUD_AND_EDGE, deadline_at=told)).verdict
        is Verdict.DEGRADED
    )
    assert (
        planned(a_snapshot(jobs=jobs, workers=CLOUD_AND_EDGE, deadline_at=told - 0.5)).verdict
        is Verdict.INFEASIBLE
    )


def test_one_hopeless_job_does_not_cost_the_others_their_quality():
    # given a job due after 0.1 s among nine due after 100 s
    jobs = [
        an_open_job(row=1, deadline_at=0.1),
        *(an_open_job(row=r, deadline_at=100.0) for r in range(2, 11)),
    ]

    decided = planned(a_snapshot(jobs=jobs))

    late = [a for a in decided.assignments if ": late, " in a.reason]
    assert [a.job_id for a in late] == [jobs[0].job.id]
    assert decided.assignments[-1] == late[0]
    assert {a.point.steps for a in decided.assignments if a not in late} == {24}


def test_the_earlier_deadline_goes_first():
    jobs = [an_open_job(row=1, deadline_at=90.0), an_open_job(row=2, deadline_at=30.0)]

    decided = planned(a_snapshot(jobs=jobs))

    assert [a.job_id for a in decided.assignments] == [jobs[1].job.id, jobs[0].job.id]


def test_a_rows_own_deadline_overrides_the_batchs():
    jobs = [an_open_job(row=1, deadline_at=500.0), an_open_job(row=2)]

    decided = planned(a_snapshot(jobs=jobs, deadline_at=12.0))

    assert decided.verdict is Verdict.FEASIBLE
    assert decided.assignments[0].job_id == jobs[1].job.id


def test_jobs_without_a_deadline_come_last_at_full_quality():
    jobs = [an_open_job(row=1), an_open_job(row=2, deadline_at=5.0)]

    decided = planned(a_snapshot(jobs=jobs))

    assert [a.job_id for a in decided.assignments] == [jobs[1].job.id, jobs[0].job.id]
    assert decided.assignments[0].point.steps < 24
    assert decided.assignments[1].point.steps == 24


def test_of_two_jobs_due_together_the_one_of_higher_priority_starts_first_and_gives_up_less():
    jobs = [an_open_job(row=1, deadline_at=12.0), an_open_job(row=2, deadline_at=12.0, priority=5)]

    first, second = planned(a_snapshot(jobs=jobs)).assignments

    assert first.job_id == jobs[1].job.id
    assert first.point.steps > second.point.steps


def test_early_rows_start_first_among_equals():
    decided = planned(a_snapshot(jobs=open_jobs(6), workers=CLOUD_AND_EDGE))

    rows = {a.worker_id: [] for a in decided.assignments}
    by_id = {o.job.id: o.job.row for o in open_jobs(6)}
    for a in decided.assignments:
        rows[a.worker_id].append(by_id[a.job_id])
    assert {by_id[a.job_id] for a in decided.assignments[:2]} == {1, 2}
    assert all(r == sorted(r) for r in rows.values())


def test_the_quality_floor_is_held_where_it_can_be():
    # a floor of 0.92 is 12 of 24 steps: 5.5 s a job; four take 22 s
    decided = planned(a_snapshot(jobs=open_jobs(4), deadline_at=23.0), a_policy(quality_floor=0.92))

    assert decided.verdict is Verdict.DEGRADED
    assert min(a.quality for a in decided.assignments) >= 0.92


def test_the_quality_floor_gives_way_when_degrading_is_allowed():
    decided = planned(a_snapshot(jobs=open_jobs(4), deadline_at=15.0), a_policy(quality_floor=0.92))

    assert decided.verdict is Verdict.DEGRADED
    assert decided.notes == ("the quality floor of 0.92 cannot be held: some jobs go below it",)


def test_the_quality_floor_stands_when_the_policy_is_to_reject():
    policy = a_policy(on_infeasible=OnInfeasible.REJECT, quality_floor=0.92)

    decided = planned(a_snapshot(jobs=open_jobs(4), deadline_at=15.0), policy)

    assert decided.verdict is Verdict.INFEASIBLE
    assert decided.earliest_at == pytest.approx(22.3, abs=0.2)


def test_a_quality_floor_that_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="quality_floor"):
        a_policy(quality_floor=1.5)


def test_a_job_too_big_for_every_worker_is_deferred_with_the_reason():
    big = an_open_job(spec=a_spec(width=4096, height=2048, frames=161))

    decided = planned(a_snapshot(jobs=[big, an_open_job(row=2)], workers=[a_worker(free_gb=8)]))

    assert [a.job_id for a in decided.assignments] != [big.job.id]
    assert decided.deferred == (
        Deferred(big.job.id, "needs 82.5 GB, largest worker has 8 GB free"),
    )
    assert decided.verdict is Verdict.INFEASIBLE


def test_a_worker_that_does_not_tell_its_memory_is_taken_to_have_enough():
    decided = planned(a_snapshot(jobs=open_jobs(1), workers=[a_worker(free_gb=0)]))
    assert len(decided.assignments) == 1


def test_without_a_live_worker_every_job_is_deferred():
    decided = planned(a_snapshot(jobs=open_jobs(2), workers=[a_worker(alive=False)]))

    assert decided.assignments == ()
    assert {d.reason for d in decided.deferred} == {"no live worker"}


def test_a_job_of_an_unknown_model_is_deferred():
    job = a_job(model=a_job().model.__class__("nobody/knows", "r"))

    decided = planned(a_snapshot(jobs=[an_open_job(job)]))

    assert decided.deferred == (Deferred(job.id, "nothing is known of model nobody/knows"),)


def test_a_job_keeps_away_from_the_worker_that_failed_it():
    decided = planned(a_snapshot(jobs=[an_open_job(avoid=["cloud-1"])], workers=CLOUD_AND_EDGE))
    assert decided.assignments[0].worker_id == "edge-1"


def test_a_job_returns_to_the_worker_that_failed_it_when_there_is_no_other():
    decided = planned(a_snapshot(jobs=[an_open_job(avoid=["w1"])]))
    assert decided.assignments[0].worker_id == "w1"


def test_a_suspect_worker_is_the_last_choice():
    workers = [a_worker("fast", device_class="cpu-2", suspect=True), a_worker("slow")]

    assert {
        a.worker_id for a in planned(a_snapshot(jobs=open_jobs(4), workers=workers)).assignments
    } == {"slow"}
    assert (
        planned(a_snapshot(jobs=open_jobs(1), workers=workers[:1])).assignments[0].worker_id
        == "fast"
    )


def test_a_job_in_back_off_starts_when_it_may_and_others_go_before_it():
    jobs = [an_open_job(row=1, not_before=30.0), an_open_job(row=2)]

    decided = planned(a_snapshot(jobs=jobs, deadline_at=60.0))

    assert [(a.job_id, a.start_at) for a in decided.assignments] == [
        (jobs[1].job.id, 0.0),
        (jobs[0].job.id, 30.0),
    ]


def test_after_running_out_of_memory_a_job_is_made_cheaper():
    usual = planned(a_snapshot(jobs=[an_open_job()])).assignments[0]
    lower = planned(a_snapshot(jobs=[an_open_job(rung_down=1)])).assignments[0]

    assert lower.point.steps < usual.point.steps


def test_a_fixed_method_is_obeyed_and_counts_as_what_was_asked_for():
    decided = planned(a_snapshot(jobs=[an_open_job(method="steps:12")], deadline_at=60.0))

    assert decided.verdict is Verdict.FEASIBLE
    assert decided.assignments[0].point == OperatingPoint(12, "steps")
    assert decided.assignments[0].reason == "12 of 24 steps, as asked"


def test_a_busy_worker_is_planned_from_the_time_it_is_free():
    decided = planned(a_snapshot(jobs=open_jobs(1), workers=[a_worker(ready_at=7.0)]))
    assert decided.assignments[0].start_at == 7.0


def test_a_slow_worker_takes_proportionally_longer():
    decided = planned(a_snapshot(jobs=open_jobs(1), workers=[a_worker(speed=0.5)]))
    assert decided.assignments[0].p50_s == pytest.approx(20.0)


def test_a_job_may_end_as_late_as_what_follows_it_allows():
    # two jobs due at 30 s; the second takes about 10 s, so the first must end by about 20 s
    first, second = planned(a_snapshot(jobs=open_jobs(2), deadline_at=30.0)).assignments

    assert first.finish_by == pytest.approx(19.9, abs=0.1)
    assert second.finish_by == pytest.approx(30.0)


def test_a_running_job_may_keep_its_worker_until_the_plan_behind_it_would_slip():
    # two jobs of 10 s due at 30 s: the worker must be free at about 9.8 s
    decided = planned(a_snapshot(jobs=open_jobs(2), deadline_at=30.0))

    assert latest_free(decided)["w1"] == pytest.approx(9.8, abs=0.1)
    assert latest_free(planned(a_snapshot(jobs=open_jobs(2)))) == {}


def test_a_backlog_takes_its_share_of_the_time_and_gets_no_assignments():
    # given a window of 10 jobs out of 100, due when all of them can be made at half quality or so
    window = open_jobs(10)
    backlog = [Backlog(an_open_job(row=11), 90)]
    snapshot = a_snapshot(jobs=window, deadline_at=550.0)

    alone = planned(snapshot)
    in_queue = plan(snapshot, a_policy(), KNOWN, backlog)

    assert {a.point.steps for a in alone.assignments} == {24}
    assert all(a.point.steps < 18 for a in in_queue.assignments)
    assert len(in_queue.assignments) == 10
    assert in_queue.finish_p50_at > 500


def test_a_backlog_of_a_million_is_planned_like_one_of_ten():
    backlog = [Backlog(an_open_job(row=11), 1_000_000)]

    decided = plan(
        a_snapshot(jobs=open_jobs(10), deadline_at=6_000_000.0), a_policy(), KNOWN, backlog
    )

    assert decided.verdict is Verdict.DEGRADED
    assert decided.finish_p90_at <= 6_000_000.0


def test_a_model_without_a_profile_is_planned_by_steps_alone_and_the_plan_says_so():
    unmeasured = knowledge(shape=a_shape(profile=()))

    decided = plan(a_snapshot(jobs=open_jobs(4), deadline_at=20.0), a_policy(), unmeasured)

    assert decided.verdict is Verdict.DEGRADED
    assert decided.notes == (
        "no profile for model flipbook: step counts alone, quality is a guess",
    )


def test_an_empty_snapshot_has_an_empty_feasible_plan():
    decided = planned(a_snapshot())

    assert (decided.verdict, decided.assignments, decided.reason) == (
        Verdict.FEASIBLE,
        (),
        "nothing to do",
    )


def test_p90_of_a_long_queue_is_wider_than_p50_and_narrower_than_the_sum_of_p90s():
    # given 40 jobs whose p90 is half as long again as their p50
    wide = knowledge(timings=0)
    snapshot = a_snapshot(jobs=open_jobs(40))

    decided = plan(snapshot, a_policy(), wide)

    spread = decided.finish_p90_at - decided.finish_p50_at
    each = decided.assignments[0].p90_s - decided.assignments[0].p50_s
    assert 0.5 * 40 * each < spread < 0.55 * 40 * each


@pytest.mark.parametrize(("jobs", "limit_s"), [(1_000, 0.1), (10_000, 1.0)])
def test_planning_is_quick(jobs: int, limit_s: float):
    # Processor seconds of this process, and the best of three: other work on the machine does not
    # count.
    snapshot = a_snapshot(jobs=open_jobs(jobs), workers=CLOUD_AND_EDGE, deadline_at=2.0 * jobs)
    best = float("inf")
    for _ in range(3):
        began = time.process_time()
        decided = planned(snapshot)
        best = min(best, time.process_time() - began)

    assert decided.verdict is Verdict.DEGRADED
    assert best <= limit_s
