"""Which times a transformer believes its frames to have, when some frames of a video were left out.

A model counts the frames it is given, 0 .. M - 1. Of a video of F frames of which M are left, they
stood at other times. Three ways to tell the model (VGDFR's DyRoPE, arXiv 2504.12259, section 3.3;
EcoVideo's code has the first):

compact    as the model counts: a shorter clip in which everything moves faster. Nothing is changed.
original   each frame keeps its time: rows of the longer video's rotary tables, in all layers. What
the model answers is
           then what it would answer for these tokens of the whole video if the others did not run.
layered    some layers see the original times, the others the compact ones.

One hook on the module that makes the tables, and one on each block, in diffusers' registry. They
read `Times` at every call, so frames may be left out in mid-run. Several transformers of a model
share one `Times`. A method that gathers token rows (`tokens.py`) must be installed before: hooks of
a later one run first, and these need whole tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from diffusers.hooks import HookRegistry, ModelHook
from torch import nn

from vidplat.errors import SpecError
from vidplat.methods.seams.layouts import Layout
from vidplat.methods.seams.tokens import forget_empty_registries

_NAME = "vidplat-times"


@dataclass
class Times:
    """Where the frames of the next calls stand in the whole video.

    `layers`: those that see these times; None: all of them (original); none: compact.
    """

    frames: tuple[int, ...] | None = (
        None  # of the token grid, rising; None: the whole video, and nothing is changed
    )
    layers: frozenset[int] | None = None
    _tables: Any = field(
        default=None, repr=False
    )  # of the original times, from the rope's hook to the blocks'

    def sees(self, layer: int) -> bool:
        return self.layers is None or layer in self.layers


class _Rope(ModelHook):  # type: ignore[misc]
    def __init__(self, layout: Layout, times: Times) -> None:
        super().__init__()
        self._layout, self._times = layout, times

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        compact = self.fn_ref.original_forward(*args, **kwargs)
        times = self._times
        times._tables = None
        if times.frames is None or times.layers == frozenset():
            return compact
        of = max(times.frames) + 1
        longer_args, longer_kwargs = self._layout.longer(args, kwargs, of)
        whole = self.fn_ref.original_forward(*longer_args, **longer_kwargs)
        original = self._layout.table_rows(whole, times.frames, of)
        if original[0].shape != compact[0].shape:
            raise SpecError(
                f"{len(times.frames)} frames have times, but the latents have another number of "
                "frames"
            )
        if times.layers is None:
            return original
        times._tables = original
        return compact


class _Block(ModelHook):  # type: ignore[misc]
    def __init__(self, layout: Layout, times: Times, layer: int) -> None:
        super().__init__()
        self._layout, self._times, self._layer = layout, times, layer

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if self._times._tables is None or not self._times.sees(self._layer):
            return args, kwargs
        return self._layout.turned_by(args, kwargs, self._times._tables)


@contextmanager
def timed(model: Any, layout: Layout, times: Times) -> Iterator[None]:
    """Within this context the model's frames stand at `times`. Raises `SpecError` for a model that
    cannot be told."""
    if why := layout.times_refusal(model):
        raise SpecError(f"{type(model).__name__} cannot be told the times of its frames: {why}")
    hooks: list[tuple[nn.Module, ModelHook]] = [(layout.rope(model), _Rope(layout, times))]
    hooks += [
        (block, _Block(layout, times, layer)) for layer, block in enumerate(layout.blocks(model))
    ]
    for module, hook in hooks:
        HookRegistry.check_if_exists_or_initialize(module).register_hook(hook, _NAME)
    _tell_root(model)
    try:
        yield
    finally:
        times._tables = None
        for module, _ in hooks:
            HookRegistry.check_if_exists_or_initialize(module).remove_hook(_NAME, recurse=False)
        _tell_root(model)
        forget_empty_registries(model)


def _tell_root(model: Any) -> None:
    """A registry at the root keeps a list of those below it."""
    if hasattr(model, "_diffusers_hook"):
        model._diffusers_hook.invalidate_child_registries_cache()
