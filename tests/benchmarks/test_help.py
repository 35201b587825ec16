"""Every benchmark answers --help, so that nothing that moves can break one unseen."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
NAMES = sorted(
    [path.stem for path in FOLDER.glob("*.py") if "def main(" in path.read_text()]
    + [path.parent.name for path in FOLDER.glob("*/__main__.py")]
)


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_says_how_it_is_run(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = f"benchmarks.{name}"
    if (FOLDER / name).is_dir():
        module += ".__main__"
    monkeypatch.setattr(sys, "argv", [name, "--help"])

    with pytest.raises(SystemExit) as ended:
        importlib.import_module(module).main()

    assert ended.value.code == 0
    assert f"python -m benchmarks.{name} " in capsys.readouterr().out


def test_the_list_of_benchmarks_names_them_all() -> None:
    lines = (FOLDER / "README.md").read_text().splitlines()
    listed = [line.split("`")[1] for line in lines if line.startswith("| `")]
    assert listed == NAMES
