"""`vidplat profile masks`: what it writes, prints and refuses, on a tiny random model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.workers.tiny_models import a_tiny_wan
from vidplat.cli.app import main
from vidplat.methods.vdit import mask_file
from vidplat.workers.models.catalogue import describe_model

SHORT = ["--prompts", "1", "--num-frames", "17", "--steps", "4"]  # 17 frames are 5 latent ones


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(a_tiny_wan(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(autouse=True)
def masks_folder(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIDPLAT_MEASURED", str(tmp_path / "measured"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "measured" / describe_model(model)[0].revision / "masks"


def test_it_writes_masks_where_the_method_finds_them(
    model: str, masks_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["profile", "masks", model, "--r", "100", *SHORT]) == 0

    shown = capsys.readouterr()
    (path,) = masks_folder.iterdir()
    masks = mask_file.load(path)
    assert path.name == f"{masks.transformer}-F5.json"
    assert masks.ks == (1, 1) and masks.threshold == 100
    assert str(path) in shown.out and "1 of 5" in shown.out and "sparse:masks=searched" in shown.out
    assert "sampling: 1 of 4 steps" in shown.err


def test_json_holds_the_file_and_what_is_in_it(
    model: str, masks_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["profile", "masks", model, "--r", "100", "--json", *SHORT]) == 0

    shown = capsys.readouterr()
    (told,) = json.loads(shown.out)
    assert shown.err == ""
    assert Path(told["file"]).parent == masks_folder
    assert told["layers"][0]["k"] == 1 and told["frames"] == 5
    assert told["density"] == pytest.approx(13 / 25)  # F = 5, k = 1: 15 - 2 tiles
    assert told["attention_speedup"] == pytest.approx(25 / 13)


def test_another_place_may_be_named(
    model: str, masks_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "kept" / "mine.json"
    assert main(["profile", "masks", model, "--r", "100", "--out", str(out), *SHORT]) == 0

    assert mask_file.load(out).ks == (1, 1)
    assert not masks_folder.exists()
    assert f"as {mask_file.load(out).transformer}-F5.json" in capsys.readouterr().out


def test_it_says_when_nothing_is_within_the_threshold(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["profile", "masks", model, "--r", "0", *SHORT]) == 0

    assert "no layer has a mask within this error" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nosuch"], "unknown model 'nosuch'"),
        (["MODEL", "--num-frames", "18"], "num_frames must be of the form 4k+1"),
        (["MODEL", "--num-frames", "1"], "leave nothing out"),
        (["MODEL", "--metric", "psnr"], "the metric must be one of relative, absolute, output"),
        (["MODEL", "--sequential", "--density", "0.5"], "a sequential search goes by a threshold"),
        (["MODEL", "--solver", "hsa"], "--solver takes euler or unipc"),
        (["MODEL", "--device", "gpu"], "--device must be cpu, cuda or cuda:N"),
        (["MODEL", "--out", "."], "--out must name a file"),
        (["MODEL", "--prompts", "0"], "--prompts"),
    ],
)
def test_what_cannot_be_done_is_one_message_and_exit_code_2(
    model: str, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["profile", "masks", *(model if word == "MODEL" else word for word in arguments)])

    shown = capsys.readouterr()
    assert code == 2 and words in shown.err and shown.out == ""


def test_it_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "--help"]) == 0
    assert "masks" in capsys.readouterr().out
    assert main(["profile", "masks", "--help"]) == 0
    assert "Usage: vidplat profile masks" in capsys.readouterr().out
