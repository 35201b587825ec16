"""`vidplat watch`: follow a batch that another process runs, from the catalog."""

from __future__ import annotations

import json as json_module
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from vidplat import times
from vidplat.cli import documents, options, reach, render
from vidplat.cli.glance import Doing, Glance, sentence
from vidplat.cli.screen import LINE_EVERY_S, Screen
from vidplat.cli.status import what_next
from vidplat.domain import Batch, JobState
from vidplat.errors import ExitCode

if TYPE_CHECKING:
    from vidplat.storage.catalog import Catalog

LARGE = 50_000  # jobs; above this, steps are counted less often, since it reads every row
REST_S = 1.0


def watch_batch(
    batch: options.BatchId = None,
    catalog: options.Catalog = None,
    json: options.Json = False,
    once: Annotated[bool, typer.Option("--once", help="Print one line and stop.")] = False,
) -> int:
    """Follow a batch that runs elsewhere, until it ends. With --json, one object per line."""
    with reach.open_catalog(catalog) as opened:
        found = reach.batch_named(opened, batch)
        if once:
            _print(opened, found, look(opened, found), json)
        elif sys.stderr.isatty() and not json:
            _on_screen(opened, found)
        else:
            _in_lines(opened, found, json)
        if hint := what_next(opened, found):
            print(hint, file=sys.stderr)
        seen = look(opened, found)
        return ExitCode.SOME_FAILED if seen.lost or seen.cancelled else ExitCode.DONE


def look(catalog: Catalog, batch: Batch) -> Glance:
    """The batch at this moment, as the catalog tells it."""
    counts, running = catalog.counts(batch.id), catalog.running(batch.id)
    steps, outlook = catalog.step_totals(batch.id), catalog.outlook(batch.id)
    return Glance(
        now=times.now(),
        phase=f"{batch.id} is {catalog.batch_state(batch.id)}",
        steps_done=steps.done + steps.running,
        steps_total=steps.done + steps.running + steps.ahead,
        made=counts[JobState.DONE],
        lost=sum(many for state, many in counts.items() if state.is_lost),
        cancelled=counts[JobState.CANCELLED],
        total=sum(counts.values()),
        finish_p50_at=outlook.finish_p50_at if outlook else None,
        finish_p90_at=outlook.finish_p90_at if outlook else None,
        deadline_at=batch.deadline_at,
        doing=tuple(
            Doing(
                job.worker_id, job.phase, job.step, job.steps or job.point.steps, f"row {job.row}"
            )
            for job in running
        ),
    )


def _is_over(catalog: Catalog, batch: Batch) -> bool:
    return catalog.batch_state(batch.id) in ("done", "cancelled", "infeasible")


def _on_screen(catalog: Catalog, batch: Batch) -> None:
    seen = look(catalog, batch)
    with Screen(lambda: seen):
        while not _is_over(catalog, batch):
            time.sleep(_rest_s(batch))
            seen = look(catalog, batch)
        seen = look(catalog, batch)


def _in_lines(catalog: Catalog, batch: Batch, json: bool) -> None:
    while not _is_over(catalog, batch):
        _print(catalog, batch, look(catalog, batch), json)
        time.sleep(max(LINE_EVERY_S, _rest_s(batch)))
    _print(catalog, batch, look(catalog, batch), json)


def _rest_s(batch: Batch) -> float:
    return REST_S if batch.total <= LARGE else REST_S * batch.total / LARGE


def _print(catalog: Catalog, batch: Batch, glance: Glance, json: bool) -> None:
    if not json:
        render.say(sentence(glance))
        sys.stdout.flush()
        return
    state = catalog.batch_state(batch.id)
    print(json_module.dumps(documents.of_glance(glance, batch.id, state)), flush=True)
