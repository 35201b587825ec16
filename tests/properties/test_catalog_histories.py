"""On any history of claims, ends, crashes and interference: one final state, one winner, nobody
waits for ever.

Several platforms (owners) act on one batch through one catalog. Each remembers what it was given
and may act on it late. Beside the catalog a few dictionaries hold what must be true; after every
step the two are compared.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.builders import a_job
from tests.catalog_builders import a_batch, a_claim, an_artifact, an_outcome
from vidplat.domain import Failure, FailureKind, JobState, Progress
from vidplat.storage import open_catalog
from vidplat.storage.catalog_words import Decision, GiveUp, Requeue

JOBS = [a_job(row=row) for row in range(1, 5)]
IDS = [job.id for job in JOBS]
OWNERS = ["host:1:100", "host:2:200"]
BATCH = a_batch()
BROKEN = Failure(FailureKind.INFRASTRUCTURE, "the disk went away")
LEASE_S = 30.0

job_ids = st.sampled_from(IDS)
owners = st.sampled_from(OWNERS)


class Histories(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.catalog = open_catalog("sqlite://")
        self.catalog.add_batch(BATCH, JOBS)
        self.now = 0.0
        self.catalog.database.clock = lambda: self.now
        self.in_hand: list[
            tuple[str, int, str]
        ] = []  # (job, attempt, owner): every attempt ever given out
        self.current: dict[
            str, tuple[int, str]
        ] = {}  # job -> the attempt under way and whose it is
        self.attempts = dict.fromkeys(IDS, 0)
        self.final: dict[str, JobState] = {}
        self.winner: dict[str, int] = {}
        self.ended: dict[str, set[int]] = {each: set() for each in IDS}  # attempts with an end

    def teardown(self) -> None:
        self.catalog.close()

    # --- what platforms do ------------------------------------------------------------------------

    @rule(wanted=st.lists(job_ids, unique=True, min_size=1), owner=owners)
    def claim(self, wanted: list[str], owner: str) -> None:
        claims = [a_claim(job_id, owner) for job_id in wanted]
        got = self.catalog.claim(BATCH.id, claims, now=self.now, lease_s=LEASE_S)
        assert set(got) == {
            each for each in wanted if each not in self.current and each not in self.final
        }
        for job_id, attempt in got.items():
            self.attempts[job_id] += 1
            assert attempt == self.attempts[job_id]
            self.current[job_id] = (attempt, owner)
            self.in_hand.append((job_id, attempt, owner))

    @precondition(lambda self: self.in_hand)
    @rule(data=st.data(), fails=st.booleans(), gives_up=st.booleans())
    def finish(self, data: st.DataObject, fails: bool, gives_up: bool) -> None:
        """Any attempt ever given out may report, in time or long after, once or again."""
        job_id, attempt, _owner = data.draw(st.sampled_from(self.in_hand))
        outcome = an_outcome(job_id, attempt=attempt, failure=BROKEN if fails else None)
        decision: Decision = (
            GiveUp(JobState.QUARANTINED) if gives_up else Requeue(self.now, frozenset({"w1"}), 1)
        )
        counted = self._is_current(job_id, attempt)
        assert self.catalog.finish(BATCH.id, [outcome], {job_id: decision}) == (
            {job_id} if counted else set()
        )
        if counted:
            self._end(job_id)
            if not fails:
                self.final[job_id], self.winner[job_id] = JobState.DONE, attempt
            elif gives_up:
                self.final[job_id] = JobState.QUARANTINED

    @precondition(lambda self: self.in_hand)
    @rule(data=st.data())
    def heartbeat(self, data: st.DataObject) -> None:
        job_id, attempt, _owner = data.draw(st.sampled_from(self.in_hand))
        beat = Progress(job_id, attempt, "w1", "denoise", 2, 24, self.now)
        lost = self.catalog.heartbeat(BATCH.id, [beat], lease_s=LEASE_S)
        assert lost == (set() if self._is_current(job_id, attempt) else {job_id})

    @rule(owner=owners)
    def crash(self, owner: str) -> None:
        """A platform dies, and whoever comes next releases its jobs."""
        released = self.catalog.release(BATCH.id, owner, now=self.now)
        assert sorted(released) == sorted(
            each for each, (_, whose) in self.current.items() if whose == owner
        )
        for job_id in released:
            self._end(job_id)

    # --- what others do ---------------------------------------------------------------------------

    @rule(seconds=st.floats(0.0, 100.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.in_hand)
    @rule(data=st.data())
    def reconcile(self, data: st.DataObject) -> None:
        """The store proves that some attempt had won, though the catalog never heard of it."""
        job_id, attempt, _owner = data.draw(st.sampled_from(self.in_hand))
        repaired = self.catalog.mark_done(
            BATCH.id, job_id, an_artifact(job_id, attempt=attempt), self.now
        )
        assert repaired == (self.final.get(job_id) is not JobState.DONE)
        if repaired:
            latest = attempt == self.attempts[job_id]
            if latest:
                self.ended[job_id].add(attempt)
            self.current.pop(job_id, None)
            self.final[job_id], self.winner[job_id] = JobState.DONE, attempt

    @rule(job_id=st.none() | job_ids)
    def cancel(self, job_id: str | None) -> None:
        chosen = [each for each in ([job_id] if job_id else IDS) if each not in self.final]
        assert self.catalog.cancel(BATCH.id, job_id, now=self.now) == len(chosen)
        for each in chosen:
            self.current.pop(each, None)
            self.final[each] = JobState.CANCELLED

    @rule(job_id=st.none() | job_ids)
    def retry(self, job_id: str | None) -> None:
        chosen = [
            each
            for each in ([job_id] if job_id else IDS)
            if self.final.get(each, JobState.DONE) != JobState.DONE
        ]
        assert self.catalog.retry_failed(BATCH.id, job_id, now=self.now) == len(chosen)
        for each in chosen:
            del self.final[each]

    @rule()
    def submit_again(self) -> None:
        added = self.catalog.add_batch(BATCH, JOBS)
        assert (added.new, added.inserted) == (False, 0)

    # --- what must always be true -----------------------------------------------------------------

    @invariant()
    def every_job_is_where_history_put_it(self) -> None:
        records = {record.job.id: record for record in self.catalog.jobs(BATCH.id)}
        assert len(records) == len(JOBS)
        for job_id, record in records.items():
            expected = self.final.get(
                job_id, JobState.RUNNING if job_id in self.current else JobState.QUEUED
            )
            assert (record.state, record.attempt) == (expected, self.attempts[job_id])
            assert (record.artifact is not None) == (expected is JobState.DONE)
            if record.artifact is not None:
                assert record.artifact.attempt == self.winner[job_id]

    @invariant()
    def nobody_is_forgotten(self) -> None:
        """A job that is not final is in the queue, or under a lease that runs out."""
        waiting = {each.job.id for each in self.catalog.open_jobs(BATCH.id)}
        running = self.catalog.running(BATCH.id)
        leased = {each.job_id for each in running}
        assert leased == set(self.current)
        assert waiting | leased | set(self.final) == set(IDS)
        assert all(each.lease_until <= self.now + LEASE_S for each in running)

    @invariant()
    def history_has_one_line_per_ended_attempt(self) -> None:
        for job_id in IDS:
            recorded = [each.attempt for each in self.catalog.attempts(BATCH.id, job_id)]
            assert recorded == sorted(self.ended[job_id])

    def _is_current(self, job_id: str, attempt: int) -> bool:
        return job_id in self.current and self.current[job_id][0] == attempt

    def _end(self, job_id: str) -> None:
        attempt, _owner = self.current.pop(job_id)
        self.ended[job_id].add(attempt)


TestHistories = Histories.TestCase
# Forty histories in every run would take as long as forty other tests.
_FEW = 20 if settings.get_current_profile_name() == "same" else settings().max_examples
TestHistories.settings = settings(stateful_step_count=25, max_examples=_FEW)
