"""The pass seam: whole passes, or all blocks of one, are skipped.

Hooks in diffusers' own registry: at the root (one call of the transformer) and, for methods that
skip the blocks, at every block. A method sees both through a `Skipper` for each transformer.

Which passes are skipped is the method's. Attention links and their processors run inside the blocks
and see only the passes that are computed, unchanged.

Legend: B batch, N video tokens, d model width.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.hooks import ModelHook
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch import Tensor, nn

from vidplat.methods.kinds import Seam
from vidplat.methods.protocol import Method, Run
from vidplat.methods.seams.hooks import RootHook, registered
from vidplat.methods.seams.layouts import Args, Kwargs, Layout, layout_of


@dataclass(frozen=True)
class Place:
    """Where a call stands; what the loop tells beside branch and step may change in mid-run."""

    branch: str
    step: int
    steps: int | None  # of the run as it is planned now; None: not told

    @property
    def is_last(self) -> bool:
        return self.steps is not None and self.step >= self.steps - 1

    def is_within(self, share: float) -> bool:
        """Whether this step is among the first `share` of all, rounded, at least one."""
        return self.step < max(1, round(share * (self.steps or 0)))


class Skipper:
    """What a method decides about one transformer. Each default leaves everything as it is."""

    watches_blocks = False  # whether `enter` and `leave` are asked

    def call(self, here: Place, args: Args, kwargs: Kwargs, run: Callable[[], Any]) -> Any:
        """The answer to a call of the transformer: `run()`, or something else instead."""
        return run()

    def enter(self, here: Place, args: Args, kwargs: Kwargs, tokens: Tensor) -> Tensor | None:
        """At the first block, with its arguments and video tokens (B, N, d): None to run the
        blocks, or the tokens that leave the last block without any of them running."""
        return None

    def leave(self, here: Place, entered: Tensor, left: Tensor) -> None:
        """After a pass that ran: the video tokens (B, N, d) before and after all blocks."""

    def forget(self) -> None:
        """Drop all that was kept; asked by diffusers when a pipeline has made its video."""


@dataclass
class _Watch:
    """What the hooks of one transformer share during a call."""

    layout: Layout
    skipper: Skipper
    here: Place | None = None
    entered: Tensor | None = None
    skips: bool = False


class _Root(RootHook):
    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self._watch = watch

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        told, watch = self.context, self._watch
        here = Place(told.name, told.step_index, told.num_inference_steps)
        watch.here, watch.entered, watch.skips = here, None, False
        try:
            return watch.skipper.call(
                here, args, kwargs, lambda: self.fn_ref.original_forward(*args, **kwargs)
            )
        finally:
            watch.here = watch.entered = None

    def reset_state(self, module: nn.Module) -> nn.Module:
        self._watch.skipper.forget()
        return super().reset_state(module)


class _Block(ModelHook):  # type: ignore[misc]
    def __init__(self, watch: _Watch, *, first: bool, last: bool) -> None:
        super().__init__()
        self._watch, self._first, self._last = watch, first, last

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        watch, skipper, layout = self._watch, self._watch.skipper, self._watch.layout
        here = watch.here
        if here is not None and self._first:
            watch.entered = layout.hidden(args, kwargs)
            instead = skipper.enter(here, args, kwargs, watch.entered)
            watch.skips = instead is not None
            if instead is not None:
                return layout.passed(args, kwargs, instead)
        if watch.skips:
            return layout.passed(args, kwargs, layout.hidden(args, kwargs))
        output = self.fn_ref.original_forward(*args, **kwargs)
        if here is not None and self._last and watch.entered is not None:
            skipper.leave(here, watch.entered, layout.video(output))
        return output


def answered(sample: Tensor, kwargs: Kwargs) -> Any:
    """A transformer's answer in the form that the `kwargs` of its call ask for."""
    is_plain = kwargs.get("return_dict") is False
    return (sample,) if is_plain else Transformer2DModelOutput(sample=sample)


def wide(answer: Tensor) -> Tensor:
    """At least float32, for answers that are held: 16 bits, rounded at every step that is left out,
    would not equal one rounding of the long step."""
    return answer if answer.dtype in (torch.float32, torch.float64) else answer.float()


@contextmanager
def watched(model: Any, name: str, skipper: Skipper) -> Iterator[None]:
    """Within this context `skipper` decides over `model`'s passes."""
    layout = layout_of(model)
    blocks = layout.blocks(model) if skipper.watches_blocks else []
    watch = _Watch(layout, skipper)
    hooks = [
        (block, _Block(watch, first=index == 0, last=index == len(blocks) - 1))
        for index, block in enumerate(blocks)
    ]
    try:
        with registered(model, name, [(model, _Root(watch)), *hooks]):
            yield
    finally:
        skipper.forget()


class SkippingMethod(Method):
    """A method that skips passes by a `Skipper` of its own for each transformer."""

    def __init__(self) -> None:
        self.parts: list[Any] = []  # one skipper for each transformer

    @abstractmethod
    def part_of(self, model: Any) -> Skipper:
        """What decides about this transformer."""

    def refusal(self, model: Any, run: Run) -> str:
        return layout_of(model).refusal(model, Seam.PASSES)

    @contextmanager
    def applied_to(self, model: Any) -> Iterator[None]:
        part = self.part_of(model)
        self.parts.append(part)
        try:
            with watched(model, self.name, part):
                yield
        finally:
            self.parts.remove(part)

    def begin(self, run: Run) -> None:
        for part in self.parts:
            part.forget()
