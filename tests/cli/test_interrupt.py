"""Ctrl-C in a real process: what is running is finished, and resume goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

VIDPLAT = [sys.executable, "-m", "vidplat"]


def test_ctrl_c_drains_exits_130_and_resume_makes_the_rest(tmp_path: Path) -> None:
    # given a submit of six videos of about a second each, two of which are under way
    (tmp_path / "p.txt").write_text("".join(f"prompt {row}\n" for row in range(6)))
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("VIDPLAT_")
    }
    process = subprocess.Popen(
        [*VIDPLAT, "submit", "p.txt", "--model", "fake:step_s=0.12", "--local"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 120
    while (
        not list(tmp_path.rglob("COMMIT.json"))
        and process.poll() is None
        and time.monotonic() < until
    ):
        time.sleep(0.05)

    # when a person presses Ctrl-C once
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)

    # then it ends with 130 and says how to go on, and going on makes all of them once
    assert process.returncode == 130, err
    assert "once more to stop at once" in err
    assert "vidplat resume" in out
    assert "PREDICTED" in out and "\nfinish " not in out  # the batch has not ended
    assert "Traceback" not in err
    made = len(list(tmp_path.rglob("COMMIT.json")))
    assert 0 < made < 6
    resumed = subprocess.run(
        [*VIDPLAT, "resume", "--local", "--json"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    result = json.loads(resumed.stdout)
    assert (resumed.returncode, result["jobs"]["done"], result["computed"]) == (0, 6, 6 - made)


#: Breaks the command off inside a module, as Ctrl-C does: {module} is being imported.
INSIDE = """
import builtins, os, signal, sys
real = builtins.__import__
def broken_off(name, *rest):
    if name == {module!r}:
        builtins.__import__ = real
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
    return real(name, *rest)
builtins.__import__ = broken_off
sys.argv = ["vidplat", *sys.argv[1:]]
from vidplat.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize("module", ["vidplat.cli.bench", "vidplat.storage"])
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_ctrl_c_before_any_run_is_told_in_the_form_that_was_asked_for(
    tmp_path: Path, module: str, form: list[str]
) -> None:
    """While the verbs are imported, and while one is at work; pressed twice."""
    said = subprocess.run(
        [sys.executable, "-c", INSIDE.format(module=module), "status", *form],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )

    assert said.returncode == 130
    if form:
        assert said.stderr == ""
        assert json.loads(said.stdout)["error"]["kind"] == "Interrupted"
    else:
        assert (said.stdout, said.stderr) == ("", "interrupted\n")
