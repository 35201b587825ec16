"""The attention of a block-causal stream: finished frames, and what pruned tokens get from them.

A stream makes S latent frames at a time. Each self-attention reads the keys and values of earlier
frames from a memory and those of the block under way from the call. Memory holds keys before RoPE
and turns them when they are read, so a frame's place in time is decided by the reader: as long as
the model's trained length lasts, places are frame numbers; beyond it the block stays at the end of
that length, the recent frames right before it, the sink at 0 (our choice).

A block runs twice over: `denoise` passes read the window and forget; one `remember` pass at time 0
over the finished latents writes clean keys and values. With pruning (LIPAR, arXiv 2603.05811,
section 3.3) only kept tokens come in. In a block's denoise passes pruned ones are stood in for by

noise-aware   the clean keys and values of the frame before the block, at the same place, turned to
              their own position
noisy         those of the latest kept ancestor in this very pass (the paper's ablation)
none          nothing: the pruned are absent, later too
exact         their own: all run, and results are copied. Saves nothing; the best recovery could do

In the remember pass everything is clean: there a pruned token copies the frame before it. The first
block has no frame before it and cannot be pruned.

Legend: B videos, P tokens per frame, S frames of the block, n tokens run, h heads, D head width.
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

    @property
    def device(self) -> torch.device:
        return next(iter(self.keys.values())).device

    def last(self, layer: int, per_frame: int, times: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the last frame, so many times."""
        key, value = self.keys[layer], self.values[layer]
        return (
            key[:, -per_frame:].repeat(1, times, 1, 1),
            value[:, -per_frame:].repeat(1, times, 1, 1),
        )


@dataclass(frozen=True)
class Pruned:
    """What is left of a block's S P tokens."""

    keep: Tensor  # (S P,) bool
    rows: Tensor  # (n,) kept tokens
    tables: Tables  # of these
    from_block: Tensor  # (S P,) bool: has a kept ancestor inside the block
    place: Tensor  # (S P,) that ancestor's place in `rows`; 0 where there is none


@dataclass(frozen=True)
class Block:
    """The block under way."""

    start: int
    frames: int
    tables: Tables  # of all its S P tokens
    past: Tables | None  # of the finished frames it attends to; None: there are none
    pruned: Pruned | None  # None: all tokens run

    @property
    def rows(self) -> Tensor | None:
        return None if self.pruned is None else self.pruned.rows

    @property
    def row_tables(self) -> Tables:
        """Of the tokens that run."""
        return self.tables if self.pruned is None else self.pruned.tables


class BlockMemory:
    """The memories of a model's branches. Use: `installed`, then per block `begin`, passes,
    `finish`. `mode` says what the next passes are: "denoise" or "remember"."""

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
        # Of a branch's layer: keys turned, values, rows of the past.
        self._reading: dict[tuple[str, int], tuple[Tensor, Tensor, int]] = {}

    @property
    def per_frame(self) -> int:
        return self._rows * self._columns

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Within this context self-attention reads and writes these, before all other methods."""
        layout = layout_of(self._model)

        def link(call: AttentionCall, rest: Attend) -> Tensor:
            return self._attend(call, rest, present)

        with (
            hooked(self._model, layout, "stream", self._choose) as present,
            linked(layout.attentions(self._model), layout.processor, link, first=True),
        ):
            yield

    def begin(self, start: int, frames: int, keep: Tensor | None = None) -> None:
        """A block of `frames` from `start` on; `keep` (frames, rows, columns) bool, None: all."""
        end, held = start + frames, self.window.held(start, frames)
        if keep is not None and held[-1:] != [start - 1]:
            raise ValueError(
                f"a window of {self.window.recent} frames has no clean frame before a block of "
                f"{frames}"
            )
        tables = self._tables(list(range(start, end)), end)
        pruned = None if keep is None else self._pruned(keep, tables)
        block = Block(start, frames, tables, self._tables(held, end) if held else None, pruned)
        self._block, self.mode = block, "denoise"
        self._reading.clear()
        for memory in self.branches.values():
            memory.keep_only(held, self.per_frame)

    def _tables(self, frames: list[int], end: int) -> Tables:
        """Of all tokens of these frames, for a block that ends before frame `end`."""
        grid = Grid(len(frames), self._rows, self._columns)
        return tables_of(self._model, grid, self.window.places(frames, end))

    def _pruned(self, keep: Tensor, tables: Tables) -> Pruned:
        known = torch.cat([torch.ones_like(keep[:1]), keep])
        ancestor = ancestors(known).flatten()[self.per_frame :] - self.per_frame
        rows = keep.flatten().nonzero()[:, 0]
        place = torch.searchsorted(rows, ancestor.clamp(min=0)).clamp(max=max(len(rows) - 1, 0))
        return Pruned(keep.flatten(), rows, rows_of(tables, rows), ancestor >= 0, place)

    def finish(self) -> None:
        """After the remember pass of every branch."""
        block = self._now()
        self._reading.clear()
        for memory in self.branches.values():
            if self.recovery == "none" and (block.pruned or memory.there is not None):
                before, mine = (
                    torch.ones(frames * self.per_frame, dtype=torch.bool, device=memory.device)
                    for frames in (len(memory.frames), block.frames)
                )
                before = before if memory.there is None else memory.there
                mine = mine if block.pruned is None else block.pruned.keep
                memory.there = torch.cat([before, mine])
            memory.frames = [*memory.frames, *range(block.start, block.start + block.frames)]
        self._block = None

    def copy_on(self) -> None:
        """Instead of all passes, for a block that keeps nothing: every frame is remembered as the
        one before it."""
        block = self._now()
        for memory in self.branches.values():
            for layer in list(memory.keys):
                memory.add(layer, *memory.last(layer, self.per_frame, block.frames))
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
        query = call.rotate(call.query, block.row_tables)
        if self.mode == "remember":
            key, value = self._copied(call, block, memory)
            if (here.branch, call.layer) in self._reading:
                past_key, past_value, past = self._reading[here.branch, call.layer]
                past_key, past_value = past_key[:, :past], past_value[:, :past]
            else:
                past_key, past_value = self._past(call, memory, block)
            memory.add(call.layer, key, value)
            tables = block.tables
            if self.recovery == "none" and block.pruned is not None:
                rows, tables = block.pruned.rows, block.pruned.tables
                key, value = key.index_select(1, rows), value.index_select(1, rows)
            key, value = (
                torch.cat([past, new], dim=1)
                for past, new in ((past_key, call.rotate(key, tables)), (past_value, value))
            )
        else:
            key, value = self._denoised(call, block, memory, here.branch)
        return rest(replace(call, query=query, key=key, value=value, rotary=None, rows=block.rows))

    def _copied(self, call: AttentionCall, block: Block, memory: Memory) -> tuple[Tensor, Tensor]:
        """Keys and values of all S P tokens, (B, S P, h, D): of pruned ones those of kept ancestors
        inside the block, and of the frame before it where there are none."""
        pruned = block.pruned
        if pruned is None:
            return call.key, call.value
        before = memory.last(call.layer, self.per_frame, block.frames)
        is_inside = pruned.from_block.view(1, -1, 1, 1)
        key, value = (
            torch.where(is_inside, rows.index_select(1, pruned.place), clean)
            for rows, clean in zip((call.key, call.value), before, strict=True)
        )
        return key, value

    def _past(self, call: AttentionCall, memory: Memory, block: Block) -> tuple[Tensor, Tensor]:
        """Keys turned to their places, and values, of the window's finished frames."""
        if block.past is None:
            return call.key[:, :0], call.value[:, :0]
        held, tables = len(memory.frames) * self.per_frame, block.past
        key, value = memory.keys[call.layer][:, :held], memory.values[call.layer][:, :held]
        if memory.there is not None:
            there = memory.there.nonzero()[:, 0]
            key, value = key.index_select(1, there), value.index_select(1, there)
            tables = rows_of(tables, there)
        return call.rotate(key, tables), value

    def _denoised(
        self, call: AttentionCall, block: Block, memory: Memory, branch: str
    ) -> tuple[Tensor, Tensor]:
        """Keys turned, and values, of window and block; later passes write only what is new."""
        if (branch, call.layer) not in self._reading:
            self._reading[branch, call.layer] = self._prepared(call, block, memory)
        key, value, past = self._reading[branch, call.layer]
        if block.rows is not None and self.recovery == "noisy":
            new_key, new_value = self._copied(call, block, memory)
            key[:, past:], value[:, past:] = call.rotate(new_key, block.tables), new_value
            return key, value
        new_key = call.rotate(call.key, block.row_tables)
        if block.rows is None or self.recovery == "none":  # nobody else is in the block's part
            key[:, past:], value[:, past:] = new_key, call.value
        else:
            key.index_copy_(1, block.rows + past, new_key)
            value.index_copy_(1, block.rows + past, call.value)
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
            own_key, own_value = memory.last(call.layer, self.per_frame, block.frames)
            own_key = call.rotate(own_key, block.tables)
        return (
            torch.cat([past_key, own_key], dim=1),
            torch.cat([past_value, own_value], dim=1),
            past_key.shape[1],
        )
