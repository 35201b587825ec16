"""`vidplat export`: take a batch's records or videos elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from vidplat.cli import options, phrases, reach, render
from vidplat.cli.status import videos
from vidplat.errors import UsageError, printable
from vidplat.platform.export import What, copy_videos, records, write

RECORDS = (".parquet", ".csv", ".jsonl")


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
        str | None, options.option("--batch", "-b", metavar="BATCH", help="Default: the latest.")
    ] = None,
    what: Annotated[
        What | None,
        options.option("--what", help="Default: videos for a folder, else manifest."),
    ] = None,
    catalog: options.Catalog = None,
    json: options.Json = False,
) -> None:
    """Take a batch's records or videos elsewhere."""
    suffix = _suffix(to)
    what = what or (What.MANIFEST if suffix else What.VIDEOS)
    if (what is What.VIDEOS) != (suffix is None):
        raise UsageError(
            f"{what.value} cannot go to {printable(to)!r}: give a folder for videos, a file for "
            "records"
        )
    with reach.open_catalog(catalog) as opened:
        found = reach.batch_named(opened, batch)
        counts = opened.counts(found.id)
        if suffix is None:
            many = copy_videos(opened, found, Path(to))
            if not many:
                raise UsageError(f"batch {found.id} has no video to export: {videos(counts)}")
        else:
            many = sum(counts.values())
            pieces = records(opened, found.id, what, suffix)
            if to == "-":
                sys.stdout.buffer.writelines(pieces)
                sys.stdout.flush()
                return
            write(Path(to), pieces)
    if json:
        render.print_json({"batch": found.id, "what": what.value, "to": to, "rows": many})
    else:
        render.say(f"{phrases.count(many, 'video' if what is What.VIDEOS else 'row')} to {to}")
        if what is What.VIDEOS and many < sum(counts.values()):
            render.warn(f"not all of the batch: {videos(counts)}")


def _suffix(to: str) -> str | None:
    """What kind of file records go to; None for a folder."""
    suffix = Path(to).suffix.lower()
    if to == "-":
        return ".jsonl"
    if Path(to).is_dir() or to.endswith("/") or not suffix:
        return None
    if suffix not in RECORDS:
        raise UsageError(
            f"{printable(to)!r}: records go to .parquet, .csv or .jsonl; videos go to a folder "
            "(add a /)"
        )
    return suffix
