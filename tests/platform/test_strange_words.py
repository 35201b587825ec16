"""A model with a closed vocabulary is not promised to follow words that it has never read."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from vidplat.cli.app import main
from vidplat.workers.models.vocabulary import closed_vocabulary

KNOWN = "a large red circle moves fast right on a plain gray background"


def warned(capsys: pytest.CaptureFixture[str], folder: Path, *prompts: str) -> str:
    """What `plan` of these prompts warns of."""
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    catalog = f"sqlite:///{folder}/none.db"
    code = main(["plan", str(path), "--model", "flipbook", "--catalog", catalog])
    shown = capsys.readouterr()
    assert code == 0 and "feasible" in shown.out
    return shown.err


def test_prompts_of_unknown_words_are_warned_of_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = warned(capsys, tmp_path, KNOWN, "a cat runs on a beach at sunset", "Ein Hund", "犬")

    assert "flipbook (56 words) knows less than half of the words of 3 of 4 prompts" in said
    assert "(row 2: not cat, runs, beach, at, sunset)" in said
    assert said.count("warning") == 1


def test_prompts_of_known_words_are_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    twisted = "A RED, small SQUARE: drifts up; then rests."  # as its normaliser takes it
    assert warned(capsys, tmp_path, KNOWN, twisted, "a blue triangle wobbles slowly left") == ""


def test_the_examples_are_made_of_known_words() -> None:
    import pyarrow.parquet as pq

    vocabulary = closed_vocabulary("flipbook")
    assert vocabulary is not None
    examples = pq.read_table(Path(__file__).parents[2] / "examples" / "prompts.parquet")
    assert [p for p in examples["prompt"].to_pylist() if vocabulary.strange(p)] == []


@pytest.mark.parametrize("kind", ["WordPiece", "damaged", "missing"])
def test_a_model_that_reads_every_word_or_cannot_be_read_is_asked_nothing(
    kind: str, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(str(files("vidplat") / "models_data" / "flipbook"), model)
    path = model / "tokenizer" / "tokenizer.json"
    if kind == "missing":
        path.unlink()
    else:
        path.write_text(
            path.read_text().replace("WordLevel", kind)[: None if kind[0] == "W" else 99]
        )
    assert closed_vocabulary(str(model)) is None
    assert closed_vocabulary(str(tmp_path / "nowhere")) is None


def test_asking_loads_no_torch() -> None:
    script = (
        "import sys; from vidplat.workers.models.vocabulary import closed_vocabulary\n"
        "assert closed_vocabulary('flipbook').strange('cat') == ['cat']\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
