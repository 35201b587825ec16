"""Catalog and store tell the same story, whatever was done to either of them."""

from __future__ import annotations

import json
import os
import threading
from contextlib import closing
from pathlib import Path

import pytest

from tests.flow.stage import Stage
from tests.platform.builders import Memory
from vidplat.cli.app import main
from vidplat.domain import JobState, Outcome
from vidplat.errors import ExitCode, UsageError
from vidplat.platform import cancel, resume, retry
from vidplat.storage import open_catalog

GONE = "1 video is gone from the store, or cut short there: made again"


def a_video(stage: Stage) -> Path:
    return min((stage.folder / "out").rglob("video.mp4"))


def doctored(stage: Stage, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[str, str]:
    """Health and finding of `vidplat doctor` about the videos."""
    capsys.readouterr()
    catalog, output = stage.config.catalog, stage.config.output
    main(["doctor", "--quick", "--json", "--catalog", catalog, "--output", output, *options])
    found = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    return found["videos"]["health"], f"{found['videos']['found']} {found['videos']['todo']}"


@pytest.mark.parametrize("again", ["resume", "submit"])
def test_a_video_that_was_deleted_is_made_again(tmp_path: Path, again: str) -> None:
    # given a finished batch, one of whose videos somebody deleted
    stage, heard = Stage(tmp_path), Memory()
    stage.submit(4, deadline="60s")
    a_video(stage).unlink()

    # when
    result = stage.resume(listener=heard) if again == "resume" else stage.submit(4, heard)

    # then that one alone is made again
    assert (result.exit_code, result.computed) == (0, 1)
    assert GONE in heard.warnings
    assert stage.counts() == {JobState.DONE: 4}
    stage.check_nothing_lost_or_twice()


def test_a_hole_is_not_handed_on_to_other_batches(tmp_path: Path) -> None:
    stage, heard = Stage(tmp_path), Memory()
    stage.submit(["a circle", "a square"])
    a_video(stage).write_bytes(b"")
    result = stage.submit(["a circle", "a square", "a star"], heard)
    assert (result.exit_code, result.reused, result.computed) == (0, 1, 2)
    assert GONE in heard.warnings


def test_doctor_tells_what_is_lost_and_repair_puts_it_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # given a video that is gone, one with other bytes, and what a kill left
    stage = Stage(tmp_path)
    batch = stage.submit(4).batch
    videos = sorted((tmp_path / "out").rglob("video.mp4"))
    videos[0].unlink()
    videos[1].write_bytes(bytes(len(videos[1].read_bytes())))
    leftovers = [
        videos[2].parents[1] / f".attempt-1-x-{name}" for name in ("video.mp4", "meta.json")
    ]
    leftovers += [videos[3].parents[4] / ".partial-ab"]
    leftovers += [tmp_path / "out" / "inputs" / "ab" / ".partial-cd"]
    leftovers[-1].parent.mkdir(parents=True)
    for each in leftovers:
        each.write_bytes(b"half")
    os.utime(leftovers[-1], (0, 0))  # others may be writing there

    # then all that was lost is found by whoever reads every byte
    assert f"gone or cut short: 2 of {batch.id}" in doctored(stage, capsys, "--verify")[1]
    health, found = doctored(stage, capsys, "--repair", "--verify")
    assert health == "warn"
    assert f"put back: 2 of {batch.id}" in found
    assert f"vidplat resume {batch.id}" in found

    # and after a resume all is well, and nothing is left
    assert stage.resume().exit_code == 0
    assert doctored(stage, capsys, "--repair", "--verify")[0] == "ok"
    assert [each for each in leftovers if each.exists()] == []
    assert stage.counts() == {JobState.DONE: 4}
    stage.check_nothing_lost_or_twice()


def test_repair_finds_what_the_catalog_has_lost_and_leaves_busy_batches_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # given a batch whose catalog does not know of its last video
    stage = Stage(tmp_path)
    batch = stage.submit(3).batch
    with closing(open_catalog(stage.config.catalog)) as catalog:
        catalog.lose(batch.id, [catalog.jobs(batch.id)[0].job.id], now=1.0)

        # while somebody else works on it, then alone
        catalog.hold_batch(batch.id, "elsewhere:1:1", lease_s=60)
        assert (
            f"left alone, somebody works on them: {batch.id}"
            in doctored(stage, capsys, "--repair")[1]
        )
        catalog.leave_batch(batch.id, "elsewhere:1:1")
        health, found = doctored(stage, capsys, "--repair")
        assert (health, "1 finished jobs found" in found) == ("ok", True)
        assert catalog.batch_state(batch.id) == "done"
    assert stage.counts() == {JobState.DONE: 3}


class Cancels(Memory):
    """Cancels the batch from elsewhere when it hears of the first video."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self._stage = stage

    def outcome(self, outcome: Outcome) -> None:
        super().outcome(outcome)
        if len(self.outcomes) == 1:
            elsewhere = threading.Thread(target=cancel, args=("b", None, self._stage.config))
            elsewhere.start()
            elsewhere.join()


def test_a_batch_cancelled_from_elsewhere_says_so_and_names_the_way_out(tmp_path: Path) -> None:
    # given a batch that is cancelled while it runs
    stage = Stage(tmp_path, model="fake:step_s=0.02")
    result = stage.submit(40, Cancels(stage))

    # then catalog and store agree on what was made, and the end says what leads on
    made, cancelled = stage.counts()[JobState.DONE], stage.counts()[JobState.CANCELLED]
    assert (made + cancelled, made) == (40, stage.committed())
    assert result.exit_code is ExitCode.SOME_FAILED
    assert f"{made} of 40 videos are there, {cancelled} cancelled" in result.message
    assert f"`vidplat retry {result.batch.id}`" in result.message

    # and so does a submit of the same file, until it is retried
    again = stage.submit(40)
    assert (again.exit_code, again.message) == (result.exit_code, result.message)
    assert retry("b", None, stage.config) == cancelled
    assert resume("b", stage.config, Memory()).exit_code == 0
    assert stage.counts() == {JobState.DONE: 40}
    stage.check_nothing_lost_or_twice()


def test_what_is_finished_is_not_cancelled(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    batch = stage.submit(2).batch
    with pytest.raises(
        UsageError, match=f"batch {batch.id} is finished: nothing is left to cancel"
    ):
        cancel("b", None, stage.config)
    with closing(open_catalog(stage.config.catalog)) as catalog:
        job_id = catalog.jobs(batch.id)[0].job.id
        with pytest.raises(UsageError, match="is finished"):
            cancel("b", job_id, stage.config)
        assert catalog.batch_state(batch.id) == "done"


def test_a_later_submit_leaves_a_finished_batch_s_deadline_alone(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    batch = stage.submit(2, deadline="60s").batch
    later = stage.submit(2, deadline="2h")
    assert later.exit_code == 0
    assert later.batch.deadline_at == batch.deadline_at
