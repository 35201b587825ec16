"""How settings are found, and how people write times."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidplat.config import (
    InputConfig,
    PoolConfig,
    RunConfig,
    default_pools,
    load_config,
    parse_deadline,
    parse_duration,
    parse_pool,
)
from vidplat.errors import UsageError

NOON = datetime(2030, 5, 17, 12, 0, 0).timestamp()  # local time


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("60s", 60),
        ("90m", 5400),
        ("6h", 21_600),
        ("2d", 172_800),
        ("1h30m", 5400),
        ("1.5h", 5400),
        (" 60S ", 60),
    ],
)
def test_durations_are_a_number_and_a_unit(written, seconds):
    assert parse_duration(written) == seconds
    assert parse_deadline(written, NOON) == NOON + seconds


def test_a_bare_number_is_refused_and_the_message_adds_the_unit():
    with pytest.raises(UsageError, match=r"add one, e\.g\. 60s"):
        parse_deadline("60", NOON)


@pytest.mark.parametrize(
    "written",
    ["-5s", "tomorrow", "", "0s", "30m1h", "5s5s", "1e9s", "25:00", "12:60", "99999d", "5 s"],
)
def test_what_cannot_be_meant_is_refused_with_the_forms_that_can(written):
    with pytest.raises(UsageError):
        parse_deadline(written, NOON)


def test_a_time_of_day_is_the_next_such_time():
    # given noon: 12:30 is today, 06:00 and 12:00 itself are tomorrow
    assert parse_deadline("12:30", NOON) == NOON + 1800
    assert parse_deadline("06:00", NOON) == NOON + 18 * 3600
    assert parse_deadline("12:00", NOON) == NOON + 24 * 3600


def test_iso_8601_is_local_unless_it_says_otherwise():
    assert parse_deadline("2030-05-17T13:00", NOON) == NOON + 3600
    utc = datetime.fromisoformat("2030-05-18T12:00:00+00:00").timestamp()
    assert parse_deadline("2030-05-18T12:00:00Z", NOON) == utc


def test_a_moment_in_the_past_is_refused_and_says_how_long_ago():
    yesterday = (datetime.fromtimestamp(NOON) - timedelta(days=2)).isoformat()
    with pytest.raises(UsageError, match="2d ago"):
        parse_deadline(yesterday, NOON)


@given(st.text(max_size=30))
def test_any_text_is_a_future_moment_or_a_usage_error(text):
    try:
        assert parse_deadline(text, NOON) > NOON
    except UsageError as error:
        assert str(error).isprintable()


def test_options_win_over_the_environment_which_wins_over_the_file(tmp_path):
    # given all three
    file = tmp_path / "vidplat.toml"
    file.write_text(
        'catalog = "sqlite:///file.db"\noutput = "file"\nmodel = "file"\n[run]\nmax_attempts = 7\n'
    )
    env = {"VIDPLAT_CATALOG": "sqlite:///env.db", "VIDPLAT_OUTPUT": "env"}

    # when
    config = load_config({"catalog": "sqlite:///option.db", "output": None}, file=file, env=env)

    # then
    assert config.catalog.url == "sqlite:///option.db"
    assert config.store.output == "env"
    assert config.model == "file"
    assert config.run.max_attempts == 7


def test_a_file_with_an_unknown_key_or_a_wrong_type_is_refused(tmp_path):
    file = tmp_path / "vidplat.toml"
    for text, said in (
        ("speed = 3", "unknown key 'speed'"),
        ("[run]\nmax_attempts = 'many'", "max_attempts must be a int"),
        ("[pools.cloud]\nwheels = 4", "has no 'wheels'"),
        ("[pools]\ncloud = 4", "write each pool as a table"),
        ("not toml", "not readable TOML"),
    ):
        file.write_text(text)
        with pytest.raises(UsageError, match=said):
            load_config(file=file, env={})


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
    ):
        with pytest.raises(UsageError):
            parse_pool(wrong)


def test_somebody_must_have_a_model():
    with pytest.raises(UsageError, match="not light"):
        load_config({"pools": ["edge=2:light"]}, env={})


def test_by_default_one_cloud_and_one_edge_worker_share_the_cores():
    cloud, edge = default_pools(cpus=8, gpus=0)
    assert (cloud.name, cloud.workers, cloud.threads) == ("cloud", 1, 4)
    assert (edge.name, edge.workers, edge.threads) == ("edge", 1, 4)
    assert default_pools(cpus=8, gpus=2)[0].gpus == 1.0


def test_a_message_about_two_settings_quotes_both():
    with pytest.raises(UsageError, match=r"lease_s \(2.0\).*heartbeat_s \(1.0\)"):
        RunConfig(lease_s=2.0)


def test_bounds_of_input_videos_come_from_the_file_and_are_checked(tmp_path):
    file = tmp_path / "vidplat.toml"
    file.write_text("[inputs]\nmax_seconds = 30.5\n")
    assert load_config(file=file, env={}).inputs == InputConfig(max_seconds=30.5)
    file.write_text("[inputs]\nmax_bytes = 0\n")
    with pytest.raises(UsageError, match=r"inputs\.max_bytes must be 1 to"):
        load_config(file=file, env={})
