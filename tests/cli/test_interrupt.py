"""Ctrl-C in a real process: what is running is finished, and resume goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

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
