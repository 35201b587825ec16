"""A clock that is set while a batch runs moves no promise; one that differs takes no batch."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.catalog_builders import a_batch
from tests.flow.stage import Stage
from tests.platform.builders import Memory
from vidplat.domain import JobState, Outcome
from vidplat.storage import open_catalog


class StepsTheClock(Memory):
    """At the first video that it hears of."""

    def __init__(self, step_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self._step_s, self._monkeypatch = step_s, monkeypatch

    def outcome(self, outcome: Outcome) -> None:
        super().outcome(outcome)
        if len(self.outcomes) == 1:
            right, step_s = time.time, self._step_s
            self._monkeypatch.setattr("time.time", lambda: right() + step_s)


@pytest.mark.parametrize("step_s", [3600.0, pytest.param(-3600.0, marks=pytest.mark.thorough)])
def test_a_clock_that_is_set_cuts_no_video_short_and_stops_none(
    step_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given twelve jobs of 0.08 s, and plenty of time
    stage, heard = Stage(tmp_path, model="fake:step_s=0.01"), StepsTheClock(step_s, monkeypatch)
    result = stage.submit(12, heard, deadline="40s")

    # then all are made in full, in time, within seconds
    assert result.exit_code == 0
    assert stage.counts() == {JobState.DONE: 12}
    assert [outcome.steps_done for outcome in heard.outcomes] == [8] * 12
    assert all(0 < each.finished_at - each.started_at < 20 for each in heard.outcomes)
    assert 0 < result.wall_s < 40


OTHER = """
import sys, time
time.time = lambda right=time.time: right() + float(sys.argv[2])
from vidplat.storage import open_catalog
catalog = open_catalog(sys.argv[1])
print(catalog.hold_batch("b00000000001", "there:2:2", lease_s=30), catalog.time())
"""


@pytest.mark.parametrize("ahead_s", [60.0, pytest.param(-3600.0, marks=pytest.mark.thorough)])
def test_a_platform_whose_clock_differs_takes_no_batch_that_is_held(
    ahead_s: float, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/c.db"
    catalog = open_catalog(url)
    catalog.add_batch(a_batch(), [])
    catalog.hold_batch("b00000000001", "here:1:1", lease_s=30)

    command = [sys.executable, "-c", OTHER, url, str(ahead_s)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    assert told[0] == "here:1:1"
    assert abs(float(told[1]) - catalog.time()) < 30
    catalog.close()
