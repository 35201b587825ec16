"""Every end of a command is one message and one exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from vidplat.cli import edge
from vidplat.cli.app import main
from vidplat.errors import (
    CatalogError,
    InputError,
    JobError,
    ModelError,
    StoreError,
    UsageError,
    VidplatError,
)


def raising(error: BaseException) -> object:
    def command(arguments: Sequence[str]) -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("no such option"), 2),
        (InputError("3 rows are bad"), 2),
        (ModelError("unknown model"), 2),
        (JobError("it failed"), 4),
        (StoreError("the disk is full"), 1),
        (CatalogError("locked"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_each_kind_of_error_has_its_exit_code(error: BaseException, code: int) -> None:
    assert edge.run(raising(error), []) == code


def test_an_error_is_one_message_on_stderr_and_nothing_on_stdout(
    capsys: pytest.CaptureFixture[str],
) -> None:
    edge.run(raising(StoreError("the disk is full")), [])

    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "error: the disk is full\n"


def test_all_bad_rows_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    edge.run(
        raising(
            InputError("2 rows are bad", ["row 3: empty prompt", "row 9: fps must be 1 or more"])
        ),
        [],
    )

    assert (
        capsys.readouterr().err
        == "error: 2 rows are bad\n  row 3: empty prompt\n  row 9: fps must be 1 or more\n"
    )


def test_with_json_the_error_is_an_object_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    code = edge.run(raising(JobError("it failed")), ["plan", "--json"])

    shown = capsys.readouterr()
    assert code == 4
    assert shown.err == ""
    assert json.loads(shown.out) == {
        "error": {
            "kind": "JobError",
            "message": "it failed",
            "exit_code": 4,
            "retry_can_help": False,
        }
    }


def test_terminal_escapes_and_secrets_in_a_message_are_harmless(
    capsys: pytest.CaptureFixture[str],
) -> None:
    edge.run(raising(StoreError("s3://key:hunter2@host said \x1b[2J\x07")), [])

    shown = capsys.readouterr().err
    assert "hunter2" not in shown
    assert "\x1b" not in shown and "\x07" not in shown


def test_the_unexpected_is_one_line_and_a_log_file_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".vidplat").mkdir()

    code = edge.run(raising(ZeroDivisionError("postgresql://ada:hunter2@host/db")), ["status"])

    shown = capsys.readouterr().err
    (log,) = (tmp_path / ".vidplat" / "logs").iterdir()
    assert code == 1
    assert shown.count("\n") == 1
    assert "Traceback" not in shown and "hunter2" not in shown
    assert str(log.relative_to(tmp_path)) in shown
    kept = log.read_text()
    assert "Traceback" in kept and "ZeroDivisionError" in kept and "hunter2" not in kept

    assert log.stat().st_mode & 0o777 == 0o600


def test_debug_shows_the_traceback_instead_without_secrets(
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = ZeroDivisionError("https://host/a.csv?key=hunter2")
    assert edge.run(raising(error), ["--debug", "status"]) == 1

    shown = capsys.readouterr().err
    assert "Traceback" in shown and "hunter2" not in shown


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    script = (
        "import sys; from vidplat.cli import edge\n"
        "sys.exit(edge.run(lambda a: [print('x' * 999) for _ in range(999)] and None, []))"
    )
    done = subprocess.run(
        ["bash", "-c", f'{sys.executable} -c "$0" | head -1', script],
        capture_output=True,
        text=True,
    )

    assert done.stdout == "x" * 999 + "\n"
    assert done.stderr == ""


def test_a_full_disk_behind_stdout_is_said_in_one_line() -> None:
    script = (
        "import sys; from vidplat.cli import edge\nsys.exit(edge.run(lambda a: print('x' "
        "* "
        "99999), []))"
    )
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device, not a path to build
        done = subprocess.run(
            [sys.executable, "-c", script], stdout=full, stderr=subprocess.PIPE, text=True
        )

    assert done.returncode == 1
    assert done.stderr == "error: cannot write to standard output: No space left on device\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_process_without_stdout_or_stderr_does_its_work(closed: str, tmp_path: Path) -> None:
    script = (
        "import os, sys; from vidplat.cli import edge\n"
        "def work(arguments):\n"
        "    with open('made', 'w') as file: file.write('whole')\n"  # must not get number 1
        "    os.write(1, b'noise'), print('said'), print('warned', file=sys.stderr)\n"
        "sys.exit(edge.run(work, []))"
    )
    done = subprocess.run(
        ["sh", "-c", f'"$0" -c "$1" {closed}', sys.executable, script], cwd=tmp_path
    )

    assert done.returncode == 0
    assert (tmp_path / "made").read_text() == "whole"


def test_prompts_from_a_stdin_that_is_closed_are_missed_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", None)

    assert main(["plan", "-", "--model", "fake"]) == 2

    assert capsys.readouterr().err.endswith("error: no stdin to read prompts from\n")


def test_every_error_of_the_tree_carries_an_exit_code_of_the_contract() -> None:
    kinds = [VidplatError]
    for kind in kinds:
        kinds.extend(kind.__subclasses__())

    assert {kind.exit_code for kind in kinds} <= {1, 2, 3, 4, 5}
