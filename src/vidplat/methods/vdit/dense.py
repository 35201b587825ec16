"""One dense attention by its device's fastest kernel; if asked, the log of its normalisation.

Legend: b batch (folded frames included), h heads, q queries, D head width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

_SCORE_BYTES = 4 * 2**20  # of the scores at one time, where attention is written as products
_ROWS = 256  # most query rows at one time, likewise


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Dense attention of (b, h, ., D) tensors by the fastest kernel of the device.

    In bfloat16 on a CPU that is two matrix products and a softmax: torch's kernel takes two to
    three times as long there, for half the rounding error (`benchmarks/sparse_attention.py`).
    """
    if query.device.type == "cpu" and query.dtype == torch.bfloat16 and mask is None:
        return _by_products(query, key, value, None, _softmax)[0]
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def attention_with_lse(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Dense attention (b, h, q, D), and the log-sum-exp of its scores, (b, h, q) float32.

    By a kernel of torch that gives both, else by matrix products. A row that may attend to nothing
    gives 0 and -inf.
    """
    kind, dtype = query.device.type, query.dtype
    if mask is None and kind == "cpu" and dtype == torch.float32:
        made, found = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value)
        return made, found
    if mask is None and kind == "cuda" and query.shape[-1] % 8 == 0:
        if dtype in (torch.float16, torch.bfloat16):
            made, found, *_ = torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)
        else:
            made, found, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(
                query, key, value, None, True
            )
        return made, found[..., : query.shape[2]]  # the second kernel pads its rows
    return _by_products(query, key, value, mask, _softmax_and_lse)


def _by_products(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    weigh: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
) -> tuple[Tensor, Tensor]:
    """softmax(Q K^T / sqrt(D)) V by matrix products, by rows whose scores fit in cache."""
    batch, heads, queries, width = query.shape
    keys, size = key.shape[2], query.element_size()
    rows = max(32, min(queries, _ROWS, _SCORE_BYTES // (keys * size)))
    group = max(1, _SCORE_BYTES // (rows * keys * size))
    q, k, v = (x.reshape(batch * heads, -1, width) for x in (query, key, value))
    if mask is not None:
        mask = mask.expand(batch, heads, -1, -1).reshape(batch * heads, -1, keys)
    made, found = [], []
    for first in range(0, batch * heads, group):
        some = slice(first, first + group)
        across, values = k[some].transpose(1, 2), v[some]
        parts = []
        for start in range(0, queries, rows):
            part = slice(start, start + rows)
            scores = (q[some, part] * width**-0.5) @ across
            if mask is not None:
                here = mask[some] if mask.shape[1] == 1 else mask[some, part]
                is_bool = here.dtype == torch.bool
                scores = scores.masked_fill(~here, -torch.inf) if is_bool else scores + here
            parts.append(weigh(scores, values))
        made.append(torch.cat([attended for attended, _ in parts], dim=1))
        found.append(torch.cat([lse for _, lse in parts], dim=1))
    return torch.cat(made).view(query.shape), torch.cat(found).view(batch, heads, -1)


def _softmax(scores: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    return torch.softmax(scores, dim=-1) @ values, scores[..., :0]


def _softmax_and_lse(scores: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    most = scores.amax(-1, keepdim=True).clamp(min=torch.finfo(scores.dtype).min)
    weights = (scores - most).exp_()
    total = weights.sum(-1, keepdim=True, dtype=torch.float32)
    attended = (weights @ values).float() / total.clamp(min=1e-30)
    return attended.to(values.dtype), (total.log() + most.float()).squeeze(-1)
