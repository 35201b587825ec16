"""Counts the floating-point operations that a transformer's blocks really run.

torch's own counter watches every product, so what a method leaves out (tokens, tiles, passes) is
left out here too. A multiply-add counts as 2. Counted are the blocks alone, split as
`scheduler.work.forward_gflop` splits its formula: `attention` is QK^T and AV of self-attention,
`linear` all else; embeddings before the blocks and the projection after them are in neither.
Counting slows a run down: never time what is counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from vidplat.methods.seams.layouts import layout_of


@dataclass
class Flops:
    """What was counted so far; filled when the counting ends."""

    linear: int = 0
    attention: int = 0

    @property
    def total(self) -> int:
        return self.linear + self.attention


def _cpu_attention(
    query: Any, key: Any, value: Any, *args: Any, out_shape: Any = None, **kwargs: Any
) -> int:
    count: int = sdpa_flop_count(query, key, value)  # type: ignore[no-untyped-call]
    return count


_CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _cpu_attention
}  # torch's counter lacks it
_PROJECTIONS = {torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten._scaled_mm}


@contextmanager
def counted(model: Any) -> Iterator[Flops]:
    """Count what `model` runs within this context; the result is filled at its end."""
    layout = layout_of(model)
    names = {module: name for name, module in model.named_modules()}
    blocks = [names[block] for block in layout.blocks(model)]
    attentions = {names[attention] for attention in layout.attentions(model)}
    found = Flops()
    with FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION) as counter:
        yield found
    root = type(model).__name__
    counts = counter.get_flop_counts()
    for block in blocks:
        found.linear += sum(counts.get(f"{root}.{block}", {}).values())
    for attention in attentions:
        # The projections are plain products; whatever else runs in here is QK^T and AV.
        inside = sum(
            count
            for op, count in counts.get(f"{root}.{attention}", {}).items()
            if op not in _PROJECTIONS
        )
        found.attention += inside
        found.linear -= inside
