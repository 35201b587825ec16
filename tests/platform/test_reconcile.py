"""Catalog and store are repaired from each other."""

from __future__ import annotations

import pytest

from tests.builders import FLIPBOOK, a_job
from tests.catalog_builders import a_claim
from vidplat.domain import Batch, JobState, OperatingPoint
from vidplat.platform.run.reconcile import Repairs, reconcile
from vidplat.storage import open_catalog, open_store
from vidplat.storage.artifacts import commit

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
    job = a_job(row=row)
    commit(
        store,
        batch_id="b1",
        job_id=job.id,
        attempt=1,
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
