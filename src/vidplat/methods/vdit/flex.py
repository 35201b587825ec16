"""Tile-masked attention by torch's FlexAttention, compiled: meant for CUDA. On a CPU it needs a C++
compiler and has no gradients. Explicit masks, and queries of some rows only, take the gather path.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from vidplat.methods.vdit import tiles
from vidplat.methods.vdit.frame_by_frame import gather
from vidplat.methods.vdit.tiling import Counts, Mask, Tiling, frames_and_globals


def flex(
    q: Tensor, k: Tensor, v: Tensor, tiling: Tiling, counts: Counts = None, mask: Mask = None
) -> Tensor:
    """See the module's text."""
    if counts is not None or mask is not None:
        return gather(q, k, v, tiling, counts, mask)
    blocks = block_mask(tiling, str(q.device))
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    made: Tensor = _flex_attention()(q, k, v, block_mask=blocks)
    return made.transpose(1, 2)


@lru_cache(maxsize=1)
def _flex_attention() -> Callable[..., Any]:
    """Compiled: the function itself would write out all scores."""
    from torch.nn.attention.flex_attention import flex_attention

    made: Callable[..., Any] = torch.compile(flex_attention, dynamic=False)
    return made


@lru_cache(maxsize=8)
def block_mask(tiling: Tiling, device: str) -> Any:
    """torch's `BlockMask` of a tiling, from the frames that blocks touch, never K x K pairs."""
    from torch.nn.attention.flex_attention import BlockMask

    frame, is_global = frames_and_globals(tiling, device)
    size, tokens = tiles.BLOCK, tiling.tokens
    blocks = -(-tokens // size)
    last = torch.arange(1, blocks + 1, device=device).mul(size).clamp(max=tokens) - 1
    first = torch.arange(blocks, device=device) * size
    globals_until = functional.pad(is_global.cumsum(0), (1, 0))
    global_tokens = globals_until[last + 1] - globals_until[first]
    any_global, all_global = global_tokens > 0, global_tokens == last + 1 - first
    # Text has frame -1 and is global, so spans are only compared where both blocks are video alone.
    low, high = frame[first], frame[last]
    overlap = (low[:, None] <= high[None, :]) & (low[None, :] <= high[:, None])
    one = low == high
    same = one[:, None] & one[None, :] & (low[:, None] == low[None, :])
    touched = any_global[:, None] | any_global[None, :] | overlap
    whole = all_global[:, None] | all_global[None, :] | same
    if tokens % size:  # the last block is cut off, which only the element-wise mask can say
        whole[-1], whole[:, -1] = False, False

    def listed(chosen: Tensor) -> tuple[Tensor, Tensor]:
        order = torch.argsort(chosen.int(), dim=-1, descending=True, stable=True)
        return chosen.sum(-1, dtype=torch.int32)[None, None], order.int()[None, None]

    def kept(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        return (frame[q] == frame[kv]) | is_global[q] | is_global[kv]

    made: Any = BlockMask.from_kv_blocks(
        *listed(touched & ~whole),
        *listed(whole),
        BLOCK_SIZE=size,
        mask_mod=kept,
        seq_lengths=(tokens, tokens),
    )
    return made
