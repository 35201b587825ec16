"""`vidplat report`: write the page about a batch. `write_page` is also what submit and resume end
with.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidplat import times
from vidplat.cli import options, reach, render
from vidplat.domain import Batch
from vidplat.errors import UsageError
from vidplat.platform.export import write

if TYPE_CHECKING:
    from vidplat.platform.report import Report
    from vidplat.storage.catalog import Catalog


def write_report(
    batch: options.BatchId = None,
    to: Annotated[
        Path | None,
        options.option(
            "--to", metavar="FILE", help="Write here, videos inside. Default: beside the videos."
        ),
    ] = None,
    embed: Annotated[
        bool | None,
        typer.Option(
            "--embed/--link", help="Videos inside the page, or linked. Default: inside when small."
        ),
    ] = None,
    catalog: options.Catalog = None,
    json: options.Json = False,
) -> None:
    """Write one page with the videos and how the plan did."""
    if to is not None and embed is False:
        raise UsageError("--link needs the page beside its videos: leave --to away")
    with reach.open_catalog(catalog) as opened:
        found = reach.batch_named(opened, batch)
        report, place = write_page(opened, found, to=to, embed=embed)
    if json:
        render.print_json(
            {
                "batch": found.id,
                "report": place,
                "state": report.state,
                "made": report.done,
                "total": sum(report.counts.values()),
                "late": report.late,
                "mean_quality": report.mean_quality,
                "device_seconds": report.device_seconds,
                "shown": len(report.cards),
            }
        )
    else:
        render.say(place)


def write_page(
    catalog: Catalog, batch: Batch, *, to: Path | None = None, embed: bool | None = None
) -> tuple[Report, str]:
    """Gather, draw and write the page; its data, and where it is. Raises StoreError."""
    from vidplat.cli.report_page import page
    from vidplat.platform import report as reports
    from vidplat.storage import open_store

    store = open_store(batch.output_prefix)
    data = reports.gather(catalog, batch, times.now())
    linked = reports.link(data, store, embed=True if to is not None else embed)
    html = page(linked)
    if to is None:
        return data, reports.write(store, batch.id, html)
    write(to, [html.encode()])
    return data, str(to)
