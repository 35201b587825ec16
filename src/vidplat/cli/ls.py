"""`vidplat ls`: the batches of a catalog, or the jobs of a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vidplat import times
from vidplat.cli import documents, options, phrases, reach, render
from vidplat.domain import JobState
from vidplat.errors import UsageError, printable
from vidplat.methods.language import made_with

if TYPE_CHECKING:
    from vidplat.storage.catalog import Catalog


def list_batches_or_jobs(
    batch: Annotated[
        str | None, options.argument(metavar="BATCH", help="List the jobs of this batch.")
    ] = None,
    state: Annotated[
        list[str] | None,
        options.option(
            "--state", metavar="STATE", help="Jobs in this state only; repeat for more."
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, help="At most so many lines.")
    ] = 100,
    catalog: options.Catalog = None,
    json: options.Json = False,
) -> None:
    """List batches; or with BATCH, its jobs."""
    states = _states(state)
    with reach.open_catalog(catalog) as opened:
        if batch is None and states is None:
            _list_batches(opened, limit, json)
        else:
            _list_jobs(opened, batch, states, limit, json)


def _list_batches(catalog: Catalog, limit: int, json: bool) -> None:
    now = times.now()
    rows = [
        (batch, catalog.batch_state(batch.id), catalog.counts(batch.id))
        for batch in catalog.batches(limit)
    ]
    if json:
        render.print_json([documents.of_batch(*row) for row in rows])
        return
    if not rows:
        render.say("no batch yet; start with: vidplat submit PROMPTS --deadline 60s")
        return
    numbers = ("MADE", "LOST", "CANCELLED", "OF")
    render.print_table(
        ["BATCH", "STATE", *numbers, "METHOD", "SUBMITTED", "DEADLINE", "PROMPTS"],
        [
            (
                batch.id,
                state,
                f"{counts[JobState.DONE]:,}",
                f"{sum(many for state, many in counts.items() if state.is_lost):,}",
                f"{counts[JobState.CANCELLED]:,}",
                f"{sum(counts.values()):,}",
                batch.method or "auto",
                phrases.moment(batch.submitted_at, now),
                phrases.moment(batch.deadline_at, now),
                batch.source,
            )
            for batch, state, counts in rows
        ],
        right=numbers,
        state="STATE",
        wide="PROMPTS",
    )


def _list_jobs(
    catalog: Catalog, name: str | None, states: list[JobState] | None, limit: int, json: bool
) -> None:
    batch = reach.batch_named(catalog, name)
    records = catalog.jobs(batch.id, states=states, limit=limit)
    if json:
        render.print_json([documents.of_job(record) for record in records])
        return
    from_video = any(record.job.input_video for record in records)
    numbers, source = ("TOOK", "PREDICTED", "QUALITY"), ["FROM"] if from_video else []
    render.print_table(
        ["ROW", "JOB", "STATE", "MADE WITH", *numbers, "POOL", *source, "PROMPT"],
        [
            (
                record.job.row,
                record.job.id[:12],
                record.state.value,
                record.point and made_with(record.point),
                _took(record.started_at, record.finished_at, record.reused_from),
                phrases.seconds(record.predicted_p50_s),
                phrases.quality(record.predicted_quality),
                record.pool,
                *([phrases.file_name(record.job.input_video)] if from_video else []),
                record.job.prompt,
            )
            for record in records
        ],
        right=("ROW", *numbers),
        state="STATE",
        wide="PROMPT",
    )
    if len(records) == limit:
        render.say(
            f"the first {limit:,}; more with --limit, all with `vidplat export`", style="dim"
        )


def _took(started_at: float | None, finished_at: float | None, reused_from: str | None) -> str:
    if reused_from is not None:
        return "made earlier"
    return phrases.seconds(finished_at - started_at if started_at and finished_at else None)


def _states(names: list[str] | None) -> list[JobState] | None:
    if not names:
        return None
    try:
        return [JobState(name) for name in names]
    except ValueError as error:
        known = ", ".join(JobState)
        raise UsageError(
            f"--state takes {known}; found {', '.join(printable(name, 40) for name in names)}"
        ) from error
