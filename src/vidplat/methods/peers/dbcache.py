"""DBCache: as FirstBlockCache, with F first and B last blocks always computed (cache-dit, an
optional dependency).

cache-dit's own code does it, as its users would have it: `enable_cache(transformer,
DBCacheConfig(...))`. The first `front` blocks run in every pass; when what they add has changed by
less than the threshold since the last whole pass, the middle blocks are replaced by what they added
then, or with `taylor` by a Taylor forecast of that order from several whole passes (TaylorSeer,
arXiv 2503.06923); the last `back` blocks run always. The first `warmup` steps are whole.
HunyuanVideo's two kinds of blocks are two such chains, each with its own front, middle and back.

cache-dit tells branches apart by the order of calls (text first, then negative text), as every loop
here makes them, and must be told whether there are two; so its contexts are made anew before every
video, which also empties them. It swaps the module's blocks during a call and leaves the submodules
in another order, and cannot undo itself on a module whose `forward` carries diffusers hooks: what
it leaves is put right here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from torch import nn

from vidplat.errors import SpecError
from vidplat.methods.kinds import Seam
from vidplat.methods.protocol import Run
from vidplat.methods.seams.layouts import layout_of
from vidplat.methods.seams.passes import Counted, Skipper, watched

MISSING = (
    "it needs the package cache-dit, which is not installed; add it with pip install "
    "'vidplat[peers]'"
)


class DbCache:
    """The method; see the module's text."""

    name = "dbcache"

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self.counted = Counted()
        self._parts: list[_Part] = []

    def refusal(self, model: Any, run: Run) -> str:
        if find_spec("cache_dit") is None:
            return MISSING
        front, back = self._values["front"], self._values["back"]
        for blocks in _chains(model):
            if front + back >= len(blocks):
                return f"front={front} and back={back} leave no block to skip of {len(blocks)}"
        return layout_of(model).refusal(model, Seam.PASSES)

    @contextmanager
    def applied_to(self, model: Any) -> Iterator[None]:
        """Raises `SpecError` where cache-dit is not installed."""
        cache_dit = _cache_dit()
        part = _Part(model, self._config(branches=1 if layout_of(model).branches_in_batch else 2))
        with watched(model, self.name, part, self.counted), _as_before(model):
            cache_dit.enable_cache(
                model, cache_config=part.config, calibrator_config=self._calibrator()
            )
            self._parts.append(part)
            part.is_installed = True
            try:
                yield
            finally:
                part.is_installed = False
                self._parts.remove(part)
                del (
                    model._original_forward
                )  # `_as_before` puts forward back; cache-dit would fail at a hooked one
                cache_dit.disable_cache(model)

    def begin(self, run: Run) -> None:
        self.counted.clear()
        for part in self._parts:
            part.config = self._config(
                1 if layout_of(part.model).branches_in_batch else run.branches
            )
            part.forget()

    def _config(self, branches: int) -> Any:
        return _cache_dit().DBCacheConfig(
            Fn_compute_blocks=self._values["front"],
            Bn_compute_blocks=self._values["back"],
            residual_diff_threshold=self._values["threshold"],
            max_warmup_steps=self._values["warmup"],
            enable_separate_cfg=branches > 1,
        )

    def _calibrator(self) -> Any:
        order = self._values["taylor"]
        return _cache_dit().TaylorSeerCalibratorConfig(taylorseer_order=order) if order else None


@dataclass
class _Part(Skipper):
    """One transformer; cache-dit decides all, so only forgetting is left."""

    model: Any
    config: Any  # a DBCacheConfig, for guided runs until `begin` tells how many branches there are
    is_installed: bool = False

    def forget(self) -> None:
        if self.is_installed:
            _cache_dit().refresh_context(self.model, cache_config=self.config)


def _cache_dit() -> Any:
    if find_spec("cache_dit") is None:
        raise SpecError(f"dbcache cannot be used here: {MISSING}")
    import cache_dit

    for handler in logging.getLogger(
        "CACHE_DIT"
    ).handlers:  # its loggers share one, onto the worker's standard output
        handler.setLevel(logging.ERROR)
    return cache_dit


def _chains(model: Any) -> list[Any]:
    """The lists of blocks that cache-dit sees as one chain each."""
    blocks = set(layout_of(model).blocks(model))
    return [
        child
        for child in model.children()
        if isinstance(child, nn.ModuleList) and blocks & set(child)
    ]


@contextmanager
def _as_before(model: Any) -> Iterator[None]:
    """Give the model, and its lists of blocks, the attributes and the order of submodules they
    had."""
    parts: list[Any] = [model, *_chains(model)]
    attributes, order = [dict(vars(part)) for part in parts], list(model._modules)
    try:
        yield
    finally:
        for part, before in zip(parts, attributes, strict=True):
            for name in vars(part).keys() - before.keys():
                del part.__dict__[name]
        if "forward" in attributes[0]:
            model.__dict__["forward"] = attributes[0]["forward"]
        for name in order:
            model._modules[name] = model._modules.pop(name)
