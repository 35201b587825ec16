"""The token seam: only some token rows run through the blocks; others' answers are filled in.

When no row runs, neither does the model: its last answer in the same branch is given again.

Hooks in diffusers' own registry: at the root (which rows run in this call), at every block (gather
positions, and the tokens at the first; scatter at the last) and at the output projection (fill).
With all rows running nothing is touched. Which rows run and what fills the rest is the method's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from diffusers.hooks import ModelHook
from torch import Tensor, nn

from vidplat.methods.protocol import Grid
from vidplat.methods.seams.hooks import RootHook, registered
from vidplat.methods.seams.layouts import Args, Kwargs, Layout


@dataclass(frozen=True)
class Pass:
    """One call of the transformer: branch ("cond", "uncond", ...), step and token grid."""

    branch: str
    step: int
    grid: Grid


@dataclass
class Present:
    """What the hooks of one transformer share during a call."""

    here: Pass | None = None
    # (n,) sorted, on the model's device; None: all; none: the last answer is given again
    rows: Tensor | None = None


#: The pass and the device -> rows that run, or None for all.
ChooseRows = Callable[[Pass, Any], Tensor | None]
#: The pass, the model, args and kwargs of its call.
Before = Callable[[Pass, Any, Args, Kwargs], None]
#: The pass, its rows, the output (B, N, P) -> what the model answers.
Fill = Callable[[Pass, Tensor | None, Tensor], Tensor]


class _Root(RootHook):
    """Decides the rows of a call."""

    def __init__(
        self, layout: Layout, present: Present, choose: ChooseRows | None, before: Before | None
    ) -> None:
        super().__init__()
        self._layout, self._present, self._choose, self._before = layout, present, choose, before
        # The last answer of each branch, for passes that nothing runs in.
        self._last: dict[str, Any] = {}

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        told = self.context
        here = Pass(told.name, told.step_index, self._layout.grid(module, args, kwargs))
        if self._before is not None:
            self._before(here, module, args, kwargs)
        self._present.here = here
        if self._choose is not None:
            self._present.rows = self._choose(here, next(module.parameters()).device)
        return args, kwargs

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        here, rows = self._present.here, self._present.rows
        if here is not None and rows is not None and not rows.numel():
            return self._last[here.branch]
        answer = self.fn_ref.original_forward(*args, **kwargs)
        if here is not None and self._choose is not None:
            self._last[here.branch] = answer
        return answer

    def post_forward(self, module: nn.Module, output: Any) -> Any:
        self._present.here = self._present.rows = None
        return output


class _Block(ModelHook):  # type: ignore[misc]
    def __init__(self, layout: Layout, present: Present, *, first: bool, last: bool) -> None:
        super().__init__()
        self._layout, self._present, self._first, self._last = layout, present, first, last

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if self._present.rows is None:
            return args, kwargs
        return self._layout.gathered(args, kwargs, self._present.rows, first=self._first)

    def post_forward(self, module: nn.Module, output: Any) -> Any:
        if self._present.rows is None or not self._last or self._present.here is None:
            return output
        return self._layout.scattered(output, self._present.rows, self._present.here.grid.tokens)


class _Output(ModelHook):  # type: ignore[misc]
    def __init__(self, present: Present, fill: Fill) -> None:
        super().__init__()
        self._present, self._fill = present, fill

    def post_forward(self, module: nn.Module, output: Any) -> Any:
        if self._present.here is None:
            return output
        return self._fill(self._present.here, self._present.rows, output)


@contextmanager
def located(
    model: Any, layout: Layout, name: str, before: Before | None = None
) -> Iterator[Present]:
    """Within this context the result tells, during a call of `model`, which pass it is; `name` is
    the method's.

    `before` is asked before anything of a call is noted, so it may itself call `model` for a pass
    of its own, which goes through all hooks as any other.
    """
    present = Present()
    with registered(model, name, [(model, _Root(layout, present, None, before))]):
        yield present


@contextmanager
def hooked(
    model: Any,
    layout: Layout,
    name: str,
    choose: ChooseRows,
    fill: Fill | None = None,
    before: Before | None = None,
) -> Iterator[Present]:
    """Within this context `choose` says which rows run; `fill`, if given, completes the answer."""
    present, blocks = Present(), layout.blocks(model)
    hooks: list[tuple[nn.Module, ModelHook]] = [
        (block, _Block(layout, present, first=index == 0, last=index == len(blocks) - 1))
        for index, block in enumerate(blocks)
    ]
    if fill is not None:
        hooks.append((layout.output(model), _Output(present, fill)))
    with registered(model, name, [(model, _Root(layout, present, choose, before)), *hooks]):
        yield present
