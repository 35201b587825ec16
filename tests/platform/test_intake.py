"""Rows become jobs, or one error that lists every bad row."""

from __future__ import annotations

import hashlib
import json
from contextlib import closing
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import job_id
from tests.platform.builders import NOW, FakeSources, a_prompt, a_source, taken
from vidplat.domain import DEFAULT_STRENGTH, ModelRef, VideoSpec
from vidplat.errors import InputError, ModelError, UsageError
from vidplat.platform.intake.spool import JobSpool, Row
from vidplat.storage.prompt_cells import RowProblem


def problems_of(*prompts, **wishes) -> tuple[str, ...]:
    with pytest.raises(InputError) as caught:
        taken(prompts, **wishes)
    return caught.value.problems


def test_a_row_that_says_nothing_gets_the_submits_wishes_and_then_the_models_defaults():
    # given a submit that asks for 17 frames, and a row that asks for another width
    batch = taken(
        [a_prompt(), a_prompt(2, "a blue square", width=128)],
        spec={"num_frames": 17},
        seed=5,
        priority=2,
    )

    # when
    first, second = batch.jobs

    # then the rest is the fake model's: 64x64, 16 fps, 8 steps, guidance 5
    assert first.spec == VideoSpec(64, 64, 17, 16, 8, 5.0, 5)
    assert second.spec == VideoSpec(128, 64, 17, 16, 8, 5.0, 5)
    assert (first.priority, first.row, second.row) == (2, 1, 2)
    assert batch.batch.total == 2


@given(
    text=st.text(min_size=1),
    negative=st.text(max_size=20),
    seed=st.integers(0, 2**63 - 1),
    guidance=st.one_of(st.integers(0, 100), st.floats(0, 100)),
    strength=st.one_of(st.just(1), st.floats(0.01, 1)),
    masks=st.sampled_from(["", "c" * 64]),
)
def test_a_job_id_is_the_hash_of_the_canonical_json_of_all_that_decides_the_pixels(
    text, negative, seed, guidance, strength, masks
):
    spec, model = VideoSpec(64, 48, 33, 16, 24, guidance, seed), ModelRef('a "model"', "é1")
    facts = [text, negative, 64, 48, 33, 16, 24, guidance, seed, model.id, model.revision]

    def hashed(*more: object) -> str:
        spelled = json.dumps([*facts, *more, *([masks] if masks else [])], separators=(",", ":"))
        return hashlib.sha256(spelled.encode("ascii")).hexdigest()[:32]

    assert job_id(text, negative, spec, model, masks_sha256=masks) == hashed()
    assert job_id(text, negative, spec, model, "a" * 64, strength, masks) == hashed(
        "a" * 64, strength
    )


A, B = "/clips/a.mp4", "/clips/b.mp4"

# Ids that an earlier version gave to these rows, kept as digits: a video that is there already is
# found by its id.
FIRST_IDS = {
    "9a9eb8853b9c8eaef5d6bf21d4620071": a_prompt(1),
    "1bad76db81a75a0f4782b97a64b56a15": a_prompt(
        2, "ein grüner Kreis — 漢字 🎬", negative_prompt='„unscharf" \\ \n\t\x7f'
    ),
    "ba67ad5671d97c39f7f11848b12c03ad": a_prompt(
        3, 'say "cheese"\u2028', seed=2**63 - 1, guidance_scale=3
    ),
    "953b2991db18efc28f14a1cc1712d5f6": a_prompt(
        4, guidance_scale=7.25, width=128, num_frames=17, fps=8
    ),
    "fe4dc0e4471bec53ecddb3173f738ea1": a_prompt(5, input_video=A),
    "23e7bfc4a0d873c3c091851b2707f35e": a_prompt(6, input_video=B, strength=0.3),
    "4f4b35efdfd2ffdbdd870507153d50e7": a_prompt(
        7, "ein Kreis — 漢字", input_video=B, strength=1, seed=11
    ),
    "6284bc4a02a987792408c535110dd204": a_prompt(8, "lone \ud800 half"),
    "e93905917d6ae42498339567fff1a2a8": a_prompt(9, seed=1, method="sparse:masks=searched"),
    "fc107b1ed1e0307ac8ff0535d1f9e753": a_prompt(10),  # row 1 once more: the next seed
    "c8f3bd04f95e5a757cd307db1365d72c": a_prompt(11, model="fake:step_s=0.5"),
    "cfa8d8b855cc44264029690f3f4a69bd": a_prompt(12, guidance_scale=1e-7),
}


def test_rows_have_the_ids_that_they_always_had():
    found = taken(FIRST_IDS.values(), sources=with_sources(), masks={9: "c" * 64}, seed=5)
    assert [job.id for job in found.jobs] == list(FIRST_IDS)
    assert found.batch.id == "b7eaeae4d858"


def test_a_job_made_from_text_has_the_id_of_the_very_first_version():
    spec = VideoSpec(64, 64, 33, 16, 24, 5.0, 7)
    assert (
        job_id("a red circle", "", spec, ModelRef("flipbook", "r1"))
        == "560d18470612a4eb7e965ff0a74c0a9a"
    )


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


def test_more_keyframes_than_a_row_has_latent_frames_are_refused_by_that_row():
    rows = (
        a_prompt(1, method="eco:K=9"),
        a_prompt(2, method="eco:K=9", num_frames=17),
        a_prompt(3, method="eco"),
    )
    (problem,) = problems_of(*rows)
    assert (
        problem
        == "row 2, method: 9 keyframes cannot be chosen from 5 latent frames; take K=5 or less"
    )


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
    assert [text.partition(",")[0] for text in problems] == [
        f"row {n}" for n in (2, 3, 4, 5, 6, 7, 8)
    ]
    text = "\n".join(problems)
    for said in (
        "multiple of 16",
        "use 64",
        "4k+1",
        "use 29",
        "is empty",
        "e.g. 60s",
        "magic",
        "at most",
        "too large",
    ):
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


def test_a_problem_of_a_whole_row_names_no_column():
    assert problems_of(RowProblem(3, "", "has 4 cells, the header has 3")) == (
        "row 3: has 4 cells, the header has 3",
    )


def test_where_a_column_may_mean_something_else_the_way_out_is_told():
    def said(*rows):
        with pytest.raises(InputError) as caught:
            taken(list(rows))
        return str(caught.value)

    way_out = "; --ignore-columns leaves out columns that mean something else"
    assert said(RowProblem(1, "fps", "must be a whole number")).endswith(way_out)
    assert said(a_prompt(1), RowProblem(2, "video", "does not exist")).endswith(way_out)
    assert said(RowProblem(1, "caption", "is empty")).endswith("nothing was enqueued")


@pytest.mark.parametrize("method", ["eco:K=9", "eco:k=9", "lipar"])
def test_a_method_is_told_where_it_was_said(method: str) -> None:
    a_still = a_prompt(num_frames=5, method=method)
    assert problems_of(a_still)[0].startswith("row 1, method: ")
    assert problems_of(replace(a_still, method=None), method=method)[0].startswith(
        "row 1, --method: "
    )


def test_a_column_name_full_of_escapes_is_harmless_in_the_message():
    (problem,) = problems_of(RowProblem(1, "\x1b[31mred", "no \x07 bell"))
    assert problem.isprintable()


def test_a_submit_whose_own_wishes_are_wrong_is_refused_before_any_row():
    for wishes in (
        {"spec": {"width": 30}},
        {"deadline": "60"},
        {"method": "magic"},
        {"quality_floor": 2.0},
    ):
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
        rows = [
            Row(f"{n:032x}", f"prompt {n}", "", template, n, n + 1, None, 0, None, None)
            for n in range(2_501)
        ]
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


# --- input videos ---------------------------------------------------------------------------------


def with_sources(**changed) -> FakeSources:
    return FakeSources({A: a_source("a", **changed), B: a_source("b", **changed)})


def test_a_row_with_an_input_video_becomes_a_job_of_its_content():
    # given two rows with a source, one of which says how much is changed, and one without
    rows = [a_prompt(1, input_video=A), a_prompt(2, input_video=B, strength=0.3), a_prompt(3)]

    batch = taken(rows, sources=with_sources())
    first, second, plain = batch.jobs

    assert (first.input_video, first.input_sha256, first.strength) == (
        A,
        "a" * 64,
        DEFAULT_STRENGTH,
    )
    assert (second.input_video, second.input_sha256, second.strength) == (B, "b" * 64, 0.3)
    assert (plain.input_video, plain.input_sha256, plain.strength) == (None, None, None)
    for job in (first, second, plain):
        assert job.id == job_id(
            "a red circle", "", job.spec, job.model, job.input_sha256, job.strength
        )
    assert len({first.id, second.id, plain.id}) == 3
    assert batch.inputs == {"a" * 64: A, "b" * 64: B}


def test_a_job_made_by_searched_masks_is_another_one_when_they_are_searched_anew():
    # given masks for videos of 33 frames, which are 9 latent ones, and rows of which one reads them
    rows = [
        a_prompt(1, seed=1, method="sparse:masks=searched"),
        a_prompt(2, seed=2, method="sparse:k=2"),
    ]
    old, new = (taken(rows, masks={9: digit * 64, 5: "f" * 64}) for digit in "ab")

    for batch, digit in ((old, "a"), (new, "b")):
        searched, uniform = batch.jobs
        assert searched.id == job_id(
            "a red circle", "", searched.spec, searched.model, masks_sha256=digit * 64
        )
        assert uniform.id == job_id("a red circle", "", uniform.spec, uniform.model)
    # so neither a batch nor a video of the old masks is taken for one of the new
    assert old.batch.id != new.batch.id
    # and where there are none here, as when only workers have them, ids tell nothing of them
    (alone,) = taken(rows[:1]).jobs
    assert alone.id == job_id("a red circle", "", alone.spec, alone.model)


def test_the_same_bytes_at_another_place_are_the_same_job():
    here = taken([a_prompt(input_video=A)], sources=FakeSources({A: a_source()}))
    moved = taken([a_prompt(input_video=B)], sources=FakeSources({B: a_source()}))
    assert [job.id for job in here.jobs] == [job.id for job in moved.jobs]
    assert here.batch.id == moved.batch.id


def test_the_same_prompt_over_different_sources_needs_no_different_seeds():
    rows = [
        a_prompt(1, input_video=A),
        a_prompt(2, input_video=B),
        a_prompt(3, input_video=A),
        a_prompt(4),
    ]
    jobs = list(taken(rows, sources=with_sources()).jobs)
    assert [job.spec.seed for job in jobs] == [0, 0, 1, 0]
    (problem,) = problems_of(
        a_prompt(1, input_video=A, seed=4),
        a_prompt(2, input_video=A, seed=4),
        sources=with_sources(),
    )
    assert problem.startswith("row 2, seed: asks for the same video as row 1")


def test_each_page_asks_for_its_places_once():
    sources = with_sources()
    taken(
        [a_prompt(row, input_video=A if row % 3 else B) for row in range(1, 1_001)], sources=sources
    )
    assert sources.asked == [[A, B]]


def test_a_bad_source_is_listed_with_its_row_beside_all_that_is_wrong_elsewhere():
    sources = FakeSources(
        {A: a_source(), B: "is truncated: 12 of its bytes are missing; copy it again"}
    )
    problems = problems_of(
        a_prompt(1, input_video=B),
        a_prompt(2, input_video=A),
        a_prompt(3, input_video=B, deadline="60"),
        a_prompt(4, "other", width=65),
        a_prompt(5, input_video=B, width=65),
        sources=sources,
    )
    found = [tuple(text.partition(":")[0].removeprefix("row ").split(", ")) for text in problems]
    assert found == [
        ("1", "input_video"),
        ("3", "input_video"),
        ("3", "deadline"),
        ("4", "video"),
        ("5", "input_video"),
        ("5", "video"),
    ]
    assert problems[0].endswith("is truncated: 12 of its bytes are missing; copy it again")


def test_a_source_must_last_until_the_last_frame_but_one():
    # 33 frames at 16 fps: the last is at 2 s; a source of 1.94 s holds its last frame for it, one
    # of 1.9 s does not
    assert taken([a_prompt(input_video=A)], sources=with_sources(seconds=1.94)).batch.total == 1
    (problem,) = problems_of(a_prompt(input_video=A), sources=with_sources(seconds=1.9))
    assert problem == (
        "row 1, input_video: lasts 1.90 s, 2.00 s are needed for 33 frames at 16 fps: "
        "ask for at most 31 frames, or give a longer one"
    )
    assert (
        taken(
            [a_prompt(input_video=A, num_frames=29)], sources=with_sources(seconds=1.9)
        ).batch.total
        == 1
    )


def test_what_is_converted_is_told_once_per_kind_with_the_first_row():
    told: list[str] = []
    sources = FakeSources(
        {
            A: a_source(seconds=9.0, notes=("a variable frame rate: so be it",)),
            B: a_source("b", width=128),
        }
    )
    taken(
        [
            a_prompt(1),
            *(a_prompt(row, input_video=A) for row in (2, 3)),
            a_prompt(4, input_video=B),
        ],
        sources=sources,
        warn=told.append,
    )
    assert told == [
        "2 rows (the first is 2) have an input video with a variable frame rate: so be it",
        "2 rows (the first is 2) have an input video with more seconds than are asked for: its "
        "beginning is used",
        "row 4 has an input video with another shape than is asked for: its middle is used",
    ]


def test_lipar_is_for_rows_with_an_input_video():
    (problem,) = problems_of(
        a_prompt(1, method="lipar"), a_prompt(2, input_video=A), sources=with_sources()
    )
    assert problem == (
        "row 1, method: lipar leaves out what does not change in an input video, and this row "
        "has none: "
        "add input_video, or choose another method"
    )


def test_the_submits_own_method_is_checked_row_by_row():
    (problem,) = problems_of(
        a_prompt(1), a_prompt(2, input_video=A), method="early", sources=with_sources()
    )
    assert problem.startswith(
        "row 2, --method: early is not made for rows with an input video: use full, steps or lipar"
    )


@pytest.mark.parametrize("method", ["full", "steps", "steps:12", "lipar"])
def test_a_row_with_an_input_video_may_be_made_in_full_by_steps_or_by_lipar(method):
    (job,) = taken([a_prompt(input_video=A, method=method)], sources=with_sources()).jobs
    assert job.method == method


@pytest.mark.parametrize("method", ["hsa:50", "sparse:k=3", "lipar+euler"])
def test_other_methods_are_refused_for_it(method):
    (problem,) = problems_of(a_prompt(input_video=A, method=method), sources=with_sources())
    assert "is not made for rows with an input video" in problem


def test_unless_it_says_otherwise_only_its_steps_are_the_planners_to_choose():
    jobs = taken(
        [
            a_prompt(1, input_video=A),
            a_prompt(2, input_video=A, method="auto"),
            a_prompt(3, input_video=A, method=" Auto "),
            a_prompt(4),
        ],
        sources=with_sources(),
    ).jobs
    assert [job.method for job in jobs] == ["steps", "steps", "steps", None]


def test_a_spool_keeps_the_source_of_a_job():
    (job,) = taken(
        [a_prompt(input_video=A, strength=0.125, external_id="mine")], sources=with_sources()
    ).jobs
    assert (job.input_video, job.input_sha256, job.strength, job.external_id) == (
        A,
        "a" * 64,
        0.125,
        "mine",
    )
