"""`vidplat retry`: another chance for videos that failed or were cancelled."""

from __future__ import annotations

from typing import Annotated

import typer

from vidplat.cli import options, phrases, reach, render
from vidplat.cli.request import config_of
from vidplat.cli.resume import run_on
from vidplat.cli.status import videos
from vidplat.domain import JobState


def retry_jobs(
    context: typer.Context,
    batch: options.BatchId = None,
    job: options.OneJob = None,
    queue_only: Annotated[
        bool, typer.Option("--queue-only", help="Queue them; run later with resume.")
    ] = False,
    catalog: options.Catalog = None,
    pool: options.Pool = None,
    address: options.Address = None,
    local: options.Local = False,
    json: options.Json = False,
) -> int:
    """Queue failed and cancelled videos again, and make them. Quarantined ones too."""
    from vidplat import platform

    with reach.open_catalog(catalog) as opened:
        found = reach.batch_named(opened, batch)
        job_id = reach.job_named(opened, job, found.id).job.id if job is not None else None
        counts = opened.counts(found.id)
    many = platform.retry(found.id, job_id, config_of(context))
    if queue_only or not many:
        if json:
            render.print_json({"batch": found.id, "queued": many})
        else:
            _tell(found.id, job_id, many, counts)
        return 0
    return run_on(found, context, json)


def _tell(batch_id: str, job_id: str | None, many: int, counts: dict[JobState, int]) -> None:
    if many:
        render.say(f"{phrases.count(many, 'video')} of {batch_id} queued again")
        render.say(f"make them with: vidplat resume {batch_id}")
    else:
        which = f"job {job_id[:12]} of {batch_id}" if job_id else batch_id
        render.say(
            f"nothing to retry in {which}, where nothing failed or was cancelled: {videos(counts)}",
            style="yellow",
        )
