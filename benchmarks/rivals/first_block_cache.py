"""FirstBlockCache: the blocks after the first are skipped while what the first one adds changes
little (ParaAttention).

diffusers' own hooks (`FirstBlockCacheConfig`) do it: block 0 runs in every pass; when mean|r - r'|
/ mean|r'| of what it adds now (r) and added in the last whole pass (r') is at most the threshold,
the others are replaced by what they added then. Branches are kept apart by their cache contexts.

What diffusers lacks is added here, as its rivals have it: the first fifth of the steps is always
computed, at most three passes in a row are skipped, and every video starts from empty states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from diffusers import FirstBlockCacheConfig
from diffusers.hooks.first_block_cache import _FBC_LEADER_BLOCK_HOOK, FBCHeadBlockHook

from benchmarks.rivals.diffusers_cache import enabled
from vidplat.methods.kinds import Number, Values
from vidplat.methods.peers.words import CacheKind
from vidplat.methods.protocol import Method, Run
from vidplat.methods.seams.layouts import layout_of
from vidplat.methods.seams.passes import Place, Skipper, SkippingMethod

WARMUP, MOST = 0.2, 3
NEVER = -1.0  # a threshold that no change is below


class FirstBlockCacheKind(CacheKind):
    name = "fbcache"
    parameters = MappingProxyType({"threshold": Number(0.05, 0.0, 10.0)})

    def install(self, values: Values) -> Method:
        return FirstBlockCache(float(values["threshold"]))


class FirstBlockCache(SkippingMethod):
    """The method; see the module's text."""

    name = "fbcache"

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self._threshold = threshold

    def part_of(self, model: Any) -> Skipper:
        return _Part(self._threshold)

    def refusal(self, model: Any, run: Run) -> str:
        if len(layout_of(model).blocks(model)) < 2:
            return "it needs a block beside the first, and the model has one"
        return super().refusal(model, run)

    @contextmanager
    def applied_to(self, model: Any) -> Iterator[None]:
        config = FirstBlockCacheConfig(threshold=NEVER)
        with super().applied_to(model), enabled(model, config, _FBC_LEADER_BLOCK_HOOK) as head:
            self.parts[-1].head = head
            yield


@dataclass
class _Part(Skipper):
    threshold: float
    head: FBCHeadBlockHook | None = None
    in_a_row: dict[str, int] = field(default_factory=dict)  # branch -> passes skipped since one ran

    def call(
        self, here: Place, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]
    ) -> Any:
        assert self.head is not None, "installed"
        skipped = self.in_a_row.get(here.branch, 0)
        may_skip = not here.is_within(WARMUP) and skipped < MOST
        self.head.threshold = self.threshold if may_skip else NEVER
        answer = run()
        ran = self.head.state_manager.get_state().should_compute
        self.in_a_row[here.branch] = 0 if ran else skipped + 1
        return answer

    def forget(self) -> None:
        self.in_a_row.clear()
        if self.head is not None:
            self.head.state_manager.reset()
