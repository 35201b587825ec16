"""The attention of a block-causal stream: a window of finished frames, and what pruned tokens get
back from it.

A stream makes S latent frames at a time. Each self-attention reads the keys and values of earlier
frames from a memory and those of the block under way from the call. Memory holds keys before RoPE
and turns them when they are read, so a frame's place in time is decided by the reader: as long as
the model's trained length lasts, places are frame numbers; beyond it the block stays at the end of
that length, the recent frames right before it, the sink at 0 (our choice).

A block runs twice over: `denoise` passes read the window and forget; one `remember` pass at time 0
over the finished latents writes clean keys and values. With pruning (LIPAR, arXiv 2603.05811,
section 3.3) only kept tokens come in. What stands in for pruned ones in the denoise passes of a
block:

noise-aware   the clean keys and values of the frame before the block, at the same place, turned to
their own position
noisy         those of the latest kept ancestor in this very pass (the paper's ablation)
none          nothing: the pruned are absent, later too
exact         their own: all tokens run, and only their results are copied. Saves nothing; the best
recovery could do

In the remember pass everything is clean: there a pruned token copies the frame before it. The first
block has no frame before it and cannot be pruned.

Legend: B videos, P tokens per frame, S frames of the block, n tokens that run, h heads, D head
width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vidplat.methods.lipar.mask import ancestors
from vidplat.methods.protocol import Grid
from vidplat.methods.seams.attention import Attend, AttentionCall, linked
from vidplat.methods.seams.layouts import layout_of
from vidplat.methods.seams.layouts.wan_tables import Tables, rows_of, tables_of
from vidplat.methods.seams.tokens import Pass, Present, hooked

RECOVERIES = ("noise-aware", "noisy", "none", "exact")


@dataclass(frozen=True)
class Window:
    """Which frames a block attends to: the first `sink`, and the last `recent`, the block's own
    included."""

    sink: int = 1
    recent: int = 6
    trained: int = 21  # positions in time that the model has learnt

    def __post_init__(self) -> None:
        if self.sink < 0 or self.recent < 1 or self.sink + self.recent > self.trained:
            raise ValueError(
                f"a window of {self.sink} + {self.recent} frames does not fit {self.trained} "
                "positions"
            )

    def held(self, start: int, frames: int) -> list[int]:
        """The finished frames that a block of `frames` from `start` on attends to."""
        recent = range(max(start + frames - self.recent, 0), start)
        return [frame for frame in range(start) if frame < self.sink or frame in recent]

    def places(self, frames: list[int], end: int) -> list[int]:
        """Where frames lie in time for a block that ends before frame `end`."""
        beyond = max(0, end - self.trained)
        return [frame if frame < self.sink else frame - beyond for frame in frames]


class Memory:
    """What one branch remembers: keys before RoPE and values, (B, frames P, h, D) per layer."""

    def __init__(self) -> None:
        self.frames: list[int] = []
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        self.there: Tensor | None = None  # (frames P,) bool: rows that exist; None: all

    def keep_only(self, frames: list[int], per_frame: int) -> None:
        """Forget all other frames."""
        if frames == self.frames:
            return
        places = [self.frames.index(frame) for frame in frames]

        def left(rows: Tensor, axis: int) -> Tensor:
            first, last = rows.shape[:axis], rows.shape[axis + 1 :]
            split = rows.reshape(*first, -1, per_frame, *last)
            return split.index_select(axis, torch.tensor(places, device=rows.device)).reshape(
                *first, -1, *last
            )

        for of in (self.keys, self.values):
            for layer, rows in of.items():
                of[layer] = left(rows, 1)
        self.there = None if self.there is None else left(self.there, 0)
        self.frames = list(frames)

    def add(self, layer: int, key: Tensor, value: Tensor) -> None:
        """The rows of a finished block; `frames` is told by `finish`."""
        for of, rows in ((self.keys, key), (self.values, value)):
            of[layer] = torch.cat([of[layer], rows], dim=1) if layer in of else rows


@dataclass
class Block:
    """The block under way."""

    start: int
    frames: int
    keep: Tensor | None  # (S, rows, columns) bool; None: all
    tables: Tables  # of all its S P tokens
    past: Tables | None  # of the finished frames it attends to; None: there are none
    rows: Tensor | None = None  # (n,) kept tokens
    row_tables: Tables | None = None
    from_block: Tensor | None = None  # (S P,) bool: has a kept ancestor inside the block
    place: Tensor | None = None  # (S P,) that ancestor's place in `rows`; 0 where there is none


class BlockMemory:
    """The memories of a model's branches. Use: `installed`, then per block `begin`, passes,
    `finish`.

    `mode` says what the next passes are: "denoise" or "remember".
    """

    def __init__(
        self, model: Any, rows: int, columns: int, window: Window, recovery: str = "noise-aware"
    ) -> None:
        if recovery not in RECOVERIES:
            raise ValueError(f"recovery must be one of {', '.join(RECOVERIES)}, not {recovery!r}")
        self._model, self._rows, self._columns = model, rows, columns
        self.window, self.recovery = window, recovery
        self.branches: dict[str, Memory] = {}
        self.mode = "denoise"
        self._block: Block | None = None
        self._reading: dict[
            tuple[str, int], tuple[Tensor, Tensor, int]
        ] = {}  # keys turned, values, rows of the past

    @property
    def per_frame(self) -> int:
        return self._rows * self._columns

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Within this context the model's self-attention reads and writes these memories, before
        all other methods."""
        layout = layout_of(self._model)

        def link(call: AttentionCall, rest: Attend) -> Tensor:
            return self._attend(call, rest, present)

        with (
            hooked(self._model, layout, "stream", self._choose, _as_it_is) as present,
            linked(layout.attentions(self._model), layout.processor, link, first=True),
        ):
            yield

    def begin(self, start: int, frames: int, keep: Tensor | None = None) -> None:
        """A block of `frames` frames from `start` on; `keep` (frames, rows, columns) bool, None for
        all."""
        grid = Grid(frames, self._rows, self._columns)
        places = self.window.places(list(range(start, start + frames)), start + frames)
        held = self.window.held(start, frames)
        past = Grid(len(held), self._rows, self._columns)
        past_tables = (
            tables_of(self._model, past, self.window.places(held, start + frames)) if held else None
        )
        block = Block(start, frames, keep, tables_of(self._model, grid, places), past_tables)
        if keep is not None:
            known = torch.cat([torch.ones_like(keep[:1]), keep])
            ancestor = ancestors(known).flatten()[self.per_frame :] - self.per_frame
            block.rows = keep.flatten().nonzero()[:, 0]
            block.row_tables = rows_of(block.tables, block.rows)
            block.from_block = ancestor >= 0
            block.place = torch.searchsorted(block.rows, ancestor.clamp(min=0)).clamp(
                max=max(len(block.rows) - 1, 0)
            )
        self._block, self.mode = block, "denoise"
        self._reading.clear()
        for memory in self.branches.values():
            memory.keep_only(held, self.per_frame)
        if keep is not None and held[-1:] != [start - 1]:
            raise ValueError(
                f"a window of {self.window.recent} frames has no clean frame before a block of "
                f"{frames}"
            )

    def finish(self) -> None:
        """After the remember pass of every branch."""
        block = self._now()
        self._reading.clear()
        for memory in self.branches.values():
            if self.recovery == "none" and (block.keep is not None or memory.there is not None):
                device = next(iter(memory.keys.values())).device
                before = (
                    memory.there
                    if memory.there is not None
                    else _all_there(memory, self.per_frame, device)
                )
                mine = torch.ones(block.frames * self.per_frame, dtype=torch.bool, device=device)
                memory.there = torch.cat(
                    [before, mine if block.keep is None else block.keep.flatten()]
                )
            memory.frames = [*memory.frames, *range(block.start, block.start + block.frames)]
        self._block = None

    def copy_on(self) -> None:
        """Instead of all passes, for a block that keeps nothing: every frame is remembered as the
        one before it."""
        block, rows = self._now(), self.per_frame
        for memory in self.branches.values():
            for layer in list(memory.keys):
                last = (
                    of[layer][:, -rows:].repeat(1, block.frames, 1, 1)
                    for of in (memory.keys, memory.values)
                )
                memory.add(layer, *last)
        self.finish()

    def _now(self) -> Block:
        if self._block is None:
            raise ValueError("no block is under way: call begin first")
        return self._block

    def _choose(self, here: Pass, device: Any) -> Tensor | None:
        block = self._now()
        if here.grid != Grid(block.frames, self._rows, self._columns):
            raise ValueError(
                f"the block has {block.frames} frames of {self._rows}x{self._columns}, not "
                f"{here.grid}"
            )
        if here.branch not in self.branches:
            self.branches[here.branch] = Memory()
        return block.rows

    def _attend(self, call: AttentionCall, rest: Attend, present: Present) -> Tensor:
        block, here = self._now(), present.here
        assert here is not None
        memory = self.branches[here.branch]
        query = call.rotate(
            call.query, block.tables if block.row_tables is None else block.row_tables
        )
        if self.mode == "remember":
            key, value = self._remembered(call, block, memory)
            if (here.branch, call.layer) in self._reading:
                past_key, past_value, past = self._reading[here.branch, call.layer]
                past_key, past_value = past_key[:, :past], past_value[:, :past]
            else:
                past_key, past_value = self._past(call, memory, block)
            memory.add(call.layer, key, value)
            tables = block.tables
            if self.recovery == "none" and block.rows is not None and block.row_tables is not None:
                key, value = key.index_select(1, block.rows), value.index_select(1, block.rows)
                tables = block.row_tables
            key, value = (
                torch.cat([past, new], dim=1)
                for past, new in ((past_key, call.rotate(key, tables)), (past_value, value))
            )
        else:
            key, value = self._denoised(call, block, memory, here.branch)
        return rest(replace(call, query=query, key=key, value=value, rotary=None, rows=block.rows))

    def _remembered(
        self, call: AttentionCall, block: Block, memory: Memory
    ) -> tuple[Tensor, Tensor]:
        """Clean keys and values of all S P tokens: pruned ones copy the frame before them."""
        if block.rows is None:
            return call.key, call.value
        key = self._copied(call.key, block, memory.keys[call.layer])
        return key, self._copied(call.value, block, memory.values[call.layer])

    def _copied(self, rows: Tensor, block: Block, remembered: Tensor) -> Tensor:
        """(B, S P, h, D): of kept ancestors inside the block, and of the frame before it where
        there are none."""
        assert block.place is not None and block.from_block is not None
        inside = rows.index_select(1, block.place)
        before = remembered[:, -self.per_frame :].repeat(1, block.frames, 1, 1)
        return torch.where(block.from_block.view(1, -1, 1, 1), inside, before)

    def _past(self, call: AttentionCall, memory: Memory, block: Block) -> tuple[Tensor, Tensor]:
        """Keys turned to their places, and values, of the window's finished frames."""
        if block.past is None:
            return call.key[:, :0], call.value[:, :0]
        held, tables = len(memory.frames) * self.per_frame, block.past
        key, value = memory.keys[call.layer][:, :held], memory.values[call.layer][:, :held]
        if memory.there is not None:
            there = memory.there.nonzero()[:, 0]
            key, value, tables = (
                key.index_select(1, there),
                value.index_select(1, there),
                rows_of(tables, there),
            )
        return call.rotate(key, tables), value

    def _denoised(
        self, call: AttentionCall, block: Block, memory: Memory, branch: str
    ) -> tuple[Tensor, Tensor]:
        """Keys turned, and values, of window and block. Only what the pass computed anew is written
        in later passes."""
        if (branch, call.layer) not in self._reading:
            self._reading[branch, call.layer] = self._prepared(call, block, memory)
        key, value, past = self._reading[branch, call.layer]
        new_key, new_value, tables = call.key, call.value, block.row_tables or block.tables
        if block.rows is None or key.shape[1] == past + len(
            block.rows
        ):  # nobody else is in the block's part
            key[:, past:], value[:, past:] = call.rotate(new_key, tables), new_value
        elif self.recovery == "noisy":
            new_key = self._copied(new_key, block, memory.keys[call.layer])
            new_value = self._copied(new_value, block, memory.values[call.layer])
            key[:, past:], value[:, past:] = call.rotate(new_key, block.tables), new_value
        else:
            rows = block.rows + past
            key.index_copy_(1, rows, call.rotate(new_key, tables))
            value.index_copy_(1, rows, new_value)
        return key, value

    def _prepared(
        self, call: AttentionCall, block: Block, memory: Memory
    ) -> tuple[Tensor, Tensor, int]:
        """Window and block with the clean frame before the block at all its places; how many rows
        are the past's."""
        past_key, past_value = self._past(call, memory, block)
        if block.rows is None or self.recovery == "none":
            own_key, own_value = torch.empty_like(call.key), torch.empty_like(call.value)
        else:
            clean = (of[call.layer][:, -self.per_frame :] for of in (memory.keys, memory.values))
            own_key, own_value = (rows.repeat(1, block.frames, 1, 1) for rows in clean)
            own_key = call.rotate(own_key, block.tables)
        return (
            torch.cat([past_key, own_key], dim=1),
            torch.cat([past_value, own_value], dim=1),
            past_key.shape[1],
        )


def _as_it_is(here: Pass, rows: Tensor | None, output: Tensor) -> Tensor:
    return output


def _all_there(memory: Memory, per_frame: int, device: Any) -> Tensor:
    return torch.ones(len(memory.frames) * per_frame, dtype=torch.bool, device=device)
