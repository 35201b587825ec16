"""A video that one worker begins and another, without a model, finishes; on a tiny random model."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from vidplat.domain import Job, OperatingPoint, VideoSpec
from vidplat.errors import JobError
from vidplat.methods.filling.frames import filled
from vidplat.methods.filling.moments import filling_of
from vidplat.workers import Worker
from vidplat.workers.draft import Draft, Raw, Rendered
from vidplat.workers.making import Control
from vidplat.workers.video import to_frames, to_mp4

SPEC = VideoSpec(32, 32, 17, 16, 4, 3.0, seed=1)
POINT = OperatingPoint(4, method="eco:k=3")


def a_job(worker: Worker) -> Job:
    return Job("1" * 32, "a red circle", "", SPEC, worker.ref, row=1)


@pytest.fixture
def draft(worker: Worker) -> Draft:
    made = worker.make(a_job(worker), POINT, hand_over=True)
    assert isinstance(made, Draft)
    return made


def light() -> Worker:
    return Worker("never-loaded", id="edge-1")


def test_a_light_worker_makes_the_video_that_its_maker_would_have_made(
    worker: Worker, draft: Draft
) -> None:
    told: list[str] = []
    finished = light().finish(
        a_job(worker), draft, on_progress=lambda phase, step, steps: told.append(phase)
    )
    whole = worker.make(a_job(worker), POINT)

    # what was decoded travelled compressed and lies where its maker would put it (a random model's
    # frames are noise, which suffers, so they are compared with the same frames in another order);
    # the rest is made of it
    theirs, own = (to_frames(made.video).mean(axis=-1) for made in (finished, whole))
    moments = filling_of(draft.filling).moments
    decoded = [n for n, moment in enumerate(moments) if moment.is_decoded]
    assert theirs.shape == own.shape == (17, 32, 32)
    in_place, turned = (
        np.abs(theirs[decoded] - other).mean() for other in (own[decoded], own[decoded][::-1])
    )
    assert in_place < turned / 2
    assert finished.video == to_mp4(filled(to_frames(draft.video), moments), SPEC.fps)
    assert told == ["reconstruct", "mp4"]


def test_what_another_thread_compresses_is_the_same_video(worker: Worker, draft: Draft) -> None:
    told: list[str] = []
    control = Control(on_step=lambda phase, step, steps: told.append(phase))
    for raw, whole in (
        (worker.make(a_job(worker), POINT, control, raw=True), worker.make(a_job(worker), POINT)),
        (light().finish(a_job(worker), draft, raw=True), light().finish(a_job(worker), draft)),
    ):
        assert isinstance(raw, Raw)
        assert isinstance(whole, Rendered)
        with ThreadPoolExecutor(1) as other:
            found = other.submit(raw.compressed).result()
        assert (found.video, found.poster) == (whole.video, whole.poster)
        assert (found.metrics, found.steps_done) == (whole.metrics, raw.steps_done)
        assert found.phases["mp4"] > 0
    assert "mp4" not in told, "whoever compresses it tells of that"


def test_a_light_worker_needs_no_torch() -> None:
    code = """
import sys
from vidplat.workers import Worker
Worker("never-loaded").prepare_to_finish()
print("vidplat.methods.filling.frames" in sys.modules, "torch" in sys.modules)
"""
    said = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    assert said.split() == ["True", "False"]


def test_a_draft_is_smaller_than_the_video_and_says_what_was_spent(
    worker: Worker, draft: Draft
) -> None:
    assert len(to_frames(draft.video)) == 4 * (3 - 1) + 1
    assert draft.size_bytes == len(draft.video)
    assert set(draft.phases) == {"encode", "denoise", "decode"}
    assert draft.steps_done == 4


def test_the_sidecar_tells_both_workers(worker: Worker, draft: Draft) -> None:
    finished = light().finish(a_job(worker), draft, attempt=2)

    assert finished.meta["worker"] == {"id": "edge-1", "device_class": "cpu-1", "attempt": 2}
    assert finished.meta["drafted_by"]["id"] == worker.id
    assert finished.meta["model"]["revision"] == worker.ref.revision
    assert {"denoise", "reconstruct", "mp4"} <= set(finished.meta["phases_s"])
    assert set(finished.metrics) >= {"flicker", "motion_energy"}


def test_what_leaves_nothing_out_is_never_a_draft(worker: Worker) -> None:
    for method in ("full", "eco:k=5"):  # five latent frames are all there are
        made: Any = worker.make(a_job(worker), replace(POINT, method=method), hand_over=True)
        assert not isinstance(made, Draft)
        assert to_frames(made.video).shape[0] == 17


@pytest.mark.parametrize(
    "filling",
    [
        {},
        {"moments": [[40, 0, 1]] * 17},  # frames that are not there
        {"moments": [[0, 3, 2]] * 17},  # beyond the next one
        {"moments": [[0, 0, 1]] * 16},  # one frame too few
    ],
)
def test_a_draft_that_makes_no_sense_fails_its_job_and_not_the_worker(
    worker: Worker, draft: Draft, filling: dict[str, Any]
) -> None:
    with pytest.raises(JobError):
        light().finish(a_job(worker), replace(draft, filling=filling))


def test_a_draft_that_is_no_video_fails_its_job(worker: Worker, draft: Draft) -> None:
    with pytest.raises(JobError):
        light().finish(a_job(worker), replace(draft, video=b"no video"))
