"""The list of commands: complete, light, and polite to the unknown."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from vidplat import __version__
from vidplat.cli.app import COMMANDS, main

VERBS = [
    *("plan", "submit", "resume", "retry", "cancel"),
    *("status", "watch", "ls", "show", "logs"),
    *("report", "export", "models", "doctor"),
]


def test_every_verb_of_the_design_is_there() -> None:
    assert sorted(name for verbs in COMMANDS.values() for name in verbs) == sorted(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0

    out = capsys.readouterr().out
    assert f"Usage: vidplat {verb}" in out
    assert "--json" in out


def test_without_arguments_it_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0

    assert "Make videos:" in capsys.readouterr().out


def test_it_tells_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0

    assert capsys.readouterr().out == f"vidplat {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["statsu"], "No such command 'statsu'"),
        (["status", "--jsno"], "--jsno"),
        (["bench"], "Missing command. Try: vidplat bench --help"),
        (["profile"], "Missing command. Try: vidplat profile --help"),
        (["profile", "maks"], "No such command 'maks'"),
        (["show"], "Missing argument 'JOB'"),
        (["submit", "x.csv", "--width", "wide"], "--width"),
        (["submit", "x.csv", "--width", "0"], "--width must be 1 or more"),
        (["submit", "x.csv", "--steps", "-4"], "--steps must be 1 or more"),
        (["submit", "x.csv", "--fps", "0"], "--fps must be 1 or more"),
        (["submit", "x.csv", "--guidance-scale", "nan"], "--guidance-scale must be a number"),
        (["plan", "x.csv", "--guidance-scale", "9" * 400], "--guidance-scale must be a number"),
        (["plan", "x.csv", "--priority", "1" + "0" * 22], "--priority must be within ±1,000,000"),
        (["plan", "x.csv", "--priority", "-1" + "0" * 400], "--priority must be within"),
        (["plan", "x.csv", "--model", "a" * 300], "unknown model 'aaa"),
        (["plan", "x.csv", "--model", "~nobody-at-all"], "unknown model '~nobody-at-all'"),
        (["models", "~nobody\0at-all"], "unknown model '~nobody"),
        (["plan", "x.csv", "--output", "s3://[b/p"], "cannot be read as a URL"),
        (["ls", "--catalog", "postgresql://u:a@b@h/d"], "percent-encode @"),
        (["submit", "x.csv", "--quality-floor", "1.5"], "--quality-floor must be between 0 and 1"),
        (["submit", "x.csv", "--on-infeasible", "panic"], "reject, degrade, best-effort"),
        (["submit", "x.csv", "--pool", "cloud"], "name=workers"),
    ],
)
def test_a_usage_error_is_one_message_and_exit_code_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(arguments)

    shown = capsys.readouterr()
    assert code == 2
    assert words in " ".join(shown.err.split()) and shown.err.startswith("error: ")
    assert shown.out == ""


@pytest.mark.parametrize("variable", ["VIDPLAT_MEASURED", "XDG_DATA_HOME", "HF_HOME"])
def test_a_variable_that_names_the_home_of_nobody_is_one_sentence(
    variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from vidplat.workers.models.catalogue import describe_model

    monkeypatch.delenv("VIDPLAT_MEASURED", raising=False)
    monkeypatch.setenv(variable, "~nobody-at-all/x")
    describe_model.cache_clear()

    assert main(["models"] if variable == "HF_HOME" else ["models", "flipbook"]) == 2

    assert f"{variable} '~nobody-at-all/x': there is no such home" in capsys.readouterr().err


def test_help_loads_nothing_heavy_and_is_quick() -> None:
    script = (
        "import sys; from vidplat.cli.app import main\n"
        "assert main(['--help']) == 0\n"
        "heavy = {'torch', 'ray', 'sqlalchemy', 'pyarrow', 'numpy', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )

    done, helped_s = ran(script)
    _, typer_s = ran("import typer")

    assert done.returncode == 0, done.stderr
    assert helped_s < 6 * typer_s  # 2.7 times


def ran(script: str) -> tuple[subprocess.CompletedProcess[str], float]:
    """How a script ended, and the seconds of processor that it took, the best of three."""
    seconds = []
    for _ in range(3):
        before = os.times()
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        after = os.times()
        seconds.append(
            after.children_user
            + after.children_system
            - before.children_user
            - before.children_system
        )
    return done, min(seconds)
