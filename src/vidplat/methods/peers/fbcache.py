"""FirstBlockCache: the blocks after the first are skipped while what the first one adds changes
little (ParaAttention).

diffusers' own hooks (`FirstBlockCacheConfig`) do it: block 0 runs in every pass; when mean|r - r'|
/ mean|r'| of what it adds now (r) and added in the last whole pass (r') is at most the threshold,
the others are replaced by what they added then. diffusers keeps its states apart by cache context,
so branches do not mix.

What diffusers lacks is added here: the first `warmup` share of steps is always computed, at most
`most` passes in a row are skipped, threshold 0 skips nothing at all, and every video starts from
empty states (diffusers resets them only at the end of its own pipelines' calls). Block 0 is
computed in skipped passes too; `Counted.blocks` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from diffusers import FirstBlockCacheConfig
from diffusers.hooks.first_block_cache import _FBC_LEADER_BLOCK_HOOK, FBCHeadBlockHook

from vidplat.methods.kinds import Seam
from vidplat.methods.protocol import Run
from vidplat.methods.seams.layouts import layout_of
from vidplat.methods.seams.passes import Counted, Place, Skipper, cached, watched

NEVER = -1.0  # a threshold that no change is below


class FirstBlockCache:
    """The method; see the module's text."""

    name = "fbcache"

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self.counted = Counted()
        self._parts: list[_Part] = []

    def refusal(self, model: Any, run: Run) -> str:
        layout = layout_of(model)
        if len(layout.blocks(model)) < 2:
            return "it needs a block beside the first, and the model has one"
        return layout.refusal(model, Seam.PASSES)

    @contextmanager
    def applied_to(self, model: Any) -> Iterator[None]:
        part = _Part(
            float(self._values["threshold"]),
            float(self._values["warmup"]),
            int(self._values["most"]),
        )
        with (
            watched(model, self.name, part, self.counted),
            cached(model, FirstBlockCacheConfig(threshold=NEVER)),
        ):
            first: Any = layout_of(model).blocks(model)[0]
            part.head = first._diffusers_hook.get_hook(_FBC_LEADER_BLOCK_HOOK)
            self._parts.append(part)
            try:
                yield
            finally:
                self._parts.remove(part)

    def begin(self, run: Run) -> None:
        self.counted.clear()
        for part in self._parts:
            part.forget()


@dataclass
class _Part(Skipper):
    threshold: float
    warmup: float
    most: int
    head: FBCHeadBlockHook | None = None
    in_a_row: dict[str, int] = field(default_factory=dict)  # branch -> passes skipped since one ran

    def call(
        self, here: Place, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]
    ) -> Any:
        if self.head is None:
            return run()
        skipped = self.in_a_row.get(here.branch, 0)
        allowed = self.threshold > 0 and not here.is_within(self.warmup) and skipped < self.most
        self.head.threshold = self.threshold if allowed else NEVER
        answer = run()
        self.in_a_row[here.branch] = (
            0 if self.head.state_manager.get_state().should_compute else skipped + 1
        )
        return answer

    def forget(self) -> None:
        self.in_a_row.clear()
        if self.head is not None:
            self.head.state_manager.reset()
