"""On generated histories of failures, every job ends in exactly one final state and nobody waits
for ever.

A tiny clockwork: plan, let the worker that starts first do its job, let fate decide how that ends,
apply the retry rules, and again until nothing is open.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tests.builders import a_policy, a_snapshot, a_worker, knowledge, open_jobs
from vidplat.domain import FailureKind, JobState, OpenJob
from vidplat.scheduler import after, plan, suspects

KNOWN = knowledge()
fates = st.sampled_from(["ok", "ok", *FailureKind])


@given(
    count=st.integers(1, 6),
    workers=st.integers(1, 4),
    due=st.none() | st.floats(5, 200),
    fate=st.lists(fates, max_size=60),
    poison=st.sets(st.integers(1, 6), max_size=2),
)
def test_every_job_ends_in_one_final_state_and_nobody_waits_for_ever(
    count, workers, due, fate, poison
):
    policy, now = a_policy(), 0.0
    queue: dict[str, OpenJob] = {o.job.id: o for o in open_jobs(count)}
    team = [a_worker(f"w{k}") for k in range(workers)]
    ends: dict[str, list[JobState]] = {job_id: [] for job_id in queue}
    history: list[tuple[str, str, bool]] = []
    ahead = iter(fate)

    for _ in range(count * 10 + 1):  # at most ten attempts of each
        if not queue:
            break
        sick = suspects(history)
        seen = [replace(w, suspect=w.id in sick) for w in team]
        decided = plan(
            a_snapshot(jobs=queue.values(), workers=seen, now=now, deadline_at=due), policy, KNOWN
        )
        assert decided.assignments, "an open job that no plan ever takes would wait for ever"

        first = decided.assignments[0]
        now = max(now, first.finish_p50_at)
        open_job = queue.pop(first.job_id)
        attempt = open_job.attempt + 1
        kind = FailureKind.WORKER_LOST if open_job.job.row in poison else next(ahead, "ok")
        if kind == "ok":
            ends[first.job_id].append(JobState.DONE)
            history.append((first.worker_id, first.job_id, True))
            continue
        if kind not in (FailureKind.REQUEST, FailureKind.OUT_OF_MEMORY):
            history.append((first.worker_id, first.job_id, False))
        decision = after(kind, open_job, first.worker_id, attempt=attempt, max_attempts=3, now=now)
        if isinstance(decision, OpenJob):
            queue[first.job_id] = replace(decision, attempt=attempt)
        else:
            ends[first.job_id].append(decision)

    assert not queue
    assert all(len(states) == 1 and states[0].is_final for states in ends.values())
    rows = {o.job.id: o.job.row for o in open_jobs(count)}
    assert all(states == [JobState.QUARANTINED] for j, states in ends.items() if rows[j] in poison)
