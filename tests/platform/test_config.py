"""How settings are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidplat.config import (
    InputConfig,
    Machines,
    PoolConfig,
    RunConfig,
    default_pools,
    load_config,
    parse_pool,
)
from vidplat.errors import UsageError


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`vidplat.toml` of a working directory without one, and an environment that says nothing."""
    monkeypatch.chdir(tmp_path)
    for variable in ("VIDPLAT_CATALOG", "VIDPLAT_OUTPUT", "VIDPLAT_MODEL", "RAY_ADDRESS"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path / "vidplat.toml"


def test_options_win_over_the_environment_which_wins_over_the_file(file, monkeypatch):
    # given all three
    file.write_text(
        'catalog = "sqlite:///file.db"\noutput = "file"\nmodel = "file"\n[run]\nmax_attempts = 7\n'
    )
    monkeypatch.setenv("VIDPLAT_CATALOG", "sqlite:///env.db")
    monkeypatch.setenv("VIDPLAT_OUTPUT", "env")

    # when
    config = load_config({"catalog": "sqlite:///option.db", "output": None})

    # then
    assert config.catalog == "sqlite:///option.db"
    assert config.output == "env"
    assert config.model == "file"
    assert config.run.max_attempts == 7


def test_a_file_with_an_unknown_key_or_a_wrong_type_is_refused(file):
    for text, said in (
        ("speed = 3", "unknown key 'speed'"),
        ("catalog = 5", "catalog must be a str, not '5'"),
        ("output = ['renders']", "output must be a str"),
        ("[model]\nid = 'flipbook'", "model must be a str"),
        ("[run]\nmax_attempts = 'many'", "max_attempts must be a int"),
        ("[pools.cloud]\nwheels = 4", "has no 'wheels'"),
        ("[pools]\ncloud = 4", "write each pool as a table"),
        ("not toml", "not readable TOML"),
    ):
        file.write_text(text)
        with pytest.raises(UsageError, match=said):
            load_config({})


def test_pools_are_written_as_name_workers_threads():
    assert parse_pool("gpu=3:8") == PoolConfig("gpu", workers=3, threads=8)
    assert parse_pool("edge=0").workers == 0
    assert parse_pool("edge=2:light").light
    assert parse_pool("tv=2:3:light") == PoolConfig("tv", workers=2, threads=3, light=True)
    for wrong in (
        "cloud",
        "cloud=",
        "cloud=x",
        "=3",
        "../x=1",
        "cloud=1:0",
        "cloud=-1",
        "cloud=1:dark",
        "cloud=1,gpus=",
        "cloud=1,gpus=one",
        "cloud=1,gpus=65",
        "cloud=1,cards=1",
        "edge=1:light,gpus=1",
    ):
        with pytest.raises(UsageError):
            parse_pool(wrong)


WITH_GPUS = Machines(8, ("H200", "H200"))


def test_what_a_pool_does_not_say_is_as_its_machines_have_it():
    assert parse_pool("cloud=1", WITH_GPUS) == PoolConfig("cloud", 1, 2, gpus=1.0, price_per_s=4.0)
    assert parse_pool("edge=3", WITH_GPUS).light
    assert parse_pool("cloud=1", Machines(8)).gpus == 0.0


def test_gpus_of_a_pool_are_told_on_the_command_line_and_in_the_file(file):
    assert parse_pool("cloud=2,gpus=1").gpus == 1.0
    assert parse_pool("big=4:2,gpus=0.5") == PoolConfig("big", workers=4, threads=2, gpus=0.5)
    assert parse_pool("cloud=2,gpus=0", WITH_GPUS).gpus == 0.0
    on_cpu = parse_pool("edge=1,gpus=0", WITH_GPUS)
    assert (on_cpu.gpus, on_cpu.light) == (0.0, False)  # who tells of GPUs means makers
    assert parse_pool("cloud=1:light", WITH_GPUS).gpus == 0.0
    file.write_text("[pools.cloud]\nworkers = 3\n[pools.edge]\ngpus = 0\n")
    told = load_config({}).told_pools
    assert told is not None
    cloud, edge = told.on(WITH_GPUS)
    assert (cloud.workers, cloud.gpus, edge.gpus, edge.light) == (3, 1.0, 0.0, False)


def test_pools_of_a_cluster_are_filled_in_by_its_machines_not_by_the_driver_s(monkeypatch):
    monkeypatch.setattr("vidplat.config.gpu_names", lambda: ("H200",))
    config = load_config({"pools": ["cloud=2", "edge=1"], "address": "head:6379"})
    assert config.pools[0].gpus == 1.0  # this machine
    assert config.told_pools is not None
    cloud, edge = config.told_pools.on(Machines(8))
    assert (cloud.workers, cloud.gpus, edge.light) == (2, 0.0, False)


def test_somebody_must_have_a_model(file):
    with pytest.raises(UsageError, match="not light"):
        load_config({"pools": ["edge=2:light"]})


def test_by_default_one_cloud_and_one_edge_worker_share_the_cores(monkeypatch):
    monkeypatch.setattr("vidplat.config.usable_cores", lambda: 8)
    monkeypatch.setattr("vidplat.config.gpu_names", lambda: ())
    cloud, edge = default_pools()
    assert (cloud.name, cloud.workers, cloud.threads) == ("cloud", 1, 4)
    assert (edge.name, edge.workers, edge.threads) == ("edge", 1, 4)
    monkeypatch.setattr("vidplat.config.gpu_names", lambda: ("H200", "H200"))
    cloud, edge = default_pools()
    assert (cloud.workers, cloud.threads, cloud.gpus, cloud.price_per_s) == (2, 2, 1.0, 4.0)
    assert (edge.workers, edge.threads, edge.gpus, edge.price_per_s) == (1, 4, 0.0, 1.0)
    assert edge.light  # a whole model on CPU cores would be of no help


def test_a_message_about_two_settings_quotes_both():
    with pytest.raises(UsageError, match=r"lease_s \(2.0\).*heartbeat_s \(1.0\)"):
        RunConfig(lease_s=2.0)


def test_a_job_has_at_least_one_attempt():
    with pytest.raises(UsageError, match=r"run\.max_attempts must be 1 to 100, not 0"):
        RunConfig(max_attempts=0)


def test_bounds_of_input_videos_come_from_the_file_and_are_checked(file):
    file.write_text("[inputs]\nmax_seconds = 30.5\n")
    assert load_config({}).inputs == InputConfig(max_seconds=30.5)
    file.write_text("[inputs]\nmax_bytes = 0\n")
    with pytest.raises(UsageError, match=r"inputs\.max_bytes must be 1 to"):
        load_config({})
