"""`vidplat status`: where a batch stands, now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vidplat import times
from vidplat.cli import documents, options, phrases, reach, render
from vidplat.domain import Batch, JobState
from vidplat.methods.language import made_with

if TYPE_CHECKING:
    from vidplat.storage.catalog import Catalog
    from vidplat.storage.catalog_words import Outlook, PlanRecord, RunningJob


def show_status(
    batch: options.BatchId = None, catalog: options.Catalog = None, json: options.Json = False
) -> None:
    """Where a batch stands: videos, promise, deadline."""
    with reach.open_catalog(catalog) as opened:
        found = reach.batch_named(opened, batch)
        state = opened.batch_state(found.id)
        counts = opened.counts(found.id)
        running = opened.running(found.id)
        plans, outlook = opened.plans(found.id, 1), opened.outlook(found.id)
        if json:
            document = documents.of_batch(found, state, counts)
            document["steps"] = documents.of_steps(opened.step_totals(found.id))
            document["plan"] = documents.of_promise(plans[-1], outlook) if plans else None
            document["running"] = [documents.of_running(job) for job in running]
            render.print_json(document)
            return
        _print(opened, found, state, counts, running, plans[-1] if plans else None, outlook)


def _print(
    catalog: Catalog,
    batch: Batch,
    state: str,
    counts: dict[JobState, int],
    running: list[RunningJob],
    plan: PlanRecord | None,
    outlook: Outlook | None,
) -> None:
    now = times.now()
    is_open = state == "open"
    promised = None
    if outlook is not None and is_open and outlook.finish_p90_at > now:
        ends = (outlook.finish_p50_at, outlook.finish_p90_at)
        p50, p90 = (phrases.moment(at, now) for at in ends)
        promised = f"{p50}, p90 {p90}"
    render.print_facts(
        [
            ("batch", batch.id),
            ("prompts", batch.source),
            ("model", batch.model.id),
            ("method", batch.method or "auto: plans choose"),
            ("state", state),
            ("videos", videos(counts)),
            ("submitted", phrases.when(batch.submitted_at, now)),
            ("deadline", phrases.when(batch.deadline_at, now) if batch.deadline_at else None),
            ("finish", promised),
            ("plan", f"{plan.verdict}: {plan.reason}" if plan else None),
            ("output", f"{batch.output_prefix.rstrip('/')}/batches/{batch.id}"),
        ]
    )
    if running:
        render.say()
        _print_running(catalog, batch, running, now)
    if hint := what_next(catalog, batch):
        render.say()
        render.say(hint, style="yellow")


def _print_running(catalog: Catalog, batch: Batch, running: list[RunningJob], now: float) -> None:
    under_way = catalog.jobs(batch.id, states=[JobState.RUNNING])
    prompts = {record.job.id: record.job.prompt for record in under_way}
    render.print_table(
        ["WORKER", "PHASE", "STEP", "FOR", "ROW", "MADE WITH", "PROMPT"],
        [
            (
                job.worker_id,
                job.phase or "starting",
                f"{job.step}/{job.steps or job.point.steps}",
                phrases.seconds(now - job.started_at),
                job.row,
                made_with(job.point),
                prompts.get(job.job_id, ""),
            )
            for job in running
        ],
        right=("STEP", "FOR", "ROW"),
        wide="PROMPT",
    )


def videos(counts: dict[JobState, int]) -> str:
    """`9 of 16 made, 2 running, 5 queued`."""
    made = f"{counts.get(JobState.DONE, 0):,} of {sum(counts.values()):,} made"
    return ", ".join([made, *phrases.not_done(counts)])


def what_next(catalog: Catalog, batch: Batch) -> str | None:
    """What a person would do now, if anything."""
    from vidplat.platform.run.owners import is_surely_gone

    state, counts = catalog.batch_state(batch.id), catalog.counts(batch.id)
    holder = catalog.holder(batch.id)
    if state == "open" and (not holder or is_surely_gone(holder)):
        if running := catalog.running(batch.id):
            silent_s = catalog.time() - max(job.beat_at for job in running)
            heard = f"nothing was heard for {phrases.seconds(silent_s)}"
            return f"{heard}: go on with `vidplat resume {batch.id}`"
        if counts[JobState.QUEUED]:
            return f"nobody works on it: go on with `vidplat resume {batch.id}`"
    if state == "cancelled":
        return f"it was cancelled: `vidplat retry {batch.id}` makes the rest after all"
    if counts[JobState.FAILED] + counts[JobState.QUARANTINED]:
        return f"see why with `vidplat logs {batch.id}`; try again with `vidplat retry {batch.id}`"
    return None
