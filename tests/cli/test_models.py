"""`vidplat models` on a directory: what it says of models that make a video block by block."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.workers.tiny_models import a_tiny_causal, a_tiny_wan
from vidplat.cli.app import main


def test_a_block_causal_model_is_described_with_its_blocks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = a_tiny_wan(tmp_path / "tiny")
    causal = a_tiny_causal(tmp_path / "elsewhere" / "causal", plain)

    assert main(["models", str(causal)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "causal-wan" in said
    assert (
        "2 latent frames at a time, 1 to 4 steps each, seeing the last 4 latent frames and the "
        "first 1" in said
    )
    assert main(["models", str(causal), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["blocks"]["steps"] == [1000.0, 750.0, 500.0, 250.0]

    assert main(["models", str(plain)]) == 0
    assert "latent frames at a time" not in capsys.readouterr().out
