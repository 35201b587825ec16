"""A finish is told as one number, whoever tells it: the promise, the table at the end, the page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.flow.stage import Stage
from vidplat.cli.app import main


def test_promise_table_and_page_tell_one_finish(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # given a batch that was made and lost a video: its second run has a promise of its own
    model = "fake:step_s=0.002"
    stage = Stage(tmp_path, model=model)
    file, catalog, output = stage.write(6), stage.config.catalog, stage.config.output
    options = ["--local", "--model", model, "--deadline", "2h"]
    options += ["--catalog", catalog, "--output", output]
    main(["submit", file, *options])
    capsys.readouterr()
    min((tmp_path / "out").rglob("video.mp4")).unlink()

    # when it is told of at the start, at the end, and on the page
    main(["submit", file, *options])
    said = capsys.readouterr()

    # then seconds are the same
    promised = re.search(r"in (\S+ \w+) \(p90\)", said.err)
    expected = re.search(r"expected finish in (\S+ \w+) \(p50\), (\S+ \w+) \(p90\)", said.err)
    table = re.search(r"finish +(\S+ \w+) \(p90 (\S+ \w+)\)", said.out)
    page = next((tmp_path / "out").rglob("report.html")).read_text()
    shown = re.search(r"Predicted at submit.*?>([\d.]+ \w+)<.*?p90 ([\d.]+ \w+)", page, re.S)
    assert promised and expected and table and shown, said
    assert expected[2] == promised[1]
    assert table.groups() == expected.groups() == shown.groups()
