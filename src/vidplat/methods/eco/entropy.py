"""How widely a latent frame looks around: the entropy of its attention in one layer.

EcoVideo (arXiv 2606.30557) keeps the frames with the largest ones. Here it is taken of exact rows
of the attention matrix, which is what the paper's words describe and its CogVideoX program does: 16
query tokens of each frame in 4 heads, against all video keys. It lies in [0, ln n]. All is float32,
since logarithms of 16-bit softmaxes tell nothing. Entropies are exact, where the released programs
clamp probabilities at 1e-8: a difference below 4e-6 for 21 frames.

Legend: B batch, n = F P video tokens, frame-major, P tokens per frame, H heads, e head width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vidplat.methods.protocol import Grid

HEADS, ROWS = 4, 16  # that are looked at, of a layer and of a frame
_CHUNK = 32  # query tokens at a time: 4 heads of them against 32,760 keys are 17 MB


def exact_rows(
    query: Tensor, key: Tensor, grid: Grid, *, heads: int = HEADS, rows: int = ROWS
) -> Tensor:
    """Entropies (F,) of rotated q and k (B, n, H, e): mean over B, `heads` evenly spaced heads, and
    `rows` evenly spaced tokens of each frame; all of them where there are fewer."""
    chosen = _spread(query.shape[2], heads)
    places = [
        frame * grid.per_frame + place
        for frame in range(grid.frames)
        for place in _spread(grid.per_frame, rows)
    ]
    keys = key[:, :, chosen].float().permute(0, 2, 3, 1)  # (B, h, e, n)
    queries = query[:, places][:, :, chosen].float().transpose(1, 2) / math.sqrt(query.shape[-1])
    parts = [queries[:, :, start : start + _CHUNK] for start in range(0, len(places), _CHUNK)]
    logs = ((part @ keys).log_softmax(-1) for part in parts)
    found = torch.cat([-(log.exp() * log).sum(-1) for log in logs], dim=2)  # (B, h, F rows), nats
    return found.mean((0, 1)).reshape(grid.frames, -1).mean(1)


def _spread(of: int, count: int) -> list[int]:
    """`count` of `of` places from the first to the last, evenly; all where there are no more. Not
    every `of / count`th place: in a frame whose row is a multiple of that the same columns would be
    looked at again and again."""
    if count >= of:
        return list(range(of))
    return [0] if count == 1 else [round(i * (of - 1) / (count - 1)) for i in range(count)]
