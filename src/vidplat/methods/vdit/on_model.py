"""Tile-sparse attention: a frame attends to itself and to k evenly spaced reference frames.

Self-attention of the video tokens only; cross attention and text are untouched. Its cost grows
linearly in the number of frames (`tiles.py`). With k >= F - 1, in one frame, in the first
`dense_steps` steps and in the first and last `dense_ends` layers the stock attention runs, bit for
bit. Source: Efficient-vDiT, arXiv 2502.06155, without its training stages: on a model as it is,
fast motion between two references suffers first. It holds for every family with a layout, any size
and solver. `masks=searched` takes a k for each layer from a file (`mask_file.py`). `path=auto` is
the gather path of `paths.py`, exact and differentiable on every device; it is taken whatever was
asked for where gradients are needed. With methods that run some tokens only (hsa, lipar) rows
attend to their own frame's keys and to those of the references, rows of reference frames to all:
keys of all tokens, or of the rows that run.

Legend: B batch, Q query tokens, K key tokens, h heads, D head width, F frames, P tokens per frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from vidplat.errors import MethodRefused
from vidplat.methods.kinds import Seam
from vidplat.methods.protocol import Grid, Method, Run
from vidplat.methods.seams.attention import Attend, AttentionCall, linked
from vidplat.methods.seams.layouts import layout_of
from vidplat.methods.seams.tokens import Present, located
from vidplat.methods.vdit import mask_file, tiles
from vidplat.methods.vdit.frame_by_frame import gather
from vidplat.methods.vdit.paths import PATHS, fault
from vidplat.methods.vdit.tiling import Path, Tiling


class Sparse(Method):
    name = "sparse"

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._k = int(values["k"])
        self._is_searched = values["masks"] == "searched"
        self._dense_steps, self._dense_ends = int(values["dense_steps"]), int(values["dense_ends"])
        self._path = "gather" if values["path"] == "auto" else str(values["path"])
        self._searched: WeakKeyDictionary[nn.Module, mask_file.Masks] = WeakKeyDictionary()

    def refusal(self, model: Any, run: Run) -> str:
        layout = layout_of(model)
        why = layout.refusal(model, Seam.ATTENTION)
        if why or not self._is_searched:
            return why
        layers = len(layout.attentions(model))
        found, why = mask_file.find(
            model, layers, run.grid.frames, run.solver.scheduler, run.revision
        )
        if found is not None:
            self._searched[model] = found
        return why

    @contextmanager
    def applied_to(self, model: Any) -> Iterator[None]:
        """Raises `MethodRefused` when the path does not compute what it should on this device."""
        layout = layout_of(model)
        attentions = layout.attentions(model)
        first: Any = attentions[0]
        weight = first.to_q.weight  # the model's first parameter may be one that stays in float32
        head_width = first.to_q.out_features // first.heads
        if why := fault(self._path, weight.device, weight.dtype, head_width):
            raise MethodRefused(f"sparse cannot use path={self._path}: it {why}. Use path=gather")
        with located(model, layout, self.name) as present:
            site = _Site(self, model, len(attentions), present, PATHS[self._path])
            with linked(attentions, layout.processor, site.link):
                yield

    def files(self) -> list[dict[str, Any]]:
        """The searched masks of the present video, by content: no text tells them."""
        return [
            {
                "kind": "masks",
                "sha256": masks.sha256,
                "model_revision": masks.revision,
                "part": masks.part,
                "transformer": masks.transformer,
                "latent_frames": masks.frames,
            }
            for masks in sorted(self._searched.values(), key=lambda masks: masks.part)
        ]

    def k_at(self, model: Any, layers: int, frames: int, layer: int, step: int) -> int:
        """k of a layer at a step; F: stock attention. Raises `MethodRefused` without masks."""
        if step < self._dense_steps or not self._dense_ends <= layer < layers - self._dense_ends:
            return frames
        if not self._is_searched:
            return min(self._k, frames)
        masks = self._searched.get(model)
        if masks is None or masks.frames != frames:  # a pipeline that asks nobody before it begins
            masks, why = mask_file.find(model, layers, frames)
            if masks is None:
                raise MethodRefused(f"sparse cannot be used here: {why}")
            self._searched[model] = masks
        return masks.ks[layer]


@dataclass
class _Site:
    """The method at one transformer."""

    method: Sparse
    model: Any
    layers: int
    present: Present
    path: Path
    # rows, grid, rows of each frame
    _counted: tuple[Tensor, Grid, list[int]] | None = field(default=None, repr=False)

    def link(self, call: AttentionCall, rest: Attend) -> Tensor:
        here = self.present.here
        if here is None:  # a block that is called by itself
            return rest(call)
        grid = here.grid
        k = self.method.k_at(self.model, self.layers, grid.frames, call.layer, here.step)
        if tiles.is_full(grid.frames, k):
            return rest(call)
        counts = None if call.rows is None else self._counts(call.rows, grid)
        tiling = Tiling(grid.frames, grid.per_frame, k, call.text, call.text_first)
        if counts is not None and call.key.shape[1] == call.query.shape[1] != tiling.tokens:
            # the rows that run are keys of each other
            tiling = replace(tiling, key_counts=tuple(counts))
        if call.key.shape[1] != tiling.tokens:
            raise ValueError(
                f"sparse needs the keys of all {tiling.tokens} tokens, not of {call.key.shape[1]}"
            )
        call = call.rotated()
        learns = torch.is_grad_enabled() and (call.query.requires_grad or call.key.requires_grad)
        path = gather if learns else self.path
        return path(call.query, call.key, call.value, tiling, counts, call.mask)

    def _counts(self, rows: Tensor, grid: Grid) -> list[int]:
        """Rows of each frame. Layers of a pass share `rows`: the device is asked once."""
        if self._counted is None or self._counted[0] is not rows or self._counted[1] != grid:
            counts = torch.bincount(rows // grid.per_frame, minlength=grid.frames).tolist()
            self._counted = (rows, grid, counts)
        return self._counted[2]
