"""Whatever dies, and wherever: nothing is lost, nothing is made twice, nothing partial is seen."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.flow.stage import Run, Stage
from tests.platform.builders import Memory
from vidplat.config import PoolConfig, RunConfig
from vidplat.domain import JobState
from vidplat.platform import report
from vidplat.platform.export import copy_videos
from vidplat.storage import open_catalog, open_store
from vidplat.storage.catalog import Catalog

PUBLISHED = {
    "video.mp4",
    "poster.jpg",
    "meta.json",
    "COMMIT.json",
    "manifest.parquet",
    "metrics.parquet",
}
#: What a death leaves of a file where another thread was writing; it is swept when it is old.
UNFINISHED = ".partial-"


def wait_for(stage: Stage, done: int, process: Run, limit_s: float = 120.0) -> None:
    """Until that many videos are committed in the store."""
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        if stage.committed() >= done:
            return
        if process.poll() is not None:
            raise AssertionError(f"ended early: {process.communicate()[0]}")
        time.sleep(0.02)
    raise AssertionError("nothing was committed in time")


def test_a_platform_killed_at_any_point_of_a_commit_is_resumed_to_the_end(tmp_path: Path):
    """Dies at the 1st, 2nd, 3rd ... instrumented point of worker, commit and turn; one batch
    survives them all."""
    # given two jobs, whose making passes some thirty points
    stage = Stage(tmp_path)
    file = stage.write(2)
    died_at: list[str] = []
    log = tmp_path / "died-at"

    # when a run dies at the n-th point and the next resumes, until one ends by itself
    for n in range(1, 60):
        verb = (
            ("submit", file)
            if n == 1 or not (tmp_path / "catalog.db").exists()
            else ("resume", "b")
        )
        process = stage.in_a_process(*verb, env={"CRASH_AT": str(n), "CRASH_LOG": str(log)})
        said, _ = process.communicate(timeout=120)
        assert process.returncode in (0, 137), said
        if process.returncode == 0:
            break
        died_at.append(log.read_text())

    # then it got there, having died at points of every kind
    assert stage.counts() == {JobState.DONE: 2}
    stage.check_nothing_lost_or_twice()
    assert {name for name in stage.files() if not name.startswith(UNFINISHED)} <= PUBLISHED
    assert len(died_at) >= 3


@pytest.mark.parametrize(
    "point",
    [
        "claimed",
        "sent",
        "before-write",
        "video.mp4-written",
        "committed",
        "before-finish",
        "after-finish",
    ],
)
def test_a_platform_killed_at_a_named_point_is_resumed_to_the_end(tmp_path: Path, point: str):
    stage = Stage(tmp_path)
    process = stage.in_a_process("submit", stage.write(3), env={"CRASH_AT": point})
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 137, said

    result = stage.resume()

    assert result.exit_code == 0
    assert stage.counts() == {JobState.DONE: 3}
    stage.check_nothing_lost_or_twice()


def test_kill_minus_nine_in_mid_batch_then_resume(tmp_path: Path):
    # given 30 jobs of 0.1 s each, of which a few are done
    stage = Stage(tmp_path, model="fake:step_s=0.0125")
    process = stage.in_a_process("submit", stage.write(30))
    wait_for(stage, 5, process)

    # when
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    committed = stage.committed()
    heard = Memory()
    result = stage.resume(listener=heard)

    # then no committed job is made again, and every other one is
    assert result.exit_code == 0
    assert stage.counts() == {JobState.DONE: 30}
    assert result.computed <= 30 - committed
    stage.check_nothing_lost_or_twice()
    assert any("found" in phase for phase in heard.phases)


def as_version_1(stage: Stage) -> None:
    """Lay every committed job out as the version before did: its files beside COMMIT.json."""
    for commit in (stage.folder / "out").rglob("COMMIT.json"):
        record = json.loads(commit.read_text())
        folder = commit.parent / record.pop("folder")
        for file in folder.iterdir():
            file.rename(commit.parent / file.name)
        folder.rmdir()
        commit.write_text(json.dumps({**record, "version": 1}))
    with closing(sqlite3.connect(stage.folder / "catalog.db")) as catalog, catalog:
        for (uri,) in catalog.execute("select video_uri from jobs where video_uri > ''").fetchall():
            old = str(Path(uri).parent.parent / "video.mp4")
            catalog.execute("update jobs set video_uri = ? where video_uri = ?", (old, uri))


def test_a_batch_begun_by_the_version_before_is_resumed_exported_and_reported(tmp_path: Path):
    # given a run of the version before that was killed
    stage = Stage(tmp_path, model="fake:step_s=0.0125")
    process = stage.in_a_process("submit", stage.write(12))
    wait_for(stage, 4, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    as_version_1(stage)
    made = stage.committed()

    # when
    result = stage.resume()

    # then nothing is made again, and old and new are had alike
    assert (result.exit_code, result.computed) == (0, 12 - made)
    stage.check_nothing_lost_or_twice()
    with closing(open_catalog(stage.config.catalog)) as catalog:
        (batch,) = catalog.batches()
        assert copy_videos(catalog, batch, tmp_path / "films") == 12
        told = report.link(
            report.gather(catalog, batch, time.time()), open_store(batch.output_prefix), embed=False
        )
    page = tmp_path / "out" / "batches" / batch.id
    assert all(card.video and (page / card.video).is_file() for card in told.cards)
    assert len(told.cards) == 12


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_drains_and_what_is_left_can_be_resumed(
    tmp_path: Path, number: signal.Signals
):
    # given jobs of 0.4 s
    stage = Stage(tmp_path, model="fake:step_s=0.05")
    process = stage.in_a_process("submit", stage.write(40))
    wait_for(stage, 2, process)

    # when
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)

    # then what ran was finished, the rest is queued, and resuming would go on
    assert process.returncode == 130, said
    assert "resume" in json.loads(said.splitlines()[-1])["message"]
    counts = stage.counts()
    assert set(counts) == {JobState.DONE, JobState.QUEUED}
    assert counts[JobState.QUEUED] > 20
    stage.check_nothing_lost_or_twice()


def test_what_was_admitted_is_finished_by_resume_though_its_deadline_has_passed(tmp_path: Path):
    # given a batch with a deadline, killed in mid-batch and left until the deadline is over
    stage = Stage(tmp_path, model="fake:step_s=0.05")
    stage.submit(["to learn the pace"] * 8)
    process = stage.in_a_process("submit", stage.write(16), "deadline=6s")
    wait_for(stage, 8 + 2, process)
    process.kill()
    process.communicate()
    catalog = open_catalog(stage.config.catalog)
    (batch,) = [each for each in catalog.batches() if each.deadline_at]
    catalog.close()
    assert batch.deadline_at is not None
    time.sleep(max(0.0, batch.deadline_at - time.time()))

    # when
    heard = Memory()
    result = stage.resume(batch.id, heard)

    # then everything is there, at full quality, and counts as late
    assert result.exit_code == 5
    assert result.counts[JobState.DONE] == 16
    assert any("deadline has passed" in warning for warning in heard.warnings)
    assert all(outcome.point.steps == 8 for outcome in heard.outcomes)
    assert len(result.score.misses) == result.computed


def test_eight_processes_that_submit_the_same_file_make_each_video_once(tmp_path: Path):
    # given
    stage = Stage(tmp_path, model="fake:step_s=0.01")
    file = stage.write(12)

    # when
    processes = [stage.in_a_process("submit", file) for _ in range(8)]
    said = [process.communicate(timeout=300)[0] for process in processes]

    # then all end well, and together they computed each job once
    assert [process.returncode for process in processes] == [0] * 8, said
    assert sum(json.loads(text.splitlines()[-1])["computed"] for text in said) == 12
    assert stage.counts() == {JobState.DONE: 12}
    stage.check_nothing_lost_or_twice()


def test_a_hold_of_a_dead_process_is_taken_over_at_once(tmp_path: Path):
    # given a run that was killed while it held the batch for another half minute
    stage = Stage(tmp_path, model="fake:step_s=0.05")
    process = stage.in_a_process("submit", stage.write(6))
    wait_for(stage, 1, process)
    process.kill()
    process.communicate()

    # when
    began = time.monotonic()
    result = stage.resume()

    # then
    assert result.exit_code == 0
    assert time.monotonic() - began < 20


def test_who_stored_a_batch_and_had_to_wait_takes_over_what_the_dead_one_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # given a run that died with jobs under way
    stage = Stage(tmp_path)
    process = stage.in_a_process("submit", stage.write(3), env={"CRASH_AT": "claimed"})
    process.communicate(timeout=120)
    add = Catalog.add_batch
    monkeypatch.setattr(Catalog, "add_batch", lambda *given: replace(add(*given), new=True))

    # when one goes on that had stored the batch before that run got it
    result = stage.submit(3)

    # then
    assert result.exit_code == 0
    assert stage.counts() == {JobState.DONE: 3}
    stage.check_nothing_lost_or_twice()


def test_a_full_disk_fails_the_jobs_with_that_reason_and_leaves_no_partial_file(tmp_path: Path):
    # given a store that has room for the probe and little else
    out = tmp_path / "out"
    out.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(out)], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        at_once = RunConfig(store_patience_s=0.0)
        stage = Stage(tmp_path, model="fake:size_bytes=20000", run=at_once)

        # when 8 videos of 20 KB are made
        process = stage.in_a_process("submit", stage.write(8))
        wait_for(stage, 1, process)
        until = time.monotonic() + 30
        while not stage.has_failures() and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)

        # then some are done, the others wait for room, and what is there is whole
        counts = stage.counts()
        assert counts.get(JobState.DONE, 0) >= 1
        assert counts.get(JobState.QUEUED, 0) + counts.get(JobState.FAILED, 0) >= 1
        stage.check_nothing_lost_or_twice()
        catalog = open_catalog(stage.config.catalog)
        failures = [
            r.failure for r in catalog.jobs(catalog.batches()[0].id) if r.failure is not None
        ]
        catalog.close()
        assert any(
            "full" in failure.message.lower() or "space" in failure.message.lower()
            for failure in failures
        )
    finally:
        subprocess.run(["umount", str(out)], check=True)


def test_a_job_that_hangs_is_given_up_and_made_by_another_worker(tmp_path: Path):
    # given a worker that hangs for an hour in its first step
    run = RunConfig(stall_s=1.0)
    stage = Stage(tmp_path, model="fake:step_s=0.01", run=run)

    # when
    process = stage.in_a_process("submit", stage.write(["good", "[hang] once", "also good"]))
    said, _ = process.communicate(timeout=60)

    # then
    assert process.returncode == 0, said
    assert stage.counts() == {JobState.DONE: 3}
    catalog = open_catalog(stage.config.catalog)
    (hung,) = [r for r in catalog.jobs(catalog.batches()[0].id) if "hang" in r.job.prompt]
    first, second = catalog.attempts(catalog.batches()[0].id, hung.job.id)
    catalog.close()
    assert first.failure is not None
    assert "hangs in denoise" in first.failure.message
    assert first.worker_id != second.worker_id


def test_the_first_signal_ends_a_run_whose_worker_hangs(tmp_path: Path):
    pools, run = (PoolConfig("cloud"),), RunConfig(stall_s=2.0)
    stage = Stage(tmp_path, model="fake:step_s=0.01", pools=pools, run=run)
    process = stage.in_a_process("submit", stage.write(["good", "[hang] for an hour", "last"]))
    wait_for(stage, 1, process)
    time.sleep(0.3)

    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=40)

    assert process.returncode == 130, said
    assert stage.counts() == {JobState.DONE: 1, JobState.QUEUED: 2}


def freeze(stage: Stage, process: Run) -> None:
    """Stop it at a moment at which it holds no lock that others would wait for."""
    while True:
        process.send_signal(signal.SIGSTOP)
        with closing(sqlite3.connect(stage.folder / "catalog.db", timeout=0.1)) as catalog:
            try:
                catalog.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError:
                process.send_signal(signal.SIGCONT)
                time.sleep(0.02)


def test_a_run_that_was_frozen_for_longer_than_its_lease_waits_for_who_took_over(tmp_path: Path):
    # given a run that is frozen in mid-batch
    run = RunConfig(lease_s=1.0, heartbeat_s=0.2)
    stage = Stage(tmp_path, model="fake:step_s=0.05", run=run)
    file = stage.write(16)
    process = stage.in_a_process("submit", file)
    wait_for(stage, 2, process)
    freeze(stage, process)

    # when another takes over, and the first wakes up while that is at work
    other = stage.in_a_process("submit", file)
    wait_for(stage, 6, other)
    process.send_signal(signal.SIGCONT)
    said = [each.communicate(timeout=60)[0] for each in (process, other)]

    # then both end well
    assert [process.returncode, other.returncode] == [0, 0], said
    assert stage.counts() == {JobState.DONE: 16}
    stage.check_nothing_lost_or_twice()
