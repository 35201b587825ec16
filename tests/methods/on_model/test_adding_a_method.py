"""Adding a method is adding a folder and a line of the table: nothing else knows its name.

A copy of the package gets a method `halved`, which halves the model's answer, and in a process of
its own that copy plans a video by it and a worker makes one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import vidplat

ROOT = Path(__file__).parents[3]

WORDS = '''
"""A method as it is asked for: the model's answer is halved."""

from types import MappingProxyType

from vidplat.methods.kinds import MethodKind, Number, Seam, Share


class HalvedKind(MethodKind):
    name = "halved"
    about = "the model's answer is halved"
    seam = Seam.PASSES
    parameters = MappingProxyType({"by": Number(2, 1, 8, whole=True)})
    first = "by"

    def share(self, values, run):
        return Share(1 / values["by"], 1 / values["by"])

    def install(self, values):
        from vidplat.methods.halved.on_model import Halved

        return Halved(values["by"])
'''

ON_MODEL = '''
"""What it does on a model: a hook behind the transformer."""

from contextlib import contextmanager

from vidplat.methods.protocol import Method


class Halved(Method):
    name = "halved"

    def __init__(self, by):
        self._by = by

    @contextmanager
    def applied_to(self, model):
        hook = model.register_forward_hook(lambda _, given, answer: (answer[0] / self._by,))
        try:
            yield
        finally:
            hook.remove()
'''

TRIED = """
import json
import sys
from pathlib import Path

from tests.builders import (
    a_job, a_policy, a_shape, a_snapshot, a_spec, an_open_job, knowledge,
)
from tests.workers.tiny_models import a_tiny_wan
from vidplat.domain import OperatingPoint
from vidplat.methods.language import parse, text
from vidplat.methods.model_shape import ProfilePoint
from vidplat.scheduler.planner import plan
from vidplat.workers import Worker

steps = ProfilePoint(steps_fraction=0.5, quality=0.90)
found = ProfilePoint(steps_fraction=1.0, quality=0.97, method="halved", samples=16)
known = knowledge(shape=a_shape(profile=(steps, found)), full_s=11.0, fixed_s=1.0)
planned = plan(a_snapshot(jobs=[an_open_job()], deadline_at=9.0), a_policy(), known)

worker = Worker(str(a_tiny_wan(Path(sys.argv[1]))))
worker.load()
job = a_job(spec=a_spec(width=32, height=32, frames=9, steps=4), model=worker.ref)
videos = [
    worker.make(job, OperatingPoint(4, method)).video for method in ("full", "halved:by=4", "full")
]
print(json.dumps({
    "text": text(parse("HALVED:4")),
    "planned": [each.point.method for each in planned.assignments],
    "p50_s": planned.assignments[0].p50_s,
    "changed": videos[0] != videos[1],
    "undone": videos[0] == videos[2],
}))
"""


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a copy of the package with one method more says of it."""
    home = tmp_path_factory.mktemp("added")
    package = home / "vidplat"
    ours = Path(vidplat.__file__).parent
    shutil.copytree(ours, package, ignore=shutil.ignore_patterns("models_data", "__pycache__"))
    (package / "models_data").symlink_to(ours / "models_data")
    folder = package / "methods" / "halved"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "words.py").write_text(WORDS)
    (folder / "on_model.py").write_text(ON_MODEL)
    table = package / "methods" / "table.py"
    table.write_text(with_line(table.read_text()))
    ran = subprocess.run(
        [sys.executable, "-c", TRIED, str(home / "tiny")],
        env={**os.environ, "PYTHONPATH": f"{home}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    told: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return told


def with_line(table: str) -> str:
    """The table with one line more, and the import that it needs."""
    first = "from vidplat.methods.hsa.words import HsaKind\n"
    assert first in table and "    HsaKind(),\n" in table
    more = "from vidplat.methods.halved.words import HalvedKind\n"
    return table.replace(first, more + first).replace(
        "    HsaKind(),\n", "    HsaKind(),\n    HalvedKind(),\n"
    )


def test_its_text_is_read_and_written(tried: dict[str, Any]) -> None:
    assert tried["text"] == "halved:by=4"


def test_a_plan_takes_it_where_it_was_measured_to_be_worth_it(tried: dict[str, Any]) -> None:
    assert tried["planned"] == ["halved"]
    # 1 s beside denoising, and half of the 10 s that all steps take
    assert tried["p50_s"] == pytest.approx(6.0, rel=0.03)


def test_a_worker_makes_videos_with_it_and_is_as_before_afterwards(tried: dict[str, Any]) -> None:
    assert tried["changed"]
    assert tried["undone"]
