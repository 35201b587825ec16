"""Tile-masked attention as dense attention of one frame after the other, in two forms.

    gather   a local frame is one small dense attention over its own keys beside those of the
             references, the reference frames one over all keys. Exact, any device, differentiable.
             The copies of keys are made for a few frames at a time, in at most `EXTRA_BYTES`.
    lse      the same two sets of keys attended one after the other and merged by their log-sum-exp:
             no copies. No gradients, since torch's kernels give none through the log-sum-exp.

Source: Efficient-vDiT, arXiv 2502.06155; both forms are our choice, as are chunk sizes.

Legend: B batch, Q query tokens, K key tokens, h heads, D head width, F frames, P tokens per frame,
k references, T text tokens, G = kP + T global tokens, n frames folded into the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from vidplat.methods.vdit.dense import attention, attention_with_lse
from vidplat.methods.vdit.tiling import Counts, Mask, Tiling

#: Most bytes of copied keys and values: a CPU wants them in its caches, a GPU many rows at once.
EXTRA_BYTES = {"cpu": 8 * 2**20, "cuda": 256 * 2**20}


def gather(
    q: Tensor, k: Tensor, v: Tensor, tiling: Tiling, counts: Counts = None, mask: Mask = None
) -> Tensor:
    """See the module's text. A frame's attention does not depend on who shares its chunk."""
    local_keys = (tiling.k + 1) * tiling.per_frame + tiling.text
    batch, _, heads, width = q.shape
    frame_bytes = 2 * local_keys * batch * heads * width * q.element_size()
    fold = max(1, EXTRA_BYTES.get(q.device.type, EXTRA_BYTES["cpu"]) // frame_bytes)
    pieces = list(_pieces(tiling, counts, fold))
    learns = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))
    reused = 0 if learns or tiling.key_counts is not None else fold
    keys, values = (_KeySets(whole, tiling, reused) for whole in (k, v))

    def local(piece: _Piece) -> Tensor:
        folded, batch = _fold(q[:, piece.rows], piece.frames), q.shape[0]
        shared = tiling.global_columns()
        its_mask = _folded_mask(mask, piece, batch, lambda f: [tiling.columns(f), *shared])
        return _unfold(attention(folded, keys.of(piece), values.of(piece), its_mask), batch)

    return _in_order(q, k, v, pieces, mask, local)


class _KeySets:
    """Keys (or values) of local frames, each followed by the global ones: (B n, h, P + G, D).

    One buffer for `fold` frames serves all chunks, head by head, and the global part is written
    once. With 0 every set is a tensor of its own, as gradients and frames of unequal length need.
    """

    def __init__(self, whole: Tensor, tiling: Tiling, fold: int) -> None:
        self._whole, self._tiling = whole, tiling
        shared = torch.cat([whole[:, columns] for columns in tiling.global_columns()], dim=1)
        self._shared = shared.transpose(1, 2).unsqueeze(1)  # (B, 1, h, G, D)
        self._buffer: Tensor | None = None
        if fold:
            batch, _, heads, width = whole.shape
            edges = [*tiling.references, tiling.frames]
            longest = max(after - before - 1 for before, after in pairwise(edges))  # local frames
            most = min(fold, max(longest, 1))
            size = (batch, most, heads, tiling.per_frame + shared.shape[1], width)
            self._buffer = whole.new_empty(size)
            self._buffer[..., tiling.per_frame :, :] = self._shared

    def of(self, piece: _Piece) -> Tensor:
        own = self._whole[:, self._tiling.columns(piece.first, piece.frames)]
        batch, tokens, heads, width = own.shape
        own = own.view(batch, piece.frames, tokens // piece.frames, heads, width)
        own = own.transpose(2, 3)  # (B, n, h, P, D)
        if self._buffer is None:
            shared = self._shared.expand(-1, piece.frames, -1, -1, -1)
            return torch.cat([own, shared], dim=3).flatten(0, 1)
        filled = self._buffer[:, : piece.frames]
        filled[..., : own.shape[3], :] = own
        return filled.flatten(0, 1)  # a view for B = 1, and whenever the chunk fills the buffer


def lse(
    q: Tensor, k: Tensor, v: Tensor, tiling: Tiling, counts: Counts = None, mask: Mask = None
) -> Tensor:
    """See the module's text. o = w o_own + (1 - w) o_global with w = sigmoid(l_own - l_global)."""
    shared_key, shared_value = (
        torch.cat([whole[:, columns] for columns in tiling.global_columns()], dim=1).transpose(1, 2)
        for whole in (k, v)
    )
    batch = q.shape[0]

    def local(piece: _Piece) -> Tensor:
        columns = tiling.columns(piece.first, piece.frames)
        own_mask = _folded_mask(mask, piece, batch, lambda f: [tiling.columns(f)])
        shared_mask = mask if mask is None else _chosen(mask, piece.rows, tiling.global_columns())
        queries = q[:, piece.rows]
        own = queries, k[:, columns], v[:, columns]
        own_q, own_k, own_v = (_fold(x, piece.frames) for x in own)
        near, near_lse = attention_with_lse(own_q, own_k, own_v, own_mask)
        if not shared_key.shape[2]:  # no token of a reference frame has keys
            return _unfold(near, batch)
        far, far_lse = attention_with_lse(
            queries.transpose(1, 2), shared_key, shared_value, shared_mask
        )
        near, near_lse = _unfold(near, batch), _unfold(near_lse.unsqueeze(-1), batch)
        far, far_lse = far.transpose(1, 2), far_lse.transpose(1, 2).unsqueeze(-1)
        weight = torch.sigmoid(near_lse - far_lse)
        return torch.lerp(far.float(), near.float(), weight).to(q.dtype)

    return _in_order(q, k, v, list(_pieces(tiling, counts, tiling.frames)), mask, local)


# --- pieces of the queries ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Piece:
    """Consecutive queries of so many local `frames`; 0: they attend to all keys."""

    rows: slice
    first: int = 0
    frames: int = 0


def _pieces(tiling: Tiling, counts: Sequence[int] | None, fold: int) -> Iterator[_Piece]:
    """The queries in order: text and reference frames alone, local frames up to `fold` at a time.
    With `counts` frames have unequal numbers of queries and cannot share a chunk."""
    at = 0
    if tiling.text and tiling.text_first:
        yield _Piece(slice(0, at := tiling.text))
    reference = set(tiling.references)
    frame = 0
    while frame < tiling.frames:
        many = 1
        if frame not in reference and counts is None:
            while many < fold and frame + many < tiling.frames and frame + many not in reference:
                many += 1
        rows = many * tiling.per_frame if counts is None else counts[frame]
        if rows:
            yield _Piece(slice(at, at + rows), frame, 0 if frame in reference else many)
        at, frame = at + rows, frame + many
    if tiling.text and not tiling.text_first:
        yield _Piece(slice(at, at + tiling.text))


def _in_order(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pieces: Sequence[_Piece],
    mask: Tensor | None,
    local: Callable[[_Piece], Tensor],
) -> Tensor:
    """All pieces attended and put together: those that attend to everything in one go."""
    if not pieces:
        return torch.empty_like(query)
    dense = [piece for piece in pieces if not piece.frames]
    found: dict[int, Tensor] = {}
    if dense:
        rows = torch.cat([query[:, piece.rows] for piece in dense], dim=1)
        every = mask
        if mask is not None and mask.shape[-2] > 1:
            every = torch.cat([mask[..., piece.rows, :] for piece in dense], dim=-2)
        q, k, v = (x.transpose(1, 2) for x in (rows, key, value))
        made = attention(q, k, v, every).transpose(1, 2)
        parts = torch.split(made, [p.rows.stop - p.rows.start for p in dense], dim=1)
        found = {piece.rows.start: part for piece, part in zip(dense, parts, strict=True)}
    return torch.cat([local(p) if p.frames else found[p.rows.start] for p in pieces], dim=1)


def _fold(x: Tensor, frames: int) -> Tensor:
    """(B, n r, h, D) -> (B n, h, r, D)."""
    batch, tokens, heads, width = x.shape
    return x.view(batch, frames, tokens // frames, heads, width).flatten(0, 1).transpose(1, 2)


def _unfold(x: Tensor, batch: int) -> Tensor:
    """(B n, h, r, D) -> (B, n r, h, D)."""
    folded, heads, rows, width = x.shape
    return x.transpose(1, 2).reshape(batch, folded // batch * rows, heads, width)


def _folded_mask(
    mask: Tensor | None, piece: _Piece, batch: int, columns: Callable[[int], list[slice]]
) -> Tensor | None:
    """A stock mask of a piece's rows and each frame's `columns`: (B n, h or 1, rows or 1, keys)."""
    if mask is None:
        return None
    rows = (piece.rows.stop - piece.rows.start) // piece.frames
    per_frame = [
        _chosen(mask, slice(start, start + rows), columns(piece.first + i))
        for i, start in enumerate(range(piece.rows.start, piece.rows.stop, rows))
    ]
    stacked = torch.stack(per_frame, dim=1)
    return stacked.expand(batch, *stacked.shape[1:]).flatten(0, 1)


def _chosen(mask: Tensor, rows: slice, columns: Sequence[slice]) -> Tensor:
    """(B or 1, h or 1, rows or 1, chosen keys) of a mask of four axes."""
    cut = mask if mask.shape[-2] == 1 else mask[..., rows, :]
    return torch.cat([cut[..., part] for part in columns], dim=-1)
