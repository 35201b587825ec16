"""From rows that name videos to committed ones, with real sources and the fake model."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests import source_videos as videos
from tests.flow.stage import Stage
from tests.platform.builders import Memory
from tests.source_videos import a_video, an_mp4, counted, cut
from vidplat.config import PoolConfig
from vidplat.domain import JobState
from vidplat.errors import InputError
from vidplat.platform import plan_only, resume, retry, submit
from vidplat.platform.interface import Listener, SubmitRequest
from vidplat.storage import open_catalog, open_store
from vidplat.storage.inputs import load_input


class Editing(Stage):
    """A stage whose prompts name videos in a folder `clips` beside their file."""

    def rows(self, *rows: dict[str, Any]) -> str:
        path = self.folder / "prompts.jsonl"
        path.write_text(
            "".join(json.dumps({"prompt": "a red circle", **row}) + "\n" for row in rows)
        )
        return str(path)

    def edit(self, *rows: dict[str, Any], listener: Memory | None = None, **wishes: Any):
        return submit(SubmitRequest(self.rows(*rows), **wishes), self.config, listener or Memory())

    def jobs(self):
        catalog = open_catalog(self.config.catalog)
        try:
            return [record for batch in catalog.batches() for record in catalog.jobs(batch.id)]
        finally:
            catalog.close()

    def copies(self) -> list[Path]:
        return [path for path in (self.folder / "out" / "inputs").rglob("*") if path.is_file()]


@pytest.fixture
def stage(tmp_path: Path) -> Editing:
    (tmp_path / "clips").mkdir()
    an_mp4(tmp_path / "clips" / "a.mp4")
    an_mp4(tmp_path / "clips" / "b.mp4", counted(33, step=5))
    return Editing(tmp_path)


def test_rows_with_and_without_a_video_become_videos_in_one_batch(stage: Editing):
    result = stage.edit(
        {"input_video": "clips/a.mp4"},
        {"video": "clips/a.mp4", "strength": 0.25},
        {"input_video": f"file://{stage.folder}/clips/b.mp4"},
        {},
    )

    assert (result.exit_code, result.computed) == (0, 4)
    stage.check_nothing_lost_or_twice()
    first, second, third, plain = (record.job for record in stage.jobs())
    here = str(stage.folder / "clips")
    assert [job.input_video for job in (first, second, third)] == [
        f"{here}/a.mp4",
        f"{here}/a.mp4",
        f"{here}/b.mp4",
    ]
    assert [job.strength for job in (first, second, third, plain)] == [0.6, 0.25, 0.6, None]
    # two sources are kept, and the manifest and the sidecar tell which a video is from
    assert sorted(path.name for path in stage.copies()) == sorted(
        {first.input_sha256, third.input_sha256}
    )
    folder = stage.folder / "out" / "batches" / result.batch.id
    manifest = pq.read_table(folder / "manifest.parquet")
    assert manifest["input_sha256"].to_pylist() == [first.input_sha256] * 2 + [
        third.input_sha256,
        None,
    ]
    (sidecar,) = (
        json.loads(path.read_text()) for path in folder.glob(f"jobs/*/{second.id}/*/meta.json")
    )
    assert sidecar["input"]["sha256"] == second.input_sha256
    assert sidecar["input"]["bytes"] == (stage.folder / "clips" / "a.mp4").stat().st_size
    (plain_sidecar,) = folder.glob(f"jobs/*/{plain.id}/*/meta.json")
    assert "input" not in json.loads(plain_sidecar.read_text())


def test_a_batch_of_edits_is_predicted_with_its_sources(stage: Editing):
    # given a model whose video takes 0.4 s: 0.2 s for the source, and eight steps of 0.025 s
    stage.model = "fake:step_s=0.025,source_s=0.2"
    taught = stage.edit(
        *({"input_video": "clips/a.mp4", "seed": seed, "method": "full"} for seed in range(6))
    )
    assert taught.computed == 6

    # when another batch follows, of other strengths
    rows = (
        {"input_video": "clips/b.mp4", "seed": s, "method": "full", "strength": 0.1 + s / 10}
        for s in range(8)
    )
    result = stage.edit(*rows)

    # then it is predicted as closely as videos from text are (15 %), and the sources are in the
    # prediction
    assert result.score is not None
    assert abs(result.score.median_error) < 0.15
    made = [record for record in stage.jobs() if record.batch_id == result.batch.id]
    assert [record.point.steps for record in made if record.point] == [8] * 8
    for record in made:
        assert record.predicted_p50_s == pytest.approx(0.4, rel=0.25)


def test_a_batch_with_lipar_is_promised_at_full_work_until_a_share_was_measured(stage: Editing):
    # given edits of 0.1 + 8 x 0.05 = 0.5 s, of which lipar leaves a half of the steps' time: 0.3 s
    stage.model = "fake:step_s=0.05,source_s=0.1,kept=0.5"
    stage.pools = (PoolConfig("cloud"),)

    def lipar(first: int, count: int) -> SubmitRequest:
        rows = (
            {"input_video": "clips/a.mp4", "seed": seed} for seed in range(first, first + count)
        )
        return SubmitRequest(stage.rows(*rows), method="lipar")

    stage.edit(*({"input_video": "clips/a.mp4", "seed": seed} for seed in range(4)), method="full")
    before = plan_only(lipar(10, 4), stage.config, Listener())

    submit(lipar(10, 4), stage.config, Memory())
    after = plan_only(lipar(20, 4), stage.config, Listener())
    result = submit(lipar(20, 4), stage.config, Memory())

    # then the first plan rests on no hope, the second on the share that four videos kept
    assert before.plan.device_seconds == pytest.approx(4 * 0.5, rel=0.2)
    assert after.plan.device_seconds == pytest.approx(4 * 0.3, rel=0.2)
    assert result.score is not None and abs(result.score.median_error) < 0.15


def test_every_bad_source_is_listed_with_its_row_and_nothing_is_stored(stage: Editing):
    folder = stage.folder / "clips"
    whole = folder / "a.mp4"
    made = [
        (cut(folder / "cut.mp4", whole), "is truncated"),
        (videos.with_sound_only(folder / "sound.mp4"), "has no video stream"),
        (a_video(folder / "one.mp4", counted(1)), "has one frame only"),
        (videos.ten_minutes(folder / "long.mp4"), "lasts 601.0 s, at most 120 s are taken"),
        (videos.with_alpha(folder / "alpha.webm"), "has an alpha channel"),
        (videos.with_hdr(folder / "hdr.mp4"), "is HDR, PQ"),
        (folder / "missing.mp4", "does not exist"),
        (an_mp4(folder / "short.mp4", counted(9)), "lasts 0.56 s, 2.00 s are needed"),
    ]
    rows: list[dict[str, Any]] = [{"input_video": f"clips/{path.name}"} for path, _ in made]
    rows += [
        {"input_video": "https://host/a.mp4?sig=hunter2"},
        {"input_video": "clips/a.mp4"},
        {"width": 65},
    ]

    with pytest.raises(InputError) as caught:
        stage.edit(*rows)

    problems = caught.value.problems
    assert "10 rows of 11 cannot be used; nothing was enqueued; --ignore-c" in str(caught.value)
    for row, (problem, (_, said)) in enumerate(zip(problems, made, strict=False), start=1):
        assert problem.startswith(f"row {row}, input_video: {said}"), problem
    assert problems[8].startswith("row 9, input_video: is an http(s) URL")
    assert "hunter2" not in str(problems)
    assert problems[9].startswith("row 11, video:")
    assert not (stage.folder / "out").exists()
    assert not (stage.folder / "catalog.db").exists()


def test_what_is_converted_is_told_once(stage: Editing):
    videos.with_variable_rate(stage.folder / "clips" / "vfr.mp4")
    a_video(stage.folder / "clips" / "odd.mov", counted(33, 37, 53), codec="qtrle", pixels="rgb24")
    heard = Memory()
    rows = [
        {"input_video": f"clips/{name}", "num_frames": 17}
        for name in ("vfr.mp4", "vfr.mp4", "odd.mov")
    ]

    assert stage.edit(*rows, listener=heard).exit_code == 0

    assert [text.partition(":")[0] for text in heard.warnings] == [
        "2 rows (the first is 1) have an input video with a variable frame rate",
        "3 rows (the first is 1) have an input video with more seconds than are asked for",
        "row 3 has an input video with odd sides",
        "row 3 has an input video with another shape than is asked for",
    ]


def test_planning_copies_nothing(stage: Editing):
    request = SubmitRequest(stage.rows({"input_video": "clips/a.mp4"}))
    assert plan_only(request, stage.config, Listener()).jobs == 1
    assert stage.copies() == []


def test_the_same_content_at_another_place_makes_nothing_twice(stage: Editing):
    first = stage.edit({"input_video": "clips/a.mp4"}, {"input_video": "clips/b.mp4"})
    shutil.move(stage.folder / "clips" / "a.mp4", stage.folder / "clips" / "moved.mp4")
    again = stage.edit({"input_video": "clips/moved.mp4"}, {"input_video": "clips/b.mp4"})
    assert (again.batch.id, again.computed) == (first.batch.id, 0)
    # and another strength makes another video
    other = stage.edit(
        {"input_video": "clips/moved.mp4", "strength": 0.5}, {"input_video": "clips/b.mp4"}
    )
    assert (other.computed, other.reused) == (1, 1)


@pytest.mark.parametrize("point", ["claimed", "committed", "before-finish"])
def test_a_killed_batch_goes_on_though_its_sources_are_gone(stage: Editing, point: str):
    # given a platform that dies in mid batch
    file = stage.rows(
        *({"input_video": f"clips/{name}.mp4", "seed": n} for n, name in enumerate("aabb"))
    )
    process = stage.in_a_process("submit", file, env={"CRASH_AT": point})
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 137, said

    # when the user's files have gone in the meantime
    shutil.rmtree(stage.folder / "clips")
    result = stage.resume()

    assert result.exit_code == 0
    assert stage.counts() == {JobState.DONE: 4}
    stage.check_nothing_lost_or_twice()


def test_a_lost_copy_fails_its_jobs_at_once_and_the_next_submit_brings_it_back(
    stage: Editing, monkeypatch
):
    # given a copy that somebody removes between enqueuing and making
    from vidplat.platform import assemble

    real = assemble.keep
    monkeypatch.setattr(assemble, "keep", lambda *given: [real(*given), _remove(stage.copies())])
    lost = stage.edit({"input_video": "clips/a.mp4"}, {})
    assert lost.exit_code == 4
    failed, plain = stage.jobs()
    assert plain.state is JobState.DONE
    assert (failed.state, failed.attempt) == (JobState.FAILED, 1)
    assert failed.failure is not None
    assert "submit the prompts again, then retry" in failed.failure.message

    # when the user does what the message says
    monkeypatch.undo()
    stage.edit({"input_video": "clips/a.mp4"}, {})
    assert retry("b", None, stage.config) == 1
    assert resume("b", stage.config, Memory()).exit_code == 0
    assert stage.counts() == {JobState.DONE: 2}


def _remove(paths: list[Path]) -> None:
    for path in paths:
        path.unlink()


def test_stdin_starts_from_the_working_directory(stage: Editing, monkeypatch):
    import io

    monkeypatch.chdir(stage.folder)
    lines = io.BytesIO(b'{"prompt": "a red circle", "input_video": "clips/a.mp4"}\n')
    result = submit(SubmitRequest("-", stdin=lines), stage.config, Memory())
    assert (result.exit_code, result.computed) == (0, 1)


def test_a_thousand_rows_of_one_source_look_at_it_once(stage: Editing, monkeypatch):
    from vidplat.workers import source_video

    seen = []
    real = source_video.look_at
    monkeypatch.setattr(
        source_video, "look_at", lambda file, limits: [seen.append(1), real(file, limits)][1]
    )
    path = stage.rows(*({"input_video": "clips/a.mp4", "seed": seed} for seed in range(1_000)))
    assert plan_only(SubmitRequest(path), stage.config, Listener()).jobs == 1_000
    assert len(seen) == 1


def test_sources_beside_a_prompt_file_in_a_bucket_are_edited_into_a_bucket(
    stage: Editing, moto_server, monkeypatch
):
    # given a bucket with a prompt file, and beside it the clip that it names
    moto_server.with_credentials(monkeypatch)
    store, output = open_store(moto_server.bucket_url()), moto_server.bucket_url()
    store.put("clips/a.mp4", (stage.folder / "clips" / "a.mp4").read_bytes())
    store.put("prompts.jsonl", b'{"prompt": "a red circle", "video": "clips/a.mp4"}\n')
    url, mark, options = store.url.partition("?")
    config = replace(stage.config, output=output)

    result = submit(SubmitRequest(f"{url}/prompts.jsonl{mark}{options}"), config, Memory())

    assert (result.exit_code, result.computed) == (0, 1)
    (record,) = stage.jobs()
    assert record.job.input_video == f"{url}/clips/a.mp4?{options}"
    assert record.job.input_sha256 is not None
    assert load_input(open_store(output), record.job.input_sha256) == store.get("clips/a.mp4")


def test_a_signed_url_of_the_prompt_file_is_not_remembered(stage: Editing):
    # given fsspec's in-memory files, whose names may have anything in them
    import fsspec

    with fsspec.open("memory://hidden/prompts.txt?sig=hunter2", "wb") as file:
        file.write(b"a red circle\n")
    heard = Memory()
    result = submit(SubmitRequest("memory://hidden/prompts.txt?sig=hunter2"), stage.config, heard)
    assert result.exit_code == 0
    assert result.batch.source == "memory://hidden/prompts.txt"
    assert "hunter2" not in str((heard.phases, heard.warnings))
    kept = [path for path in stage.folder.rglob("*") if path.is_file()]
    assert [path for path in kept if b"hunter2" in path.read_bytes()] == []
