"""One tiny random Wan and one loaded worker, shared by the room's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workers.tiny_models import a_tiny_wan
from vidplat.workers import Worker


@pytest.fixture(scope="session")
def tiny_wan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_tiny_wan(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny_unipc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_tiny_wan(
        tmp_path_factory.mktemp("models") / "unipc", scheduler="UniPCMultistepScheduler"
    )


@pytest.fixture(scope="session")
def worker(tiny_wan: Path) -> Worker:
    made = Worker(str(tiny_wan))
    made.load()
    return made
