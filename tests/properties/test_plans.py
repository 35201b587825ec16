"""What holds for every plan, on generated snapshots."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tests.builders import (
    a_job,
    a_policy,
    a_shape,
    a_snapshot,
    a_spec,
    a_worker,
    an_open_job,
    knowledge,
)
from vidplat.domain import OnInfeasible, OpenJob, WorkerState
from vidplat.scheduler import answer, plan
from vidplat.scheduler.decision import Policy, Snapshot, Verdict
from vidplat.scheduler.work import needed_bytes
from vidplat.stages import BESIDE

KNOWN = knowledge()
WIDE = knowledge(timings=0)  # only a timing or two: p90 is up to half as long again as p50
SHAPE = a_shape()
NAMES = ("w1", "w2", "w3", "w4")
ROUNDING_S = 1e-5

specs = st.sampled_from(
    [
        a_spec(),
        a_spec(steps=8),
        a_spec(frames=65),
        a_spec(frames=1),
        a_spec(width=128, height=96, guidance=1.0),
        a_spec(width=512, height=512, frames=81),
    ]
)
methods = st.sampled_from(
    [None, None, None, "auto", "full", "steps", "steps:6", "eco", "eco:3", "keyframes:3"]
)
deadlines = st.none() | st.floats(-50, 2000, allow_nan=False)


@st.composite
def some_jobs(draw: st.DrawFn, *, own_deadlines: bool = True) -> tuple[OpenJob, ...]:
    count = draw(st.integers(0, 9))
    jobs = []
    for row in range(1, count + 1):
        job = a_job(
            row=row,
            spec=draw(specs),
            deadline_at=draw(deadlines) if own_deadlines else None,
            priority=draw(st.integers(-2, 3)),
            method=draw(methods),
        )
        jobs.append(
            an_open_job(
                job,
                not_before=draw(st.sampled_from([0.0, 0.0, 0.0, 40.0])),
                avoid=draw(st.sampled_from([(), (), ("w1",), NAMES])),
                rung_down=draw(st.sampled_from([0, 0, 0, 1, 3])),
            )
        )
    return tuple(jobs)


@st.composite
def some_workers(draw: st.DrawFn, *, least: int = 0) -> tuple[WorkerState, ...]:
    return tuple(
        a_worker(
            name,
            device_class=draw(st.sampled_from(["cpu-1", "cpu-2", "NVIDIA H200"])),
            speed=draw(st.sampled_from([1.0, 0.3, 1.7])),
            ready_at=draw(st.sampled_from([0.0, 0.0, 5.0, 300.0])),
            free_gb=draw(st.sampled_from([16.0, 0.1, 0.0])),
            suspect=draw(st.booleans()),
            alive=least > 0 or draw(st.integers(0, 4)) > 0,
        )
        for name in NAMES[: draw(st.integers(least, 4))]
    )


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    return a_snapshot(
        jobs=draw(some_jobs()),
        workers=draw(some_workers()),
        now=draw(st.sampled_from([0.0, 10.0])),
        deadline_at=draw(deadlines),
    )


floors = st.sampled_from([0.0, 0.0, 0.85, 1.0])
policies = st.builds(Policy, st.sampled_from(OnInfeasible), floors)
known = st.sampled_from([KNOWN, WIDE])


@given(snapshots(), policies, known)
def test_each_job_is_assigned_once_or_deferred_with_a_reason(snapshot, policy, knows):
    decided = plan(snapshot, policy, knows)

    mentioned = Counter(
        [a.job_id for a in decided.assignments] + [d.job_id for d in decided.deferred]
    )
    assert mentioned == Counter(o.job.id for o in snapshot.jobs)
    assert all(d.reason for d in decided.deferred)
    assert all(a.reason for a in decided.assignments)
    assert decided.reason


@given(snapshots(), policies, known, st.randoms(use_true_random=False))
def test_the_same_snapshot_gives_the_same_plan_whatever_the_order_of_its_rows(
    snapshot, policy, knows, rnd
):
    jobs, workers = list(snapshot.jobs), list(snapshot.workers)
    rnd.shuffle(jobs)
    rnd.shuffle(workers)

    shuffled = replace(snapshot, jobs=tuple(jobs), workers=tuple(workers))

    assert plan(shuffled, policy, knows) == plan(snapshot, policy, knows)


@given(snapshots(), policies, known)
def test_nothing_outside_the_snapshot_is_mentioned(snapshot, policy, knows):
    pools = {w.id: w.pool for w in snapshot.workers if w.alive}

    decided = plan(snapshot, policy, knows)

    assert all(pools[a.worker_id] == a.pool for a in decided.assignments)


@given(snapshots(), policies, known)
def test_no_worker_makes_two_videos_at_once_or_starts_before_it_can(snapshot, policy, knows):
    decided = plan(snapshot, policy, knows)

    free = {w.id: max(snapshot.now, w.ready_at) for w in snapshot.workers}
    may_start = {o.job.id: o.not_before for o in snapshot.jobs}
    for a in decided.assignments:  # in the order they start
        assert a.start_at >= max(free[a.worker_id], may_start[a.job_id]) - ROUNDING_S
        # it may be stored beside the next, and so after some that was made before
        assert a.finish_p50_at >= a.start_at + a.p50_s - ROUNDING_S
        assert a.finish_p90_at >= a.finish_p50_at
        free[a.worker_id] = a.start_at + a.p50_s - stored_s(a, snapshot, knows)


def stored_s(assigned, snapshot, knows) -> float:
    """What storing that video takes, at most as much as making it."""
    (job,) = (each.job for each in snapshot.jobs if each.job.id == assigned.job_id)
    (worker,) = (each for each in snapshot.workers if each.id == assigned.worker_id)
    estimate = knows.costs.predict(
        job.model.id, knows.shapes[job.model.id], worker.device_class, job.spec, assigned.point,
        job.input_video is not None,
    )  # fmt: skip
    store_s = sum(estimate.per_stage.get(stage, 0.0) for stage in BESIDE)
    return min(store_s, estimate.p50_s - store_s) / worker.speed


@given(snapshots(), policies, known)
def test_a_plan_that_is_not_infeasible_keeps_every_deadline_at_p90(snapshot, policy, knows):
    decided = plan(snapshot, policy, knows)

    due = {o.job.id: o.job.deadline_at for o in snapshot.jobs}
    own = {job_id: snapshot.deadline_at if at is None else at for job_id, at in due.items()}
    ends = [(a.finish_p90_at, own[a.job_id]) for a in decided.assignments]
    late = [at for at, by in ends if by is not None and at > by + ROUNDING_S]
    assert (decided.verdict is Verdict.INFEASIBLE) == bool(late or decided.deferred)


@given(snapshots(), policies, known)
def test_no_worker_is_given_more_than_its_memory_holds(snapshot, policy, knows):
    free = {w.id: w.free_bytes for w in snapshot.workers}
    spec = {o.job.id: o.job.spec for o in snapshot.jobs}

    for a in plan(snapshot, policy, knows).assignments:
        need = needed_bytes(SHAPE, spec[a.job_id], a.point)
        assert free[a.worker_id] == 0 or need <= free[a.worker_id]


@given(snapshots(), policies, known)
def test_mean_quality_never_exceeds_its_certificate(snapshot, policy, knows):
    decided = plan(snapshot, policy, knows)

    assert 0 <= decided.mean_quality <= decided.quality_bound + 1e-9 <= 1 + 2e-9


@given(snapshots(), policies, known)
def test_a_verdict_of_feasible_means_every_job_at_the_best_its_request_allows(
    snapshot, policy, knows
):
    decided = plan(snapshot, policy, knows)

    if decided.verdict is Verdict.FEASIBLE:
        assert all(
            a.reason == "full quality" or a.reason.endswith("as asked") for a in decided.assignments
        )


@given(snapshots(), policies, known)
def test_a_job_may_always_take_as_long_as_planned(snapshot, policy, knows):
    for a in plan(snapshot, policy, knows).assignments:
        assert a.finish_by is None or a.finish_by >= a.finish_p50_at


@given(some_jobs(own_deadlines=False), some_workers(least=1), known)
def test_the_earliest_time_told_can_be_promised(jobs, workers, knows):
    told = plan(a_snapshot(jobs=jobs, workers=workers), a_policy(), knows)

    again = plan(
        a_snapshot(jobs=jobs, workers=workers, deadline_at=told.earliest_at), a_policy(), knows
    )

    assert again.verdict is not Verdict.INFEASIBLE or told.deferred


@given(snapshots(), floors, known, st.floats(0, 500))
def test_postponing_every_deadline_never_makes_a_feasible_plan_infeasible(
    snapshot, floor, knows, more_s
):
    jobs = tuple(
        replace(
            o,
            job=replace(
                o.job, deadline_at=None if o.job.deadline_at is None else o.job.deadline_at + more_s
            ),
        )
        for o in snapshot.jobs
    )
    later = None if snapshot.deadline_at is None else snapshot.deadline_at + more_s

    policy = a_policy(quality_floor=floor)
    if plan(snapshot, policy, knows).verdict is not Verdict.INFEASIBLE:
        postponed = plan(replace(snapshot, jobs=jobs, deadline_at=later), policy, knows)
        assert postponed.verdict is not Verdict.INFEASIBLE


@given(st.integers(1, 400), st.integers(1, 3), st.floats(0.3, 4.0))
def test_many_equal_jobs_are_planned_as_well_as_few(count, workers, load):
    # given `load` times as much work at full quality as there is time
    due = 10.0 * count / workers / load
    team = [a_worker(f"w{k}") for k in range(workers)]

    decided = plan(
        a_snapshot(
            jobs=[an_open_job(row=r) for r in range(1, count + 1)], workers=team, deadline_at=due
        ),
        a_policy(),
        KNOWN,
    )

    if decided.verdict is Verdict.DEGRADED:
        share = Counter(a.worker_id for a in decided.assignments)
        assert max(share.values()) - min(share.values()) <= max(2, 0.1 * count)
        # one hull edge per worker is all the greedy can lose, and what cannot be cut in two
        assert decided.quality_bound - decided.mean_quality <= 0.004 + 0.2 * workers / count


@given(snapshots(), policies, known)
def test_every_plan_has_an_answer_that_admits_it_only_if_it_does_something(snapshot, policy, knows):
    decided = plan(snapshot, policy, knows)

    told = answer(decided, policy, snapshot.now)

    assert told.admitted == (
        decided.verdict is not Verdict.INFEASIBLE
        or (policy.on_infeasible is OnInfeasible.BEST_EFFORT and bool(decided.assignments))
    )
    assert told.headline.startswith(decided.verdict.value)
