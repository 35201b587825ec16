"""Whole runs whose catalog loses answers: nothing is lost, nothing twice, and nobody notices."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from tests.bad_line import BadLine
from tests.flow.stage import Stage
from tests.lossy_proxy import LossyProxy
from vidplat.domain import JobState
from vidplat.storage.database import Database

PROMPTS = ["a circle", "a square [flaky]", "a star"]


@pytest.fixture
def over(monkeypatch: pytest.MonkeyPatch) -> Callable[[BadLine], None]:
    """Every catalog that is opened from then on is reached over this line."""
    monkeypatch.setattr("vidplat.storage.door._FIRST_PAUSE_S", 0.001)
    opened = Database.__init__

    def reach(line: BadLine) -> None:
        def opening(self: Database, *args: Any, **kwargs: Any) -> None:
            opened(self, *args, **kwargs)
            line.stand_before(self)

        monkeypatch.setattr(Database, "__init__", opening)

    return reach


def check_a_run(stage: Stage, line: BadLine, over: Callable[[BadLine], None]) -> None:
    stage.counts()  # makes the tables
    over(line)
    assert stage.submit(PROMPTS).exit_code == 0
    assert stage.counts() == {JobState.DONE: 3}
    stage.check_nothing_lost_or_twice()


@pytest.mark.parametrize(
    "has_arrived",
    [True, pytest.param(False, marks=pytest.mark.thorough)],
    ids=["answers lost", "requests lost"],
)
def test_a_run_ends_well_though_every_change_must_be_asked_twice(
    has_arrived: bool, tmp_path: Path, over: Callable[[BadLine], None]
) -> None:
    line = BadLine(lambda n: n % 2 == 1, has_arrived=has_arrived)
    check_a_run(Stage(tmp_path), line, over)
    assert line.ends > 20


@pytest.mark.thorough
@pytest.mark.parametrize("has_arrived", [True, False], ids=["answer lost", "request lost"])
def test_a_run_survives_the_loss_of_any_one_answer(
    has_arrived: bool, tmp_path: Path, over: Callable[[BadLine], None]
) -> None:
    """Breaks the line at the 1st, 2nd, 3rd ... change, until a run has no more."""
    for n in range(1, 100):
        stage = Stage(tmp_path / str(n))
        stage.folder.mkdir()
        line = BadLine(lambda end, n=n: end == n, has_arrived=has_arrived)  # type: ignore[misc]
        check_a_run(stage, line, over)
        if line.ends < n:
            break
    assert 10 < n < 99


@pytest.mark.thorough
@pytest.mark.server
def test_a_run_survives_the_loss_of_any_one_answer_of_postgres(
    tmp_path: Path, postgres_catalog: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cuts the connection at every seventh piece that the server sends in turn."""
    monkeypatch.setattr("vidplat.storage.door._FIRST_PAUSE_S", 0.001)
    url = make_url(postgres_catalog)
    proxy = LossyProxy((str(url.host), int(url.port or 5432)))
    through = url.set(host="127.0.0.1", port=proxy.port).render_as_string(hide_password=False)
    with closing(proxy):
        for n in range(1, 2000, 7):
            stage = Stage(tmp_path / str(n), catalog=through)
            stage.folder.mkdir()
            proxy.answers, proxy.lost_at = 0, n
            assert stage.submit(PROMPTS).exit_code == 0, n
            answers, proxy.lost_at = proxy.answers, 0
            stage.check_nothing_lost_or_twice()
            if answers < n:
                break
        assert stage.counts() == {JobState.DONE: 3 * len(list(tmp_path.iterdir()))}
    assert 100 < n < 2000
