"""A batch on the services of a cluster: the catalog in PostgreSQL, the videos in an S3-compatible
store.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.flow.stage import Stage
from tests.platform.builders import Memory
from tests.servers_s3 import S3Server
from vidplat.domain import JobState
from vidplat.errors import CatalogError, StoreError
from vidplat.platform import submit
from vidplat.platform.interface import Listener, SubmitRequest
from vidplat.storage import open_catalog

pytestmark = pytest.mark.server


def test_a_batch_runs_on_postgresql_and_s3_and_a_rerun_is_free(
    tmp_path: Path, postgres_catalog: str, moto_server: S3Server, monkeypatch: pytest.MonkeyPatch
):
    # given
    moto_server.with_credentials(monkeypatch)
    stage, heard = Stage(tmp_path), Memory()
    config = replace(
        stage.config,
        catalog=postgres_catalog,
        output=moto_server.bucket_url(),
    )
    prompts = stage.write(["one", "two", "[flaky] three", "[wrong] four"])

    # when
    result = submit(SubmitRequest(prompts, deadline="10m"), config, heard)

    # then
    assert result.exit_code == 4
    assert result.counts[JobState.DONE] == 3
    catalog = open_catalog(postgres_catalog)
    done = catalog.jobs(result.batch.id, states=[JobState.DONE])
    catalog.close()
    assert all(record.artifact and record.artifact.video_uri.startswith("s3://") for record in done)
    again = submit(SubmitRequest(prompts), config, Listener())
    assert (again.batch.id, again.computed) == (result.batch.id, 0)


def test_an_unreachable_store_or_wrong_keys_are_one_message_without_a_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "canarykey")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canarysecret")
    stage = Stage(tmp_path, output="s3://bucket/videos?endpoint=http://127.0.0.1:9")
    with pytest.raises(StoreError) as caught:
        stage.submit(1)
    assert "canarysecret" not in str(caught.value)
    assert not (tmp_path / "catalog.db").exists()


def test_an_unreachable_catalog_is_one_message_without_its_password(tmp_path: Path):
    stage = Stage(tmp_path)
    config = replace(stage.config, catalog="postgresql://me:canarysecret@127.0.0.1:9/vidplat")
    with pytest.raises(CatalogError) as caught:
        submit(SubmitRequest(stage.write(1)), config, Listener())
    assert "canarysecret" not in str(caught.value)
