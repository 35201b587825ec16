"""Which tokens count as dynamic, and how they are put into groups."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from vidplat.methods.hsa.score import FreshSelector, Score, change, first_scored, partition
from vidplat.methods.protocol import Grid

GRID = Grid(3, 4, 4)  # 48 tokens


def scored(velocities: list[Tensor], kind: str = "cond", smooth: int = 0) -> Tensor:
    """S of velocities (1, N, P) of successive steps, one branch."""
    score = Score(kind, 6.0, 1, in_batch=False)
    for before, now in pairwise(velocities):
        score.note("cond", now, before)
    return score.values(GRID, smooth)


def test_the_change_of_a_token_is_relative_to_its_own_size() -> None:
    """|(3, 1) - (1, 1)| / |(3, 1)| = 2 / 4; a token ten times as large that changes tenfold scores
    the same."""
    before, now = (
        torch.tensor([[[1.0, 1.0], [10.0, 10.0]]]),
        torch.tensor([[[3.0, 1.0], [30.0, 10.0]]]),
    )
    torch.testing.assert_close(change(now, before), torch.tensor([0.5, 0.5]))


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


def test_the_guided_score_sees_the_velocity_as_guidance_combines_it() -> None:
    """u + 3 (c - u): with c still and u going from 0 to 1, guided goes from 3 c to 3 c - 2; c = 1
    gives |1 - 3| / 1."""
    score = Score("guided", 3.0, 2, in_batch=False)
    one, zero = torch.ones(1, 1, 1), torch.zeros(1, 1, 1)
    score.note("cond", one, one)
    assert not score.known
    score.note("uncond", one, zero)
    torch.testing.assert_close(score.values(Grid(1, 1, 1)), torch.tensor([2.0]), rtol=1e-5, atol=0)


@pytest.mark.parametrize(("kind", "expected"), [("cond", 0.5), ("guided", 0.8)])
def test_with_both_branches_in_a_batch_the_second_half_has_the_text(
    kind: str, expected: float
) -> None:
    """c goes from 1 to 2: |2 - 1| / 2. u stays 1, so guided goes from 1 to 1 + 4 (2 - 1) = 5: |5 -
    1| / 5."""
    score = Score(kind, 4.0, 2, in_batch=True)
    score.note("cond_uncond", torch.tensor([1.0, 2.0]).view(2, 1, 1), torch.ones(2, 1, 1))
    torch.testing.assert_close(
        score.values(Grid(1, 1, 1)), torch.tensor([expected]), rtol=1e-5, atol=0
    )


def test_a_random_order_is_the_same_every_time_and_none_of_the_video_s() -> None:
    torch.manual_seed(2)
    drawn = [scored([torch.randn(1, GRID.tokens, 4) for _ in range(2)], "random") for _ in range(2)]
    assert torch.equal(drawn[0], drawn[1])
    assert len(drawn[0].unique()) == GRID.tokens


def test_smoothing_is_the_mean_of_the_neighbours_that_exist() -> None:
    """One token of score 1 in a corner: the corner's 2 x 2 x 2 neighbourhood has 8 tokens."""
    still = torch.ones(1, GRID.tokens, 1)
    moved = still.clone()
    moved[:, 0] = 2.0  # |2 - 1| / 2
    assert scored([still, moved])[0] == pytest.approx(0.5)
    smooth = scored([still, moved], smooth=1)
    assert smooth[0] == pytest.approx(0.5 / 8)
    assert smooth[-1] == 0


@pytest.mark.parametrize(("warmup", "first"), [(2, 1), (3, 1), (4, 2), (8, 4)])
def test_the_first_steps_are_not_scored(warmup: int, first: int) -> None:
    assert first_scored(warmup) == first


def test_a_token_that_waits_is_chosen_in_the_end() -> None:
    """Deviations 2 and 1, one place: the second is chosen once e^(0.1 n) > 2, at n = 7, the eighth
    step."""
    answer = torch.tensor([[[2.0, -2.0], [1.0, -1.0]]])
    selector = FreshSelector(2, 0.5, torch.device("cpu"))
    assert [selector.rows(answer).item() for _ in range(9)] == [0] * 7 + [1, 0]
    selector.reset()
    assert [selector.rows(answer).item() for _ in range(8)] == [0] * 7 + [1]


def test_a_selector_takes_the_share_it_is_given_sorted() -> None:
    torch.manual_seed(3)
    rows = FreshSelector(48, 0.25, torch.device("cpu")).rows(torch.randn(1, 48, 8))
    assert len(rows) == 12
    assert torch.equal(rows, rows.unique())
