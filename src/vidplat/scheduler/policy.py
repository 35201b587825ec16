"""What the owner of a batch allows: one frozen value that every decision of this room is given.

Units are in the names. Nothing here is read from files or the environment; `platform.assemble`
fills it.
"""

from __future__ import annotations

from dataclasses import dataclass

from vidplat.domain import OnInfeasible


@dataclass(frozen=True)
class Policy:
    """The rules a plan and a retry follow. The defaults work."""

    on_infeasible: OnInfeasible = OnInfeasible.DEGRADE
    quality_floor: float = 0.0  # least predicted quality; it or the snapshot's, the higher
    priority_weight: float = 1.5  # one step of priority makes a job's quality worth this much more
    max_attempts: int = 3  # attempts of one job before it is given up
    max_infrastructure_attempts: int = 10  # the same, when the surroundings are to blame
    poison_workers: int = 3  # as many different workers failing one job: the job is poison
    suspect_jobs: int = 3  # as many different jobs failing on one worker: the worker is suspect
    backoff_s: float = 0.5  # wait before the second attempt; doubles with each further one
    backoff_cap_s: float = 60.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.quality_floor <= 1.0:
            raise ValueError(f"quality_floor must lie in [0, 1], got {self.quality_floor}")
        if self.priority_weight < 1.0:
            raise ValueError(f"priority_weight must be at least 1, got {self.priority_weight}")
        attempts = min(self.max_attempts, self.max_infrastructure_attempts)
        if min(attempts, self.poison_workers, self.suspect_jobs) < 1:
            raise ValueError("attempts, poison_workers and suspect_jobs must be at least 1")
        if not 0.0 <= self.backoff_s <= self.backoff_cap_s:
            raise ValueError(
                f"0 <= backoff_s <= backoff_cap_s, got {self.backoff_s} and {self.backoff_cap_s}"
            )
