"""Shortened schedules: fewer steps, the same start and end, the old schedule's shape."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vidplat.workers.models.solver import Solver


def euler(**config: Any) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(shift=3.0, **config)


def unipc() -> Any:
    from diffusers import UniPCMultistepScheduler

    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)


def walk(solver: Solver, field: Any, steps: int | None = None) -> torch.Tensor:
    """Latents after `steps` steps (or all) of a flow of one number with velocity field(x, sigma), from x = 1."""
    latents = torch.ones(1, 1, 1)
    while solver.remaining and (steps is None or solver.index < steps):
        latents = solver.advance(field(latents, solver.sigma), latents)
    return latents


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.data())
def test_any_tail_runs_down_from_the_present_sigma_to_zero(steps: int, data: st.DataObject) -> None:
    done = data.draw(st.integers(0, steps - 1))
    left = data.draw(st.integers(1, steps - done))
    solver = Solver(euler(), steps, "cpu")
    walk(solver, lambda x, s: x * 0, done)
    now = solver.sigma

    solver.shorten(left)

    assert solver.remaining == left
    assert solver.sigma == now
    tail = solver.sigmas[done:]
    assert tail[-1] == 0.0
    assert all(a > b for a, b in pairwise(tail))


def test_keeping_all_remaining_steps_changes_nothing() -> None:
    solver = Solver(euler(), 8, "cpu")
    before = solver.sigmas

    solver.shorten(8)

    assert solver.sigmas == before


@pytest.mark.parametrize("left", [0, 9])
def test_a_tail_of_no_steps_or_of_more_than_are_left_is_our_own_mistake(left: int) -> None:
    with pytest.raises(ValueError, match="cannot shorten 8"):
        Solver(euler(), 8, "cpu").shorten(left)


@pytest.mark.parametrize("scheduler", [euler, unipc])
def test_a_straight_flow_arrives_at_the_same_place_however_it_is_shortened(scheduler: Any) -> None:
    # x(sigma) = x0 + sigma v with v = 0.25: one Euler step of any length is exact, so x ends at 0.75.
    straight = Solver(scheduler(), 12, "cpu")
    walk(straight, lambda x, s: torch.full((1, 1, 1), 0.25), 5)
    straight.shorten(3)

    solver = Solver(scheduler(), 12, "cpu")
    latents = torch.ones(1, 1, 1)
    for _ in range(5):
        latents = solver.advance(torch.full((1, 1, 1), 0.25), latents)
    solver.shorten(3)
    while solver.remaining:
        latents = solver.advance(torch.full((1, 1, 1), 0.25), latents)

    assert solver.total == 8
    assert latents.item() == pytest.approx(0.75, abs=1e-5)


@pytest.mark.parametrize("scheduler", [euler, unipc])
def test_one_video_leaves_no_trace_in_the_next_ones_solver(scheduler: Any) -> None:
    shared = scheduler()
    fresh = walk(Solver(shared, 6, "cpu"), lambda x, s: x * s)
    spoilt = Solver(shared, 9, "cpu")
    walk(spoilt, lambda x, s: x, 3)
    spoilt.shorten(2)

    assert torch.equal(walk(Solver(shared, 6, "cpu"), lambda x, s: x * s), fresh)
