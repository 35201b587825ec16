"""Which tokens count as dynamic, and how they are put into groups."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from vidplat.methods.hsa.score import Score, change, first_scored, partition
from vidplat.methods.protocol import Grid

GRID = Grid(3, 4, 4)  # 48 tokens


def scored(velocities: list[Tensor]) -> Tensor:
    """S of velocities (1, N, P) of successive steps."""
    score = Score()
    for before, now in pairwise(velocities):
        score.note(now, before)
    return score.values()


def test_the_change_of_a_token_is_relative_to_its_own_size() -> None:
    """|(3, 1) - (1, 1)| / |(3, 1)| = 2 / 4; a token ten times as large that changes tenfold scores
    the same."""
    before, now = (
        torch.tensor([[[1.0, 1.0], [10.0, 10.0]]]),
        torch.tensor([[[3.0, 1.0], [30.0, 10.0]]]),
    )
    torch.testing.assert_close(change(now, before), torch.tensor([0.5, 0.5]))


def test_the_score_is_the_mean_over_the_steps_that_were_noted() -> None:
    score = Score()
    assert not score.known
    for now, before in ((2.0, 1.0), (4.0, 1.0)):  # |2 - 1| / 2 and |4 - 1| / 4
        score.note(torch.tensor([[[now]]]), torch.tensor([[[before]]]))
    assert score.known
    torch.testing.assert_close(score.values(), torch.tensor([0.625]))


def test_a_constant_token_ranks_last_and_a_moving_square_first() -> None:
    """A square of 2 x 2 tokens moves one column per step over a still ground; one more token is
    exactly constant."""
    torch.manual_seed(0)
    ground = torch.randn(1, GRID.tokens, 8)
    velocities = []
    for step in range(3):
        v = ground + 0.01 * torch.randn_like(ground)
        cube = v.view(1, 3, 4, 4, 8)
        cube[:, :, 1:3, step : step + 2] = 5.0 + torch.randn(8)
        v[:, 0] = ground[:, 0]
        velocities.append(v)
    order = scored(velocities).argsort(descending=True)
    swept = {f * 16 + row * 4 + column for f in range(3) for row in (1, 2) for column in range(4)}
    assert set(order[: len(swept)].tolist()) == swept
    assert order[-1] == 0


def test_groups_do_not_depend_on_the_size_of_the_velocity() -> None:
    torch.manual_seed(1)
    velocities = [torch.randn(1, GRID.tokens, 8) for _ in range(3)]
    sizes = (5, 13, 30)
    groups = partition(scored(velocities), sizes)
    for factor in (1e-3, 0.25, 7.0):
        for group, same in zip(
            groups, partition(scored([factor * v for v in velocities]), sizes), strict=True
        ):
            assert torch.equal(group, same)


def test_every_token_is_in_one_group_and_ties_go_by_position() -> None:
    groups = partition(torch.tensor([1.0, 2.0, 1.0, 2.0, 1.0, 0.0]), (2, 2, 2))
    assert [group.tolist() for group in groups] == [[1, 3], [0, 2], [4, 5]]


@pytest.mark.parametrize(("warmup", "first"), [(2, 1), (3, 1), (4, 2), (8, 4)])
def test_the_first_steps_are_not_scored(warmup: int, first: int) -> None:
    assert first_scored(warmup) == first
