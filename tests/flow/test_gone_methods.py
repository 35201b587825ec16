"""Batches that were stored with methods which are gone: they open, are shown as they are, and their
open jobs are planned as if they had asked for none."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from tests.flow.stage import Stage
from tests.platform.builders import Memory
from vidplat.domain import JobState, OnInfeasible
from vidplat.storage import open_catalog

GONE = ("keyframes:5", "eco:k=3,context=on")


def a_batch_of_before(stage: Stage) -> str:
    """Two queued jobs as an earlier version stored them: refused here, admitted there."""
    result = stage.submit(2, deadline="1s", on_infeasible=OnInfeasible.REJECT)
    assert stage.counts() == {JobState.QUEUED: 2}
    with sqlite3.connect(stage.folder / "catalog.db") as catalog:
        for row, method in enumerate(GONE, start=1):
            catalog.execute("UPDATE jobs SET method = ? WHERE row = ?", (method, row))
        catalog.execute("UPDATE batches SET state = 'open'")
    return result.batch.id


def test_such_a_batch_is_resumed_as_the_planner_chooses_with_one_warning(tmp_path: Path) -> None:
    # given
    stage, heard = Stage(tmp_path, model="fake:step_s=0.1"), Memory()
    batch_id = a_batch_of_before(stage)

    # when
    result = stage.resume(batch_id, heard)

    # then
    assert result.computed == 2
    assert stage.counts() == {JobState.DONE: 2}
    told = [warning for warning in heard.warnings if "gone" in warning]
    assert told == [
        "2 videos asked for what is gone (eco:k=3,context=on, keyframes:5): the planner chooses "
        "instead"
    ]


def test_its_jobs_are_shown_as_they_were_asked_for(tmp_path: Path) -> None:
    stage = Stage(tmp_path, model="fake:step_s=0.1")
    batch_id = a_batch_of_before(stage)
    catalog = open_catalog(stage.config.catalog)
    try:
        assert [record.job.method for record in catalog.jobs(batch_id)] == list(GONE)
    finally:
        catalog.close()
