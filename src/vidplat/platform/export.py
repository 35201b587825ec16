"""What a batch has made, for elsewhere: its records as the bytes of a file, its videos as files.

Left to others: the columns of the records (`storage.records`), their files (`storage.reformat`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from vidplat.domain import Batch, JobRecord, JobState
from vidplat.errors import StoreError, UsageError, printable
from vidplat.files import write_whole
from vidplat.platform.report import key_of

if TYPE_CHECKING:
    from vidplat.storage.catalog import Catalog


class What(StrEnum):
    MANIFEST = "manifest"  # what was made, and where it is
    METRICS = "metrics"  # how it went: predicted and actual seconds, phases, failures
    VIDEOS = "videos"  # the files themselves


def records(catalog: Catalog, batch_id: str, what: What, suffix: str) -> Iterable[bytes]:
    """The manifest or the metrics as the pieces of a file with this suffix: .parquet, .csv or
    .jsonl."""
    from vidplat.storage import records as tables
    from vidplat.storage import reformat

    export = tables.export_metrics if what is What.METRICS else tables.export_manifest
    parquet = export(catalog, batch_id)
    match suffix:
        case ".csv":
            return reformat.to_csv(parquet)
        case ".jsonl":
            return reformat.to_json_lines(parquet)
    return [parquet]


def copy_videos(catalog: Catalog, batch: Batch, folder: Path) -> int:
    """Copy finished videos to `folder`, checked by SHA-256; how many. Raises StoreError."""
    from vidplat.storage import open_store

    store = open_store(batch.output_prefix)
    digits = len(str(batch.total))
    copied = 0
    for record in catalog.every_job(batch.id, states=[JobState.DONE]):
        artifact = record.artifact
        key = key_of(store, artifact.video_uri) if artifact else None
        if artifact is None or key is None:
            continue
        data = store.get(key)
        if hashlib.sha256(data).hexdigest() != artifact.sha256:
            raise StoreError(
                f"{printable(artifact.video_uri)} is damaged: its SHA-256 is not the catalog's"
            )
        write(folder / file_name(record, digits), [data])
        copied += 1
    return copied


def file_name(record: JobRecord, digits: int) -> str:
    """`007-a-small-red-circle-drifts-left.mp4`: only a to z, digits and dashes of the prompt."""
    words = re.sub(r"[^a-z0-9]+", "-", record.job.prompt.lower()).strip("-")[:60].rstrip("-")
    return f"{record.job.row:0{digits}}{'-' if words else ''}{words}.mp4"


def write(path: Path, pieces: Iterable[bytes]) -> None:
    """All of the file or none of it. Raises StoreError, and UsageError for a URL."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)):  # else a folder of that name is made
        raise UsageError(f"{printable(path)} is a URL: give a path here, and copy it from there")
    try:
        write_whole(path, pieces)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        why = getattr(error, "strerror", None) or error
        raise StoreError(f"cannot write {printable(path)}: {printable(why)}") from error
