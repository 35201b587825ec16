"""Catalog and store are repaired from each other, beginning with what is open."""

from __future__ import annotations

import time

import pytest

from tests.builders import FLIPBOOK, a_job
from tests.catalog_builders import a_claim, an_outcome
from vidplat.domain import Batch, JobState, OperatingPoint
from vidplat.platform.run.reconcile import Repairs, put_back_lost, reconcile
from vidplat.storage import open_catalog, open_store
from vidplat.storage.artifacts import Commit, commit, job_folder
from vidplat.storage.memory import MemoryStore

META = {
    "point": {"steps": 24, "steps_done": 20, "method": "full"},
    "phases_s": {"denoise": 3.5},
}


@pytest.fixture
def catalog(tmp_path):
    opened = open_catalog(f"sqlite:///{tmp_path}/c.db")
    opened.add_batch(
        Batch("b1", "x", str(tmp_path), FLIPBOOK, 0.0, total=4),
        [a_job(row=row) for row in range(1, 5)],
    )
    yield opened
    opened.close()


def claim(catalog, row: int) -> None:
    claims = [a_claim(a_job(row=row).id, "host:1:1")]
    catalog.claim("b1", claims, now=1.0, lease_s=30.0)


def store_video(store, row: int) -> None:
    committed(store, row)


def committed(store, row: int, attempt: int = 1) -> Commit:
    job = a_job(row=row)
    return commit(
        store,
        batch_id="b1",
        job_id=job.id,
        attempt=attempt,
        token="t",
        video=b"v",
        poster=b"p",
        meta=META,
    )


def test_what_the_store_has_is_done_and_what_ran_is_queued_again(tmp_path, catalog):
    # given a killed run: row 1 committed but running in the catalog, row 2 committed but queued,
    # row 3 just running
    store = open_store(str(tmp_path / "out"))
    claim(catalog, 1)
    claim(catalog, 3)
    store_video(store, 1)
    store_video(store, 2)

    # when
    repairs = reconcile(catalog, store, "b1", now=100.0)

    # then
    assert repairs == Repairs(done=2, released=1, swept=0)
    assert str(repairs) == "2 finished jobs found, 1 put back, 0 leftover files removed"
    states = [record.state for record in catalog.jobs("b1")]
    assert states == [JobState.DONE, JobState.DONE, JobState.QUEUED, JobState.QUEUED]
    # and the sidecar's facts came along
    first = catalog.jobs("b1")[0]
    assert first.point == OperatingPoint(20)
    assert first.phases == {"denoise": 3.5}


def test_doing_it_again_changes_nothing(tmp_path, catalog):
    store = open_store(str(tmp_path / "out"))
    store_video(store, 1)
    assert reconcile(catalog, store, "b1", now=1.0)
    assert not reconcile(catalog, store, "b1", now=2.0)


def test_a_commit_whose_files_are_damaged_is_made_again(tmp_path, catalog):
    # given a power cut that left a video of zeros under its name
    store = open_store(str(tmp_path / "out"))
    store_video(store, 1)
    (video,) = (tmp_path / "out").rglob("video.mp4")
    video.write_bytes(b"\0")

    # when
    repairs = reconcile(catalog, store, "b1", now=1.0)

    # then
    assert repairs.done == 0
    assert catalog.counts("b1")[JobState.QUEUED] == 4
    assert not list((tmp_path / "out").rglob("COMMIT.json"))


def test_a_video_that_is_found_again_took_what_it_took_and_not_the_pause(tmp_path, catalog):
    # given a video committed at its time, and a resume a day later
    store = open_store(str(tmp_path / "out"))
    claim(catalog, 1)
    before = time.time()
    store_video(store, 1)

    # when
    reconcile(catalog, store, "b1", now=before + 86_400)

    # then it took its 3.5 s of denoising, and ended with its commit
    (record,) = catalog.jobs("b1", states=[JobState.DONE])
    assert record.finished_at - record.started_at == pytest.approx(3.5)
    assert abs(record.finished_at - before) < 30


def test_what_a_cancelled_job_committed_is_done(tmp_path, catalog):
    store = open_store(str(tmp_path / "out"))
    claim(catalog, 1)
    catalog.cancel("b1", now=2.0)
    store_video(store, 1)
    assert reconcile(catalog, store, "b1", now=3.0).done == 1
    assert catalog.counts("b1")[JobState.DONE] == 1


class Watched(MemoryStore):
    """Remembers which folders were listed, and how many objects were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.listed: list[str] = []

    def list(self, prefix: str = ""):
        self.listed.append(prefix)
        return super().list(prefix)


@pytest.mark.parametrize("alone", [500, 0], ids=["folder by folder", "in one list"])
def test_looking_begins_with_what_is_open(catalog, monkeypatch, alone):
    # given three of four videos made, and the fourth left half done by a killed worker
    monkeypatch.setattr("vidplat.storage.artifacts._FEW_JOBS", alone)
    store = Watched()
    for row in (1, 2, 3):
        claim(catalog, row)
        store_video(store, row)
        catalog.finish("b1", [an_outcome(a_job(row=row).id)])
    claim(catalog, 4)
    folder = job_folder("b1", a_job(row=4).id)
    store.put(f"{folder}/.attempt-1-t-video.mp4", b"v")
    monkeypatch.setattr("vidplat.platform.run.reconcile.ORPHAN_AGE_S", -1.0)

    # when
    repairs = reconcile(catalog, store, "b1", now=9.0)

    # then nothing but its folder was looked into, unless that takes longer
    assert repairs == Repairs(done=0, released=1, swept=1)
    assert set(store.listed) == ({folder} if alone else {"batches/b1/jobs"})


def spoilt(store, row: int, how: str) -> None:
    folder = job_folder("b1", a_job(row=row).id)
    (key,) = [key for key in store.list(folder) if key.endswith("video.mp4")]
    match how:
        case "deleted":
            store.delete(key)
        case "cut":
            store.put(key, b"")
        case "other bytes":
            store.put(key, b"w")


def made(catalog, store, row: int) -> None:
    claim(catalog, row)
    job = a_job(row=row)
    artifact = committed(store, row).artifact
    catalog.finish("b1", [an_outcome(job.id, artifact=artifact)])


@pytest.mark.parametrize(
    ("how", "verify", "is_found"),
    [
        ("deleted", False, True),
        ("cut", False, True),
        ("other bytes", False, False),
        ("other bytes", True, True),
        ("deleted", True, True),
    ],
)
def test_done_is_believed_when_the_video_is_there(tmp_path, catalog, how, verify, is_found):
    store = open_store(str(tmp_path / "out"))
    for row in (1, 2, 3):
        made(catalog, store, row)
    spoilt(store, 2, how)
    assert put_back_lost(catalog, store, "b1", now=9.0, verify=verify) == is_found
    lost = [record.job.row for record in catalog.jobs("b1", states=[JobState.QUEUED])]
    assert lost == ([2, 4] if is_found else [4])

    # and nothing in the store stands in the way of making it again
    if is_found:
        reconcile(catalog, store, "b1", now=10.0)
        assert catalog.counts("b1")[JobState.QUEUED] == 2
        claim(catalog, 2)
        assert committed(store, 2, attempt=2).won
