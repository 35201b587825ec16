"""Training's attention is the library's attention, by other products."""

import pytest
import torch
from torch.nn import functional

from vidplat.training.attention import PlainAttention, plain_attention


def test_it_equals_the_library_s_attention_forward_and_backward() -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(2, 3, 17, 8, requires_grad=True) for _ in range(3)]
    found = []
    for attend in (functional.scaled_dot_product_attention, plain_attention):
        result = attend(*inputs)
        found.append((result, *torch.autograd.grad(result.square().sum(), inputs)))
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    "words", [{}, {"dropout_p": 0.0, "is_causal": False}, {"attn_mask": None, "scale": None}]
)
def test_inside_the_context_the_library_s_function_is_ours(
    words: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    q, k, v = torch.randn(3, 1, 2, 5, 4).unbind(0)
    monkeypatch.setattr(
        "vidplat.training.attention.plain_attention", lambda query, key, value: value * 2
    )
    with PlainAttention():
        assert torch.equal(functional.scaled_dot_product_attention(q, k, v, **words), v * 2)
    assert not torch.equal(functional.scaled_dot_product_attention(q, k, v), v * 2)


@pytest.mark.parametrize("words", [{"is_causal": True}, {"scale": 0.1}])
def test_what_it_does_not_know_stays_with_the_library(words: dict[str, object]) -> None:
    q, k, v = torch.randn(3, 1, 2, 5, 4).unbind(0)
    expected = functional.scaled_dot_product_attention(q, k, v, **words)
    with PlainAttention():
        assert torch.equal(functional.scaled_dot_product_attention(q, k, v, **words), expected)
