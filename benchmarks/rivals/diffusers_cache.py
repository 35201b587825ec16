"""Caches that diffusers' own hooks carry out, for as long as a context is open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vidplat.methods.seams.layouts import layout_of


@contextmanager
def enabled(model: Any, config: Any, hook: str) -> Iterator[Any]:
    """Within the context `model` has the cache of `config`; gives the hook of that name at its
    first block, which decides for all of them."""
    model.enable_cache(config)
    try:
        first: Any = layout_of(model).blocks(model)[0]
        yield first._diffusers_hook.get_hook(hook)
    finally:
        model.disable_cache()
