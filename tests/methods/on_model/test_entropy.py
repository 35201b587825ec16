"""Entropies of frames: known attention gives known values, and exact rows equal the matrix
itself.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vidplat.methods.eco import entropy as frame_entropy
from vidplat.methods.eco.entropy import exact_rows
from vidplat.methods.protocol import Grid

GRID = Grid(frames=5, rows=4, columns=6)  # 24 tokens per frame
HEADS, WIDTH = 6, 8


def some(seed: int, batch: int = 1, size: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return size * torch.randn(batch, GRID.tokens, HEADS, WIDTH, generator=generator)


def matrix(query: Tensor, key: Tensor) -> Tensor:
    """The whole attention matrix (B, H, n, n) in float64."""
    q, k = query.double().transpose(1, 2), key.double().transpose(1, 2)
    return (q @ k.transpose(2, 3) / math.sqrt(WIDTH)).softmax(-1)


def entropies(weights: Tensor) -> Tensor:
    return -(weights * weights.log()).sum(-1)


def test_even_attention_over_tokens_has_the_entropy_of_theirs() -> None:
    found = exact_rows(torch.zeros_like(some(0)), some(1), GRID)
    assert found.tolist() == pytest.approx([math.log(120)] * 5)


def test_attention_to_one_token_has_none() -> None:
    key = torch.zeros(1, GRID.tokens, HEADS, WIDTH)
    key[:, 17, :, 0] = 100.0
    query = torch.zeros_like(key)
    query[..., 0] = 100.0
    assert exact_rows(query, key, GRID).tolist() == pytest.approx([0.0] * 5, abs=1e-6)


def test_exact_rows_of_all_tokens_and_heads_are_those_of_the_matrix() -> None:
    query, key = some(2, batch=2), some(3, batch=2)
    expected = entropies(matrix(query, key)).mean((0, 1)).unflatten(0, (5, 24)).mean(1)
    found = exact_rows(query, key, GRID, heads=HEADS, rows=GRID.per_frame)
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-5)


def test_by_default_four_heads_and_sixteen_tokens_of_each_frame_are_looked_at_evenly() -> None:
    query, key = some(4), some(5)
    heads, tokens = [0, 2, 3, 5], [round(i * 23 / 15) for i in range(16)]
    whole = entropies(matrix(query, key))[0].unflatten(1, (5, 24))
    assert exact_rows(query, key, GRID).tolist() == pytest.approx(
        whole[heads][:, :, tokens].mean((0, 2)).tolist(), abs=1e-5
    )


def test_tokens_in_one_column_are_not_looked_at_alone() -> None:
    # 64 tokens in rows of 8: every fourth token would be columns 0 and 4 for ever.
    assert len({place % 8 for place in frame_entropy._spread(64, 16)}) > 4


def test_fewer_heads_and_tokens_than_looked_at_are_all_taken() -> None:
    grid = Grid(5, 2, 3)
    query, key = some(6)[:, :30, :2], some(7)[:, :30, :2]
    assert torch.equal(exact_rows(query, key, grid), exact_rows(query, key, grid, heads=2, rows=6))


def test_the_order_of_tokens_inside_a_frame_does_not_matter() -> None:
    query, key = some(12), some(13)
    generator = torch.Generator().manual_seed(14)
    order = torch.cat([frame * 24 + torch.randperm(24, generator=generator) for frame in range(5)])
    found, shuffled = (
        exact_rows(q, k, GRID, rows=GRID.per_frame)
        for q, k in ((query, key), (query[:, order], key[:, order]))
    )
    assert torch.allclose(shuffled, found, atol=1e-5)


def test_every_value_lies_within_its_bounds() -> None:
    found = exact_rows(some(15, size=5.0), some(16, size=5.0), GRID)
    assert found.shape == (5,)
    assert ((found >= 0) & (found <= math.log(120) + 1e-5)).all()


def test_16_bit_queries_and_keys_are_reckoned_with_in_32() -> None:
    query, key = some(17).bfloat16(), some(18).bfloat16()
    found = exact_rows(query, key, GRID)
    assert found.dtype == torch.float32
    assert torch.equal(found, exact_rows(query.float(), key.float(), GRID))


def test_pieces_do_not_change_what_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = exact_rows(some(19), some(20), GRID)
    monkeypatch.setattr(frame_entropy, "_CHUNK", 7)
    assert torch.allclose(exact_rows(some(19), some(20), GRID), whole, atol=1e-6)
