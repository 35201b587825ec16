"""Progress counts finished denoising steps, and never overstates."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.cli.records import SUBMITTED_AT, a_batch
from vidplat.cli.glance import Doing, Glance, sentence
from vidplat.cli.progress import RunDisplay
from vidplat.cli.screen import draw
from vidplat.domain import (
    Artifact,
    Failure,
    FailureKind,
    JobState,
    OperatingPoint,
    Outcome,
    Progress,
)
from vidplat.scheduler.decision import Assignment, Plan, Verdict

ARTIFACT = Artifact("v", "p", "m", "00", 1, 1)


def a_plan(**steps: int) -> Plan:
    """Jobs by name with the steps they get."""
    return Plan(
        Verdict.FEASIBLE,
        tuple(
            Assignment(job, "cloud-0", "cloud", OperatingPoint(many), 0, 1, 1, 1.0, 1, 1)
            for job, many in steps.items()
        ),
        finish_p50_at=SUBMITTED_AT + 30,
        finish_p90_at=SUBMITTED_AT + 40,
    )


def an_outcome(job: str, *, steps: int, ok: bool = True) -> Outcome:
    failure = None if ok else Failure(FailureKind.JOB, "it failed")
    return Outcome(
        job,
        1,
        "cloud-0",
        OperatingPoint(steps),
        0,
        1,
        artifact=ARTIFACT if ok else None,
        failure=failure,
        steps_done=steps,
    )


def a_beat(job: str, step: int) -> Progress:
    return Progress(job, 1, "cloud-0", "denoise", step, 24, SUBMITTED_AT)


def a_display(*, jobs: int, made: int = 0) -> RunDisplay:
    """A display of a run that has begun with so many jobs."""
    display = RunDisplay(quiet=True, clock=lambda: SUBMITTED_AT + 10)
    display.begun(a_batch(total=jobs), {JobState.QUEUED: jobs - made, JobState.DONE: made})
    return display


def test_half_made_videos_count_by_their_steps() -> None:
    display = a_display(jobs=2)

    display.planned(a_plan(one=24, two=24), None)
    display.progress(a_beat("one", 6))

    glance = display.glance()
    assert (glance.steps_done, glance.steps_total, glance.made, glance.total) == (6, 48, 0, 2)
    assert glance.doing == (Doing("cloud-0", "denoise", 6, 24, "one"),)


def test_a_later_plan_with_fewer_steps_shrinks_what_is_ahead() -> None:
    display = a_display(jobs=2)
    display.planned(a_plan(one=24, two=24), None)

    display.planned(a_plan(two=8), None)

    assert display.glance().steps_total == 24 + 8


def test_a_video_that_stopped_early_counts_the_steps_it_spent() -> None:
    display = a_display(jobs=2)
    display.planned(a_plan(one=24, two=24), None)
    display.progress(a_beat("one", 17))

    display.outcome(an_outcome("one", steps=18))

    glance = display.glance()
    assert (glance.steps_done, glance.steps_total, glance.made, glance.doing) == (
        18,
        18 + 24,
        1,
        (),
    )


def test_a_video_that_is_stored_beside_the_next_keeps_its_steps() -> None:
    display = a_display(jobs=2)
    display.planned(a_plan(one=24, two=24), None)
    display.progress(replace(a_beat("one", 24), phase="store"))
    display.progress(a_beat("two", 6))
    display.progress(replace(a_beat("one", 24), phase="store"))  # offered again

    glance = display.glance()
    assert glance.steps_done == 24 + 6
    assert glance.doing == (Doing("cloud-0", "denoise", 6, 24, "two"),)
    display.outcome(an_outcome("one", steps=24))
    assert display.glance().steps_done == 24 + 6


def test_a_failed_attempt_gives_its_steps_back(capsys: pytest.CaptureFixture[str]) -> None:
    display = a_display(jobs=1)
    display.planned(a_plan(one=24), None)
    display.progress(a_beat("one", 12))

    display.outcome(an_outcome("one", steps=12, ok=False))

    assert (display.glance().steps_done, display.glance().steps_total) == (0, 24)
    assert "it failed" in capsys.readouterr().err


def test_jobs_that_no_plan_has_named_yet_count_as_many_steps_as_the_others() -> None:
    # given ten jobs, four of them made by an earlier run
    display = a_display(jobs=10, made=4)

    # when a plan names two of the six open ones, with 24 and 12 steps
    display.planned(a_plan(one=24, two=12), None)

    # then the other four are expected at 18 each: 36 + 72
    glance = display.glance()
    assert (glance.steps_total, glance.made, glance.total) == (108, 4, 10)
    assert glance.deadline_at == SUBMITTED_AT + 60


def test_the_line_for_pipes_says_steps_videos_finish_and_deadline() -> None:
    glance = Glance(
        now=100.0,
        steps_done=212,
        steps_total=384,
        made=9,
        lost=1,
        total=16,
        finish_p50_at=121.0,
        finish_p90_at=125.0,
        deadline_at=133.0,
    )

    assert sentence(glance) == (
        "212 of 384 steps, 9 of 16 videos, 1 failed, finish in 21 s (p90 25 s), deadline in 33 s"
    )


def test_a_deadline_that_has_passed_is_said_so() -> None:
    assert (
        sentence(Glance(now=100.0, total=2, deadline_at=88.0))
        == "0 of 2 videos, deadline was 12 s ago"
    )


def test_what_is_drawn_on_a_terminal_is_harmless() -> None:
    from io import StringIO

    from rich.console import Console

    out = Console(file=StringIO(), force_terminal=True, width=80, color_system=None)

    out.print(
        draw(
            Glance(
                now=0,
                phase="\x1b[2J",
                steps_total=10,
                steps_done=5,
                doing=(Doing("w\x07", "x", 1, 2, "[b]"),),
            )
        )
    )

    text = out.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b[2J" not in text and "\x07" not in text
    assert "[b]" in text


def test_a_job_that_counts_passes_is_told_in_steps_of_its_plan() -> None:
    """Block by block, 4 steps are three blocks of 5 passes: 15."""
    display = a_display(jobs=2)
    display.planned(a_plan(a=4, b=4), None)

    found = []
    for passes in (0, 5, 14, 15):
        display.progress(replace(a_beat("a", passes), steps=15))
        found.append(display.glance().steps_done)

    assert found == [0, 1, 3, 4]
    assert display.glance().steps_total == 8
