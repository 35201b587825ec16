"""Bytes and rows: prompt files come in, videos go out, and the catalog remembers what happened.

Three doors, loaded when first used so that a command which needs one does not pay for the others:

    read_prompts    parquet, CSV, JSONL, text or stdin become Prompts      (prompts.py)
    open_store      a folder, a bucket or memory where videos are kept     (places.py, artifacts.py)
    open_catalog    the SQL record of batches, jobs and attempts           (catalog.py)

pyarrow, sqlalchemy, alembic, fsspec and boto3 are imported in this room only.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidplat.storage.catalog import open_catalog
    from vidplat.storage.places import open_store
    from vidplat.storage.prompts import read_prompts

__all__ = ["open_catalog", "open_store", "read_prompts"]

_HOMES = {
    "open_catalog": "vidplat.storage.catalog",
    "open_store": "vidplat.storage.places",
    "read_prompts": "vidplat.storage.prompts",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
