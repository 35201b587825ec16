"""Fixtures for every room: the real servers. Builders are plain functions in builders.py.

Three tiers, each a target of the Makefile:

    quick      no Ray, no server, no browser, no torch; a test that loads torch or Ray fails
    test       all that guards a promise
    thorough   everything: also tests marked `thorough`, and ten times as many generated examples

Tests run in two processes. What shares a server stays together in one of them (`_group_of`): Ray,
S3, PostgreSQL and the browser are a group each, and every other file is one. Groups that wait most
begin first, so that the other process computes meanwhile.

Generated tests draw the same examples in every run, so that a red run speaks of the change that was
made, and have no time limit per example, which says more about the machine's other work than about
the code. `--hypothesis-profile=thorough` draws new ones and looks harder.

Torch has one thread here unless a test says otherwise. Models of tests are small, and two threads
wait for each other at every operation where the cores have other work: beside a busy process
VGDFR's tests took 16 minutes instead of one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.flow.cluster import ray_cluster
from tests.servers_postgres import (
    migrated_database,
    postgres_catalog,
    postgres_server,
    postgres_url,
)
from tests.servers_s3 import moto_server, s3_server

__all__ = [
    "migrated_database",
    "moto_server",
    "postgres_catalog",
    "postgres_server",
    "postgres_url",
    "ray_cluster",
    "s3_server",
]

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, also in other processes
# Ray asks for tokens in clusters that it starts; who attaches to one must say so beforehand.
os.environ.setdefault("RAY_AUTH_MODE", "token")

settings.register_profile("same", deadline=None, max_examples=40, derandomize=True)
settings.register_profile("thorough", deadline=None, max_examples=1000)
if settings.get_current_profile_name() == "default":
    settings.load_profile("same")

#: Folders and files that load torch or start Ray, and the servers a group of tests shares.
_NOT_QUICK = (
    "benchmarks", "cli/test_profile.py", "flow", "methods/on_model", "platform/test_findings.py",
    "training", "workers",
)  # fmt: skip
_SERVERS = ("ray", "s3", "postgres", "browser")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--quick", action="store_true", help="only tests without Ray, servers, browser and torch"
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    here = collection_path.relative_to(Path(__file__).parent).as_posix()
    is_heavy = any(here == folder or here.startswith(f"{folder}/") for folder in _NOT_QUICK)
    return True if config.getoption("--quick") and is_heavy else None


@pytest.hookimpl(tryfirst=True)  # before xdist writes groups into the tests' names
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    groups = {item: _group_of(item) for item in items}
    if config.getoption("--quick"):
        config.hook.pytest_deselected(items=[i for i in items if groups[i] in _SERVERS])
        items[:] = [item for item in items if groups[item] not in _SERVERS]
    for item in items:
        item.add_marker(pytest.mark.xdist_group(groups[item]))
    items.sort(key=lambda item: groups[item] not in _SERVERS)  # stable: files keep their order


def _group_of(item: pytest.Item) -> str:
    """What a test shares a process with: a server's name, or its own file."""
    asked = set(getattr(item, "fixturenames", ()))
    if called := getattr(item, "callspec", None):  # a fixture's parameter may name the server
        asked |= {value for value in called.params.values() if isinstance(value, str)}
    if item.get_closest_marker("ray"):
        return "ray"
    if asked & {"moto", "radosgw", "moto_server", "s3_server"}:
        return "s3"
    if asked & {"postgres", "postgres_url", "postgres_catalog", "postgres_server"}:
        return "postgres"
    return "browser" if "browser" in asked else item.nodeid.partition("::")[0]


@pytest.fixture(autouse=True)
def _stays_quick(request: pytest.FixtureRequest) -> Iterator[None]:
    """In the quick tier nothing loads what takes seconds to load."""
    yield
    if request.config.getoption("--quick"):
        loaded = {"torch", "ray"} & sys.modules.keys()
        assert not loaded, f"{loaded} was loaded: the quick tier does without"
