"""The token seam: only some token rows run through the blocks; the answer of the others is filled
in.

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

from diffusers.hooks import HookRegistry, ModelHook
from diffusers.hooks.hooks import BaseState, CacheContext, StateManager
from torch import Tensor, nn

from vidplat.methods.protocol import Grid
from vidplat.methods.seams.layouts import Layout


@dataclass(frozen=True)
class Pass:
    """One call of the transformer: the branch ("cond", "uncond", ...), the step, and the token
    grid."""

    branch: str
    step: int
    grid: Grid


@dataclass
class Present:
    """What the hooks of one transformer share during a call."""

    here: Pass | None = None
    #: (n,) sorted, on the model's device; None: all; of length 0: the last answer is given again
    rows: Tensor | None = None


#: The pass and the device -> rows that run, or None for all.
ChooseRows = Callable[[Pass, Any], "Tensor | None"]
#: Pass, model, args and kwargs of its call.
Before = Callable[[Pass, Any, "tuple[Any, ...]", "dict[str, Any]"], None]
#: Pass, rows, output (B, N, P) -> what the model answers.
Fill = Callable[[Pass, "Tensor | None", Tensor], Tensor]


class NoState(BaseState):  # type: ignore[misc]
    def reset(self, *args: Any, **kwargs: Any) -> None:
        pass


class _Root(ModelHook):  # type: ignore[misc]
    """Decides the rows of a call, from the context that the loop (ours or the stock pipeline's) has
    set."""

    _is_stateful = True

    def __init__(
        self, layout: Layout, present: Present, choose: ChooseRows | None, before: Before | None
    ) -> None:
        super().__init__()
        self._place = StateManager(NoState)
        self._layout, self._present, self._before = layout, present, before
        self._choose, self._recalls = choose or _all_rows, choose is not None
        # the last answer of each branch, for passes that nothing runs in
        self._last: dict[str, Any] = {}

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        context: CacheContext = self._place.context
        if context.step_index is None:
            raise ValueError(
                "a method needs the step: wrap the call in model.cache_context(branch, "
                "step_index=...)"
            )
        grid = self._layout.grid(module, args, kwargs)
        here = Pass(context.name, context.step_index, grid)
        if self._before is not None:
            self._before(here, module, args, kwargs)
        self._present.here = here
        device = next(module.parameters()).device
        self._present.rows = self._choose(self._present.here, device)
        return args, kwargs

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        here, rows = self._present.here, self._present.rows
        if here is not None and rows is not None and not rows.numel():
            return self._last[here.branch]
        answer = self.fn_ref.original_forward(*args, **kwargs)
        if here is not None and self._recalls:
            self._last[here.branch] = answer
        return answer

    def post_forward(self, module: nn.Module, output: Any) -> Any:
        self._present.here = self._present.rows = None
        return output

    def reset_state(self, module: nn.Module) -> nn.Module:
        self._place.reset()
        return module


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
    model: Any,
    layout: Layout,
    name: str,
    choose: ChooseRows | None = None,
    before: Before | None = None,
) -> Iterator[Present]:
    """Within this context the result tells, during a call of `model`, which pass it is. `name` is
    the method's.

    `before` is asked before anything of a call is noted, so it may itself call `model` for a pass
    of its own, which goes through all hooks as any other.
    """
    present = Present()
    root = HookRegistry.check_if_exists_or_initialize(model)
    root.register_hook(_Root(layout, present, choose, before), _name(name))
    root.invalidate_child_registries_cache()
    try:
        yield present
    finally:
        root.remove_hook(_name(name), recurse=True)
        root.invalidate_child_registries_cache()
        forget_empty_registries(model)


@contextmanager
def hooked(
    model: Any,
    layout: Layout,
    name: str,
    choose: ChooseRows,
    fill: Fill,
    before: Before | None = None,
) -> Iterator[Present]:
    """Within this context `choose` says which token rows run in each call, and `fill` completes the
    answer."""
    blocks = layout.blocks(model)
    with located(model, layout, name, choose, before) as present:
        for index, block in enumerate(blocks):
            hook = _Block(layout, present, first=index == 0, last=index == len(blocks) - 1)
            HookRegistry.check_if_exists_or_initialize(block).register_hook(hook, _name(name))
        output = layout.output(model)
        HookRegistry.check_if_exists_or_initialize(output).register_hook(
            _Output(present, fill), _name(name)
        )
        HookRegistry.check_if_exists_or_initialize(model).invalidate_child_registries_cache()
        yield present


def _name(method: str) -> str:
    return f"vidplat-{method}"


def _all_rows(here: Pass, device: Any) -> None:
    return None


def forget_empty_registries(model: nn.Module) -> None:
    """Removing a hook leaves an empty registry and a bound `forward` on the module: take both
    away."""
    for module in model.modules():
        registry = getattr(module, "_diffusers_hook", None)
        if registry is not None and not registry.hooks:
            del module._diffusers_hook
            module.__dict__.pop("forward", None)
