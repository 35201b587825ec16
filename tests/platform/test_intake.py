"""Rows become jobs, or one error that lists every bad row."""

from __future__ import annotations

from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.platform.builders import NOW, a_prompt, taken
from vidplat.domain import ModelRef, VideoSpec, job_id
from vidplat.errors import InputError, ModelError, UsageError
from vidplat.platform.spool import JobSpool, Row
from vidplat.storage.prompt_cells import RowProblem


def problems_of(*prompts, **wishes) -> tuple[str, ...]:
    with pytest.raises(InputError) as caught:
        taken(prompts, **wishes)
    return caught.value.problems


def test_a_row_that_says_nothing_gets_the_submits_wishes_and_then_the_models_defaults():
    # given a submit that asks for 17 frames, and a row that asks for another width
    batch = taken([a_prompt(), a_prompt(2, "a blue square", width=128)], spec={"num_frames": 17}, seed=5, priority=2)

    # when
    first, second = batch.jobs

    # then the rest is the fake model's: 64x64, 16 fps, 8 steps, guidance 5
    assert first.spec == VideoSpec(64, 64, 17, 16, 8, 5.0, 5)
    assert second.spec == VideoSpec(128, 64, 17, 16, 8, 5.0, 5)
    assert (first.priority, first.row, second.row) == (2, 1, 2)
    assert batch.batch.total == 2


@given(
    text=st.text(min_size=1).filter(lambda t: t.isprintable()),
    negative=st.text(max_size=20),
    seed=st.integers(0, 2**63 - 1),
    guidance=st.one_of(st.integers(0, 100), st.floats(0, 100)),
)
def test_job_ids_are_those_of_the_domain(text, negative, seed, guidance):
    (job,) = taken([a_prompt(text=text, negative_prompt=negative, seed=seed, guidance_scale=guidance)]).jobs
    assert job.id == job_id(job.prompt, job.negative_prompt, job.spec, job.model)


def test_a_prompt_given_three_times_makes_three_different_videos():
    jobs = list(taken([a_prompt(row) for row in (1, 2, 3)], seed=10).jobs)
    assert [job.spec.seed for job in jobs] == [10, 11, 12]
    assert len({job.id for job in jobs}) == 3


def test_a_seed_that_an_earlier_row_spelled_out_is_passed_over():
    # given row 1 with the seed that row 2 would get
    jobs = list(taken([a_prompt(1, seed=0), a_prompt(2), a_prompt(3)]).jobs)
    assert [job.spec.seed for job in jobs] == [0, 1, 2]


def test_a_row_that_spells_out_an_earlier_video_names_both_rows():
    (problem,) = problems_of(a_prompt(1, seed=4), a_prompt(7, seed=4))
    assert problem.startswith("row 7, seed: asks for the same video as row 1")


def test_seconds_become_the_nearest_frame_count_the_model_can_make():
    # 2 s at 16 fps are 32 frames; the nearest of the form 4k+1 is 33
    (job,) = taken([a_prompt(seconds=2.0)]).jobs
    assert job.spec.num_frames == 33


def test_rows_may_have_their_own_deadline_method_and_priority():
    (job,) = taken([a_prompt(deadline="90s", method="steps:4", priority=9)], deadline="1h").jobs
    assert (job.deadline_at, job.method, job.priority) == (NOW + 90, "steps:4", 9)


def test_every_bad_row_is_listed_with_its_column_and_what_would_be_right():
    problems = problems_of(
        a_prompt(1),
        a_prompt(2, width=65),
        a_prompt(3, "other", num_frames=30),
        RowProblem(4, "caption", "is empty"),
        a_prompt(5, deadline="60"),
        a_prompt(6, method="magic"),
        a_prompt(7, num_inference_steps=10**6),
        a_prompt(8, width=16_384, height=16_384, num_frames=99_997),
    )
    assert [text.partition(",")[0] for text in problems] == [f"row {n}" for n in (2, 3, 4, 5, 6, 7, 8)]
    text = "\n".join(problems)
    for said in ("multiple of 16", "use 64", "4k+1", "use 29", "is empty", "e.g. 60s", "magic", "at most", "too large"):
        assert said in text


def test_many_bad_rows_are_counted_beyond_the_first_hundred():
    # given 250 bad rows, in an order of no help
    problems = problems_of(*(a_prompt(row, width=65) for row in reversed(range(1, 251))))
    assert len(problems) == 101
    assert problems[0].startswith("row 1,")
    assert problems[99].startswith("row 100,")
    assert problems[-1] == "and 150 more rows"


def test_the_message_says_how_many_rows_are_bad_and_that_nothing_was_enqueued():
    with pytest.raises(InputError, match="1 row of 2 cannot be used; nothing was enqueued"):
        taken([a_prompt(1), a_prompt(2, height=1)])


def test_a_column_name_full_of_escapes_is_harmless_in_the_message():
    (problem,) = problems_of(RowProblem(1, "\x1b[31mred", "no \x07 bell"))
    assert problem.isprintable()


def test_a_submit_whose_own_wishes_are_wrong_is_refused_before_any_row():
    for wishes in ({"spec": {"width": 30}}, {"deadline": "60"}, {"method": "magic"}, {"quality_floor": 2.0}):
        with pytest.raises(UsageError):
            taken([a_prompt()], **wishes)
    with pytest.raises(ModelError):
        taken([a_prompt()], model="fake:wheels=4")


def test_no_rows_are_an_error():
    with pytest.raises(InputError, match="no prompts"):
        taken([])


def test_the_batch_id_depends_on_rows_their_order_their_ids_the_prefix_and_the_method():
    rows = [a_prompt(1, "one"), a_prompt(2, "two")]
    usual = taken(rows).batch.id
    assert usual == taken(rows, now=NOW + 60).batch.id
    others = {
        taken([a_prompt(1, "two"), a_prompt(2, "one")]).batch.id,
        taken([a_prompt(1, "one", external_id="a"), a_prompt(2, "two")]).batch.id,
        taken(rows, prefix="/elsewhere").batch.id,
        taken(rows, method="steps:4").batch.id,
    }
    assert len(others) == 4
    assert usual not in others
    assert len(usual) == 12
    assert usual[0] == "b"


def test_a_spool_can_be_read_more_than_once_and_between_writes():
    with closing(JobSpool()) as spool:
        # given more than two lines of the spool
        template = spool.template(VideoSpec(64, 64, 33, 16, 8, 5.0, 0), ModelRef("fake", "1"))
        rows = [Row(f"{n:032x}", f"prompt {n}", "", template, n, n + 1, None, 0, None, None) for n in range(2_501)]
        for row in rows:
            spool.append(row)

        # when it is read twice
        first, second = list(spool), list(spool)

        # then
        assert first == second
        assert [job.row for job in first] == list(range(1, 2_502))
        assert first[7].spec.seed == 7


def test_rows_of_another_model_keep_it():
    first, second = taken([a_prompt(1), a_prompt(2, model="fake:step_s=0.5")]).jobs
    assert (first.model.id, second.model.id) == ("fake", "fake:step_s=0.5")
