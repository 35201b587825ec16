"""Fixtures for every room: the real servers. Builders are plain functions in builders.py.

Three tiers, each a target of the Makefile:

    quick      no Ray, no server, no browser, no torch; a test that loads torch or Ray fails
    test       all that guards a promise
    thorough   everything: also tests marked `thorough`, and many more generated examples

Tests run in a few processes. A file stays together in one of them, and so do the files that share a
server (`_TOGETHER`). Those begin first: they wait most, and others compute meanwhile.

Generated tests draw the same examples in every run, so that a red run speaks of the change that was
made, and have no time limit per example, which says more about the machine's other work than about
the code. `--hypothesis-profile=thorough` draws new ones and looks harder.

Torch has one thread here unless a test says otherwise. Models of tests are small, and two threads
wait for each other at every operation where the cores have other work: beside a busy process
VGDFR's tests took 16 minutes instead of one.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from tests.flow.cluster import ray_cluster
from tests.servers_postgres import (
    migrated_database,
    pooled_url,
    postgres_catalog,
    postgres_server,
    postgres_url,
)
from tests.servers_s3 import moto_server, s3_server

__all__ = [
    "migrated_database",
    "moto_server",
    "pooled_url",
    "postgres_catalog",
    "postgres_server",
    "postgres_url",
    "ray_cluster",
    "s3_server",
]

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, also in other processes
# Ray asks for tokens in clusters that it starts; who attaches to one must say so beforehand.
os.environ.setdefault("RAY_AUTH_MODE", "token")

settings.register_profile("quick", deadline=None, max_examples=8, derandomize=True)
settings.register_profile("same", deadline=None, max_examples=40, derandomize=True)
settings.register_profile("thorough", deadline=None, max_examples=1000)

#: Folders and files that load torch, start Ray or other processes, or take seconds all the same.
_NOT_QUICK = (
    "benchmarks", "cli/test_bench.py", "cli/test_doctor.py", "cli/test_interrupt.py",
    "cli/test_models.py", "cli/test_profile.py", "cli/test_secrets.py", "cli/test_submit.py",
    "contracts", "flow", "methods/on_model", "platform/test_findings.py",
    "platform/test_imports.py", "scheduler/test_optimality.py", "storage/test_s3_answers.py",
    "storage/test_s3_store.py", "test_measured.py", "training", "workers",
)  # fmt: skip
#: Files that share what takes seconds to start. What begins first here begins first.
_TOGETHER = {
    "ray": ("flow/test_ray.py", "flow/test_hand_over.py", "flow/test_attach.py"),
    "s3": (
        "contracts/test_stores.py", "contracts/test_kept_inputs.py", "storage/test_commit.py",
        "storage/test_s3_store.py", "storage/test_input_places.py", "storage/test_prompts.py",
        "flow/test_input_videos.py", "flow/test_servers.py",
    ),
    "postgres": (
        "contracts/test_catalogs.py", "storage/test_catalog_opening.py", "storage/test_door.py",
        "flow/test_lost_answers.py",
    ),
}  # fmt: skip
_HERE = Path(__file__).parent
_GROUP = {f"{_HERE.name}/{file}": name for name, files in _TOGETHER.items() for file in files}
#: Fixtures, and their parameters, that start a server -> the group of the files that use it.
_SERVERS = {
    "ray_cluster": "ray", "moto_server": "s3", "s3_server": "s3", "moto": "s3", "radosgw": "s3",
    "postgres_server": "postgres", "postgres": "postgres", "browser": "",
}  # fmt: skip


class ByServer(LoadScopeScheduling):
    """Hands out files, or several that share a server, to the processes. (Marks of `loadgroup` do
    not reach the tests' names in pytest 9.)"""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return _GROUP.get(file, file)


@pytest.hookimpl(optionalhook=True)  # a run in one process may do without xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByServer:
    return ByServer(config, log)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--quick", action="store_true", help="only tests without Ray, servers, browser and torch"
    )


def pytest_configure(config: pytest.Config) -> None:
    if settings.get_current_profile_name() == "default":
        settings.load_profile("quick" if config.getoption("--quick") else "same")


def pytest_collection_finish() -> None:
    """What was imported stays: from here on the garbage collector need not walk through it."""
    gc.collect()
    gc.freeze()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    here = collection_path.relative_to(_HERE).as_posix()
    is_heavy = any(here == folder or here.startswith(f"{folder}/") for folder in _NOT_QUICK)
    return True if config.getoption("--quick") and is_heavy else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--quick"):
        heavy = {item for item in items if item.get_closest_marker("ray") or _servers(item)}
        config.hook.pytest_deselected(items=list(heavy))
        items[:] = [item for item in items if item not in heavy]
    order = list(_TOGETHER)
    group_of = {item: _GROUP.get(item.nodeid.partition("::")[0], "") for item in items}
    for item, group in group_of.items():
        wanted = {_SERVERS[server] for server in _servers(item)}
        if wanted and group not in wanted:
            raise pytest.UsageError(f"{item.nodeid} starts a server: add its file to _TOGETHER")
    items.sort(key=lambda i: order.index(group_of[i]) if group_of[i] else len(order))


def _servers(item: pytest.Item) -> set[str]:
    """Keys of `_SERVERS` that a test asks for."""
    called = getattr(item, "callspec", None)
    given = {str(value) for value in called.params.values()} if called else set()
    return (given | set(getattr(item, "fixturenames", ()))) & _SERVERS.keys()


_LOADED: set[str] = set()


@pytest.fixture(autouse=True)
def _stays_quick(request: pytest.FixtureRequest) -> Iterator[None]:
    """In the quick tier nothing loads what takes seconds to load; told where it happens first."""
    yield
    loaded = ({"torch", "ray"} & sys.modules.keys()) - _LOADED
    _LOADED.update(loaded)
    if request.config.getoption("--quick"):
        assert not loaded, f"{loaded} was loaded: the quick tier does without"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Also after a test that ran a command, which takes all cores for itself."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
