"""Schedules shortened, and videos made shorter, while a run is under way."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vidplat.methods.solver import Solver


def euler(**config: Any) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(shift=3.0, **config)


def unipc() -> Any:
    from diffusers import UniPCMultistepScheduler

    return UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )


def walk(solver: Solver, field: Any, steps: int | None = None) -> torch.Tensor:
    """Latents after `steps` steps (or all) of a flow of one number with velocity field(x, sigma),
    from x = 1."""
    latents = torch.ones(1, 1, 1)
    while solver.remaining and (steps is None or solver.index < steps):
        latents = solver.advance(field(latents, solver.sigma), latents)
    return latents


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


@pytest.mark.parametrize("terminal", [None, 0.1, 0.3])
def test_a_single_step_goes_from_noise_to_the_end(terminal: float | None) -> None:
    shared = euler(shift_terminal=terminal)

    assert Solver(shared, 1, "cpu").sigmas == [1.0, 0.0]
    # and the next run ends where the scheduler says
    assert Solver(shared, 5, "cpu").sigmas[-2] == pytest.approx(terminal or 0.0089, abs=1e-4)


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
    # x(sigma) = x0 + sigma v with v = 0.25: one Euler step of any length is exact, so x ends at
    # 0.75.
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


FRAMES = 5


def swirl(latents: torch.Tensor, sigma: float) -> torch.Tensor:
    """A velocity that is neither constant nor the same in two frames, and looks at no other
    frame."""
    return torch.sin(3 * latents) + sigma * latents


def some_noise() -> torch.Tensor:
    return torch.randn(1, 2, FRAMES, 3, 4, generator=torch.Generator().manual_seed(3))


def walked(solver: Solver, latents: torch.Tensor, steps: int | None = None) -> torch.Tensor:
    for _ in range(solver.remaining if steps is None else steps):
        latents = solver.advance(swirl(latents, solver.sigma), latents)
    return latents


def test_after_forgetting_the_next_step_is_a_first_order_step_from_where_it_stands() -> None:
    solver = Solver(unipc(), 7, "cpu")
    latents = walked(solver, some_noise(), 3)[:, :, :2]
    solver.forget()
    ahead = solver.sigmas[3:5]
    velocity = swirl(latents, solver.sigma)
    moved = solver.advance(velocity, latents)

    # A fresh solver of the same schedule that begins at step 3 knows nothing of the past either.
    fresh = Solver(unipc(), 7, "cpu")
    fresh.skip(3)
    assert torch.equal(moved, fresh.advance(velocity, latents))
    # And at first order UniPC is Euler: x + (sigma_next - sigma) v.
    torch.testing.assert_close(moved, latents + (ahead[1] - ahead[0]) * velocity)
    assert solver.index == 4
    walked(solver, moved)


@pytest.mark.parametrize("kept", [(0, 2, 4), (4,)])
def test_a_crop_that_the_solver_is_not_told_of_is_refused(kept: tuple[int, ...]) -> None:
    # One frame alone would be spread over all by torch's own rules, and no error would tell of it.
    solver = Solver(unipc(), 7, "cpu")
    latents = walked(solver, some_noise(), 2)[:, :, list(kept)]
    with pytest.raises(ValueError, match="forget must follow a crop"):
        solver.advance(latents, latents)


def test_euler_remembers_nothing_that_a_crop_could_hurt() -> None:
    solver = Solver(euler(), 7, "cpu")
    latents = walked(solver, some_noise(), 2)
    assert walked(solver, latents[:, :, [0, 4]]).shape == (1, 2, 2, 3, 4)
    solver.forget()


@pytest.mark.parametrize("scheduler", [euler, unipc])
@pytest.mark.parametrize("before", [1, 2, 5, 7])
def test_the_clean_estimate_is_that_of_the_last_step(scheduler: Any, before: int) -> None:
    # x0 = x_{k-1} - sigma_{k-1} v_{k-1}, with the latents that the model was shown: UniPC corrects
    # them afterwards.
    solver = Solver(scheduler(), 7, "cpu")
    shown = walked(solver, some_noise(), before - 1)
    sigma, velocity = solver.sigma, swirl(shown, solver.sigma)
    latents = solver.advance(velocity, shown)

    torch.testing.assert_close(
        solver.clean(latents, velocity), shown - sigma * velocity, rtol=0, atol=1e-6
    )


def test_unipc_s_clean_estimate_is_its_own_and_not_euler_s() -> None:
    solver = Solver(unipc(), 7, "cpu")
    shown = walked(solver, some_noise(), 4)
    velocity = swirl(shown, solver.sigma)
    latents = solver.advance(velocity, shown)

    assert solver.clean(latents, velocity) is solver.scheduler.model_outputs[-1]
    assert not torch.allclose(
        latents - solver.sigma * velocity, solver.clean(latents, velocity), atol=1e-3
    )


def test_before_the_first_step_and_in_other_solvers_there_is_no_clean_estimate() -> None:
    from diffusers import DPMSolverMultistepScheduler

    noise = some_noise()
    with pytest.raises(ValueError, match="before its first step"):
        Solver(euler(), 7, "cpu").clean(noise, noise)
    other = Solver(
        DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True),
        7,
        "cpu",
    )
    latents = walked(other, noise, 2)
    with pytest.raises(ValueError, match="DPMSolverMultistepScheduler gives no estimate"):
        other.clean(latents, noise)
