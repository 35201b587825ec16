"""Fixtures for every room: the real servers. Builders are plain functions in builders.py.

Generated tests draw the same examples in every run, so that a red run speaks of the change that was
made, and have no time limit per example, which says more about the machine's other work than about
the code. `pytest --hypothesis-profile=thorough tests/properties tests/scheduler` draws new ones and
looks ten times harder.

Torch has one thread here unless a test says otherwise. Models of tests are small, and two threads
wait for each other at every operation where the cores have other work: beside a busy process
VGDFR's tests took 16 minutes instead of one.
"""

import os

from hypothesis import settings

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
    "s3_server",
]

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # before torch is imported, and for the processes that tests start

settings.register_profile("same", deadline=None, max_examples=100, derandomize=True)
settings.register_profile("thorough", deadline=None, max_examples=1000)
if settings.get_current_profile_name() == "default":
    settings.load_profile("same")
