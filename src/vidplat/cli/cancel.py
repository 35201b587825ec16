"""`vidplat cancel`: stop a batch, or one job of it."""

from __future__ import annotations

from typing import Annotated

import typer

from vidplat.cli import options, phrases, reach, render
from vidplat.cli.request import config_of
from vidplat.cli.status import videos


def cancel_jobs(
    context: typer.Context,
    batch: Annotated[str, typer.Argument(metavar="BATCH", help="A batch id or the start of one.")],
    job: options.OneJob = None,
    catalog: options.Catalog = None,
    json: options.Json = False,
) -> None:
    """Cancel what is not made yet. Finished videos stay; `vidplat retry` takes it back."""
    from vidplat import platform

    with reach.open_catalog(catalog) as opened:
        found = reach.batch_named(opened, batch)
        job_id = reach.job_named(opened, job, found.id).job.id if job is not None else None
        counts = opened.counts(found.id)
    many = platform.cancel(found.id, job_id, config_of(context))
    if json:
        render.print_json({"batch": found.id, "job": job_id, "cancelled": many})
    elif many:
        render.say(f"{phrases.count(many, 'video')} of {found.id} cancelled")
    else:
        which = f"job {job_id[:12]} of {found.id}" if job_id else found.id
        render.say(
            f"nothing to cancel in {which}, where nothing is open: {videos(counts)}",
            style="yellow",
        )
