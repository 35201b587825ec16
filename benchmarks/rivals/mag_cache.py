"""MagCache: passes are skipped while residuals keep their size (arXiv 2506.09045).

diffusers' own hooks (`MagCacheConfig`) do it. gamma_i = mean over tokens of |r_i| / |r_{i-1}|,
where r_i is what all blocks add at step i, hardly depends on the prompt; the blocks are skipped,
and the last residual added again, while the sum of |1 - product of gammas since the last pass that
ran| is within the threshold and at most three passes in a row are skipped. The first fifth of the
steps is always computed.

The gammas are learnt by diffusers' calibration mode in a rehearsal (`methods.peers.calibration`),
one list for each branch, as the authors' code has it. So every worker would first make a whole run
for nothing, which no plan counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from diffusers.hooks.mag_cache import _MAG_CACHE_LEADER_BLOCK_HOOK, MagCacheConfig, MagCacheHeadHook

from benchmarks.rivals.diffusers_cache import enabled
from vidplat.methods.kinds import Number, Values
from vidplat.methods.peers.calibration import key_of, learned, remember
from vidplat.methods.peers.words import CacheKind
from vidplat.methods.protocol import Method, Run
from vidplat.methods.seams.passes import Place, Skipper, SkippingMethod

WARMUP, MOST = 0.2, 3


class MagCacheKind(CacheKind):
    name = "magcache"
    parameters = MappingProxyType({"threshold": Number(0.12, 0.0, 10.0)})
    rehearses = True

    def install(self, values: Values) -> Method:
        return MagCache(float(values["threshold"]))


class MagCache(SkippingMethod):
    """The method; see the module's text."""

    name = "magcache"

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self._threshold = threshold

    def part_of(self, model: Any) -> _Part:
        config = MagCacheConfig(self._threshold, MOST, num_inference_steps=1, mag_ratios=[1.0])
        return _Part(model, config)

    @contextmanager
    def applied_to(self, model: Any) -> Iterator[None]:
        with super().applied_to(model):
            part = self.parts[-1]
            with enabled(model, part.config, _MAG_CACHE_LEADER_BLOCK_HOOK) as part.head:
                yield

    def begin(self, run: Run) -> None:
        super().begin(run)
        for part in self.parts:
            part.gammas = learned(part.model, key_of(self.name, run)) or {}

    def is_calibrated(self, run: Run) -> bool:
        return all(learned(part.model, key_of(self.name, run)) is not None for part in self.parts)

    @contextmanager
    def calibrating(self, run: Run) -> Iterator[None]:
        for part in self.parts:
            part.forget()
            part.config.calibrate = True
        try:
            yield
            for part in self.parts:
                remember(part.model, key_of(self.name, run), dict(part.seen))
        finally:
            for part in self.parts:
                part.config.calibrate = False
                part.forget()


@dataclass
class _Part(Skipper):
    model: Any
    config: MagCacheConfig
    head: MagCacheHeadHook | None = None
    gammas: Mapping[str, list[float]] = field(default_factory=dict)  # by branch, one for each step
    seen: dict[str, list[float]] = field(default_factory=dict)  # the same, in a rehearsal

    def call(
        self, here: Place, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]
    ) -> Any:
        assert self.head is not None, "installed"
        assert here.steps is not None, "told by every loop"
        state = self.head.state_manager.get_state()
        state.step_index = here.step  # a second transformer begins in mid-run
        # One step more than there are: at the last one diffusers would reset its states and print.
        self.config.num_inference_steps = here.steps + 1
        self.config.retention_ratio = max(1.0, WARMUP * here.steps) / (here.steps + 1)
        self.config.mag_ratios = self.gammas.get(here.branch, [])
        answer = run()
        if self.config.calibrate:
            self.seen.setdefault(here.branch, []).append(state.calibration_ratios[-1])
        return answer

    def forget(self) -> None:
        self.seen.clear()
        if self.head is not None:
            self.head.state_manager.reset()
