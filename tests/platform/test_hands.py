"""What workers hold, and when they will be through with it."""

from __future__ import annotations

import pytest

from tests.builders import an_open_job
from vidplat.domain import OperatingPoint, Progress
from vidplat.platform.dispatch.dispatcher import Order
from vidplat.platform.run.hands import Hands, InHand
from vidplat.scheduler.decision import Assignment

STAGES = {"encode": 1.0, "denoise": 8.0, "decode": 2.0, "mp4": 1.0}  # 12 s


def in_hand(row: int = 1, sent_at: float = 0.0) -> InHand:
    open_job = an_open_job(row=row)
    planned = Assignment(
        open_job.job.id, "w", "cloud", OperatingPoint(8), 0.0, 12.0, 15.0, 1.0, 12.0, 15.0
    )
    return InHand(Order(planned, open_job.job, 1), open_job, STAGES, sent_at)


def at_step(step: int, at: float) -> Progress:
    return Progress(in_hand().order.job.id, 1, "w", "denoise", step, 8, at)


def test_without_heartbeats_the_prediction_runs_down():
    # 12 s predicted, half a second ago
    assert in_hand().remaining_s(0.5, is_first=True) == pytest.approx(11.5)


def test_heartbeats_count_the_steps_that_are_left_at_the_pace_of_those_done():
    # given denoising since second 1, and 2 of 8 steps done at second 5: 2 s a step, 6 left
    held = in_hand()
    held.note(at_step(0, 1.0))
    held.note(at_step(2, 5.0))

    # then 12 s of steps, and 3 s for decoding and mp4; a second later one less
    assert held.remaining_s(5.0, is_first=True) == pytest.approx(15.0)
    assert held.remaining_s(6.0, is_first=True) == pytest.approx(14.0)


def test_the_pace_is_that_of_the_steps_between_heartbeats():
    # given denoising first heard of at second 3 with 2 of 8 steps done, and 4 done at second 7: 2 s
    # a step, 4 left
    held = in_hand()
    held.note(at_step(2, 3.0))
    assert held.remaining_s(3.0, is_first=True) == pytest.approx(
        6.0 + 3.0
    )  # as predicted, 1 s a step
    held.note(at_step(4, 7.0))

    assert held.remaining_s(7.0, is_first=True) == pytest.approx(8.0 + 3.0)


def test_a_stage_that_outlasts_its_prediction_is_nearly_done_never_done():
    held = in_hand()
    held.note(Progress(held.order.job.id, 1, "w", "decode", 8, 8, 10.0))
    # decode was to take 2 s and runs for 100: 5 % of it, and 1 s of mp4
    assert held.remaining_s(110.0, is_first=True) == pytest.approx(1.1)


def test_a_worker_is_through_when_all_it_holds_is_done():
    hands = Hands()
    hands.put("w", in_hand(1))
    hands.put("w", in_hand(2))
    # the second of mp4 goes on beside what follows
    assert hands.remaining_s("w", 2.0) == pytest.approx(9.0 + 11.0)
    assert hands.remaining_s("other", 2.0) == 0.0
    assert hands.running("w") == in_hand(1).order.job.id


def stored_by(held: InHand, at: float) -> InHand:
    """The same, with 3 s of storing at its end, which began at `at`."""
    held.stages = {**STAGES, "store": 3.0}
    held.note(Progress(held.order.job.id, 1, "w", "store", 8, 8, at))
    return held


def test_what_is_being_stored_is_not_in_the_way_of_the_next():
    # given one that is stored since second 12, for 3 s, and one behind it that was begun then
    hands, first, second = Hands(), stored_by(in_hand(1), at=12.0), in_hand(2, sent_at=12.0)
    second.stages = first.stages
    hands.put("w", first)

    # then the worker is free at once, for a video whose own storing takes as long
    assert hands.remaining_s("w", 12.0) == 0.0
    # and 11 s after the next was begun; mp4 and storing go on beside what follows
    hands.put("w", second)
    assert hands.remaining_s("w", 12.0) == pytest.approx(11.0)
    assert hands.running("w") == second.order.job.id
    assert [is_turn for _, is_turn in hands.in_turn("w")] == [True, True]


def test_a_store_that_is_slower_than_the_maker_fills_its_queue():
    # given three videos of 11 s each that take 31 s then: the last is there after 11 + 93
    hands = Hands()
    for row in (1, 2, 3):
        held = in_hand(row)
        held.stages = {**STAGES, "store": 30.0}
        hands.put("w", held)

    # then a fourth one, which takes 11 s until its own 31 s, may begin after 93
    assert hands.remaining_s("w", 0.0) == pytest.approx(11.0 + 93.0 - 11.0)


def test_an_order_leaves_the_hand_only_for_its_own_attempt():
    hands = Hands()
    held = in_hand()
    hands.put("w", held)
    assert hands.take("w", held.order.job.id, attempt=2) is None
    assert hands.take("w", held.order.job.id, attempt=1) is held
    assert len(hands) == 0


def test_a_lost_workers_hand_comes_back_oldest_first():
    hands = Hands()
    for row in (1, 2, 3):
        hands.put("w", in_hand(row))
    assert [held.order.job.row for held in hands.drop("w")] == [1, 2, 3]
    assert hands.drop("w") == ()
