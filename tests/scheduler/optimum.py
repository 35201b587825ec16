"""The exact optimum of small planning problems by mixed-integer programming (HiGHS), to hold plans
against.

Jobs go to workers whole, in deadline order on each (which loses nothing when all may start now),
and each is made at one point; a job's cost is its median and the share of its spread that never
averages out, which no plan that promises at p90 can undercut. So the value found here bounds every
plan's from above, and is reached when spreads are small.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import lil_matrix

from vidplat.scheduler.decision import Snapshot
from vidplat.scheduler.groups import group_jobs
from vidplat.scheduler.menu import Knowledge, Menu


def best_mean_quality(
    snapshot: Snapshot, knowledge: Knowledge, *, seconds: float = 20.0
) -> float | None:
    """The most mean quality of any plan with every job in time (a bound if `seconds` run out);
    None: not known."""
    workers = sorted(snapshot.workers, key=lambda w: w.id)
    groups, _ = group_jobs(snapshot, Menu(workers, knowledge, floor=0.0), (), makers_at=0.0)
    columns = [  # (place in deadline order, worker, seconds, quality)
        (k, i, rungs.seconds(rung), rungs.qualities[rung])
        for k, group in enumerate(g for g in groups for _ in g.jobs)
        for i, rungs in group.rungs.items()
        for rung in range(len(rungs.points))
    ]
    due = [g.deadline_at for g in groups for _ in g.jobs]
    count, machines = len(due), len(workers)
    # One running total per worker and place keeps the matrix sparse: T[i,k] = T[i,k-1] + what k
    # takes of i.
    total = len(columns) + machines * count
    once, chain = lil_matrix((count, total)), lil_matrix((machines * count, total))
    for c, (k, i, cost, _) in enumerate(columns):
        once[k, c] = 1
        chain[i * count + k, c] = -cost
    upper = np.ones(total)
    for i, worker in enumerate(workers):
        for k in range(count):
            t = len(columns) + i * count + k
            chain[i * count + k, t] = 1
            if k:
                chain[i * count + k, t - 1] = -1
            upper[t] = max(0.0, due[k] - max(snapshot.now, worker.ready_at))
    value = np.zeros(total)
    value[: len(columns)] = [-q for _, _, _, q in columns]
    found = milp(
        value,
        constraints=[LinearConstraint(once.tocsr(), 1, 1), LinearConstraint(chain.tocsr(), 0, 0)],
        bounds=Bounds(np.zeros(total), upper),
        integrality=np.array([1] * len(columns) + [0] * (machines * count)),
        options={"time_limit": seconds, "mip_rel_gap": 1e-4},
    )
    return None if found.mip_dual_bound is None else float(-found.mip_dual_bound) / count
