"""How people write times."""

from __future__ import annotations

import time
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidplat.errors import UsageError
from vidplat.times import now, parse_deadline, parse_duration

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


@pytest.mark.parametrize("step_s", [3600.0, -3600.0])
def test_setting_the_machine_s_clock_moves_nothing(
    step_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, told = now(), time.time()
    monkeypatch.setattr("time.time", lambda: told + step_s)
    assert 0 <= now() - before < 60
