"""Masks that LIPAR's is measured against, each of as many tokens. Masks are (frames, rows, columns)
bool, True where a token is computed."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def with_first_block(keep: Tensor, block: int = 3) -> Tensor:
    """The mask as a stream uses it: the first block whole."""
    whole = keep.clone()
    whole[:block] = True
    return whole


def random_mask(keep: Tensor, generator: torch.Generator) -> Tensor:
    """As many tokens per frame as `keep` has, anywhere."""
    return _highest(torch.rand(keep.shape, generator=generator), keep)


def pixel_mask(video: np.ndarray, keep: Tensor) -> Tensor:
    """As many tokens per frame as `keep` has, where the pixels of a token changed most."""
    frames, rows, columns = keep.shape
    change = np.abs(np.diff(video.astype(np.float32), axis=0)).mean(-1)
    cells = change.reshape(len(change), rows, video.shape[1] // rows, columns, -1).mean((2, 4))
    groups = torch.from_numpy(cells.reshape(frames - 1, 4, rows, columns).max(1))
    return _highest(torch.cat([torch.full((1, rows, columns), torch.inf), groups]), keep)


def skipped_frames(keep: Tensor, block: int = 3) -> Tensor:
    """Whole frames dropped, evenly from the end of each block on, about as many tokens as `keep`
    drops."""
    drop = round(float((~with_first_block(keep)).flatten(1).float().mean(1).sum()))
    turns = range(1, block + 1)
    later = [frame for turn in turns for frame in range(2 * block - turn, len(keep), block)]
    mask = torch.ones_like(keep)
    mask[later[:drop]] = False
    return mask


def _highest(score: Tensor, keep: Tensor) -> Tensor:
    """The tokens of each frame with the highest scores, as many as `keep` has there."""
    order = score.flatten(1).argsort(1, descending=True).argsort(1)
    return (order < keep.flatten(1).sum(1, keepdim=True)).view(keep.shape)
