"""Hooks in diffusers' own registry, put on and taken off without trace: what the seams share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from diffusers.hooks import HookRegistry, ModelHook
from diffusers.hooks.hooks import BaseState, CacheContext, StateManager
from torch import nn


class _NoState(BaseState):  # type: ignore[misc]
    def reset(self, *args: Any, **kwargs: Any) -> None:
        pass


class RootHook(ModelHook):  # type: ignore[misc]
    """A hook at a whole transformer, which knows the context set by our loop or the stock one."""

    _is_stateful = True

    def __init__(self) -> None:
        super().__init__()
        self._place = StateManager(_NoState)  # diffusers puts the context into this attribute

    @property
    def context(self) -> CacheContext:
        """Branch and step of the call that is made. Raises `ValueError` where nobody told them."""
        if self._place.context.step_index is None:
            raise ValueError(
                "a method needs the step: wrap the call in model.cache_context(branch, "
                "step_index=...)"
            )
        return self._place.context

    def reset_state(self, module: nn.Module) -> nn.Module:
        self._place.reset()
        return module


@contextmanager
def registered(
    model: Any, name: str, hooks: Sequence[tuple[nn.Module, ModelHook]]
) -> Iterator[None]:
    """Within this context modules of `model` have these hooks under the `name` of a method."""
    full_name = f"vidplat-{name}"
    registries: list[HookRegistry] = []
    try:
        for module, hook in hooks:
            registry = HookRegistry.check_if_exists_or_initialize(module)
            registry.register_hook(hook, full_name)
            registries.append(registry)
        _tell_root(model)
        yield
    finally:
        for registry in registries:
            registry.remove_hook(full_name, recurse=False)
        _tell_root(model)
        _forget_empty_registries(model)


def _tell_root(model: Any) -> None:
    """A registry at the root keeps a list of those below it."""
    if hasattr(model, "_diffusers_hook"):
        model._diffusers_hook.invalidate_child_registries_cache()


def _forget_empty_registries(model: nn.Module) -> None:
    """Removing a hook leaves an empty registry and a bound `forward`: take both away."""
    for module in model.modules():
        registry = getattr(module, "_diffusers_hook", None)
        if registry is not None and not registry.hooks:
            del module._diffusers_hook
            module.__dict__.pop("forward", None)
