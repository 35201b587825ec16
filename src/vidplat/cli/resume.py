"""`vidplat resume`: go on with a batch that was interrupted."""

from __future__ import annotations

import typer

from vidplat.cli import options, reach
from vidplat.cli.conclusion import conclude
from vidplat.cli.progress import RunDisplay
from vidplat.cli.request import config_of
from vidplat.domain import Batch


def resume_batch(
    context: typer.Context,
    batch: options.BatchId = None,
    catalog: options.Catalog = None,
    pool: options.Pool = None,
    address: options.Address = None,
    local: options.Local = False,
    json: options.Json = False,
) -> int:
    """Go on with a batch that was interrupted. Finished videos are kept; none is made twice."""
    with reach.open_catalog(catalog) as opened:
        found = reach.batch_named(opened, batch)
    return run_on(found, context, json)


def run_on(batch: Batch, context: typer.Context, json: bool) -> int:
    from vidplat import platform

    config = config_of(context)
    with RunDisplay(quiet=json) as display:
        result = platform.resume(batch.id, config, display)
    return conclude(result, config, json)
