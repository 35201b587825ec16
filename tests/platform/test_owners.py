"""Who works on a batch, whether it is alive, and how a run is asked to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from vidplat.platform.run.interrupts import Interrupts
from vidplat.platform.run.owners import is_surely_gone, this_owner


def test_this_process_is_alive():
    assert not is_surely_gone(this_owner())


def test_a_process_that_ended_is_surely_gone():
    code = "from vidplat.platform.run.owners import this_owner; print(this_owner())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert is_surely_gone(found.stdout.strip())


def test_a_later_process_with_the_same_number_is_another_one():
    host, pid, start = this_owner().rsplit(":", 2)
    assert is_surely_gone(f"{host}:{pid}:{int(start) - 1}")


def test_a_process_of_another_machine_or_of_no_form_is_believed():
    assert not is_surely_gone("elsewhere:1:1")
    assert not is_surely_gone("nonsense")


def test_the_first_signal_asks_and_the_second_insists():
    heard = []
    before = signal.getsignal(signal.SIGTERM)
    with Interrupts(lambda: heard.append("draining")) as interrupts:
        assert not interrupts.draining
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupts.draining
        assert heard == ["draining"]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == before


def test_no_signal_breaks_off_a_run_that_lets_go_of_what_it_holds():
    with Interrupts() as interrupts:
        interrupts.leaving = True
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert not interrupts.draining  # its jobs have ended: there is nothing left to drain

        interrupts.leaving = False
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.draining


def test_outside_the_main_thread_signals_are_left_alone():
    before = signal.getsignal(signal.SIGINT)
    found = []

    def inside() -> None:
        with Interrupts() as interrupts:
            found.append(signal.getsignal(signal.SIGINT) == before)
            assert not interrupts.draining

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert found == [True]
    assert signal.getsignal(signal.SIGINT) == before
