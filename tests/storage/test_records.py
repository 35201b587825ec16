"""manifest.parquet and metrics.parquet: one row per job, in the order of the input, joinable to
it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.builders import a_job
from tests.catalog_builders import a_batch, a_claim, an_artifact, an_outcome
from vidplat.domain import Failure, FailureKind
from vidplat.storage import open_catalog
from vidplat.storage.catalog import Catalog
from vidplat.storage.catalog_words import GiveUp
from vidplat.storage.records import METRICS, export_manifest, export_metrics

BATCH = a_batch(deadline_at=20.0)
OWNER = "host:1:100"


@pytest.fixture
def catalog() -> Iterator[Catalog]:
    opened = open_catalog("sqlite://")
    yield opened
    opened.close()


def rows(file: bytes) -> list[dict[str, Any]]:
    return pq.read_table(io.BytesIO(file)).to_pylist(maps_as_pydicts="strict")


def a_finished_batch(catalog: Catalog) -> None:
    """Row 1 is done at second 10, row 2 done at second 30, row 3 failed, row 4 was never begun."""
    jobs = [replace(a_job(row=row), external_id=f"mine-{row}") for row in range(1, 5)]
    catalog.add_batch(BATCH, jobs)
    catalog.claim(BATCH.id, [a_claim(job.id, OWNER) for job in jobs[:3]], now=0.0, lease_s=30)
    outcomes = [
        an_outcome(jobs[0].id),
        an_outcome(jobs[1].id, finished_at=30.0),
        an_outcome(jobs[2].id, failure=Failure(FailureKind.REQUEST, "no such model")),
    ]
    catalog.finish(BATCH.id, outcomes, {jobs[2].id: GiveUp()})


def test_the_manifest_tells_what_was_made_and_where(catalog: Catalog) -> None:
    a_finished_batch(catalog)
    done, _late, failed, waiting = rows(export_manifest(catalog, BATCH.id))
    artifact = an_artifact(done["job_id"])
    assert (done["row"], done["external_id"], done["state"], done["prompt"]) == (
        1,
        "mine-1",
        "done",
        "prompt 1",
    )
    assert (
        done["video_uri"],
        done["poster_uri"],
        done["meta_uri"],
        done["sha256"],
        done["size_bytes"],
    ) == (
        artifact.video_uri,
        artifact.poster_uri,
        artifact.meta_uri,
        artifact.sha256,
        artifact.size_bytes,
    )
    assert (done["width"], done["num_frames"], done["steps"], done["method"]) == (
        64,
        33,
        24,
        "full",
    )
    assert (done["model_id"], done["model_revision"], done["attempt"]) == ("flipbook", "r1", 1)
    assert (failed["state"], failed["failure"], failed["video_uri"]) == (
        "failed",
        "no such model",
        None,
    )
    assert (waiting["state"], waiting["steps"], waiting["attempt"]) == ("queued", None, None)


def test_the_metrics_put_predicted_beside_actual_and_name_the_misses(catalog: Catalog) -> None:
    a_finished_batch(catalog)
    done, late, failed, waiting = rows(export_metrics(catalog, BATCH.id))
    assert (done["predicted_p50_s"], done["predicted_p90_s"], done["actual_s"]) == (
        10.0,
        12.0,
        10.0,
    )
    # an_outcome spends 7 s on denoising and 2.5 s on decoding
    assert (done["denoise_s"], done["decode_s"], done["encode_s"], done["other_s"]) == (
        7.0,
        2.5,
        None,
        None,
    )
    assert (done["metrics"], done["attempts"], done["deadline_at"]) == ({"flicker": 0.25}, 1, 20.0)
    assert [each["missed"] for each in (done, late, failed, waiting)] == [False, True, True, True]
    assert (failed["failure_kind"], failed["actual_s"]) == ("request", None)


def test_a_rows_own_deadline_decides_whether_it_was_missed(catalog: Catalog) -> None:
    free, hurried = jobs = [a_job(row=1), a_job(row=2, deadline_at=5.0)]
    catalog.add_batch(replace(BATCH, deadline_at=None), jobs)
    catalog.claim(BATCH.id, [a_claim(job.id, OWNER) for job in jobs], now=0.0, lease_s=30)
    catalog.finish(BATCH.id, [an_outcome(free.id), an_outcome(hurried.id)])
    assert [each["missed"] for each in rows(export_metrics(catalog, BATCH.id))] == [None, True]


def test_phases_with_other_names_are_summed(catalog: Catalog) -> None:
    job = a_job()
    catalog.add_batch(BATCH, [job])
    catalog.claim(BATCH.id, [a_claim(job.id, OWNER)], now=0.0, lease_s=30)
    odd = replace(an_outcome(job.id), phases={"mp4": 0.5, "refine": 1.25, "load": 2.0})
    catalog.finish(BATCH.id, [odd])
    [record] = rows(export_metrics(catalog, BATCH.id))
    assert (record["mp4_s"], record["other_s"]) == (0.5, 3.25)


def test_an_empty_batch_is_a_file_with_columns_and_no_rows(catalog: Catalog) -> None:
    catalog.add_batch(BATCH, [])
    table = pq.read_table(io.BytesIO(export_metrics(catalog, BATCH.id)))
    assert (table.num_rows, table.schema.names) == (0, METRICS.names)


def test_more_jobs_than_one_row_group_come_out_in_order(catalog: Catalog) -> None:
    catalog.add_batch(BATCH, [a_job(row=row) for row in range(1, 21_002)])
    file = pq.ParquetFile(io.BytesIO(export_manifest(catalog, BATCH.id)))
    assert file.num_row_groups == 2
    assert file.read(["row"])["row"].to_pylist() == list(range(1, 21_002))


def test_the_manifest_tells_the_source_of_an_edit(catalog: Catalog) -> None:
    edit = replace(
        a_job(row=2), input_video="s3://bucket/a.mp4", input_sha256="ab" * 32, strength=0.25
    )
    catalog.add_batch(BATCH, [a_job(), edit])
    plain, edited = rows(export_manifest(catalog, BATCH.id))
    assert (plain["input_video"], plain["input_sha256"], plain["strength"]) == (None, None, None)
    assert (edited["input_video"], edited["input_sha256"], edited["strength"]) == (
        "s3://bucket/a.mp4",
        "ab" * 32,
        0.25,
    )
