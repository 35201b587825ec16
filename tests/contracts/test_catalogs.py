"""What every catalog must do: SQLite in memory, SQLite in a file, and a real PostgreSQL."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select

from tests.builders import a_job, a_worker
from tests.catalog_builders import a_batch, a_claim, an_artifact, an_outcome
from vidplat.domain import (
    Failure,
    FailureKind,
    Job,
    JobState,
    ModelRef,
    OnInfeasible,
    OperatingPoint,
    Progress,
)
from vidplat.errors import CatalogError, UsageError
from vidplat.storage import open_catalog
from vidplat.storage.catalog import Catalog
from vidplat.storage.catalog_words import BatchState, GiveUp, PlanRecord, PointShare, Requeue
from vidplat.storage.rows import from_json
from vidplat.storage.tables import observations, workers

PLACES = ["memory", "file", pytest.param("postgres", marks=pytest.mark.server)]
ME = "host:1:100"
SOMEBODY = "host:2:200"
BATCH = a_batch()


def place(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    match name:
        case "memory":
            return "sqlite://"
        case "file":
            return f"sqlite:///{tmp_path}/catalog.db"
        case _:
            return str(request.getfixturevalue("postgres_catalog"))


@pytest.fixture(params=PLACES)
def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalog]:
    opened = open_catalog(place(request.param, request, tmp_path), migrate=True)
    yield opened
    opened.close()


@pytest.fixture(params=PLACES[1:])  # a catalog in memory belongs to one process
def shared_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    url = place(request.param, request, tmp_path)
    open_catalog(url, migrate=True).close()
    return url


def some_jobs(count: int) -> list[Job]:
    return [a_job(row=row) for row in range(1, count + 1)]


def begin(
    catalog: Catalog, jobs: Sequence[Job], *, now: float = 0.0, owner: str = ME, **chosen: object
) -> None:
    claims = [a_claim(job.id, owner, **chosen) for job in jobs]  # type: ignore[arg-type]
    assert len(catalog.claim(BATCH.id, claims, now=now, lease_s=30)) == len(jobs)


def state_of(catalog: Catalog, job: Job) -> JobState:
    return catalog.find_job(job.id, BATCH.id)[0].state


BROKEN = Failure(FailureKind.JOB, "frames are not finite")

# --- adding ---------------------------------------------------------------------------------------


def test_a_batch_and_its_jobs_come_back_as_they_went_in(catalog: Catalog) -> None:
    batch = replace(
        BATCH, deadline_at=60.0, priority=3, quality_floor=0.5, on_infeasible=OnInfeasible.REJECT
    )
    plain = a_job(row=1)
    special = replace(
        a_job(
            row=2, model=ModelRef("other", "r9"), deadline_at=30.5, priority=7, method="steps:12"
        ),
        external_id="mine",
        negative_prompt="blurry",
    )
    added = catalog.add_batch(batch, [plain, special])
    assert (added.new, added.inserted, added.reused) == (True, 2, 0)
    assert catalog.batch(batch.id) == replace(batch, total=2)
    assert [record.job for record in catalog.jobs(batch.id)] == [plain, special]


def test_a_job_made_from_a_video_keeps_its_source_wherever_it_is_read(catalog: Catalog) -> None:
    job = replace(a_job(), input_video="/data/a b.mp4", input_sha256="ab" * 32, strength=0.25)
    catalog.add_batch(BATCH, [job])
    assert catalog.jobs(BATCH.id)[0].job == job
    assert catalog.open_jobs(BATCH.id)[0].job == job
    assert catalog.find_job(job.id)[0].job == job
    ((row,),) = catalog.job_rows(BATCH.id, ("input_video", "input_sha256", "strength"))
    assert (row["input_video"], row["input_sha256"], row["strength"]) == (
        "/data/a b.mp4",
        "ab" * 32,
        0.25,
    )


@pytest.mark.parametrize(
    "text",
    [
        "'); DROP TABLE jobs;--",
        '" OR 1=1; --',
        "%s %(prompt)s :prompt ? {0} \\ \\N \t tab \n newline",
        "<script>alert(1)</script>",
        "\x1b[31mred\x1b[0m \x07",
        "emoji 🎬, 中文, עברית, a\u0301",
        "\u202eright to left",
    ],
)
def test_a_prompt_is_only_ever_data(catalog: Catalog, text: str) -> None:
    job = replace(a_job(prompt=text), external_id=text, negative_prompt=text)
    catalog.add_batch(replace(BATCH, source=text), [job])
    assert catalog.jobs(BATCH.id)[0].job == job
    assert catalog.find_job(text)[0].job == job
    assert catalog.batch(BATCH.id).source == text


def test_the_same_batch_again_inserts_nothing_and_takes_the_new_wishes(catalog: Catalog) -> None:
    first, second = some_jobs(2)
    catalog.add_batch(BATCH, [first, second])
    later = replace(
        BATCH,
        deadline_at=99.0,
        priority=5,
        quality_floor=0.7,
        on_infeasible=OnInfeasible.BEST_EFFORT,
    )
    added = catalog.add_batch(
        later, [replace(first, priority=5), replace(second, deadline_at=42.0)]
    )
    assert (added.new, added.inserted, added.reused) == (False, 0, 0)
    assert added.batch == replace(later, total=2)
    assert [(each.job.priority, each.job.deadline_at) for each in catalog.jobs(BATCH.id)] == [
        (5, None),
        (0, 42.0),
    ]


def test_a_batch_that_fails_half_way_leaves_nothing(catalog: Catalog) -> None:
    def rows() -> Iterator[Job]:
        yield from some_jobs(6_000)  # more than one chunk
        raise RuntimeError("the file ended early")

    with pytest.raises(RuntimeError):
        catalog.add_batch(BATCH, rows())
    assert catalog.batches() == []
    assert catalog.jobs(BATCH.id) == []


def test_two_jobs_in_one_row_are_refused(catalog: Catalog) -> None:
    with pytest.raises(CatalogError, match="refused"):
        catalog.add_batch(BATCH, [a_job(row=1, prompt="one"), a_job(row=1, prompt="two")])
    assert catalog.batches() == []


def test_of_eight_submitters_of_one_batch_exactly_one_adds_it(shared_url: str) -> None:
    jobs, seen, start = some_jobs(500), [], threading.Barrier(8)

    def submit() -> None:
        mine = open_catalog(shared_url)
        start.wait()
        seen.append(mine.add_batch(BATCH, jobs))
        mine.close()

    in_threads(8, submit)
    assert sorted(added.inserted for added in seen) == [0] * 7 + [500]
    assert all(added.batch.total == 500 for added in seen)


# --- reuse ----------------------------------------------------------------------------------------


def test_a_job_done_in_another_batch_of_the_prefix_is_born_done(catalog: Catalog) -> None:
    old, new = some_jobs(2)
    catalog.add_batch(BATCH, [old])
    begin(catalog, [old])
    catalog.finish(BATCH.id, [an_outcome(old.id)])
    # when another batch asks for the same job in another row, and for one more
    other = a_batch("b00000000002", submitted_at=100.0)
    added = catalog.add_batch(other, [new, replace(old, row=7)])
    # then only the new one is left to do
    assert (added.inserted, added.reused) == (2, 1)
    assert [each.job for each in catalog.open_jobs(other.id)] == [new]
    [record] = catalog.jobs(other.id, states=[JobState.DONE])
    assert record.artifact == an_artifact(old.id)
    assert (record.reused_from, record.finished_at, record.predicted_p50_s) == (
        BATCH.id,
        100.0,
        None,
    )


def test_a_reused_job_names_the_batch_that_made_the_video(catalog: Catalog) -> None:
    [job] = some_jobs(1)
    catalog.add_batch(BATCH, [job])
    begin(catalog, [job])
    catalog.finish(BATCH.id, [an_outcome(job.id)])
    for number in (2, 3):
        catalog.add_batch(a_batch(f"b0000000000{number}", submitted_at=100.0 * number), [job])
    assert catalog.jobs("b00000000003")[0].reused_from == BATCH.id


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"prefix": "memory://elsewhere"}, {}),
        ({"quality_floor": 0.9}, {}),  # the video was made at quality 0.8
        ({}, {"method": "steps:12"}),
    ],
    ids=["another prefix", "below the quality floor", "asked for by another method"],
)
def test_a_video_that_is_not_what_was_asked_for_is_not_reused(
    catalog: Catalog, changes: dict[str, object], wanted: dict[str, object]
) -> None:
    [job] = some_jobs(1)
    catalog.add_batch(BATCH, [job])
    begin(catalog, [job], steps=6, quality=0.8)
    catalog.finish(BATCH.id, [an_outcome(job.id, steps=6)])
    other = a_batch("b00000000002", submitted_at=100.0, **changes)  # type: ignore[arg-type]
    assert catalog.add_batch(other, [replace(job, **wanted)]).reused == 0  # type: ignore[arg-type]


# --- reading --------------------------------------------------------------------------------------


def test_a_batch_is_found_by_a_prefix_that_only_it_has(catalog: Catalog) -> None:
    catalog.add_batch(a_batch("babc00000001"), [])
    catalog.add_batch(a_batch("babd00000001"), [])
    assert catalog.batch("babc").id == "babc00000001"
    with pytest.raises(UsageError, match="several batches start with 'bab'"):
        catalog.batch("bab")
    for unknown in ("bb", "", "%", "b_bc", "'; --"):
        with pytest.raises(UsageError, match="there is no batch"):
            catalog.batch(unknown)


def test_batches_come_latest_first(catalog: Catalog) -> None:
    for number in range(3):
        catalog.add_batch(a_batch(f"b{number}", submitted_at=float(number)), [])
    assert [batch.id for batch in catalog.batches()] == ["b2", "b1", "b0"]
    assert [batch.id for batch in catalog.batches(limit=1)] == ["b2"]


def test_open_jobs_come_by_priority_then_deadline_then_row(catalog: Catalog) -> None:
    wishes = [(0, None), (0, 50.0), (9, None), (0, 20.0), (0, None), (9, 80.0)]
    jobs = [a_job(row=row, priority=p, deadline_at=d) for row, (p, d) in enumerate(wishes, start=1)]
    catalog.add_batch(BATCH, jobs)
    assert [each.job.row for each in catalog.open_jobs(BATCH.id)] == [6, 3, 4, 2, 1, 5]
    assert [each.job.row for each in catalog.open_jobs(BATCH.id, limit=2)] == [6, 3]


def test_jobs_are_paged_by_row_and_chosen_by_state(catalog: Catalog) -> None:
    jobs = some_jobs(5)
    catalog.add_batch(BATCH, jobs)
    catalog.cancel(BATCH.id, jobs[3].id, now=1.0)
    assert [each.job.row for each in catalog.jobs(BATCH.id, after_row=1, limit=2)] == [2, 3]
    assert [each.job.row for each in catalog.jobs(BATCH.id, states=[JobState.CANCELLED])] == [4]


def test_a_job_is_found_by_the_start_of_its_id_or_by_the_users_own(catalog: Catalog) -> None:
    jobs = [replace(job, external_id=f"mine-{job.row}") for job in some_jobs(3)]
    catalog.add_batch(BATCH, jobs)
    assert catalog.find_job(jobs[1].id[:12])[0].job == jobs[1]
    assert catalog.find_job("mine-3", BATCH.id)[0].job == jobs[2]
    for nothing in ("mine", "", "%", "zzzz"):
        assert catalog.find_job(nothing) == []
    assert catalog.find_job("mine-3", "b99") == []


def test_counts_name_every_state(catalog: Catalog) -> None:
    jobs = some_jobs(3)
    catalog.add_batch(BATCH, jobs)
    begin(catalog, jobs[:1])
    counts = catalog.counts(BATCH.id)
    assert counts == dict.fromkeys(JobState, 0) | {JobState.QUEUED: 2, JobState.RUNNING: 1}


def test_step_totals_are_the_progress_of_the_whole_batch(catalog: Catalog) -> None:
    jobs = some_jobs(3)
    catalog.add_batch(BATCH, jobs)
    begin(catalog, jobs[:2], steps=8)
    catalog.finish(BATCH.id, [an_outcome(jobs[0].id, steps=8)])
    catalog.heartbeat(BATCH.id, [Progress(jobs[1].id, 1, "w1", "denoise", 3, 8, 5.0)], lease_s=30)
    totals = catalog.step_totals(BATCH.id)
    # one job done with 8 steps; one at step 3 of 8, so 5 to go; one queued at its full 24
    assert (totals.done, totals.running, totals.ahead) == (8, 3, 5 + 24)


# --- the usual way of a job -----------------------------------------------------------------------


def test_a_claimed_job_runs_under_its_next_attempt(catalog: Catalog) -> None:
    [job] = some_jobs(1)
    catalog.add_batch(BATCH, [job])
    got = catalog.claim(BATCH.id, [a_claim(job.id, ME, steps=8, quality=0.9)], now=3.0, lease_s=30)
    assert got == {job.id: 1}
    record = catalog.jobs(BATCH.id)[0]
    assert (record.state, record.attempt, record.point) == (
        JobState.RUNNING,
        1,
        OperatingPoint(8, "steps"),
    )
    assert (record.predicted_p50_s, record.predicted_p90_s, record.predicted_quality) == (
        10.0,
        12.0,
        0.9,
    )
    [running] = catalog.running(BATCH.id)
    assert (running.owner, running.worker_id, running.pool) == (ME, "w1", "cloud")
    assert (running.step, running.steps, running.started_at) == (0, 8, 3.0)
    # whatever time the platform says it is
    assert 0 <= catalog.time() - running.beat_at < 10
    assert running.lease_until == running.beat_at + 30


def test_a_job_is_claimed_once(catalog: Catalog) -> None:
    jobs = some_jobs(3)
    catalog.add_batch(BATCH, jobs)
    begin(catalog, jobs[:1])
    claims = [a_claim(job.id, SOMEBODY) for job in jobs]
    assert set(catalog.claim(BATCH.id, claims, now=1.0, lease_s=30)) == {jobs[1].id, jobs[2].id}
    assert catalog.claim(BATCH.id, [a_claim("f" * 32, ME)], now=1.0, lease_s=30) == {}


def test_of_claimers_that_race_each_job_has_one_winner(shared_url: str) -> None:
    jobs, won, start = some_jobs(300), [], threading.Barrier(6)
    setting_up = open_catalog(shared_url)
    setting_up.add_batch(BATCH, jobs)

    def race() -> None:
        mine = open_catalog(shared_url)
        start.wait()
        for first in range(0, 300, 50):
            claims = [a_claim(job.id, ME) for job in jobs[first : first + 50]]
            won.extend(mine.claim(BATCH.id, claims, now=0.0, lease_s=30))
        mine.close()

    in_threads(6, race)
    assert sorted(won) == sorted(job.id for job in jobs)
    assert {record.attempt for record in setting_up.jobs(BATCH.id)} == {1}
    setting_up.close()


def test_a_heartbeat_tells_progress_and_renews_the_lease(catalog: Catalog) -> None:
    [job] = some_jobs(1)
    catalog.add_batch(BATCH, [job])
    begin(catalog, [job])
    beats = [Progress(job.id, 1, "w1", "denoise", step, 24, float(step)) for step in (4, 5)]
    [before] = catalog.running(BATCH.id)
    assert catalog.heartbeat(BATCH.id, beats, lease_s=60) == set()
    [running] = catalog.running(BATCH.id)
    assert (running.phase, running.step) == ("denoise", 5)
    assert running.beat_at >= before.beat_at
    assert running.lease_until == running.beat_at + 60


def test_a_heartbeat_names_jobs_that_are_no_longer_the_senders(catalog: Catalog) -> None:
    kept, cancelled, taken_over = jobs = some_jobs(3)
    catalog.add_batch(BATCH, jobs)
    begin(catalog, jobs)
    catalog.cancel(BATCH.id, cancelled.id, now=1.0)
    catalog.release(BATCH.id, now=2.0)
    begin(catalog, [kept], now=3.0)  # attempt 2
    begin(catalog, [taken_over], now=3.0, owner=SOMEBODY)
    beats = [Progress(kept.id, 2, "w1", "denoise", 1, 24, 4.0)]
    beats += [Progress(job.id, 1, "w1", "denoise", 1, 24, 4.0) for job in (cancelled, taken_over)]
    assert catalog.heartbeat(BATCH.id, beats, lease_s=30) == {cancelled.id, taken_over.id}
    assert catalog.heartbeat(BATCH.id, [], lease_s=30) == set()


def test_an_owner_renews_all_its_leases_at_once(catalog: Catalog) -> None:
    mine, other = jobs = some_jobs(2)
    catalog.add_batch(BATCH, jobs)
    begin(catalog, [mine])
    begin(catalog, [other], owner=SOMEBODY)
    assert catalog.renew(BATCH.id, ME, lease_s=100) == 1
    left_s = {each.owner: each.lease_until - catalog.time() for each in catalog.running(BATCH.id)}
    assert 60 < left_s[ME] <= 100
    assert left_s[SOMEBODY] <= 30


def test_a_finished_job_has_its_artifact_and_one_attempt(catalog: Catalog) -> None:
    [job] = some_jobs(1)
    catalog.add_batch(BATCH, [job])
    begin(catalog, [job])
    assert catalog.finish(BATCH.id, [an_outcome(job.id)]) == {job.id}
    [record] = catalog.jobs(BATCH.id)
    assert (record.state, record.artifact, record.failure) == (
        JobState.DONE,
        an_artifact(job.id),
        None,
    )
    assert (record.started_at, record.finished_at) == (0.0, 10.0)
    assert (record.phases, record.metrics) == ({"denoise": 7.0, "decode": 2.5}, {"flicker": 0.25})
    [attempt] = catalog.attempts(BATCH.id, job.id)
    assert (attempt.attempt, attempt.ended, attempt.steps_done, attempt.counts) == (
        1,
        "done",
        24,
        False,
    )
    assert catalog.running(BATCH.id) == []
    assert [event.kind for event in catalog.events(BATCH.id, job.id)] == ["started", "done"]


def test_artifacts_that_do_not_lie_side_by_side_are_kept_as_they_are(catalog: Catalog) -> None:
    [job] = some_jobs(1)
    apart = replace(
        an_artifact(job.id),
        poster_uri="s3://other/poster.jpg",
        meta_uri="memory://videos/batches/m.json",
    )
    catalog.add_batch(BATCH, [job])
    begin(catalog, [job])
    catalog.finish(BATCH.id, [an_outcome(job.id, artifact=apart)])
    assert catalog.jobs(BATCH.id)[0].artifact == apart


def test_a_failed_job_goes_back_to_the_queue_as_decided(catalog: Catalog) -> None:
    [job] = some_jobs(1)
    catalog.add_batch(BATCH, [job])
    begin(catalog, [job])
    again = Requeue(not_before=15.0, avoid=frozenset({"w1", "w2"}), rung_down=1)
    assert catalog.finish(BATCH.id, [an_outcome(job.id, failure=BROKEN)], {job.id: again}) == {
        job.id
    }
    [waiting] = catalog.open_jobs(BATCH.id)
    assert (waiting.attempt, waiting.not_before, waiting.avoid, waiting.rung_down) == (
        1,
        15.0,
        {"w1", "w2"},
        1,
    )
    assert catalog.jobs(BATCH.id)[0].failure == BROKEN
    [attempt] = catalog.attempts(BATCH.id, job.id)
    assert (attempt.ended, attempt.failure, attempt.counts) == ("failed", BROKEN, True)
    # and when it runs again, and succeeds, nothing of the failure sticks to it
    begin(catalog, [job])
    assert catalog.jobs(BATCH.id)[0].finished_at is None
    catalog.finish(BATCH.id, [an_outcome(job.id, attempt=2)])
    assert catalog.jobs(BATCH.id)[0].failure is None
    assert [each.ended for each in catalog.attempts(BATCH.id, job.id)] == ["failed", "done"]


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.QUARANTINED])
def test_giving_up_is_final(catalog: Catalog, state: JobState) -> None:
    [job] = some_jobs(1)
    catalog.add_batch(BATCH, [job])
    begin(catalog, [job])
    catalog.finish(BATCH.id, [an_outcome(job.id, failure=BROKEN)], {job.id: GiveUp(state)})
    assert state_of(catalog, job) is state
    assert catalog.open_jobs(BATCH.id) == []
    assert catalog.events(BATCH.id, job.id)[-1].kind == state.value


def test_an_outcome_of_an_old_attempt_changes_nothing(catalog: Catalog) -> None:
    [job] = some_jobs(1)
    catalog.add_batch(BATCH, [job])
    begin(catalog, [job])
    catalog.release(BATCH.id, now=1.0)
    begin(catalog, [job], now=2.0)
    assert catalog.finish(BATCH.id, [an_outcome(job.id, attempt=1)]) == set()
    assert catalog.finish(BATCH.id, [an_outcome(job.id, attempt=1, failure=BROKEN)]) == set()
    assert state_of(catalog, job) is JobState.RUNNING
    assert catalog.finish(BATCH.id, [an_outcome(job.id, attempt=2)]) == {job.id}
    assert catalog.finish(BATCH.id, [an_outcome(job.id, attempt=2)]) == set()
    assert [each.ended for each in catalog.attempts(BATCH.id, job.id)] == ["released", "done"]


def test_a_failure_without_a_decision_is_our_mistake_and_changes_nothing(catalog: Catalog) -> None:
    good, bad = jobs = some_jobs(2)
    catalog.add_batch(BATCH, jobs)
    begin(catalog, jobs)
    with pytest.raises(KeyError):
        catalog.finish(BATCH.id, [an_outcome(good.id), an_outcome(bad.id, failure=BROKEN)])
    assert [state_of(catalog, job) for job in jobs] == [JobState.RUNNING] * 2


def test_many_jobs_move_in_one_call(catalog: Catalog) -> None:
    jobs = some_jobs(1_200)  # more than one query's worth of ids
    catalog.add_batch(BATCH, jobs)
    begin(catalog, jobs)
    outcomes = [an_outcome(job.id, failure=BROKEN if job.row % 3 == 0 else None) for job in jobs]
    decisions = {job.id: Requeue() if job.row % 2 else GiveUp() for job in jobs if job.row % 3 == 0}
    assert len(catalog.finish(BATCH.id, outcomes, decisions)) == 1_200
    counts = catalog.counts(BATCH.id)
    assert (counts[JobState.DONE], counts[JobState.QUEUED], counts[JobState.FAILED]) == (
        800,
        200,
        200,
    )


# --- the unusual ways -----------------------------------------------------------------------------


def test_what_the_store_proves_is_done_whatever_the_catalog_thought(catalog: Catalog) -> None:
    queued, running, taken_over, cancelled = jobs = some_jobs(4)
    catalog.add_batch(BATCH, jobs)
    begin(catalog, jobs[1:])
    catalog.release(BATCH.id, now=1.0)
    begin(catalog, [running, taken_over], now=2.0)
    catalog.cancel(BATCH.id, cancelled.id, now=3.0)
    small = OperatingPoint(6, "steps")
    won_by = {queued.id: 1, running.id: 2, taken_over.id: 1, cancelled.id: 1}
    marked = {
        job.id: catalog.mark_done(
            BATCH.id,
            job.id,
            an_artifact(job.id, attempt=won_by[job.id]),
            9.0,
            point=small,
        )
        for job in jobs
    }
    assert set(marked.values()) == {True}
    done = catalog.jobs(BATCH.id, states=[JobState.DONE])
    assert [record.artifact and record.artifact.attempt for record in done] == [1, 2, 1, 1]
    assert {record.point for record in done} == {small}
    assert not catalog.mark_done(BATCH.id, queued.id, an_artifact(queued.id), 10.0)
    # and an attempt that had ended keeps its end
    ends = [[each.ended for each in catalog.attempts(BATCH.id, job.id)] for job in jobs]
    assert ends == [[], ["released", "done"], ["released"], ["released"]]


def test_a_dead_platforms_jobs_are_queued_again_and_not_blamed(catalog: Catalog) -> None:
    mine, other = jobs = some_jobs(2)
    catalog.add_batch(BATCH, jobs)
    begin(catalog, [mine])
    begin(catalog, [other], owner=SOMEBODY)
    assert catalog.release(BATCH.id, ME, now=7.0) == [mine.id]
    assert [state_of(catalog, job) for job in jobs] == [JobState.QUEUED, JobState.RUNNING]
    [attempt] = catalog.attempts(BATCH.id, mine.id)
    assert (attempt.ended, attempt.finished_at, attempt.counts) == ("released", 7.0, False)
    assert catalog.release(BATCH.id, now=8.0) == [other.id]
    assert catalog.release(BATCH.id, now=9.0) == []


def test_single_jobs_of_a_lost_worker_are_released(catalog: Catalog) -> None:
    lost, other, _queued = jobs = some_jobs(3)
    catalog.add_batch(BATCH, jobs)
    begin(catalog, [lost, other])
    assert catalog.release(BATCH.id, now=7.0, job_ids=[lost.id, jobs[2].id]) == [lost.id]
    assert catalog.release(BATCH.id, SOMEBODY, now=7.0, job_ids=[other.id]) == []
    assert state_of(catalog, other) is JobState.RUNNING


def test_cancelling_a_batch_cancels_what_is_open_and_keeps_what_is_done(catalog: Catalog) -> None:
    done, running, _queued = jobs = some_jobs(3)
    catalog.add_batch(BATCH, jobs)
    begin(catalog, [done, running])
    catalog.finish(BATCH.id, [an_outcome(done.id)])
    assert catalog.cancel(BATCH.id, now=5.0) == 2
    assert [state_of(catalog, job) for job in jobs] == [
        JobState.DONE,
        JobState.CANCELLED,
        JobState.CANCELLED,
    ]
    assert catalog.batch_state(BATCH.id) == BatchState.CANCELLED
    assert catalog.finish(BATCH.id, [an_outcome(running.id)]) == set()


def test_a_cancelled_batch_whose_videos_were_all_made_is_finished_by_a_retry(
    catalog: Catalog,
) -> None:
    [job] = some_jobs(1)
    catalog.add_batch(BATCH, [job])
    begin(catalog, [job])
    assert catalog.cancel(BATCH.id, now=1.0) == 1
    assert catalog.mark_done(BATCH.id, job.id, an_artifact(job.id), 2.0)
    assert catalog.batch_state(BATCH.id) == "cancelled"
    assert catalog.retry_failed(BATCH.id, now=3.0) == 0
    assert catalog.batch_state(BATCH.id) == "done"


def test_a_batch_that_was_cancelled_meanwhile_stays_so(catalog: Catalog) -> None:
    catalog.add_batch(BATCH, some_jobs(1))
    catalog.cancel(BATCH.id, now=1.0)
    for state in ("open", "done"):
        catalog.set_batch_state(BATCH.id, state, at=2.0, unless=BatchState.CANCELLED)
    assert catalog.batch_state(BATCH.id) == "cancelled"


@pytest.mark.parametrize("job_id", [None, a_job().id], ids=["the batch", "its job"])
def test_what_is_finished_cannot_be_cancelled(catalog: Catalog, job_id: str | None) -> None:
    [job] = some_jobs(1)
    catalog.add_batch(BATCH, [job])
    begin(catalog, [job])
    catalog.finish(BATCH.id, [an_outcome(job.id)])
    catalog.set_batch_state(BATCH.id, "done", at=11.0)
    assert catalog.cancel(BATCH.id, job_id, now=12.0) == 0
    assert catalog.batch_state(BATCH.id) == "done"
    assert catalog.jobs(BATCH.id)[0].artifact == an_artifact(job.id)


def test_a_finished_batch_is_history_for_whoever_submits_it_again(catalog: Catalog) -> None:
    jobs = some_jobs(2)
    batch = replace(BATCH, deadline_at=60.0, priority=1)
    catalog.add_batch(batch, jobs)
    begin(catalog, jobs[:1])
    catalog.finish(BATCH.id, [an_outcome(jobs[0].id)])
    catalog.cancel(BATCH.id, jobs[1].id, now=1.0)
    later = [replace(job, deadline_at=5.0, priority=9) for job in jobs]
    added = catalog.add_batch(replace(batch, deadline_at=99.0, priority=9), later)
    assert added.batch == replace(batch, total=2)
    assert [record.job for record in catalog.jobs(BATCH.id)] == jobs


def test_a_video_that_is_lost_is_made_again_and_nothing_else(catalog: Catalog) -> None:
    lost, kept, queued = jobs = some_jobs(3)
    catalog.add_batch(BATCH, jobs)
    begin(catalog, [lost, kept])
    catalog.finish(BATCH.id, [an_outcome(lost.id), an_outcome(kept.id)])
    catalog.set_batch_state(BATCH.id, "done", at=11.0)
    assert catalog.lose(BATCH.id, [lost.id, queued.id], now=12.0) == 1
    assert catalog.lose(BATCH.id, [lost.id], now=13.0) == 0
    first, second, _ = catalog.jobs(BATCH.id)
    assert (first.state, first.artifact, first.finished_at) == (JobState.QUEUED, None, None)
    assert second.artifact == an_artifact(kept.id)
    assert catalog.batch_state(BATCH.id) == "open"
    begin(catalog, [lost])
    assert catalog.finish(BATCH.id, [an_outcome(lost.id, attempt=2)]) == {lost.id}


def test_a_lost_video_of_a_cancelled_batch_waits_for_a_retry(catalog: Catalog) -> None:
    lost, _queued = jobs = some_jobs(2)
    catalog.add_batch(BATCH, jobs)
    begin(catalog, [lost])
    catalog.finish(BATCH.id, [an_outcome(lost.id)])
    catalog.cancel(BATCH.id, now=11.0)
    catalog.lose(BATCH.id, [lost.id], now=12.0)
    assert {state_of(catalog, job) for job in jobs} == {JobState.CANCELLED}
    assert catalog.batch_state(BATCH.id) == "cancelled"
    assert catalog.retry_failed(BATCH.id, now=13.0) == 2


def test_retrying_queues_what_was_given_up_and_forgives_its_attempts(catalog: Catalog) -> None:
    failed, cancelled, done = jobs = some_jobs(3)
    catalog.add_batch(BATCH, jobs)
    begin(catalog, [failed, done])
    catalog.finish(
        BATCH.id,
        [an_outcome(failed.id, failure=BROKEN), an_outcome(done.id)],
        {failed.id: GiveUp()},
    )
    catalog.cancel(BATCH.id, cancelled.id, now=11.0)
    catalog.set_batch_state(BATCH.id, "done", at=12.0)
    assert catalog.retry_failed(BATCH.id, now=13.0) == 2
    assert [state_of(catalog, job) for job in jobs] == [
        JobState.QUEUED,
        JobState.QUEUED,
        JobState.DONE,
    ]
    assert catalog.batch_state(BATCH.id) == BatchState.OPEN
    assert [each.counts for each in catalog.attempts(BATCH.id, failed.id)] == [False]
    # a new failure counts, under a new number
    begin(catalog, [failed])
    catalog.finish(
        BATCH.id, [an_outcome(failed.id, attempt=2, failure=BROKEN)], {failed.id: GiveUp()}
    )
    assert [(each.attempt, each.counts) for each in catalog.attempts(BATCH.id, failed.id)] == [
        (1, False),
        (2, True),
    ]
    assert catalog.retry_failed(BATCH.id, failed.id, now=14.0) == 1
    assert catalog.retry_failed(BATCH.id, done.id, now=14.0) == 0


def test_one_process_at_a_time_holds_a_batch(catalog: Catalog) -> None:
    catalog.add_batch(BATCH, [])
    assert catalog.holder(BATCH.id) == ""
    for owner in (ME, SOMEBODY, ME, SOMEBODY):
        assert catalog.hold_batch(BATCH.id, owner, lease_s=30) == ME
        assert catalog.holder(BATCH.id) == ME
    # it passes on when it runs out, when its holder is known to be dead, or when it is given back
    catalog.hold_batch(BATCH.id, ME, lease_s=0)
    assert catalog.holder(BATCH.id) == ""
    assert catalog.hold_batch(BATCH.id, SOMEBODY, lease_s=30) == SOMEBODY
    assert catalog.hold_batch(BATCH.id, ME, lease_s=30, instead_of=SOMEBODY) == ME
    catalog.leave_batch(BATCH.id, SOMEBODY)
    assert catalog.hold_batch(BATCH.id, SOMEBODY, lease_s=30) == ME
    catalog.leave_batch(BATCH.id, ME)
    assert catalog.hold_batch(BATCH.id, SOMEBODY, lease_s=30) == SOMEBODY


def test_of_processes_that_race_for_a_batch_one_holds_it(shared_url: str) -> None:
    setting_up = open_catalog(shared_url)
    setting_up.add_batch(BATCH, [])
    held, start, names = [], threading.Barrier(8), iter(range(8))

    def race() -> None:
        me, mine = f"host:{next(names)}:0", open_catalog(shared_url)
        start.wait()
        held.append((me, mine.hold_batch(BATCH.id, me, lease_s=30)))
        mine.close()

    in_threads(8, race)
    assert sum(me == owner for me, owner in held) == 1
    assert len({owner for _, owner in held}) == 1
    setting_up.close()


# --- history and memory ---------------------------------------------------------------------------


def test_events_are_followed_from_the_last_one_seen(catalog: Catalog) -> None:
    catalog.add_batch(BATCH, some_jobs(1))
    catalog.add_event(BATCH.id, None, "note", {"text": "a\x00b \ud800", "bad": float("nan")}, 5.0)
    submitted, note = catalog.events(BATCH.id)
    assert (submitted.kind, submitted.detail["jobs"]) == ("submitted", 1)
    assert (note.kind, note.at, note.detail["text"]) == ("note", 5.0, "a\x00b \ud800")
    assert catalog.events(BATCH.id, after_id=submitted.id) == catalog.events(
        BATCH.id, limit=1, newest_first=True
    )
    assert catalog.events(BATCH.id, after_id=note.id) == []


def test_a_change_of_the_batchs_state_is_noted_once(catalog: Catalog) -> None:
    catalog.add_batch(BATCH, [])
    assert catalog.batch_state(BATCH.id) == "open"
    for _ in range(2):
        catalog.set_batch_state(BATCH.id, "infeasible", at=3.0)
    assert catalog.batch_state(BATCH.id) == "infeasible"
    assert [event.kind for event in catalog.events(BATCH.id)] == ["submitted", "infeasible"]
    with pytest.raises(ValueError, match="resting"):
        catalog.set_batch_state(BATCH.id, "resting", at=4.0)
    with pytest.raises(UsageError, match="no batch"):
        catalog.batch_state("b99")


def test_a_plan_comes_back_as_it_was_kept(catalog: Catalog) -> None:
    catalog.add_batch(BATCH, [])
    first = PlanRecord(
        at=1.0,
        inputs_sha256="ab" * 32,
        verdict="degraded",
        reason="1 of 4 is made with fewer steps",
        earliest_at=20.0,
        full_quality_at=30.0,
        finish_p50_at=25.0,
        finish_p90_at=math.inf,
        device_seconds=40.0,
        mean_quality=0.95,
        quality_bound=0.97,
        jobs=4,
        shares=(
            PointShare("cloud", OperatingPoint(24, "full"), 3, 1.0, 30.0),
            PointShare("edge", OperatingPoint(8, "steps"), 1, 0.8, 10.0),
        ),
        deferred_count=150,
        deferred=(("f" * 32, "no worker has room"),),
        notes=("no profile",),
    )
    second = replace(first, at=2.0, shares=(), deferred=(), notes=())
    catalog.save_plan(BATCH.id, first)
    catalog.save_plan(BATCH.id, second)
    assert catalog.plans(BATCH.id) == [first, second]
    assert catalog.plans(BATCH.id, limit=1) == [second]


def test_the_cost_models_memory_is_replaced_as_a_whole(catalog: Catalog) -> None:
    assert catalog.cost_state("flipbook") is None
    catalog.save_cost_state("flipbook", {"version": 1, "cells": [1.5, 2.5]})
    catalog.save_cost_state("flipbook", {"version": 2})
    assert catalog.cost_state("flipbook") == {"version": 2}


def test_observations_are_kept_with_what_they_were_measured_on(catalog: Catalog) -> None:
    seen = [
        {
            "model_id": model,
            "device_class": "cpu-1",
            "stage": "denoise",
            "seconds": 1.5,
            "features": {"flops": 2e9},
            "at": at,
        }
        for model, at in (("flipbook", 0.0), ("other", 1.0))
    ]
    catalog.add_observations(seen)
    catalog.add_observations([])
    kept = catalog.door.rows(select(observations).order_by(observations.c.id))
    told = [{**row, "features": from_json(row["features"])} for row in kept]
    assert [{key: each[key] for key in seen[0]} for each in told] == seen


def test_the_workers_last_seen_replace_those_before(catalog: Catalog) -> None:
    catalog.save_workers(BATCH.id, [a_worker("w1"), a_worker("w2")], now=1.0)
    latest = [a_worker("w1", alive=False), a_worker("w3", suspect=True, pool="edge")]
    catalog.save_workers(BATCH.id, latest, now=2.0)
    kept = catalog.door.rows(select(workers).order_by(workers.c.worker_id))
    told = [(row["worker_id"], row["pool"], row["alive"], row["suspect"]) for row in kept]
    assert told == [("w1", latest[0].pool, 0, 0), ("w3", "edge", 1, 1)]
    assert [(row["batch_id"], row["seen_at"]) for row in kept] == [(BATCH.id, 2.0)] * 2


def in_threads(count: int, work: object) -> None:
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            work()  # type: ignore[operator]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures, failures
