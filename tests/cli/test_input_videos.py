"""What the command line tells of the videos that others are made from."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from tests.source_videos import an_mp4, cut, with_alpha, with_variable_rate
from vidplat.cli.app import main

FAKE = ["--model", "fake", "--local"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test in an empty folder with a few clips, and the defaults a newcomer has."""
    for name in ("VIDPLAT_CATALOG", "VIDPLAT_OUTPUT", "VIDPLAT_MODEL", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").mkdir()
    an_mp4(tmp_path / "clips" / "dancer.mp4")
    return tmp_path


def prompts(*rows: dict[str, object]) -> str:
    Path("prompts.jsonl").write_text(
        "".join(json.dumps({"prompt": "a red circle", **row}) + "\n" for row in rows)
    )
    return "prompts.jsonl"


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def an_edited_batch(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """One job from a video and one from text; what `ls --json` says of them."""
    assert (
        main(["submit", prompts({"input_video": "clips/dancer.mp4", "strength": 0.4}, {}), *FAKE])
        == 0
    )
    capsys.readouterr()
    batch = document(capsys, "ls")[0]["batch"]
    return list(document(capsys, "ls", batch))


def test_lists_and_records_tell_the_source(
    capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    edited, plain = an_edited_batch(capsys)
    place = str(elsewhere / "clips" / "dancer.mp4")
    assert (edited["input_video"], edited["strength"], len(edited["input_sha256"])) == (
        place,
        0.4,
        64,
    )
    assert (plain["input_video"], plain["strength"], plain["input_sha256"]) == (None, None, None)

    # `ls` has a column for it, `show` two lines, the manifest three columns, the report a line on
    # its card
    assert main(["ls", edited["batch"]]) == 0
    shown = capsys.readouterr().out
    assert "FROM" in shown and "dancer.mp4" in shown
    assert main(["show", edited["job"][:12]]) == 0
    shown = capsys.readouterr().out
    assert f"{place}, strength 0.4" in shown and edited["input_sha256"] in shown
    assert document(capsys, "show", edited["job"])["input_video"] == place
    assert main(["export", "manifest.csv"]) == 0
    rows = list(csv.DictReader(Path("manifest.csv").read_text().splitlines()))
    assert [(row["input_video"], row["strength"]) for row in rows] == [(place, "0.4"), ("", "")]
    page = next(Path("renders").rglob("report.html")).read_text()
    assert f"{place}, strength 0.4" in page


def test_a_batch_made_from_text_alone_looks_as_before(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", prompts({}), *FAKE]) == 0
    batch = capsys.readouterr() and document(capsys, "ls")[0]["batch"]
    assert main(["ls", batch]) == 0
    assert "FROM" not in capsys.readouterr().out


def test_bad_sources_are_listed_with_their_rows_and_exit_2(
    capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    cut(elsewhere / "clips" / "cut.mp4", elsewhere / "clips" / "dancer.mp4")
    with_alpha(elsewhere / "clips" / "logo.mov")
    secret = "s3://bucket/a.mp4?X-Amz-Signature=hunter2"
    source = prompts(
        {"input_video": "clips/cut.mp4"},
        {"input_video": "clips/logo.mov"},
        {"input_video": secret},
        {"strength": 0.5},
        {},
    )

    assert main(["submit", source, *FAKE]) == 2

    said = capsys.readouterr().err
    assert "4 rows of 5 cannot be used" in said
    for part in (
        "row 1, input_video: is truncated",
        "row 2, input_video: has an alpha channel",
        "row 4, strength: is how",
    ):
        assert part in said
    assert "row 3, input_video: has options: a row names bucket and key alone" in said
    assert "hunter2" not in said
    assert not Path("renders").exists()


def test_what_is_converted_is_a_warning(
    capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    with_variable_rate(elsewhere / "clips" / "phone.mp4")
    assert (
        main(["submit", prompts({"input_video": "clips/phone.mp4", "num_frames": 29}), *FAKE]) == 0
    )
    assert "row 1 has an input video with a variable frame rate" in " ".join(
        capsys.readouterr().err.split()
    )


def test_no_log_line_catalog_or_sidecar_holds_a_refused_secret(
    capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    # given a file whose first row is good and whose second names a signed URL, and one submit that
    # goes through
    an_edited_batch(capsys)
    signed = "https://bucket.s3.amazonaws.com/a.mp4?sig=hunter2"
    assert main(["--debug", "submit", prompts({}, {"input_video": signed}), *FAKE]) == 2
    assert "hunter2" not in "".join(capsys.readouterr())
    kept = [
        path for path in elsewhere.rglob("*") if path.is_file() and path.name != "prompts.jsonl"
    ]
    assert len(kept) > 5
    assert [path for path in kept if b"hunter2" in path.read_bytes()] == []
