"""doctor and models: what is here, what is missing, what to do about it."""

from __future__ import annotations

import json
import socket
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from vidplat.cli.app import main
from vidplat.config import Config, RayConfig
from vidplat.platform import checkup
from vidplat.platform.checkup import Health, examine


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("VIDPLAT_CATALOG", "VIDPLAT_OUTPUT", "VIDPLAT_MODEL", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def findings(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    """What `doctor --quick` finds, by name."""
    main(["doctor", "--quick", "--json", *options])
    return {finding["name"]: finding for finding in json.loads(capsys.readouterr().out)}


def test_in_an_empty_folder_catalog_and_store_are_fine_and_not_made(
    capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> None:
    found = findings(capsys)

    assert (
        found["catalog"]["health"] == "ok" and "the first submit makes" in found["catalog"]["found"]
    )
    assert found["store"]["health"] == "ok"
    assert not (elsewhere / ".vidplat").exists()
    assert not list(elsewhere.rglob("*.mp4"))


def test_migrate_makes_the_catalog(capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    found = findings(capsys, "--migrate")

    assert "up to date" in found["catalog"]["found"]
    assert (elsewhere / ".vidplat" / "catalog.db").exists()


def test_a_store_that_cannot_be_written_fails_the_check(capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").write_text("in the way")

    assert main(["doctor", "--quick", "--output", "file/below"]) == 1

    assert "fail store" in capsys.readouterr().out


def test_a_locked_catalog_is_found_without_a_long_wait(capsys: pytest.CaptureFixture[str]) -> None:
    findings(capsys, "--migrate", "--catalog", "sqlite:///c.db")
    other = sqlite3.connect("c.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    began = time.monotonic()

    found = findings(capsys, "--catalog", "sqlite:///c.db")

    other.close()
    assert found["catalog"]["health"] == "fail" and "locked" in found["catalog"]["found"]
    assert time.monotonic() - began < 30


def test_a_ray_cluster_that_does_not_answer_fails_the_check() -> None:
    config = Config(ray=RayConfig(address="127.0.0.1:9"))

    found = {finding.name: finding for finding in examine(config)}

    assert found["ray"].health is Health.FAIL and "127.0.0.1:9" in found["ray"].found
    assert found["torch"].health is not Health.FAIL
    assert found["video"].health is Health.OK


@pytest.mark.parametrize("address", ["ray://127.0.0.1:9", "127.0.0.1:port", "127.0.0.1"])
def test_an_address_that_no_run_could_use_fails_the_check(address: str) -> None:
    health, found, _ = checkup._ray(address)  # type: ignore[misc]
    assert health is Health.FAIL and address in found


def test_a_cluster_that_listens_but_lets_nobody_in_fails_the_check(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # what a cluster that asks for tokens does to who has none, without the twenty seconds
    refused = "raise ConnectionError('Failed to connect to Ray cluster at {address}')"
    monkeypatch.setattr(checkup, "_ATTACH", refused)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        health, found, todo = checkup._ray(address)  # type: ignore[misc]
    assert health is Health.FAIL
    assert f"{address} answers, but lets no run in" in found and "Failed to connect" in found
    assert "RAY_AUTH_TOKEN" in todo


def test_an_unknown_model_is_told_with_the_nearest_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "flipbok"]) == 2

    assert "flipbok" in capsys.readouterr().err


def test_models_are_listed_with_what_they_lack(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0

    for listing in json.loads(capsys.readouterr().out):
        assert set(listing) == {"id", "origin", "usable", "missing", "detail"}
