"""The link's estimate: the lower of an average and a low percentile, from real transfers only."""

from __future__ import annotations

import pytest

from vidplat.scheduler.link import Link, after


def test_nothing_carried_promises_nothing():
    assert Link().bits_per_s is None


def test_the_first_transfer_is_the_estimate():
    assert after(Link(), 1_000_000, 2.0).bits_per_s == 4e6


def test_a_transfer_of_nothing_or_in_no_time_tells_nothing():
    link = after(Link(), 1_000_000, 2.0)

    assert after(link, 10, 0.0) == link
    assert after(link, 0, 3.0) == link


def test_a_fast_transfer_is_not_believed_and_a_slow_one_is():
    steady = Link()
    for _ in range(20):
        steady = after(steady, 1_000_000, 1.0)  # 8 Mbit/s

    # Average 0.3 * 80 + 0.7 * 8 = 29.6, but 19 of 20 were at 8 and so is the 20th percentile.
    assert after(steady, 10_000_000, 1.0).bits_per_s == pytest.approx(8e6)
    # The percentile stays at 8 with one slow one among 20; the average falls to 0.3 * 1 + 0.7 * 8 =
    # 5.9.
    assert after(steady, 125_000, 1.0).bits_per_s == pytest.approx(5.9e6)


def test_a_link_that_recovered_is_trusted_once_the_window_has_moved_on():
    link = Link()
    for _ in range(20):
        link = after(link, 125_000, 1.0)
    for _ in range(20):
        link = after(link, 1_000_000, 1.0)

    assert len(link.recent) == 20
    assert link.bits_per_s == pytest.approx(8e6, rel=1e-2)  # 0.7^20 of the slow average is left
