"""`vidplat logs`: the history of a batch or of one job, event by event."""

from __future__ import annotations

import json as json_module
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from vidplat.cli import documents, options, phrases, reach, render
from vidplat.errors import printable

if TYPE_CHECKING:
    from vidplat.storage.catalog_words import Event

REST_S = 1.0
MOMENTS = ("not_before", "until", "deadline_at")  # details that are times


def show_logs(
    batch: options.BatchId = None,
    job: Annotated[
        str | None, options.option("--job", metavar="JOB", help="Of this job only.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="The latest so many.")] = 200,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the batch ends.")
    ] = False,
    catalog: options.Catalog = None,
    json: options.Json = False,
) -> None:
    """What happened, oldest first. With --json, one object per line."""
    with reach.open_catalog(catalog) as opened:
        found = reach.batch_named(opened, batch)
        job_id = reach.job_named(opened, job, found.id).job.id if job is not None else None
        events = opened.events(found.id, job_id, limit=limit, newest_first=True)[::-1]
        _print(events, json)
        while follow and opened.batch_state(found.id) == "open":
            time.sleep(REST_S)
            last = events[-1].id if events else 0
            events = _print(opened.events(found.id, job_id, after_id=last), json) or events


def _print(events: list[Event], json: bool) -> list[Event]:
    for event in events:
        if json:
            print(json_module.dumps(documents.of_event(event)))
        else:
            detail = "  ".join(
                f"{name}={_short(name, value)}"
                for name, value in event.detail.items()
                if value and not isinstance(value, dict)  # tables of ids are for --json
            )
            about = event.job_id[:12] if event.job_id else "batch"
            render.say(
                f"{phrases.moment(event.at)}  {about:<12}  {event.kind:<12}  {detail}".rstrip()
            )
    sys.stdout.flush()
    return events


def _short(name: str, value: object) -> str:
    if isinstance(value, float):
        return phrases.moment(value).replace(" ", "T") if name in MOMENTS else f"{value:.4g}"
    if isinstance(value, list | tuple):
        value = ",".join(map(str, value))
    text = printable(value, 300)
    return json_module.dumps(text, ensure_ascii=False) if " " in text else text
