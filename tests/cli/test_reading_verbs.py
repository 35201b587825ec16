"""status, ls, show, logs, watch, export and report over a catalog that a run left."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.cli.records import a_record
from tests.cli.stories import VIDEO, tell
from vidplat import times
from vidplat.cli import documents
from vidplat.cli.app import main
from vidplat.domain import JobState, OperatingPoint
from vidplat.platform.run.owners import this_owner
from vidplat.storage import open_catalog

NASTY = "\x1b[2J<b>bold</b> '); DROP TABLE jobs;-- ../../etc/passwd"


@pytest.fixture
def story(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Four jobs: done, failed, running, queued. Returns the options that name their catalog."""
    records = [
        a_record(1, "a red circle drifts left", external_id="clip-1"),
        a_record(2, NASTY, state=JobState.FAILED, failure="the device burnt"),
        a_record(3, "a blue square waits", state=JobState.RUNNING, pool="edge"),
        a_record(4, "a green star", state=JobState.QUEUED),
    ]
    url, _ = tell(tmp_path, records)
    monkeypatch.chdir(tmp_path)
    return ["--catalog", url]


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """What a command prints on stdout."""
    found = main(list(arguments))
    shown = capsys.readouterr()
    assert found == code, shown.err
    return shown.out


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    return json.loads(said(capsys, *arguments, "--json"))


def test_status_says_where_the_latest_batch_stands(
    story: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = said(capsys, "status", *story)

    assert "1 of 4 made, 1 queued, 1 running, 1 failed" in out
    assert "feasible: all at full quality" in out
    assert "denoise  12/24" in out
    assert "vidplat resume b0123456789a" in out  # its platform has been silent since 2023


@pytest.mark.parametrize(
    ("owner", "lease_s", "hint"),
    [
        ("", 0.0, "nobody works on it: go on with `vidplat resume b0123456789a`"),
        ("elsewhere:1:1", 60.0, None),
        ("elsewhere:1:1", 0.0, "nobody works on it"),
        ("a process that has ended", 60.0, "nobody works on it"),
    ],
)
def test_a_batch_that_starts_up_is_worked_on_by_whoever_holds_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], owner: str, lease_s: float, hint: str | None
) -> None:
    url, batch = tell(tmp_path, [a_record(1, state=JobState.QUEUED)])
    host, _, start = this_owner().rsplit(":", 2)
    ended = f"{host}:{os.getpid()}:{int(start) - 1}"
    with closing(open_catalog(url)) as catalog:
        if owner:
            held_by = owner if ":" in owner else ended
            catalog.hold_batch(batch.id, held_by, lease_s=lease_s)
    out = said(capsys, "status", "--catalog", url)
    assert ("nobody works on it" in out) == (hint is not None)
    assert (hint or "") in out


def test_whoever_looks_is_told_the_latest_plan_s_finish(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # given a promise, and a later plan that foresees another end
    url, batch = tell(tmp_path, [a_record(1, state=JobState.QUEUED)])
    soon = times.now()
    with closing(open_catalog(url)) as catalog:
        catalog.foresee(batch.id, soon + 60, soon + 90)

    # then
    watched = json.loads(said(capsys, "watch", "--once", "--json", "--catalog", url))
    status = document(capsys, "status", "--catalog", url)["plan"]
    p50, p90 = documents.moment(soon + 60), documents.moment(soon + 90)
    assert (watched["finish_p50_at"], watched["finish_p90_at"]) == (p50, p90)
    assert (status["finish_p50_at"], status["finish_p90_at"]) == (p50, p90)


def test_a_cancelled_batch_names_what_leads_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, batch = tell(tmp_path, [a_record(1), a_record(2, state=JobState.QUEUED)])
    assert "1 video of b0123456789a cancelled" in said(capsys, "cancel", batch.id, "--catalog", url)
    assert "nothing to cancel" in said(capsys, "cancel", batch.id, "--catalog", url)
    assert f"`vidplat retry {batch.id}`" in said(capsys, "status", "--catalog", url)
    assert "1 of 2 videos" in said(capsys, "watch", "--catalog", url, code=4)


def test_what_is_finished_is_politely_not_cancelled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, batch = tell(tmp_path, [a_record(1)], state="done")
    assert main(["cancel", batch.id, "--catalog", url]) == 2
    assert "is finished: nothing is left to cancel" in capsys.readouterr().err
    assert document(capsys, "status", "--catalog", url)["state"] == "done"


def test_status_as_json_has_counts_steps_and_promise(
    story: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    found = document(capsys, "status", "b0123", *story)

    assert found["batch"] == "b0123456789a"
    assert found["jobs"]["done"] == 1 and found["jobs"]["queued"] == 1
    # steps: 24 spent by the finished one, 12 of 24 by the running one, 24 queued
    assert found["steps"] == {"done": 24, "running": 12, "ahead": 36}
    assert found["plan"]["verdict"] == "feasible"
    assert found["running"][0]["worker"] == "edge-0"
    assert found["submitted_at"].endswith("Z")


def test_ls_lists_batches_and_the_jobs_of_one(
    story: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    batch = ["b0123456789a", "open", "1", "1", "0", "4", "auto"]
    assert said(capsys, "ls", *story).splitlines()[1].split()[:7] == batch
    assert [job["row"] for job in document(capsys, "ls", "b0", *story)] == [1, 2, 3, 4]
    assert [job["row"] for job in document(capsys, "ls", "b0", "--state", "failed", *story)] == [2]


def test_how_videos_are_made_is_told_with_what_a_method_takes_by_default(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    point = OperatingPoint(24, "early")
    records = [a_record(1, point=point), a_record(2, state=JobState.RUNNING, point=point)]
    url, batch = tell(tmp_path, records, method="early:0.5")
    at = ("--catalog", url)

    assert "24 steps, early:work=0.5" in said(capsys, "ls", batch.id, *at)
    assert "24 steps, early:work=0.5" in said(capsys, "show", records[0].job.id[:9], *at)
    status = said(capsys, "status", *at)
    assert "early:0.5" in status and "24 steps, early:work=0.5" in status
    assert "early:0.5" in said(capsys, "ls", *at)


def test_what_was_cancelled_is_not_counted_as_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [
        a_record(1),
        a_record(2, state=JobState.FAILED, failure="no"),
        a_record(3, state=JobState.QUEUED),
    ]
    url, _ = tell(tmp_path, records)
    at = ("--catalog", url)
    assert "1 video of b0123456789a cancelled" in said(capsys, "cancel", "b0", *at)

    assert said(capsys, "ls", *at).splitlines()[1].split()[2:6] == ["1", "1", "1", "3"]
    seen = json.loads(said(capsys, "watch", "--once", "--json", *at, code=4))
    assert (seen["made"], seen["lost"], seen["cancelled"], seen["total"]) == (1, 1, 1, 3)
    assert "1 failed, 1 cancelled" in said(capsys, "watch", "--once", *at, code=4)
    kinds = [line.split()[3] for line in said(capsys, "logs", *at).splitlines()]
    assert kinds.count("cancelled") == 1


def test_a_verb_that_finds_nothing_to_do_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url, _ = tell(tmp_path, [a_record(1), a_record(2)], state="done")
    at = ("--catalog", url)
    assert "nothing to retry" in said(capsys, "retry", *at)
    assert "nothing to retry in job" in said(capsys, "retry", "--job", a_record(1).job.id, *at)
    assert main(["cancel", "b0", *at]) == 2
    assert "nothing is left to cancel" in capsys.readouterr().err


def test_videos_that_are_not_there_are_missed_by_an_export(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, _ = tell(tmp_path, [a_record(1, state=JobState.QUEUED)])
    assert main(["export", f"{tmp_path}/films/", "--catalog", url]) == 2
    assert "has no video to export: 0 of 1 made, 1 queued" in capsys.readouterr().err
    (tmp_path / "some").mkdir()
    url, _ = tell(tmp_path / "some", [a_record(1), a_record(2, state=JobState.QUEUED)])
    assert main(["export", f"{tmp_path}/films/", "--catalog", url]) == 0
    assert "not all of the batch: 1 of 2 made, 1 queued" in capsys.readouterr().err


def test_a_prompt_with_terminal_escapes_is_harmless_in_every_table(
    story: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    row_two = document(capsys, "ls", "--state", "failed", *story)[0]

    for arguments in (["ls", "b0"], ["show", row_two["job"]], ["status"], ["logs"]):
        assert "\x1b" not in said(capsys, *arguments, *story)
    assert row_two["prompt"] == NASTY


def test_show_finds_a_job_by_the_start_of_its_id_or_by_the_users_own(
    story: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    mine = document(capsys, "show", "clip-1", *story)

    assert mine["row"] == 1 and mine["state"] == "done"
    assert document(capsys, "show", mine["job"][:10], *story)["id"] == "clip-1"
    assert "a red circle drifts left" in said(capsys, "show", "clip-1", *story)


def test_show_tells_a_failure_and_its_attempts(
    story: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    job = document(capsys, "ls", "--state", "failed", *story)[0]["job"]

    found = document(capsys, "show", job, *story)

    assert found["failure"] == {"kind": "job", "message": "the device burnt"}
    assert [attempt["ended"] for attempt in found["attempts"]] == ["failed"]


def test_logs_are_events_one_object_a_line(
    story: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [json.loads(line) for line in said(capsys, "logs", "--json", *story).splitlines()]

    assert lines[0]["kind"] == "submitted"
    assert {line["kind"] for line in lines} >= {"submitted", "started", "done", "failed"}
    assert [line["id"] for line in lines] == sorted(line["id"] for line in lines)


def test_logs_of_one_job_leave_out_the_others(
    story: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        json.loads(line)
        for line in said(capsys, "logs", "--job", "clip-1", "--json", *story).splitlines()
    ]

    assert [line["kind"] for line in lines] == ["started", "done"]


def test_watch_of_a_batch_that_ended_says_so_and_returns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, _ = tell(tmp_path, [a_record(1)], state="done")

    found = json.loads(said(capsys, "watch", "--json", "--catalog", url))

    assert (found["state"], found["made"], found["total"], found["steps_done"]) == (
        "done",
        1,
        1,
        24,
    )


def test_watch_ends_with_4_when_videos_are_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, _ = tell(tmp_path, [a_record(1, state=JobState.FAILED, failure="no")], state="done")

    assert "1 failed" in said(capsys, "watch", "--catalog", url, code=4)


def test_export_writes_the_manifest_in_each_format(
    story: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import pyarrow.parquet as pq

    for name in ("m.parquet", "m.csv", "m.jsonl"):
        said(capsys, "export", name, *story)

    from_parquet = pq.read_table(tmp_path / "m.parquet").to_pylist()
    from_csv = list(csv.DictReader(io.StringIO((tmp_path / "m.csv").read_text(), newline="")))
    from_lines = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in from_parquet] == [row["prompt"] for row in from_csv]
    assert from_lines == from_parquet
    assert from_parquet[1]["prompt"] == NASTY


def test_no_prompt_is_a_formula_in_an_exported_csv(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = ["a - b = c", "'quoted'", "1 + 1"]
    formulas = [
        *('=HYPERLINK("http://x")', "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1"),
        *("  =1", "\u00a0=1", "\ufeff=1", "\u200b=1", "＝1", "\ta tab alone"),
    ]
    texts = plain + formulas
    records = [a_record(n, text, external_id=text) for n, text in enumerate(texts, start=1)]
    url, _ = tell(tmp_path, records)

    said(capsys, "export", f"{tmp_path}/m.csv", "--catalog", url)
    said(capsys, "export", f"{tmp_path}/m.jsonl", "--catalog", url)

    written = (tmp_path / "m.csv").read_bytes().decode()
    rows = list(csv.DictReader(io.StringIO(written, newline="")))
    tamed = plain + [f"'{text}" for text in formulas]
    assert [row["prompt"] for row in rows] == [row["external_id"] for row in rows] == tamed
    lines = (tmp_path / "m.jsonl").read_text().splitlines()
    assert [json.loads(line)["prompt"] for line in lines] == texts


def test_export_to_stdout_is_only_data(
    story: list[str], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert main(["export", "-", "--what", "metrics", *story]) == 0

    lines = capfdbinary.readouterr().out.splitlines()
    assert [json.loads(line)["state"] for line in lines] == ["done", "failed", "running", "queued"]


def test_videos_are_exported_under_names_a_prompt_cannot_choose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [
        a_record(1, "../../x/\x00a\\b: É con?*"),
        a_record(2, "漢字 only"),
        a_record(3, "👩‍🚀"),
    ]
    url, _ = tell(tmp_path, records)
    monkeypatch.chdir(tmp_path)

    said(capsys, "export", "films/", "--catalog", url)

    files = sorted(path.name for path in (tmp_path / "films").iterdir())
    assert files == ["1-x-a-b-con.mp4", "2-only.mp4", "3.mp4"]
    assert (tmp_path / "films" / "3.mp4").read_bytes() == VIDEO


def test_a_damaged_video_is_not_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, batch = tell(tmp_path, [a_record(1)])
    (video,) = Path(batch.output_prefix).rglob("video.mp4")
    video.write_bytes(b"rotten")

    assert main(["export", f"{tmp_path}/films/", "--catalog", url]) == 1

    assert "is damaged" in capsys.readouterr().err
    assert not (tmp_path / "films").exists()


def test_the_report_lies_beside_the_videos_or_where_it_is_wanted(
    story: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    beside = document(capsys, "report", *story)
    said(capsys, "report", "--to", "page.html", *story)

    assert beside["report"] == str(tmp_path / "renders/batches/b0123456789a/report.html")
    assert Path(beside["report"]).read_text().startswith("<!doctype html>")
    assert "data:video/mp4;base64," in (tmp_path / "page.html").read_text()
    assert (beside["made"], beside["total"]) == (1, 4)


# --- what is not there ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["status", "bffff"], "bffff"),
        (["show", "no-such-job"], "is called 'no-such-job'"),
        (["ls", "--state", "gone"], "--state takes queued, running"),
        (["export", "page.html"], ".parquet, .csv or .jsonl"),
        (["export", "m.csv", "--what", "videos"], "give a folder"),
        (["report", "--to", "x.html", "--link"], "leave --to away"),
        (["report", "--to", "s3://bucket/x.html"], "give a path here"),
        (["export", "s3://bucket/films/"], "give a path here"),
        (["export", "https://me:hunter2@host/m.csv"], "give a path here"),
        (["status", "--catalog", "nonsense"], "sqlite:///"),
    ],
)
def test_a_wrong_name_is_one_message_and_exit_code_2(
    story: list[str], capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    given = arguments if "--catalog" in arguments else [*arguments, *story]

    code = main(given)

    shown = capsys.readouterr()
    assert code == 2
    assert words in shown.err and shown.err.startswith("error: ")
    assert "Traceback" not in shown.err and shown.out == ""
    assert "hunter2" not in shown.err


def test_reading_creates_no_catalog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VIDPLAT_CATALOG", raising=False)

    assert main(["status"]) == 2

    assert "nothing has been submitted here yet" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_reading_loads_neither_torch_nor_ray(story: list[str]) -> None:
    script = (
        "import sys; from vidplat.cli.app import main\n"
        f"assert main(['status', *{story!r}]) == 0\n"
        "heavy = {'torch', 'ray', 'diffusers', 'transformers', 'boto3', 'alembic', 'pyarrow'} & "
        "set(sys.modules)\n"
        "assert not heavy, heavy"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
