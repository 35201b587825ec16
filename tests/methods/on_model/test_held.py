"""What skipped tokens answer and where they move: the cached Euler update, and its twin for
v-prediction.
"""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from diffusers import CogVideoXDDIMScheduler
from torch import Tensor

from vidplat.methods.hsa.held import HeldPrediction, HeldVelocity, Level
from vidplat.methods.hsa.schedule import Schedule

WIDE = torch.float64


def level(sigma: float) -> Level:
    return Level(1 - sigma, sigma)


def test_rows_replace_what_was_kept_and_the_old_answer_is_not_written_to() -> None:
    held = HeldVelocity()
    held.take(level(1.0), None, torch.zeros(1, 4, 2))
    before = held.given(level(1.0))
    held.take(level(0.9), torch.tensor([1, 3]), torch.ones(1, 2, 2))
    assert held.given(level(0.9))[0, :, 0].tolist() == [0, 1, 0, 1]
    assert before.sum() == 0


def test_answers_are_kept_in_float32() -> None:
    held = HeldVelocity()
    held.take(level(1.0), None, torch.ones(1, 2, 2, dtype=torch.bfloat16))
    assert held.given(level(0.5)).dtype == torch.float32


def test_many_steps_with_the_velocity_kept_equal_one_jump() -> None:
    """Of twelve tokens 0..5 run at every second step of eight, the others never again after the
    first: they end where x_a + (sigma_end - sigma_a) v_a puts them."""
    torch.manual_seed(0)
    sigmas = (torch.linspace(1, 0, 9, dtype=WIDE) ** 1.5).tolist()
    stepped = start = torch.randn(1, 12, 1, dtype=WIDE)
    held, first = HeldVelocity(), torch.randn(1, 12, 1, dtype=WIDE)
    held.take(level(sigmas[0]), None, first)
    for i in range(8):
        if i % 2 == 0 and i:
            fresh = torch.randn(1, 6, 1, dtype=WIDE)
            held.take(level(sigmas[i]), torch.arange(6), fresh)
        stepped = stepped + (sigmas[i + 1] - sigmas[i]) * held.given(level(sigmas[i]))
    jumped = start + (sigmas[8] - sigmas[0]) * first
    assert (stepped - jumped)[:, 6:].abs().max() < 1e-12
    assert (stepped - jumped)[:, :6].abs().max() > 0.01


# --- v-prediction -------------------------------------------------------------------------------


def turned(angle: float) -> Level:
    return Level(math.cos(angle), math.sin(angle))


def test_a_kept_prediction_answers_the_v_of_the_same_x0_and_eps() -> None:
    torch.manual_seed(1)
    x0, eps = torch.randn(1, 6, 4, dtype=WIDE), torch.randn(1, 6, 4, dtype=WIDE)
    first, then = turned(1.4), turned(0.3)
    held = HeldPrediction()
    held.take(
        first, None, first.alpha * eps - first.sigma * x0, first.alpha * x0 + first.sigma * eps
    )
    assert (held.given(then) - (then.alpha * eps - then.sigma * x0)).abs().max() < 1e-12


def test_v_prediction_telescopes_under_the_real_ddim_scheduler() -> None:
    """Steps 12..15 of 20 with what was predicted at step 12 kept: DDIM ends where one jump from
    there ends, x_b = alpha_b x0 + sigma_b eps. Holding v itself instead misses by percents."""
    scheduler = CogVideoXDDIMScheduler(prediction_type="v_prediction", timestep_spacing="trailing")
    scheduler.set_timesteps(20)

    def at(index: int) -> Level:
        kept = float(scheduler.alphas_cumprod[int(scheduler.timesteps[index])])
        return Level(kept**0.5, (1 - kept) ** 0.5)

    torch.manual_seed(2)
    x, v = torch.randn(1, 3, 4, dtype=WIDE), torch.randn(1, 3, 4, dtype=WIDE)
    held = HeldPrediction()
    held.take(at(12), None, v, x)
    x0, eps = at(12).alpha * x - at(12).sigma * v, at(12).sigma * x + at(12).alpha * v
    walked, frozen = x, x
    for index in range(12, 16):
        walked = scheduler.step(held.given(at(index)), scheduler.timesteps[index], walked)[0]
        frozen = scheduler.step(v, scheduler.timesteps[index], frozen)[0]
    jumped = at(16).alpha * x0 + at(16).sigma * eps
    assert (walked - jumped).abs().max() < 1e-6  # the scheduler's own coefficients are float32
    assert (frozen - jumped).norm() / jumped.norm() > 0.01


def test_the_jump_of_v_prediction_is_exact_in_exact_coefficients() -> None:
    """DDIM written out: x0 = alpha x - sigma v, eps = sigma x + alpha v, x' = alpha' x0 + sigma'
    eps; fp64, 1e-12."""
    torch.manual_seed(3)
    levels = [turned(1.5 - 0.18 * index) for index in range(9)]
    x, v = torch.randn(2, 5, dtype=WIDE)[:, None], torch.randn(2, 5, dtype=WIDE)[:, None]
    held = HeldPrediction()
    held.take(levels[0], None, v, x)
    x0, eps = levels[0].alpha * x - levels[0].sigma * v, levels[0].sigma * x + levels[0].alpha * v
    for now, then in pairwise(levels):
        u = held.given(now)
        x = then.alpha * (now.alpha * x - now.sigma * u) + then.sigma * (
            now.sigma * x + now.alpha * u
        )
    assert (x - (levels[-1].alpha * x0 + levels[-1].sigma * eps)).abs().max() < 1e-12


# --- convergence --------------------------------------------------------------------------------

DECAY = torch.tensor(
    [0.0, 1.0, 2.0, 3.0], dtype=WIDE
)  # one lambda per token; the first has a constant velocity


def solved(steps: int, strides: tuple[int, int]) -> Tensor:
    """x(0) from x(1) = 1 of v = -lambda (x - sigma) and, for token 0, v = 2; tokens 0 and 1 are the
    coarse group."""
    schedule = Schedule(steps, 0, 0, strides, (0.5, 0.5))
    groups = (torch.tensor([2, 3]), torch.tensor([0, 1]))
    sigmas = torch.linspace(1, 0, steps + 1, dtype=WIDE)
    x, held = torch.ones(1, 4, 1, dtype=WIDE), HeldVelocity()
    for i in range(steps):
        on = schedule.active(i)
        rows = (
            torch.cat([group for group, runs in zip(groups, on, strict=True) if runs]).sort().values
        )
        v = -DECAY[None, :, None] * (x - sigmas[i])
        v[:, 0] = 2.0
        place = level(float(sigmas[i]))
        held.take(place, None if len(rows) == 4 else rows, v if len(rows) == 4 else v[:, rows])
        x = x + (sigmas[i + 1] - sigmas[i]) * held.given(place)
    return x.flatten()


def test_the_error_is_of_first_order_in_the_stride_and_zero_for_static_tokens() -> None:
    """x(0) = (e^lambda - 1) / lambda. Halving the coarse stride halves the coarse token's error; a
    token of constant velocity ends at 1 + 2 (0 - 1) = -1 for any stride. Along the path |dv/dsigma|
    = e^(1 - sigma) <= e for lambda = 1, so the error is at most M / 2 * H * (e - 1) with M = e and
    H = stride / 256."""
    errors = {}
    for stride in (32, 16, 8, 4):
        end = solved(256, (1, stride))
        assert abs(float(end[0]) + 1) < 1e-12
        errors[stride] = abs(float(end[1]) - (math.e - 1))
        assert 0 < errors[stride] <= math.e / 2 * stride / 256 * (math.e - 1)
    for stride in (32, 16, 8):
        assert errors[stride] / errors[stride // 2] == pytest.approx(2, rel=0.15)
