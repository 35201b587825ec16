"""What is written down when a run's turns are over: tables, score, and how the batch stands."""

from __future__ import annotations

from vidplat.domain import JobState
from vidplat.errors import ExitCode, InfrastructureError, StoreError
from vidplat.platform.interface import Score
from vidplat.platform.run.site import Site
from vidplat.storage.artifacts import batch_folder
from vidplat.storage.catalog_words import BatchState
from vidplat.storage.records import export_manifest, export_metrics

_PARQUET = "application/vnd.apache.parquet"
_MISSES_KEPT = 1_000  # causes remembered one by one
Ended = tuple[ExitCode, str]  # how a run ended, and a sentence for people


def write_tables(site: Site, batch_id: str) -> None:
    """manifest.parquet and metrics.parquet; a store that refuses costs a warning."""
    site.listener.phase("writing manifest and metrics")
    tables = {"manifest": export_manifest, "metrics": export_metrics}
    try:
        for name, export in tables.items():
            key = f"{batch_folder(batch_id)}/{name}.parquet"
            site.store.put(key, export(site.catalog, batch_id), content_type=_PARQUET)
    except StoreError as error:
        site.listener.warn(f"manifest and metrics were not written: {error}")


def keep_score(site: Site, batch_id: str, score: Score) -> None:
    """One event for `logs`, and for reports that are written when this run is long over."""
    detail = {
        "jobs": score.jobs,
        "startup_s": round(score.startup_s, 3),
        "median_error": round(score.median_error, 4),
        "within_p90": round(score.within_p90, 4),
        "busy_share": round(score.busy_share, 4),
        "misses": len(score.misses),
        "causes": {miss.job_id: miss.cause for miss in score.misses[:_MISSES_KEPT]},
    }
    try:
        site.catalog.add_event(batch_id, None, "scored", detail, site.clock())
    except InfrastructureError as error:
        site.listener.warn(str(error))


def verdict(site: Site, batch_id: str, missed: int = 0) -> Ended:
    """Exit code and sentence for a batch as the catalog tells it now, of which `missed` videos of
    this run were late; closes it when every job is final."""
    counts = site.catalog.counts(batch_id)
    open_jobs = counts[JobState.QUEUED] + counts[JobState.RUNNING]
    cancelled = counts[JobState.CANCELLED]
    if not open_jobs:
        unless = BatchState.CANCELLED if cancelled else None
        site.catalog.set_batch_state(batch_id, BatchState.DONE, at=site.clock(), unless=unless)
    failed = counts[JobState.FAILED] + counts[JobState.QUARANTINED]
    text = f"{counts[JobState.DONE]} of {sum(counts.values())} videos are there"
    if failed:
        text += f", {failed} failed"
    if cancelled:
        text += f", {cancelled} cancelled: `vidplat retry {batch_id}` makes the rest after all"
    if failed or open_jobs or cancelled:
        return ExitCode.SOME_FAILED, text
    if missed:
        return ExitCode.DEADLINE_MISSED, f"{text}, {missed} after the deadline"
    return ExitCode.DONE, text
