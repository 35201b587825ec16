"""Wan's rotary tables for any latent frames, and a call made over at time 0: for LIPAR and streams.

Legend: P tokens per latent frame, D head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vidplat.methods.protocol import Grid
from vidplat.methods.seams.layouts import Args, Arguments, Kwargs

Tables = tuple[Tensor, Tensor]  # cos and sin, each (1, rows, 1, D)


def tables_of(model: Any, grid: Grid, positions: Sequence[int] | None = None) -> Tables:
    """The tables of every token of `grid`, frame-major; with `positions`, of frames at these places
    in time: the rows of the model's own `rope`, bit for bit. Raises `ValueError` beyond its table.
    """
    wanted = list(range(grid.frames)) if positions is None else list(positions)
    most = int(model.rope.max_seq_len)
    if max(wanted) >= most:
        raise ValueError(f"frame {max(wanted)} lies beyond the {most} positions of this model")
    patch = model.config.patch_size
    shape = (1, 1, (max(wanted) + 1) * patch[0], grid.rows * patch[1], grid.columns * patch[2])
    cos, sin = model.rope(torch.empty(shape, device="meta"))  # asks for the shape alone
    if wanted == list(range(len(wanted))):
        return cos, sin
    place = torch.arange(grid.per_frame, device=cos.device)
    rows = (torch.tensor(wanted, device=cos.device)[:, None] * grid.per_frame + place).flatten()
    return cos.index_select(1, rows), sin.index_select(1, rows)


def rows_of(tables: Tables, rows: Tensor) -> Tables:
    """The tables of some rows (n,)."""
    cos, sin = tables
    return cos.index_select(1, rows), sin.index_select(1, rows)


def at_time_zero(args: Args, kwargs: Kwargs, latents: Tensor) -> Arguments:
    """The arguments of a Wan call, with `latents` (1, C, F, H, W) at time 0 for every token."""
    rest = list(args)
    changed = dict(kwargs)
    for place, name in enumerate(("hidden_states", "timestep")):
        given = changed[name] if name in changed else rest[place]
        new = latents.to(given) if name == "hidden_states" else torch.zeros_like(given)
        if name in changed:
            changed[name] = new
        else:
            rest[place] = new
    return tuple(rest), changed


def has_time_per_token(args: Args, kwargs: Kwargs) -> bool:
    """Whether a Wan call has a time per token: Wan 2.2 5B knows clean tokens among noisy ones."""
    timestep: Tensor = kwargs["timestep"] if "timestep" in kwargs else args[1]
    return timestep.ndim == 2
