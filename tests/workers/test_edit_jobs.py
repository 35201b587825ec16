"""Jobs with an input video, from its bytes to the sidecar, on a tiny random model."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.source_videos import an_mp4, counted
from vidplat.config import InputConfig
from vidplat.domain import Job, OperatingPoint, VideoSpec
from vidplat.errors import InputError, JobError
from vidplat.workers import Worker
from vidplat.workers.making import LONGEST_SCHEDULE, Control, schedule_steps
from vidplat.workers.source_frames import SourceFrames
from vidplat.workers.video import to_frames

SPEC = VideoSpec(32, 32, 9, 16, 4, 3.0, seed=1)


def a_loader(data: bytes, asked: list[str] | None = None) -> Callable[[Job], bytes]:
    def load(job: Job) -> bytes:
        if asked is not None:
            asked.append(job.id)
        return data

    return load


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return an_mp4(tmp_path_factory.mktemp("clips") / "a.mp4", counted(9)).read_bytes()


@pytest.fixture
def editing(worker: Worker, source: bytes, monkeypatch: pytest.MonkeyPatch) -> Worker:
    monkeypatch.setattr(worker, "sources", sources_of(source))
    return worker


def sources_of(data: bytes, asked: list[str] | None = None) -> SourceFrames:
    return SourceFrames(a_loader(data, asked), InputConfig())


def an_edit(worker: Worker, source: bytes, **changed: Any) -> Job:
    digest = hashlib.sha256(source).hexdigest()
    job = Job("1" * 32, "a red circle", "", SPEC, worker.ref, row=1)
    return replace(
        job, **{"input_video": "/clips/a.mp4", "input_sha256": digest, "strength": 0.6, **changed}
    )


def test_an_edit_spends_the_steps_of_its_point_and_says_where_it_came_from(
    editing: Worker, source: bytes
) -> None:
    told: list[tuple[str, int, int]] = []
    made = editing.make(
        an_edit(editing, source), OperatingPoint(3), Control(lambda *beat: told.append(beat))
    )

    assert made.steps_done == 3
    assert to_frames(made.video).shape == (9, 32, 32, 3)
    assert made.meta["input"] == {
        "video": "/clips/a.mp4",
        "sha256": hashlib.sha256(source).hexdigest(),
        "strength": 0.6,
    }
    assert made.meta["point"]["steps"] == made.meta["point"]["steps_done"] == 3
    # it begins where 60 % of the schedule is left, not at noise alone
    assert made.meta["sigmas"][0] < 0.95 and len(made.meta["sigmas"]) in (3, 4)
    assert made.phases["source"] > 0
    assert told == [
        ("source", 0, 3),
        ("encode", 0, 3),
        *(("denoise", step, 3) for step in range(4)),
        ("decode", 3, 3),
        ("mp4", 3, 3),
    ]


def test_the_same_edit_gives_the_same_bytes_and_another_strength_others(
    editing: Worker, source: bytes
) -> None:
    first, again = (
        editing.make(an_edit(editing, source), OperatingPoint(2)).video for _ in range(2)
    )
    other = editing.make(an_edit(editing, source, strength=0.3), OperatingPoint(2)).video
    plain = editing.make(
        replace(an_edit(editing, source), input_video=None, strength=None), OperatingPoint(2)
    )
    assert first == again
    assert len({first, other, plain.video}) == 3
    assert "input" not in plain.meta and "source" not in plain.phases


def test_a_source_is_fetched_and_decoded_once_for_jobs_that_follow_each_other(
    editing: Worker, source: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(editing, "sources", sources_of(source, asked))
    for seed in (1, 2, 3):
        editing.make(an_edit(editing, source, spec=replace(SPEC, seed=seed)), OperatingPoint(1))
    assert len(asked) == 1
    editing.make(an_edit(editing, source, spec=replace(SPEC, num_frames=5)), OperatingPoint(1))
    assert len(asked) == 2


def test_a_source_that_cannot_be_decoded_is_the_requests_fault(
    editing: Worker, source: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(editing, "sources", sources_of(source[: len(source) // 2]))
    with pytest.raises(InputError, match=r"^the input video is truncated"):
        editing.make(an_edit(editing, source), OperatingPoint(1))
    monkeypatch.setattr(editing, "sources", SourceFrames(None, InputConfig()))
    with pytest.raises(JobError, match="no way to load input videos"):
        editing.make(an_edit(editing, source), OperatingPoint(1))


def test_an_edit_that_has_no_time_left_takes_one_more_step_and_says_so(
    editing: Worker, source: bytes
) -> None:
    late = Control(finish_by=time.time() - 1)
    made = editing.make(an_edit(editing, source), OperatingPoint(20), late)

    # The first step is always taken in full, then one that jumps to the end.
    assert made.steps_done == 2
    assert made.meta["point"] == {"steps": 20, "method": "full", "steps_done": 2}


def test_the_share_of_tokens_that_lipar_let_run_is_told(editing: Worker, source: bytes) -> None:
    # thresholds that nothing reaches leave the first frame alone: 4 x 4 tokens of 3 x 4 x 4; those
    # of 0 leave all
    for method, share in (("lipar:tau1=10,tau2=10", 1 / 3), ("lipar:tau1=0,tau2=0", 1.0)):
        made = editing.make(an_edit(editing, source), OperatingPoint(2, method))
        assert made.metrics["kept_share"] == pytest.approx(share)
        assert made.meta["metrics"]["kept_share"] == pytest.approx(share, abs=1e-6)
    assert "kept_share" not in editing.make(an_edit(editing, source), OperatingPoint(2)).metrics


@given(steps=st.integers(1, 200), strength=st.floats(0.05, 1.0))
def test_the_last_strength_of_a_schedule_has_the_steps_of_the_point(
    steps: int, strength: float
) -> None:
    length = schedule_steps(steps, strength)
    assert int(length * strength) == steps
    assert length == steps or int((length - 1) * strength) < steps


def test_schedules_of_known_lengths() -> None:
    assert [schedule_steps(24, strength) for strength in (1.0, 0.6, 0.5, 0.3)] == [24, 40, 48, 80]
    assert schedule_steps(24, 1e-300) == LONGEST_SCHEDULE
