"""`vidplat export`: take a batch's records or videos elsewhere."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidplat.cli import edge, options, phrases, reach, render
from vidplat.domain import JobRecord, JobState
from vidplat.errors import StoreError, printable

if TYPE_CHECKING:
    from vidplat.storage.catalog import Catalog

PAGE = 2_000


class What(StrEnum):
    MANIFEST = "manifest"  # what was made, and where it is
    METRICS = "metrics"  # how it went: predicted and actual seconds, phases, failures
    VIDEOS = "videos"  # the files themselves


def export_batch(
    to: Annotated[
        str,
        typer.Argument(
            metavar="TO",
            help="FILE.parquet, .csv or .jsonl; - for JSON lines on stdout; or a folder for "
            "videos.",
        ),
    ],
    batch: Annotated[
        str | None,
        typer.Option(
            "--batch", "-b", metavar="BATCH", help="Default: the latest.", show_default=False
        ),
    ] = None,
    what: Annotated[
        What | None,
        typer.Option(
            "--what", help="Default: videos for a folder, else manifest.", show_default=False
        ),
    ] = None,
    catalog: options.Catalog = None,
    json: options.Json = False,
) -> None:
    """Take a batch's records or videos elsewhere."""
    convert = _converter(to)
    what = what or (What.VIDEOS if convert is None else What.MANIFEST)
    if (what is What.VIDEOS) != (convert is None):
        raise edge.usage(
            f"{what.value} cannot go to {printable(to)!r}: give a folder for videos, a file for "
            "records"
        )
    with reach.open_catalog(catalog) as opened:
        found = reach.batch_named(opened, batch)
        if convert is None:
            many = _copy_videos(opened, found.id, found.output_prefix, Path(to))
        else:
            many = sum(opened.counts(found.id).values())
            _write(to, convert(_records(opened, found.id, what)))
    if to == "-":
        return
    if json:
        render.print_json({"batch": found.id, "what": what.value, "to": to, "rows": many})
    else:
        render.say(f"{phrases.count(many, 'video' if what is What.VIDEOS else 'row')} to {to}")


def _converter(to: str) -> Callable[[bytes], bytes] | None:
    """How parquet becomes what is asked for; None for a folder."""
    from vidplat.storage import reformat

    suffix = Path(to).suffix.lower()
    known: dict[str, Callable[[bytes], bytes]] = {
        ".parquet": bytes,
        ".csv": reformat.to_csv,
        ".jsonl": reformat.to_json_lines,
    }
    if to == "-":
        return reformat.to_json_lines
    if suffix in known and not Path(to).is_dir():
        return known[suffix]
    if suffix and not Path(to).is_dir() and not to.endswith("/"):
        raise edge.usage(
            f"{printable(to)!r}: records go to .parquet, .csv or .jsonl; videos go to a folder "
            "(add a /)"
        )
    return None


def _records(catalog: Catalog, batch_id: str, what: What) -> bytes:
    from vidplat.storage.records import export_manifest, export_metrics

    return (
        export_metrics(catalog, batch_id)
        if what is What.METRICS
        else export_manifest(catalog, batch_id)
    )


def _write(to: str, data: bytes) -> None:
    if to == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
        return
    _put(Path(to), data)


def _copy_videos(catalog: Catalog, batch_id: str, output_prefix: str, folder: Path) -> int:
    """Copy every finished video to `folder`, checked against its SHA-256; returns how many."""
    from vidplat.platform.report import key_of
    from vidplat.storage import open_store

    store = open_store(output_prefix)
    digits = len(str(catalog.batch(batch_id).total))
    copied, after_row = 0, 0
    while page := catalog.jobs(batch_id, states=[JobState.DONE], after_row=after_row, limit=PAGE):
        for record in page:
            artifact = record.artifact
            key = key_of(store, artifact.video_uri) if artifact else None
            if artifact is None or key is None:
                continue
            data = store.get(key)
            if hashlib.sha256(data).hexdigest() != artifact.sha256:
                raise StoreError(
                    f"{printable(artifact.video_uri)} is damaged: its SHA-256 is not the catalog's"
                )
            _put(folder / file_name(record, digits), data)
            copied += 1
        after_row = page[-1].job.row
    return copied


def file_name(record: JobRecord, digits: int) -> str:
    """`007-a-small-red-circle-drifts-left.mp4`: letters a to z, digits and dashes only, whatever
    the prompt says."""
    words = re.sub(r"[^a-z0-9]+", "-", record.job.prompt.lower()).strip("-")[:60].rstrip("-")
    return f"{record.job.row:0{digits}}{'-' if words else ''}{words}.mp4"


def _put(path: Path, data: bytes) -> None:
    """All of the file or none of it."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise StoreError(f"cannot write {printable(path)}: {error.strerror}") from error
