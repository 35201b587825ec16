"""How settings are found."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from vidplat.config import _TOP as TOP
from vidplat.config import (
    InputConfig,
    Machines,
    PoolConfig,
    RayConfig,
    RunConfig,
    catalog_file,
    default_pools,
    load_config,
    parse_pool,
)
from vidplat.errors import UsageError

DOCS = Path(__file__).parents[2] / "docs"
POOL = "pools.cloud"
TABLES = {POOL: PoolConfig, "ray": RayConfig, "run": RunConfig, "inputs": InputConfig}
WORDS = {
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "str": "string",
    "tuple[str, ...]": "list",
}


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
        ("catalog = 5", "catalog must be a string, not 5"),
        ("output = ['renders']", "output must be a string"),
        ("[model]\nid = 'flipbook'", "model must be a string"),
        ("[run]\nmax_attempts = 'many'", "max_attempts must be an integer, not 'many'"),
        ("[run]\nmax_attempts = true", "max_attempts must be an integer, not True"),
        ("[run]\nlease_s = false", "lease_s must be a number, not False"),
        ("[run]\nlocal = 1", "local must be true or false, not 1"),
        ("[pools.cloud]\nwheels = 4", "has no 'wheels'"),
        ("[pools]\ncloud = 4", "write each pool as a table"),
        ("[pools.cloud]\nname = 'edge'", "has no 'name'"),
        ("model = ''", "model is empty"),
        ("output = '  '", "output is empty"),
        ('catalog = "sqlite:///a\\u0000b"', "catalog holds a control character"),
        ("not toml", "not readable TOML"),
        ("[run]\nwindow = " + "9" * 5000, "not readable TOML"),
        ("a = " + "[" * 5000, "not readable TOML"),
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
    monkeypatch.setattr("vidplat.machines.gpu_names", lambda: ("H200",))
    config = load_config({"pools": ["cloud=2", "edge=1"], "address": "head:6379"})
    assert config.pools[0].gpus == 1.0  # this machine
    assert config.told_pools is not None
    cloud, edge = config.told_pools.on(Machines(8))
    assert (cloud.workers, cloud.gpus, edge.light) == (2, 0.0, False)


def test_somebody_must_have_a_model(file):
    with pytest.raises(UsageError, match="not light"):
        load_config({"pools": ["edge=2:light"]})


def test_by_default_one_cloud_and_one_edge_worker_share_the_cores(monkeypatch):
    monkeypatch.setattr("vidplat.machines.usable_cores", lambda: 8)
    monkeypatch.setattr("vidplat.machines.gpu_names", lambda: ())
    cloud, edge = default_pools()
    assert (cloud.name, cloud.workers, cloud.threads) == ("cloud", 1, 4)
    assert (edge.name, edge.workers, edge.threads) == ("edge", 1, 4)
    monkeypatch.setattr("vidplat.machines.gpu_names", lambda: ("H200", "H200"))
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


@pytest.mark.parametrize(
    "number", ["-1", "nan", "inf", "-inf", "1e300", "1" + "0" * 400, "0x" + "f" * 5000]
)
def test_every_number_of_the_file_has_bounds_that_its_message_spells_out(file, number):
    for name, kind in TABLES.items():
        for key in fields(kind):
            if key.type not in ("int", "float"):
                continue
            file.write_text(f"[{name}]\n{key.name} = {number}\n")
            with pytest.raises(UsageError) as refused:
                load_config({})
            said = str(refused.value)
            assert (key.name in said or "not readable TOML" in said) and len(said) < 250
            assert not re.search(r"\de\+\d", said.partition(", not ")[0])  # 8.58993e+09


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///a/b.db", "a/b.db"),
        ("sqlite:////a/b c.db", "/a/b c.db"),
        ("SQLite+pysqlite:///b.db", "b.db"),
        ("sqlite:///~/b.db", str(Path.home() / "b.db")),
        ("sqlite:///:memory:", None),
        ("sqlite://", None),
        ("postgresql://host/name", None),
    ],
)
def test_the_file_of_a_catalog_is_what_its_url_says(url, path):
    assert catalog_file(url) == (None if path is None else Path(path))


def test_a_catalog_in_the_home_of_nobody_is_refused():
    with pytest.raises(UsageError, match="no such home"):
        catalog_file("sqlite:///~nobody-at-all/b.db")


def test_every_key_is_documented_with_its_type_and_default_and_no_other():
    told = dict[str, tuple[str, str]]()
    for line in (DOCS / "configuration.md").read_text().splitlines():
        if found := re.match(r"\| `([\w.<>]+)` \| (\w+) \| `?([^`|]*)`? \|", line):
            told[found[1]] = (found[2], found[3].strip())

    known = {name: ("string", default) for name, (_, default) in TOP.items()}
    for table, kind in TABLES.items():
        for key in fields(kind):
            if (table, key.name) != (POOL, "name"):
                type_name = WORDS[str(key.type).removesuffix(" | None")]
                known[f"{table}.{key.name}"] = (type_name, str(key.default).lower())
    assert told == known


def test_bounds_of_input_videos_come_from_the_file_and_are_checked(file):
    file.write_text("[inputs]\nmax_seconds = 30.5\n")
    assert load_config({}).inputs == InputConfig(max_seconds=30.5)
    file.write_text("[inputs]\nmax_bytes = 0\n")
    with pytest.raises(UsageError, match=r"inputs\.max_bytes must be 1 to 8,589,934,592, not 0"):
        load_config({})


def test_where_input_videos_may_lie_comes_from_the_file_and_is_checked(file):
    file.write_text('[inputs]\nschemes = ["s3"]\nfolders = []\nendpoint = "http://host:9000"\n')
    assert load_config({}).inputs == InputConfig(schemes=("s3",), endpoint="http://host:9000")
    for wrong, said in (
        ('schemes = ["http"]', "inputs.schemes may hold file, s3, memory, not 'http'"),
        ('schemes = "s3"', "[inputs] schemes must be a list of strings, not 's3'"),
        ("buckets = [1]", "[inputs] buckets must be a list of strings"),
        ('endpoint = "http://me:secret@host"', "inputs.endpoint must look like http://host:port"),
    ):
        file.write_text(f"[inputs]\n{wrong}\n")
        with pytest.raises(UsageError, match=re.escape(said)):
            load_config({})
