"""Config becomes objects: the only place that constructs stores, catalogs, dispatchers and workers.

Each public function is one verb of the command line.
"""

from __future__ import annotations

from vidplat.config import Config
from vidplat.platform.interface import BatchResult, Listener, PlanAnswer, SubmitRequest


def submit(request: SubmitRequest, config: Config, listener: Listener) -> BatchResult:
    """Make the batch so: intake, catalog, plan, workers, videos, records, score.

    Raises RequestError for a request that is wrong (every bad row at once, nothing enqueued) and
    InfrastructureError when catalog, store or cluster cannot be used. An infeasible plan, failed jobs, a
    missed deadline and Ctrl-C are ends of the story and come back as `exit_code` 3, 4, 5 and 130.
    """
    raise NotImplementedError


def plan_only(request: SubmitRequest, config: Config, listener: Listener) -> PlanAnswer:
    """What `submit` would promise. Reads the rows and the catalog's cost knowledge; writes and starts nothing."""
    raise NotImplementedError


def resume(batch_id: str, config: Config, listener: Listener) -> BatchResult:
    """Continue an interrupted batch: repair catalog and store from each other, then run what is open.

    `batch_id` may be any unique prefix. Raises RequestError when there is no such batch.
    """
    raise NotImplementedError


def cancel(batch_id: str, job_id: str | None, config: Config) -> int:
    """Cancel one job, or all open jobs of a batch; returns how many. A running platform hears of it in seconds."""
    raise NotImplementedError


def retry(batch_id: str, job_id: str | None, config: Config) -> int:
    """Put failed, quarantined and cancelled jobs back into the queue; returns how many. `resume` runs them."""
    raise NotImplementedError
