"""What really ran of a transformer under a method, seen from outside by torch's own hooks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from vidplat.methods.seams.hooks import RootHook
from vidplat.methods.seams.layouts import layout_of


@dataclass
class Passes:
    """By branch, the name of its cache context: passes in which every block ran, those in which at
    least one did not, and the blocks that ran in either."""

    whole: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    blocks: Counter[str] = field(default_factory=Counter)


@contextmanager
def counting(*models: Any) -> Iterator[Passes]:
    """Count the passes of these transformers within this context; a method must be on them."""
    found = Passes()
    with ExitStack() as stack:
        for model in models:
            for handle in _hooks(model, found):
                stack.callback(handle.remove)
        yield found


def _hooks(model: Any, found: Passes) -> Iterator[Any]:
    attentions = layout_of(model).attentions(model)
    ran = 0

    def begins(module: Any, args: Any) -> None:
        nonlocal ran
        ran = 0

    def runs(module: Any, args: Any, output: Any) -> None:
        nonlocal ran
        ran += 1

    def ends(module: Any, args: Any, output: Any) -> None:
        hooks = module._diffusers_hook.hooks.values()
        branch = next(hook for hook in hooks if isinstance(hook, RootHook)).context.name
        (found.whole if ran == len(attentions) else found.skipped)[branch] += 1
        found.blocks[branch] += ran

    yield model.register_forward_pre_hook(begins)
    yield model.register_forward_hook(ends)
    for attention in attentions:  # called by a block that runs, not by one that is skipped
        yield attention.register_forward_hook(runs)
