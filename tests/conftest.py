"""Fixtures for every room: the real servers. Builders are plain functions in builders.py."""

from tests.servers_postgres import migrated_database, postgres_catalog, postgres_server, postgres_url
from tests.servers_s3 import moto_server, s3_server

__all__ = [
    "migrated_database",
    "moto_server",
    "postgres_catalog",
    "postgres_server",
    "postgres_url",
    "s3_server",
]
