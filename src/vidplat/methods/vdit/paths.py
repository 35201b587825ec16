"""Three ways to compute attention under a tile mask (`vidplat.methods.vdit.tiles`) without
computing what it leaves out.

    gather   a local frame is one small dense attention over its own keys beside those of the
             references, the reference frames one over all keys. Exact, any device, differentiable.
             The copies of keys are made for a few frames at a time, in at most `EXTRA_BYTES`.
    lse      the same two sets of keys attended one after the other and merged by their log-sum-exp:
             no copies. No gradients, since torch's kernels give none through the log-sum-exp.
    flex     FlexAttention with a block mask, compiled: meant for CUDA. On a CPU it needs a C++
             compiler and has no gradients. Explicit masks, and calls where only some rows are
             queries, take the gather path instead.

All take queries of some or all video rows, text tokens that attend and are attended by everything,
and a stock mask on top. `fault` compares a path with masked attention on a tiny shape, so that a
machine it fails on is told at once.

Source: Efficient-vDiT, arXiv 2502.06155; the gather and lse forms are our choice, as are chunk
sizes and kernels.

Legend: B batch, Q query tokens, K key tokens, h heads, D head width, F frames, P tokens per frame,
k references, T text tokens, G = kP + T global tokens, n frames folded into the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from vidplat.methods.seams.attention import masked_attention
from vidplat.methods.vdit import tiles

#: Most bytes of copied keys and values. A CPU does best when they stay in its caches; a GPU needs
#: many rows at once.
EXTRA_BYTES = {"cpu": 8 * 2**20, "cuda": 256 * 2**20}
_SCORE_BYTES = 4 * 2**20  # of the scores at one time, where attention is written as products
_ROWS = 256  # most query rows at one time, likewise


@dataclass(frozen=True)
class Tiling:
    """A tile mask laid over one sequence of video tokens, F P or those that `key_counts` says, and
    T text tokens."""

    frames: int
    per_frame: int
    k: int
    text: int = 0
    text_first: bool = False
    key_counts: tuple[int, ...] | None = (
        None  # keys of each frame, where not all tokens have some; None: P of each
    )

    @property
    def references(self) -> tuple[int, ...]:
        return tiles.references(self.frames, self.k)

    @property
    def tokens(self) -> int:
        return self._video_before(self.frames) + self.text

    @property
    def video_at(self) -> int:
        """Where the video tokens begin."""
        return self.text if self.text_first else 0

    def columns(self, frame: int, frames: int = 1) -> slice:
        """The keys of consecutive frames."""
        return slice(
            self.video_at + self._video_before(frame),
            self.video_at + self._video_before(frame + frames),
        )

    def global_columns(self) -> list[slice]:
        """The keys that everything attends to: the text's, then those of the references."""
        end = self._video_before(self.frames)
        text = slice(0, self.text) if self.text_first else slice(end, end + self.text)
        return ([text] if self.text else []) + [self.columns(frame) for frame in self.references]

    def _video_before(self, frame: int) -> int:
        """Video keys of the frames before this one."""
        return frame * self.per_frame if self.key_counts is None else sum(self.key_counts[:frame])


class Path(Protocol):
    """q (B, Q, h, D), k and v (B, K, h, D) -> (B, Q, h, D).

    `counts` has the queries of each frame when only some video rows are queries (text rows always
    are); else None. It is given whenever the tiling has `key_counts`. `mask` is broadcastable to
    (B, h, Q, K) and comes on top of the tiles.
    """

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        tiling: Tiling,
        counts: Sequence[int] | None = None,
        mask: Tensor | None = None,
    ) -> Tensor: ...


def tile_mask(tiling: Tiling, device: Any = None) -> Tensor:
    """The mask itself, (K, K) bool: what every path must equal. For checks, since it costs what it
    should save."""
    frame, is_global = _frames_and_globals(tiling, device)
    return (frame[:, None] == frame[None, :]) | is_global[:, None] | is_global[None, :]


# --- gather ---------------------------------------------------------------------------------------


def gather(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    tiling: Tiling,
    counts: Sequence[int] | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """See the module's text. A frame's attention does not depend on how many frames share a
    chunk."""
    local_keys = (tiling.k + 1) * tiling.per_frame + tiling.text
    frame_bytes = (
        2 * local_keys * query.shape[0] * query.shape[2] * query.shape[3] * query.element_size()
    )
    fold = max(1, EXTRA_BYTES.get(query.device.type, EXTRA_BYTES["cpu"]) // frame_bytes)
    pieces = list(_pieces(tiling, counts, fold))
    learns = torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value))
    reused = 0 if learns or tiling.key_counts is not None else fold
    keys, values = (_KeySets(whole, tiling, reused) for whole in (key, value))

    def local(piece: _Piece) -> Tensor:
        folded = _fold(query[:, piece.rows], piece.frames)
        made = attention(
            folded,
            keys.of(piece),
            values.of(piece),
            _local_mask(mask, tiling, piece, query.shape[0]),
        )
        return _unfold(made, query.shape[0])

    return _in_order(query, key, value, pieces, mask, local)


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
            most = min(fold, max(_run_lengths(tiling), default=1))
            size = (batch, most, heads, tiling.per_frame + shared.shape[1], width)
            self._buffer = whole.new_empty(size)
            self._buffer[..., tiling.per_frame :, :] = self._shared

    def of(self, piece: _Piece) -> Tensor:
        own = self._whole[:, self._tiling.columns(piece.first, piece.frames)]
        batch, tokens, heads, width = own.shape
        own = own.view(batch, piece.frames, tokens // piece.frames, heads, width).transpose(
            2, 3
        )  # (B, n, h, P, D)
        if self._buffer is None:
            shared = self._shared.expand(-1, piece.frames, -1, -1, -1)
            return torch.cat([own, shared], dim=3).flatten(0, 1)
        filled = self._buffer[:, : piece.frames]
        filled[..., : own.shape[3], :] = own
        return filled.flatten(0, 1)  # a view for B = 1, and whenever the chunk fills the buffer


# --- lse ------------------------------------------------------------------------------------------


def lse(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    tiling: Tiling,
    counts: Sequence[int] | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """See the module's text. o = w o_own + (1 - w) o_global with w = exp(l_own) / (exp(l_own) +
    exp(l_global))."""
    shared_key, shared_value = (
        torch.cat([whole[:, columns] for columns in tiling.global_columns()], dim=1).transpose(1, 2)
        for whole in (key, value)
    )
    batch = query.shape[0]

    def local(piece: _Piece) -> Tensor:
        columns = tiling.columns(piece.first, piece.frames)
        own_mask = _folded_mask(mask, piece, batch, lambda f: [tiling.columns(f)])
        shared_mask = _chosen(mask, piece.rows, tiling.global_columns())
        queries = query[:, piece.rows]
        near, near_lse = attention_with_lse(
            _fold(queries, piece.frames), _fold(key[:, columns], piece.frames), _fold(value[:,
            columns], piece.frames),
            own_mask,
        )  # fmt: skip
        if not shared_key.shape[2]:  # no token of a reference frame has keys
            return _unfold(near, batch)
        far, far_lse = attention_with_lse(
            queries.transpose(1, 2), shared_key, shared_value, shared_mask
        )
        weight = torch.sigmoid(
            _unfold(near_lse.unsqueeze(-1), batch) - far_lse.transpose(1, 2).unsqueeze(-1)
        )
        return torch.lerp(far.transpose(1, 2).float(), _unfold(near, batch).float(), weight).to(
            query.dtype
        )

    return _in_order(query, key, value, list(_pieces(tiling, counts, tiling.frames)), mask, local)


# --- flex -----------------------------------------------------------------------------------------


def flex(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    tiling: Tiling,
    counts: Sequence[int] | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """See the module's text."""
    if counts is not None or mask is not None:
        return gather(query, key, value, tiling, counts, mask)
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    made: Tensor = _flex_attention()(q, k, v, block_mask=block_mask(tiling, str(query.device)))
    return made.transpose(1, 2)


@lru_cache(maxsize=1)
def _flex_attention() -> Callable[..., Any]:
    """Compiled: the function itself would write out all scores."""
    from torch.nn.attention.flex_attention import flex_attention

    made: Callable[..., Any] = torch.compile(flex_attention, dynamic=False)
    return made


@lru_cache(maxsize=8)
def block_mask(tiling: Tiling, device: str) -> Any:
    """torch's `BlockMask` of a tiling, made from the frames that each block touches, never from K x
    K pairs."""
    from torch.nn.attention.flex_attention import BlockMask

    frame, is_global = _frames_and_globals(tiling, device)
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


# --- one dense attention --------------------------------------------------------------------------


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
    """Dense attention (b, h, q, D), and the log of the sum of exponentials of its scores, (b, h, q)
    float32.

    By torch's kernels where one gives both, else by matrix products. A row that may attend to
    nothing gives 0 and -inf.
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
    """softmax(Q K^T / sqrt(D)) V by matrix products, as many heads and rows at a time as keep the
    scores in cache."""
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
                scores = (
                    scores.masked_fill(~here, -torch.inf)
                    if here.dtype == torch.bool
                    else scores + here
                )
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


# --- pieces of the queries ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Piece:
    """Consecutive queries. With `frames` 0 they attend to all keys; else they are the queries of so
    many frames."""

    rows: slice
    first: int = 0
    frames: int = 0


def _pieces(tiling: Tiling, counts: Sequence[int] | None, fold: int) -> Iterator[_Piece]:
    """The queries in order: text and reference frames by themselves, local frames in chunks of at
    most `fold`.

    With `counts` frames have unequal numbers of queries and cannot share a chunk.
    """
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


def _run_lengths(tiling: Tiling) -> list[int]:
    """Numbers of consecutive local frames."""
    edges = [*tiling.references, tiling.frames]
    return [after - before - 1 for before, after in pairwise(edges) if after - before > 1]


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
        every = None
        if mask is not None:
            every = (
                mask
                if mask.shape[-2] == 1
                else torch.cat([mask[..., p.rows, :] for p in dense], dim=-2)
            )
        made = attention(
            rows.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), every
        ).transpose(1, 2)
        sizes = [piece.rows.stop - piece.rows.start for piece in dense]
        found = {
            piece.rows.start: part
            for piece, part in zip(dense, torch.split(made, sizes, dim=1), strict=True)
        }
    return torch.cat([local(p) if p.frames else found[p.rows.start] for p in pieces], dim=1)


def _fold(x: Tensor, frames: int) -> Tensor:
    """(B, n r, h, D) -> (B n, h, r, D)."""
    batch, tokens, heads, width = x.shape
    return x.view(batch, frames, tokens // frames, heads, width).flatten(0, 1).transpose(1, 2)


def _unfold(x: Tensor, batch: int) -> Tensor:
    """(B n, h, r, D) -> (B, n r, h, D)."""
    folded, heads, rows, width = x.shape
    return x.transpose(1, 2).reshape(batch, folded // batch * rows, heads, width)


def _local_mask(mask: Tensor | None, tiling: Tiling, piece: _Piece, batch: int) -> Tensor | None:
    return _folded_mask(
        mask, piece, batch, lambda frame: [tiling.columns(frame), *tiling.global_columns()]
    )


def _folded_mask(
    mask: Tensor | None, piece: _Piece, batch: int, columns: Callable[[int], list[slice]]
) -> Tensor | None:
    """A stock mask cut to a piece's rows and each frame's `columns`: (B n, h or 1, rows or 1,
    keys)."""
    if mask is None:
        return None
    rows = (piece.rows.stop - piece.rows.start) // piece.frames
    per_frame = [
        _chosen(mask, slice(start, start + rows), columns(piece.first + i))
        for i, start in enumerate(range(piece.rows.start, piece.rows.stop, rows))
    ]
    stacked = torch.stack([part for part in per_frame if part is not None], dim=1)
    return stacked.expand(batch, *stacked.shape[1:]).flatten(0, 1)


def _chosen(mask: Tensor | None, rows: slice, columns: Sequence[slice]) -> Tensor | None:
    """(B or 1, h or 1, rows or 1, chosen keys) of a mask of four axes."""
    if mask is None:
        return None
    cut = mask if mask.shape[-2] == 1 else mask[..., rows, :]
    return torch.cat([cut[..., part] for part in columns], dim=-1)


def _frames_and_globals(tiling: Tiling, device: Any) -> tuple[Tensor, Tensor]:
    """For every token its frame (-1 for text), and whether it is global."""
    counts = torch.tensor(tiling.key_counts or [tiling.per_frame] * tiling.frames, device=device)
    frame = torch.arange(tiling.frames, device=device).repeat_interleave(counts)
    is_global = torch.isin(frame, torch.tensor(tiling.references, device=device))
    padding = (tiling.text, 0) if tiling.text_first else (0, tiling.text)
    return functional.pad(frame, padding, value=-1), functional.pad(is_global, padding, value=True)


# --- choosing -------------------------------------------------------------------------------------

PATHS: dict[str, Path] = {"gather": gather, "lse": lse, "flex": flex}


def fault(name: str, device: torch.device, dtype: torch.dtype, head_width: int) -> str:
    """What is wrong with a path on this device, as the end of a sentence; "" when it equals masked
    attention.

    Three frames of 48 tokens, so that blocks of 128 are cut, with one reference. Compiles the flex
    path (seconds).
    """
    tiling = Tiling(3, 48, 1)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(1, tiling.tokens, 2, head_width, generator=generator).to(device, dtype)
        for _ in range(3)
    )
    try:
        with torch.no_grad():
            made = PATHS[name](q, k, v, tiling)
            due = masked_attention(q, k, v, tile_mask(tiling, device))
            error = float((made.float() - due.float()).abs().max())
    # compilers and kernels raise many kinds; all mean that the path cannot be used here
    except Exception as problem:
        lines = str(problem).strip().splitlines() or [type(problem).__name__]
        return f"fails on {device}: {lines[0]}"
    allowed = 1e-3 if dtype == torch.float32 else 5e-2
    return (
        ""
        if error <= allowed
        else f"is off by {error:.2g} on {device} in {dtype}, more than {allowed:g}"
    )
