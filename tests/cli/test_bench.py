"""`vidplat bench methods`: what it measures, keeps, prints and refuses, on a tiny random model."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.workers.tiny_models import a_tiny_wan
from vidplat.cli.app import main
from vidplat.workers.models.catalogue import describe_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(a_tiny_wan(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(autouse=True)
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIDPLAT_MEASURED", str(tmp_path / "measured"))
    monkeypatch.chdir(tmp_path)
    describe_model.cache_clear()
    return tmp_path / "measured"


def test_it_measures_draws_and_lets_plans_choose(
    model: str, measured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "methods", model, "--only", "steps,unipc", "--count", "1", "--json"]) == 0

    told = json.loads(capsys.readouterr().out)
    assert {one["method"] for one in told["findings"]} == {"steps", "unipc"}
    rows = pq.read_table(told["rows"]).to_pylist()
    assert len(rows) == len(told["findings"])  # one prompt
    assert all(0 < row["work"] < 1 for row in rows)
    picture = ElementTree.parse(told["picture"]).getroot()
    assert "steps" in "".join(picture.itertext())
    describe_model.cache_clear()
    _, shape = describe_model(model)
    assert any(not point.method for point in shape.profile)
    assert Path(told["profile"]).is_relative_to(measured)


def test_prompts_come_from_a_file_and_a_part_of_the_picture_is_not_kept_for_plans(
    model: str, measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red circle\na blue square\na green circle\n", encoding="utf-8")
    chosen = ["--only", "unipc", "--prompts", "prompts.txt", "--count", "2"]

    assert main(["bench", "methods", model, *chosen]) == 0

    rows = pq.read_table("bench/methods.parquet").to_pylist()
    assert {row["prompt"] for row in rows} == {"a red circle", "a blue square"}
    assert "without `steps` there is nothing to compare" in capsys.readouterr().out
    assert not measured.exists()


def test_an_unknown_method_is_refused_with_the_list(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "methods", model, "--only", "stepz"]) == 2

    assert "'stepz' is not known; there are steps, hsa, " in capsys.readouterr().err
