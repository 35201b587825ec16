"""Which times a transformer believes its frames to have, when some frames of a video were left out.

A model counts the frames it is given, 0 .. M - 1. Of a video of F frames of which M are left, they
stood at other times. Here each frame keeps its time: the model gets those rows of the longer
video's rotary tables, in all layers, and answers what it would answer for these tokens of the whole
video if the others did not run (the global form of VGDFR's DyRoPE, arXiv 2504.12259, section 3.3).
A method that wants its frames counted anew installs nothing.

One hook on the module that makes the tables, in diffusers' registry. It reads `Times` at every
call, so frames may be left out in mid-run. Several transformers of a model share one `Times`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from diffusers.hooks import ModelHook
from torch import nn

from vidplat.errors import MethodRefused
from vidplat.methods.seams.hooks import registered
from vidplat.methods.seams.layouts import Layout


@dataclass
class Times:
    """Where the frames of the next calls stand in the whole video: of the token grid, rising; None:
    they are the whole video, and nothing is changed."""

    frames: tuple[int, ...] | None = None


class _Rope(ModelHook):  # type: ignore[misc]
    def __init__(self, layout: Layout, times: Times) -> None:
        super().__init__()
        self._layout, self._times = layout, times

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        counted = self.fn_ref.original_forward(*args, **kwargs)
        frames = self._times.frames
        if frames is None:
            return counted
        of = max(frames) + 1
        longer_args, longer_kwargs = self._layout.longer(args, kwargs, of)
        whole = self.fn_ref.original_forward(*longer_args, **longer_kwargs)
        original = self._layout.table_rows(whole, frames, of)
        if original[0].shape != counted[0].shape:
            raise MethodRefused(
                f"{len(frames)} frames have times, but the latents have another number of frames"
            )
        return original


@contextmanager
def timed(model: Any, layout: Layout, times: Times) -> Iterator[None]:
    """Within this context frames stand at `times`. Raises `MethodRefused` where they cannot."""
    if why := layout.times_refusal(model):
        raise MethodRefused(f"{type(model).__name__} cannot be told the times of its frames: {why}")
    with registered(model, "times", [(layout.rope(model), _Rope(layout, times))]):
        yield
