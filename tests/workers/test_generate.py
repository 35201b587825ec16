"""The denoising loop: determinism, early finish, cancelling, and what it refuses to hand out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from vidplat.domain import Job, OperatingPoint, VideoSpec
from vidplat.errors import JobError, OutOfMemoryError, SpecError
from vidplat.workers import Worker
from vidplat.workers.making import Cancelled, Control, Pace


def a_spec(**changes: Any) -> VideoSpec:
    facts = {"width": 32, "height": 32, "num_frames": 9, "fps": 8, "num_inference_steps": 4}
    return VideoSpec(**{**facts, "guidance_scale": 3.0, "seed": 1, **changes})


def a_job(worker: Worker, prompt: str = "a red circle", **changes: Any) -> Job:
    return Job("1" * 32, prompt, "", a_spec(**changes), worker.ref, row=1)


def test_the_same_job_twice_with_others_between_gives_the_same_bytes(worker: Worker) -> None:
    first = worker.make(a_job(worker), OperatingPoint(4))
    worker.make(a_job(worker, "a blue square", seed=2, num_frames=5), OperatingPoint(2))
    again = worker.make(a_job(worker), OperatingPoint(4))

    assert again.video == first.video
    assert again.poster == first.poster


def test_another_seed_gives_another_video(worker: Worker) -> None:
    one, two = (worker.make(a_job(worker, seed=seed), OperatingPoint(2)).video for seed in (1, 2))

    assert one != two


def test_progress_tells_every_phase_and_every_step(worker: Worker) -> None:
    told: list[tuple[str, int, int]] = []

    worker.make(a_job(worker), OperatingPoint(3), Control(lambda *beat: told.append(beat)))

    assert told == [
        ("encode", 0, 3),
        *(("denoise", step, 3) for step in range(4)),
        ("decode", 3, 3),
        ("mp4", 3, 3),
    ]


def test_a_job_that_has_no_time_left_takes_one_more_step_and_says_so(worker: Worker) -> None:
    rendered = worker.make(a_job(worker), OperatingPoint(20), Control(finish_by=time.time() - 1))

    # The first step is always taken in full, then one that jumps to the end.
    assert rendered.steps_done == 2
    assert rendered.meta["point"]["steps_done"] == 2
    assert rendered.meta["sigmas"][0] == 1.0 and rendered.meta["sigmas"][-1] == 0.0


def test_the_fewest_steps_a_plan_allows_are_kept_even_when_late(worker: Worker) -> None:
    late = Control(finish_by=time.time() - 1, min_steps=6)
    rendered = worker.make(a_job(worker), OperatingPoint(20), late)

    assert rendered.steps_done == 6


def test_a_distant_deadline_changes_nothing(worker: Worker) -> None:
    free = worker.make(a_job(worker), OperatingPoint(4))
    distant = Control(finish_by=lambda: time.time() + 3600)
    bound = worker.make(a_job(worker), OperatingPoint(4), distant)

    assert bound.video == free.video


def test_a_deadline_withdrawn_in_mid_run_is_no_deadline(worker: Worker) -> None:
    rendered = worker.make(a_job(worker), OperatingPoint(4), Control(finish_by=lambda: None))

    assert rendered.steps_done == 4


def test_steps_that_fit_are_counted_from_the_runs_own_pace() -> None:
    pace = Pace(Control(finish_by=time.time() + 10, tail_s=4.0))
    pace._step_s = 1.0

    # 10 s to go, 4 s of decoding to come: 6 s, a little less by now, are 5 whole steps.
    assert pace.affordable(done=3, remaining=17) == 5
    assert pace.affordable(done=3, remaining=2) == 2


def test_cancelling_stops_at_the_next_step_boundary(worker: Worker) -> None:
    answers: Iterator[bool] = iter([False, False, True])

    with pytest.raises(Cancelled, match="after 2 of 9 steps"):
        worker.make(a_job(worker), OperatingPoint(9), Control(is_cancelled=lambda: next(answers)))


def test_what_a_progress_listener_raises_ends_the_job(worker: Worker) -> None:
    def refuse(phase: str, step: int, steps: int) -> None:
        raise JobError("stopped on request")

    with pytest.raises(JobError, match="on request"):
        worker.make(a_job(worker), OperatingPoint(2), Control(refuse))


def test_a_point_without_a_step_is_refused(worker: Worker) -> None:
    with pytest.raises(SpecError, match="steps must be at least 1"):
        worker.make(a_job(worker), OperatingPoint(0))


def test_values_that_are_not_finite_fail_the_job(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        worker.loaded.family, "velocity", lambda latents, *_: torch.full_like(latents, float("nan"))
    )

    with pytest.raises(JobError, match="not finite within 2 steps"):
        worker.make(a_job(worker), OperatingPoint(2))


def test_running_out_of_memory_is_told_apart_and_the_worker_lives_on(worker: Worker) -> None:
    # 2^20 x 2^20 pixels: noise alone would take 48 x 2^34 x 4 bytes = 3 TiB.
    with pytest.raises(OutOfMemoryError, match="1048576x1048576"):
        worker.make(a_job(worker, width=2**20, height=2**20, num_frames=1), OperatingPoint(1))

    assert worker.make(a_job(worker), OperatingPoint(1)).video


def test_the_sidecar_tells_how_the_video_was_made(worker: Worker) -> None:
    job = a_job(worker)

    meta = worker.make(job, OperatingPoint(3, method="steps"), attempt=2).meta

    assert meta["model"] == {"id": job.model.id, "revision": job.model.revision}
    assert meta["spec"]["seed"] == 1
    assert meta["point"] == {"steps": 3, "method": "steps", "steps_done": 3}
    assert meta["worker"]["attempt"] == 2
    assert set(meta["phases_s"]) == {"encode", "denoise", "decode", "mp4"}
    assert {"torch", "diffusers", "vidplat"} <= set(meta["versions"])
    assert len(meta["sigmas"]) == 4


def test_texts_met_before_are_not_encoded_again(worker: Worker) -> None:
    family: Any = worker.loaded.family
    asked: list[Any] = []
    watch = family.text_encoder.register_forward_pre_hook(lambda *call: asked.append(call))
    worker.make(a_job(worker, "a green square"), OperatingPoint(1))
    first = len(asked)

    worker.make(a_job(worker, "a green square", seed=5), OperatingPoint(1))

    watch.remove()
    assert len(asked) == first > 0


def test_calibration_measures_every_stage_at_two_sizes(worker: Worker) -> None:
    rows = worker.calibrate()

    assert {row["stage"] for row in rows} == {"encode", "denoise", "decode", "mp4"}
    assert {row["spec"].num_frames for row in rows} == {1, 9}
    assert all(row["seconds"] > 0 and row["device_class"] == "cpu-1" for row in rows)


def test_a_worker_whose_weights_are_not_those_of_the_submit_refuses(worker: Worker) -> None:
    from vidplat.domain import ModelRef
    from vidplat.errors import ModelError

    with pytest.raises(ModelError, match="not those of the submit"):
        Worker(ModelRef(worker.ref.id, "0" * 16)).load()


def test_frames_are_those_of_the_file(worker: Worker) -> None:
    from vidplat.workers.video import probe, to_frames

    rendered = worker.make(a_job(worker), OperatingPoint(2))

    facts = probe(rendered.video)
    assert (facts.width, facts.height, facts.num_frames, facts.fps) == (32, 32, 9, 8.0)
    assert to_frames(rendered.video).shape == (9, 32, 32, 3)
    assert to_frames(rendered.video).dtype == np.uint8


def test_two_workers_side_by_side_make_what_each_makes_alone(worker: Worker) -> None:
    other = Worker(worker.ref)
    other.load()
    alone = worker.make(a_job(worker), OperatingPoint(4)).video

    with ThreadPoolExecutor(2) as both:
        beside = list(
            both.map(lambda w: w.make(a_job(worker), OperatingPoint(4)).video, (worker, other))
        )

    assert beside == [alone, alone]


def test_cheap_steps_to_come_are_counted_at_their_share() -> None:
    """One full step took 1 s and 3.5 s are left: not the 3 steps that full ones would be, but all
    6, which take 5 x 0.5 + 1 = 3.5 full ones. A tenth of a second less, and the one that is left
    out is a half."""

    def half_but_the_ends(step: int, steps: int) -> float:
        return 1.0 if step in (0, steps - 1) else 0.5

    pace = Pace(Control(finish_by=lambda: time.time() + left), half_but_the_ends)
    pace._since = time.perf_counter() - 1.0
    pace.step_done(0, 7)
    left = 3.6
    assert pace.affordable(1, 6) == 6
    left = 3.4
    assert pace.affordable(1, 6) == 5
