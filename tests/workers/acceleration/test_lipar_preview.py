"""LIPAR by preview, experimental: two estimates agree before a token is pruned, and its noise stays its own."""

from __future__ import annotations

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from tests.workers.acceleration.test_seams import traces
from tests.workers.acceleration.tiny import a_tiny_transformer, answer
from vidplat.methods import parse
from vidplat.workers.acceleration.lipar import Lipar
from vidplat.workers.acceleration.lipar_mask import MaskRule, repeated
from vidplat.workers.acceleration.lipar_preview import Preview
from vidplat.workers.acceleration.method import Grid, Run
from vidplat.workers.models.solver import Solver

GRID = Grid(5, 8, 8)


def a_clean_video() -> Tensor:
    """(1, 4, 5, 16, 16): the lower half is still but for little noise, the upper half is new in every frame."""
    torch.manual_seed(1)
    video = torch.randn(1, 4, 1, 16, 16).expand(1, 4, 5, 16, 16).clone()
    video[:, :, :, :8] = 3 * torch.randn(1, 4, 5, 8, 16)
    return video + 0.001 * torch.randn(1, 4, 5, 16, 16)


def test_a_token_is_pruned_after_two_estimates_that_found_it_still() -> None:
    told: list[Tensor] = []
    preview = Preview(MaskRule(), 3, GRID, lambda keep, clean: told.append(keep))
    clean, noise = a_clean_video(), torch.randn(1, 4, 5, 16, 16)
    preview.start(noise)
    sigmas = torch.linspace(1, 0, 9)

    for step in range(8):  # a perfect model: v = noise - clean
        x = (1 - sigmas[step]) * clean + sigmas[step] * noise
        preview.after_step(x, noise - clean, x, sigmas[step : step + 2])

    # Estimates after steps 3, 5 and 7; the first is only remembered.
    assert len(told) == 2
    assert told[0][0].all() and told[0][1:, :3].all()
    assert not told[0][1:, 7].any()
    assert not bool((told[1] & ~told[0]).any())  # pruned stays pruned


def test_a_pruned_token_gets_its_ancestors_content_and_its_own_noise() -> None:
    preview = Preview(MaskRule(), 1, GRID, lambda keep, clean: None)
    keep = torch.ones(5, 8, 8, dtype=torch.bool)
    keep[1:, 4:] = False
    preview._keep = keep
    clean, noise, moved = (torch.randn(1, 4, 5, 16, 16) for _ in range(3))
    preview.start(noise)

    made = preview.after_step(0.4 * clean + 0.6 * noise, noise - clean, moved, torch.tensor([0.6, 0.5]))

    assert torch.equal(made[:, :, :, :8], moved[:, :, :, :8])
    expected = 0.5 * repeated(clean, keep) + 0.5 * noise
    torch.testing.assert_close(made[:, :, 1:, 8:], expected[:, :, 1:, 8:])


@pytest.mark.parametrize("recovery", ["noise-aware", "noisy", "bias", "none"])
def test_a_video_from_text_alone_is_pruned_on_the_way_and_the_method_undone(recovery: str) -> None:
    twin = a_tiny_transformer("wan", frames=5, rows=4, columns=6)
    before = answer(twin)
    lipar = Lipar(parse(f"lipar:tau1=.3,tau2=.6,preview=2,recovery={recovery}")[0].values)
    solver = Solver(FlowMatchEulerDiscreteScheduler(shift=3.0), 8, "cpu")
    run = Run(solver, Grid(5, 4, 6), branches=1, guidance_scale=1.0)
    assert lipar.refusal(twin.model, run) == ""

    lipar.begin(run)
    x = lipar.started(twin.latents)
    shares = []
    with lipar.applied_to(twin.model), torch.inference_mode():
        while solver.remaining:
            x = solver.advance(answer(twin, step=solver.index, latents=x, time=float(solver.timestep)), x)
            shares.append(lipar.kept_share)

    # Estimates after steps 2 and 4: nothing is pruned before the second.
    assert shares[:3] == [1.0] * 3
    assert shares == sorted(shares, reverse=True) and shares[-1] < 1.0
    assert bool(x.isfinite().all())
    assert traces(twin.model) == []
    assert torch.equal(answer(twin), before)


def test_it_is_off_unless_asked_for() -> None:
    twin = a_tiny_transformer("wan")
    run = Run(Solver(FlowMatchEulerDiscreteScheduler(), 4, "cpu"), Grid(5, 4, 6), branches=1, guidance_scale=1.0)

    assert "made from text alone" in Lipar(parse("lipar")[0].values).refusal(twin.model, run)
