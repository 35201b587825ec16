"""submit, plan, resume, retry and cancel from the command line, with the fake model in this
process.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from vidplat.cli.app import main

FAKE = ["--model", "fake", "--local"]
NASTY = "\x1b[2J<script>alert(1)</script> '); DROP TABLE jobs;-- ../../escaped [bold] \u202e"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test in an empty folder, with the defaults a newcomer has."""
    for name in ("VIDPLAT_CATALOG", "VIDPLAT_OUTPUT", "VIDPLAT_MODEL", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    here = tmp_path / "elsewhere"
    here.mkdir()
    monkeypatch.chdir(here)
    return here


def prompts(*rows: dict[str, object]) -> str:
    """A JSONL file of these rows here."""
    Path("prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "prompts.jsonl"


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    code = main([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_submit_ends_with_videos_a_comparison_and_a_report(
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = prompts({"prompt": "a red circle"}, {"prompt": "a blue square"})

    code = main(["submit", source, "--deadline", "10m", *FAKE])

    shown = capsys.readouterr()
    assert code == 0, shown.err
    assert "All 2 videos" in shown.out and "before the deadline" in shown.out
    assert "PREDICTED" in shown.out and "ACTUAL" in shown.out
    report = next(Path("renders").rglob("report.html"))
    assert str(report.resolve()) in shown.out
    assert len(list(Path("renders").rglob("video.mp4"))) == 2
    assert "feasible" in shown.err
    assert "enqueued 2 jobs" in shown.err and "starting 2 workers in this process" in shown.err


def test_the_same_submit_again_makes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    source = prompts({"prompt": "a red circle"}, {"prompt": "a blue square"})
    first = document(capsys, "submit", source, *FAKE)[1]

    code, again = document(capsys, "submit", source, *FAKE)

    assert code == 0
    assert first["computed"] == 2 and again["computed"] == 0
    assert again["batch"] == first["batch"] and again["jobs"]["done"] == 2
    assert main(["submit", source, *FAKE]) == 0
    shown = capsys.readouterr()
    assert "nothing to do: 2 of 2 videos are there" in shown.out
    assert "enqueued" not in shown.err and "starting" not in shown.err


def test_an_empty_method_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    source = prompts({"prompt": "a red circle"})

    told = document(capsys, "submit", source, "--method", "", *FAKE)[1]

    assert document(capsys, "status", told["batch"])[1]["method"] is None


def test_an_infeasible_deadline_exits_3_with_the_earliest_time_and_makes_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = prompts({"prompt": "a red circle"})

    code, answer = document(capsys, "plan", source, "--deadline", "1s", *FAKE)
    assert (code, answer["verdict"]) == (3, "infeasible")
    assert answer["earliest_s"] > 1

    assert main(["submit", source, "--deadline", "1s", *FAKE]) == 3
    shown = capsys.readouterr()
    assert "the earliest time that can be promised" in shown.out
    assert "infeasible" not in shown.err  # once is enough
    assert not list(Path().rglob("video.mp4"))


def test_best_effort_runs_late_exits_5_and_remembers_why(
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = prompts({"prompt": "a red circle"})
    late = [
        "--deadline",
        "1s",
        "--on-infeasible",
        "best-effort",
        "--model",
        "fake:load_s=1.5",
        "--local",
    ]

    code, result = document(capsys, "submit", source, *late)

    assert (code, result["jobs"]["done"]) == (5, 1)
    assert [miss["cause"] for miss in result["score"]["misses"]] == ["infeasible"]
    assert main(["report", "--to", "later.html"]) == 0
    assert "the plan itself said that not all could be in time" in Path("later.html").read_text()
    assert main(["logs"]) == 0
    assert "misses=1" in capsys.readouterr().out


def test_plan_stores_nothing(capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    source = prompts({"prompt": "a red circle"})

    assert main(["plan", source, "--deadline", "10m", *FAKE]) == 0

    assert "feasible" in capsys.readouterr().out
    assert not (elsewhere / "renders").exists()


@pytest.mark.parametrize("verb", ["plan", "submit"])
def test_a_caption_sets_own_columns_are_left_out_when_asked(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    row = "clip.mp4,a red circle,29.97,4.004"
    Path("captions.csv").write_text(f"video,caption,fps,seconds\n{row}\n")
    assert main([verb, "captions.csv", "--deadline", "10m", *FAKE]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "--ignore-columns leaves out" in said and "29.97: round it to 30" in said
    asked = [verb, "captions.csv", "--deadline", "10m", *FAKE]
    assert main([*asked, "--ignore-columns", "video, fps,seconds"]) == 0


def test_a_method_that_the_command_line_names_is_not_looked_for_in_a_column(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("a.txt").write_text("a red circle\n")
    assert main(["plan", "a.txt", "--method", "lipar", *FAKE]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "row 1, --method: lipar leaves out" in said and "--ignore-columns" not in said

    source = prompts({"prompt": "a red circle", "method": "lipar"})
    assert main(["plan", source, *FAKE]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "row 1, method: lipar leaves out" in said and "--ignore-columns" in said


@pytest.mark.parametrize("told", ["--pool", "vidplat.toml"])
@pytest.mark.parametrize("where", [[], ["--local"]])
def test_gpus_that_this_machine_has_not_are_refused_before_anything_is_stored(
    told: str,
    where: list[str],
    elsewhere: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("vidplat.platform.assemble.has_gpus", lambda machines: False)
    if told == "--pool":
        where = [*where, "--pool", "big=2,gpus=0.5"]
    else:
        Path("vidplat.toml").write_text("[pools.big]\ngpus = 0.5\n")
    source = prompts({"prompt": "a red circle"})

    assert main(["submit", source, "--deadline", "10m", *where]) == 2

    said = " ".join(capsys.readouterr().err.split())
    assert "error: pool big takes 0.5 GPU for each worker, and this machine has none" in said
    assert not (elsewhere / ".vidplat" / "catalog.db").exists()
    assert not (elsewhere / "renders").exists()
    assert main(["plan", source, "--deadline", "10m", *where]) == 0  # for a machine to come
    assert "planned as if there were some" in " ".join(capsys.readouterr().err.split())


def test_a_dry_run_is_a_plan(capsys: pytest.CaptureFixture[str]) -> None:
    source = prompts({"prompt": "a red circle"})

    code, answer = document(capsys, "submit", source, "--dry-run", *FAKE)

    assert (code, answer["jobs"]) == (0, 1)
    assert not list(Path().rglob("video.mp4"))


def test_a_row_that_fails_is_told_kept_and_can_be_tried_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = prompts({"prompt": "a red circle"}, {"prompt": "a blue square [fail]", "id": "mine"})

    code, result = document(capsys, "submit", source, *FAKE)
    assert (code, result["jobs"]["done"], result["jobs"]["failed"]) == (4, 1, 1)

    assert document(capsys, "retry", "--queue-only") == (0, {"batch": result["batch"], "queued": 1})
    assert document(capsys, "cancel", result["batch"], "--job", "mine")[1]["cancelled"] == 1
    code, resumed = document(capsys, "resume", result["batch"], "--local")
    assert resumed["computed"] == 0


def test_prompts_from_stdin_are_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import io
    import sys

    monkeypatch.setattr(
        sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a red circle\na blue square\n"))
    )

    code, result = document(capsys, "submit", "-", "--format", "txt", *FAKE)

    assert (code, result["jobs"]["done"]) == (0, 2)


def test_a_hostile_prompt_and_id_come_out_harmless_everywhere(
    capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    rows = [
        {"prompt": NASTY, "id": "../../escaped"},
        {"prompt": "fine", "id": "/etc/escaped"},
        {"prompt": "👩‍🚀", "id": "👍"},
    ]
    source = prompts(*rows)

    assert main(["submit", source, *FAKE]) == 0
    assert main(["ls", "b"]) == 0

    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err
    page = next(Path("renders").rglob("report.html")).read_text()
    assert "<script>alert" not in page and "\x1b" not in page
    assert not list(elsewhere.parent.rglob("escaped")) and not Path("/etc/escaped").exists()
    assert all(path.as_posix().isascii() for path in Path("renders").rglob("*"))


# --- bad input: one clear message, the right exit code, nothing lost, nothing made ----------------


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    """The message of a command that must refuse: no traceback, nothing on stdout, nothing
    enqueued."""
    found = main(list(arguments))
    shown = capsys.readouterr()
    assert found == code, shown.err
    assert "Traceback" not in shown.err and "did not expect" not in shown.err
    assert shown.out == ""
    assert shown.err.count("error: ") == 1
    assert not list(Path().rglob("video.mp4"))
    return shown.err.split("error: ", 1)[1]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing.parquet", None, "missing.parquet"),
        ("empty.parquet", b"", "empty"),
        ("empty.csv", b"", "empty"),
        ("not.parquet", b"hello, this is text", "not"),
        ("cut.parquet", b"PAR1\x15\x04\x15", ""),
        ("latin.csv", "prompt\ncafé\n".encode("latin-1"), "UTF-8"),
        ("column.csv", b"promt,seed\na red circle,1\n", "promt"),
        ("none.jsonl", b'{"text": ""}\n', "row 1"),
    ],
)
def test_an_unusable_file_is_refused_in_one_message(
    name: str, content: bytes | None, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        Path(name).write_bytes(content)

    assert words in refused(capsys, "submit", name, *FAKE)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": "x" * 10_000_000}, "prompt"),
        ({"prompt": "a\x00b"}, "prompt"),
        ({"prompt": "ok", "id": "a\x00b"}, "id"),
        ({"prompt": "ok", "id": "x" * 10_000}, "id"),
        ({"prompt": "ok", "width": 65}, "64"),
        ({"prompt": "ok", "num_frames": 32}, "33"),
        ({"prompt": "ok", "num_frames": 0}, "num_frames"),
        ({"prompt": "ok", "steps": -4}, "steps"),
        ({"prompt": "ok", "fps": 0}, "fps"),
        ({"prompt": "ok", "guidance_scale": "inf"}, "guidance_scale"),
        ({"prompt": "ok", "model": "no-such-model"}, "no-such-model"),
        ({"prompt": "ok", "deadline": "tomorrow"}, "tomorrow"),
        ({"prompt": "ok", "method": "magic"}, "magic"),
    ],
)
def test_a_bad_row_is_told_by_its_number_and_nothing_is_enqueued(
    row: dict[str, object], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(capsys, "submit", prompts({"prompt": "a fine row"}, row), *FAKE)

    assert words in message
    assert "row 2" in message or "row  2" in message
    assert len(message) < 3000
    assert not Path(".vidplat/catalog.db").exists() or document(capsys, "ls") == (0, [])


def test_all_bad_rows_are_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[dict[str, object]] = [{"prompt": f"fine {row}"} for row in range(1, 31)]
    for row in (3, 17, 30):
        rows[row - 1]["fps"] = -1

    message = refused(capsys, "submit", prompts(*rows), *FAKE)

    assert all(f"row {row}" in message for row in (3, 17, 30))


def test_duplicate_ids_are_refused_with_both_rows(capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(
        capsys, "submit", prompts({"prompt": "a", "id": "x"}, {"prompt": "b", "id": "x"}), *FAKE
    )

    assert "row 2" in message and "1" in message


@pytest.mark.parametrize(
    ("deadline", "words"),
    [
        ("60", "60s"),
        ("-5s", "past"),
        ("tomorrow", "tomorrow"),
        ("2001-01-01T00:00", "past"),
        ("", "deadline"),
    ],
)
def test_a_deadline_that_cannot_be_meant_is_refused(
    deadline: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refused(
        capsys, "submit", prompts({"prompt": "a"}), "--deadline", deadline, *FAKE
    )


def test_an_unknown_model_is_refused_with_those_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "flipbok" in refused(
        capsys, "submit", prompts({"prompt": "a"}), "--model", "flipbok", "--local"
    )


def test_a_pickled_model_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path("pickled/transformer")
    folder.mkdir(parents=True)
    (folder.parent / "model_index.json").write_text(
        '{"_class_name": "WanPipeline", "transformer": ["diffusers", "WanTransformer3DModel"]}'
    )
    (folder / "config.json").write_text("{}")
    (folder / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x04.")

    message = refused(capsys, "submit", prompts({"prompt": "a"}), "--model", "./pickled", "--local")

    assert "safetensors" in message


def test_an_output_that_cannot_be_written_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").write_text("in the way")

    message = refused(
        capsys, "submit", prompts({"prompt": "a"}), "--output", "file/below", *FAKE, code=1
    )

    assert "file/below" in message


def test_an_unreachable_bucket_is_told_without_secrets(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIACANARY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    began = time.monotonic()

    message = refused(
        capsys, "submit", prompts({"prompt": "a"}), "--output", "s3://bucket/x", *FAKE, code=1
    )

    assert "127.0.0.1:9" in message or "bucket" in message
    assert "canary-secret" not in message
    assert time.monotonic() - began < 60


def test_an_unreachable_catalog_is_told_without_its_password(
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = "postgresql://ada:hunter2@127.0.0.1:9/vidplat"

    message = refused(capsys, "submit", prompts({"prompt": "a"}), "--catalog", url, *FAKE, code=1)

    assert "127.0.0.1" in message and "hunter2" not in message


def test_a_catalog_of_a_newer_version_is_refused_and_left_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    import sqlite3

    source = prompts({"prompt": "a"})
    assert main(["plan", source, "--catalog", "sqlite:///c.db", *FAKE]) == 0
    main(["doctor", "--quick", "--migrate", "--model", "fake", "--catalog", "sqlite:///c.db"])
    capsys.readouterr()
    with sqlite3.connect("c.db") as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    raw.close()

    message = refused(capsys, "submit", source, "--catalog", "sqlite:///c.db", *FAKE, code=1)

    assert "9999" in message and "newer" in message


def test_a_file_that_is_no_catalog_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("c.db").write_bytes(b"this is not a database" * 100)

    message = refused(capsys, "status", "--catalog", "sqlite:///c.db", code=1)

    assert "not a vidplat catalog" in message
