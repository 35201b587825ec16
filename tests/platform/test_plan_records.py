"""A plan as it is kept, and a claim as it is made of an assignment."""

from __future__ import annotations

from tests.platform.builders import an_assignment
from vidplat.domain import OperatingPoint
from vidplat.platform.run.plan_records import KEPT_DEFERRALS, claim, plan_record
from vidplat.scheduler.decision import Deferred, Plan, Verdict
from vidplat.storage.catalog_words import PointShare


def test_a_claim_tells_what_was_planned_and_who_begins_it():
    planned = an_assignment("f" * 32, worker_id="w7", pool="edge", steps=8, quality=0.9)

    made = claim(planned, "host:1:1")

    assert made.owner == "host:1:1"
    for name in ("job_id", "worker_id", "pool", "point", "p50_s", "p90_s", "quality", "reason"):
        assert getattr(made, name) == getattr(planned, name)


def test_a_plan_is_kept_as_its_promise_and_its_shape():
    full = [an_assignment(f"{number:032x}") for number in range(3)]
    few = [an_assignment("f" * 32, pool="edge", steps=8, quality=0.8)]
    plan = Plan(
        Verdict.DEGRADED,
        (*few, *full),
        earliest_at=20.0,
        full_quality_at=30.0,
        finish_p50_at=25.0,
        finish_p90_at=28.0,
        device_seconds=40.0,
        mean_quality=0.95,
        quality_bound=0.97,
        reason="1 of 4",
        notes=("no profile",),
    )

    kept = plan_record(plan, at=1.0, inputs_sha256="ab" * 32)

    assert (kept.at, kept.inputs_sha256, kept.verdict) == (1.0, "ab" * 32, "degraded")
    for name in ("earliest_at", "full_quality_at", "finish_p50_at", "finish_p90_at"):
        assert getattr(kept, name) == getattr(plan, name)
    for name in ("device_seconds", "mean_quality", "quality_bound", "reason", "notes"):
        assert getattr(kept, name) == getattr(plan, name)
    assert kept.jobs == 4
    assert kept.shares == (  # most jobs first
        PointShare("cloud", OperatingPoint(24, method="full"), 3, 1.0, 30.0),
        PointShare("edge", OperatingPoint(8, method="steps"), 1, 0.8, 10.0),
    )


def test_of_many_deferrals_the_number_and_the_first_are_kept():
    waiting = tuple(Deferred(f"{number:032x}", "no worker has room") for number in range(150))

    kept = plan_record(Plan(Verdict.INFEASIBLE, (), waiting), at=0.0, inputs_sha256="")

    assert (kept.jobs, kept.deferred_count) == (0, 150)
    assert kept.deferred == tuple((each.job_id, each.reason) for each in waiting[:KEPT_DEFERRALS])
