"""From a file of prompts to committed videos, in one process, with the fake model."""

from __future__ import annotations

import io

import pyarrow.parquet as pq
import pytest

from tests.flow.stage import Stage
from tests.platform.builders import Memory
from vidplat.config import PoolConfig
from vidplat.domain import JobState, OnInfeasible
from vidplat.errors import InputError, StoreError, UsageError
from vidplat.platform import cancel, plan_only, resume, retry, submit
from vidplat.platform.interface import Listener, SubmitRequest
from vidplat.scheduler.decision import Verdict
from vidplat.storage import open_catalog


def test_every_prompt_becomes_a_video_and_a_row_of_the_manifest(tmp_path):
    # given
    stage, heard = Stage(tmp_path), Memory()

    # when
    result = stage.submit(6, heard)

    # then
    assert (result.exit_code, result.computed, result.inserted) == (0, 6, 6)
    assert stage.counts() == {JobState.DONE: 6}
    stage.check_nothing_lost_or_twice()
    assert stage.files() == {
        "video.mp4", "poster.jpg", "meta.json", "COMMIT.json", "manifest.parquet", "metrics.parquet"
    }  # fmt: skip
    folder = tmp_path / "out" / "batches" / result.batch.id
    assert pq.read_table(folder / "manifest.parquet").num_rows == 6
    assert pq.read_table(folder / "metrics.parquet")["state"].to_pylist() == ["done"] * 6
    # and the story was told from the promise to the end
    assert heard.answers[0].verdict is Verdict.FEASIBLE
    assert len(heard.outcomes) == 6
    assert {step.job_id for step in heard.steps} == {outcome.job_id for outcome in heard.outcomes}
    assert heard.results == [result]
    assert result.score.jobs == 6


def test_submitting_the_same_file_again_computes_nothing(tmp_path):
    stage = Stage(tmp_path)
    first = stage.submit(4)
    again = stage.submit(4)
    assert again.batch.id == first.batch.id
    assert (again.exit_code, again.computed, again.inserted) == (0, 0, 0)
    assert again.wall_s < 5


def test_a_file_that_shares_rows_with_an_earlier_one_reuses_their_videos(tmp_path):
    stage = Stage(tmp_path)
    stage.submit(["one", "two", "three"])
    result = stage.submit(["two", "three", "four"])
    assert (result.inserted, result.reused, result.computed) == (3, 2, 1)
    assert result.exit_code == 0


def test_a_deadline_nobody_can_meet_is_refused_and_nothing_is_generated(tmp_path):
    # given a model of 8 steps of a second each
    stage, heard = Stage(tmp_path, model="fake:step_s=1"), Memory()

    # when
    result = stage.submit(8, heard, deadline="1s")

    # then
    assert result.exit_code == 3
    assert result.answer is not None
    assert any("the earliest time" in line for line in result.answer.details)
    assert stage.counts() == {JobState.QUEUED: 8}
    assert not any("starting" in phase for phase in heard.phases)


def test_best_effort_makes_late_videos_and_says_so(tmp_path):
    # given steps of 0.4 s: even a third of the 8 takes longer than a second
    stage = Stage(tmp_path, model="fake:step_s=0.4")
    result = stage.submit(2, deadline="1s", on_infeasible=OnInfeasible.BEST_EFFORT)
    assert result.exit_code == 5
    assert stage.counts() == {JobState.DONE: 2}
    assert result.score.misses
    assert {miss.cause for miss in result.score.misses} == {"infeasible"}


def test_a_job_that_turns_out_slow_spends_fewer_steps_rather_than_be_late(tmp_path):
    # given a model that is known to be fast, and one prompt that takes five times as long: 8 steps
    # of 0.5 s
    stage = Stage(tmp_path, model="fake:step_s=0.1", pools=(PoolConfig("cloud"),))
    stage.submit(12)

    # when it gets 3 seconds
    result = stage.submit(["[slow] one"], deadline="3s")

    # then
    assert result.exit_code == 0
    catalog = open_catalog(stage.config.catalog)
    (record,) = catalog.jobs(result.batch.id)
    assert record.point is not None
    assert 3 <= record.point.steps < 8
    assert record.predicted_quality is not None
    assert record.predicted_quality < 1.0
    catalog.close()


def test_a_failing_job_is_tried_three_times_and_does_not_stop_the_others(tmp_path):
    # given a prompt that always fails, one that fails once, one that is refused
    stage = Stage(tmp_path)

    # when
    result = stage.submit(["good", "[fail] always", "[flaky] once", "[wrong] by itself", "fine"])

    # then
    assert result.exit_code == 4
    assert stage.counts() == {JobState.DONE: 3, JobState.FAILED: 2}
    catalog = open_catalog(stage.config.catalog)
    by_prompt = {record.job.prompt: record for record in catalog.jobs(result.batch.id)}
    assert by_prompt["[fail] always"].attempt in (
        2,
        3,
    )  # two workers, so the third try may find both to blame
    assert by_prompt["[wrong] by itself"].attempt == 1
    assert by_prompt["[flaky] once"].attempt == 2
    catalog.close()


def test_out_of_memory_is_cured_one_rung_lower(tmp_path):
    stage = Stage(tmp_path)
    result = stage.submit(["[oom] at full steps"])
    assert result.exit_code == 0
    catalog = open_catalog(stage.config.catalog)
    (record,) = catalog.jobs(result.batch.id)
    assert record.point is not None
    assert record.point.steps < 8
    catalog.close()


def test_retry_puts_failed_jobs_back_and_resume_runs_them(tmp_path):
    stage = Stage(tmp_path)
    result = stage.submit(["good", "[wrong] job"])
    assert retry(result.batch.id, None, stage.config) == 1
    assert stage.counts() == {JobState.DONE: 1, JobState.QUEUED: 1}
    again = stage.resume(result.batch.id)
    assert again.exit_code == 4
    assert again.computed == 0


def test_a_cancelled_batch_stays_cancelled_until_retried(tmp_path):
    # given a batch that was refused, and so is still queued
    stage = Stage(tmp_path, model="fake:step_s=1")
    batch = stage.submit(3, deadline="1s").batch

    # when
    assert cancel(batch.id[:6], None, stage.config) == 3

    # then
    assert stage.counts() == {JobState.CANCELLED: 3}
    with pytest.raises(UsageError, match="retry"):
        stage.resume(batch.id)


def test_one_job_can_be_cancelled_by_its_own_id(tmp_path):
    stage = Stage(tmp_path, model="fake:step_s=1")
    batch = stage.submit(3, deadline="1s").batch
    catalog = open_catalog(stage.config.catalog)
    job = catalog.jobs(batch.id)[1].job
    catalog.close()
    assert cancel(batch.id, job.id[:12], stage.config) == 1
    with pytest.raises(UsageError, match="no job"):
        cancel(batch.id, "nothing", stage.config)


def test_bad_rows_are_all_told_before_anything_is_enqueued(tmp_path):
    stage = Stage(tmp_path)
    file = tmp_path / "prompts.csv"
    file.write_text("prompt,width,deadline\nfine,64,\nwide,65,\nlate,64,60\n,64,\n")
    with pytest.raises(InputError) as caught:
        submit(SubmitRequest(str(file)), stage.config, Listener())
    assert [line.partition(",")[0] for line in caught.value.problems] == ["row 2", "row 3", "row 4"]
    assert not (tmp_path / "catalog.db").exists()


def test_a_plan_answers_and_leaves_nothing_behind(tmp_path):
    stage = Stage(tmp_path)
    answer = plan_only(SubmitRequest(stage.write(5), deadline="1h"), stage.config, Listener())
    assert answer.plan.verdict is Verdict.FEASIBLE
    assert (answer.jobs, answer.reused, len(answer.plan.assignments)) == (5, 0, 5)
    assert {path.name for path in tmp_path.iterdir()} == {"prompts.txt"}


def test_a_plan_of_a_batch_that_is_half_done_is_about_the_rest(tmp_path):
    stage = Stage(tmp_path)
    stage.submit(["one", "[fail] two"])
    retry("b", None, stage.config)
    answer = plan_only(SubmitRequest(stage.write(["one", "[fail] two"])), stage.config, Listener())
    assert (answer.jobs, answer.reused) == (2, 1)


def test_prompts_may_come_from_standard_input(tmp_path):
    request = SubmitRequest("-", format="txt", stdin=io.BytesIO(b"ein roter Kreis\n"))
    result = submit(request, Stage(tmp_path).config, Listener())
    assert result.exit_code == 0


def test_an_output_that_cannot_be_written_is_one_message_before_anything_starts(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    stage = Stage(tmp_path, output=str(tmp_path / "file" / "out"))
    with pytest.raises(StoreError):
        stage.submit(2)
    assert not (tmp_path / "catalog.db").exists()


def test_resuming_what_does_not_exist_names_the_batches_there_are(tmp_path):
    stage = Stage(tmp_path)
    batch = stage.submit(1).batch
    with pytest.raises(UsageError, match=batch.id):
        resume("bnothing", stage.config, Listener())


def test_more_jobs_than_the_window_are_all_made(tmp_path):
    # given a window of 20 jobs, and 90 of them
    from vidplat.config import RunConfig

    stage = Stage(tmp_path, run=RunConfig(window=20), pools=(PoolConfig("cloud", workers=3),))
    result = stage.submit(90, deadline="1h")
    assert (result.exit_code, result.computed) == (0, 90)


def test_what_was_learnt_is_kept_for_the_next_plan(tmp_path):
    # given a first batch at 20 ms a step
    stage = Stage(tmp_path, model="fake:step_s=0.02")
    stage.submit(12)

    # when the next one is planned: 12 jobs of 8 steps on two workers are about a second of work
    answer = plan_only(SubmitRequest(stage.write(["other"] * 12)), stage.config, Listener())

    # then a job is expected to take about 0.16 s; the prior said ten times more
    assert 0.1 < answer.plan.assignments[0].p50_s < 0.5
