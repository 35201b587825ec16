"""The scene that tests of the loop play in."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.builders import a_job
from tests.platform.scene import Scene
from vidplat.domain import Job


@pytest.fixture
def scene(tmp_path):
    scenes: list[Scene] = []

    def open_(jobs: int | Sequence[Job] = 3, *workers: str, **more) -> Scene:
        wanted = [a_job(row=row) for row in range(1, jobs + 1)] if isinstance(jobs, int) else jobs
        scenes.append(Scene(tmp_path, wanted, *workers, **more))
        return scenes[-1]

    yield open_
    for each in scenes:
        each.catalog.close()
