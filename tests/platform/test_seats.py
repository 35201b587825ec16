"""Who sits on a seat, and who follows."""

from __future__ import annotations

from dataclasses import replace

from tests.platform.builders import a_seat
from vidplat.platform.dispatch.dispatcher import WorkerUp
from vidplat.platform.dispatch.seats import Seats


def seats() -> Seats:
    seat = a_seat("cloud-1", up=False)
    return Seats([replace(seat, spec=replace(seat.spec, calibrate=True))])


def test_a_seat_is_refilled_under_new_names_however_often_its_worker_is_lost():
    sitting = seats()
    names = ["cloud-1"]
    for _ in range(20):
        names.append(sitting.lose(names[-1], "killed").successor)

    assert names[:4] == ["cloud-1", "cloud-1.2", "cloud-1.3", "cloud-1.4"]
    assert len(set(names)) == 21
    assert [seat.worker_id for seat in sitting.all()] == names[-1:]


def test_a_worker_that_found_room_is_expected_from_then_on():
    seat = a_seat("cloud-1", up=False)
    sitting = Seats([replace(seat, since=5.0, has_place=False)])
    sitting.place("cloud-1")
    (placed,) = sitting.all()
    assert placed.has_place
    assert placed.since > 5.0


def test_a_worker_that_is_up_is_what_it_says_it_is_and_its_successor_is_still_to_come():
    sitting = seats()
    sitting.note(WorkerUp("cloud-1", "cpu-4", 2**30, 1.0, at=5.0))
    (seat,) = sitting.all()
    assert (seat.device_class, seat.free_bytes, seat.up, seat.since) == ("cpu-4", 2**30, True, 5.0)

    lost = sitting.lose("cloud-1", "killed")

    (successor,) = sitting.all()
    assert lost.successor == successor.worker_id == "cloud-1.2"
    assert (successor.up, successor.device_class) == (False, "cpu-4")
    # what was measured of the machine is known by now
    assert not successor.spec.calibrate


def test_a_wrong_request_is_not_tried_by_another_worker():
    assert seats().lose("cloud-1", "no such model", request_is_wrong=True).successor is None
