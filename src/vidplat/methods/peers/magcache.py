"""MagCache: passes are skipped while residuals keep their size (arXiv 2506.09045).

diffusers' own hooks (`MagCacheConfig`) do it. gamma_i = mean over tokens of |r_i| / |r_{i-1}|,
where r_i is what all blocks add at step i, hardly depends on the prompt; the blocks are skipped,
and the last residual added again, while the sum of |1 - product of gammas since the last pass that
ran| is within the threshold and at most `most` passes in a row are skipped. The first `warmup`
share of steps is always computed.

The gammas are learned by diffusers' calibration mode in a rehearsal (`calibration.py`) at the run's
own steps, solver, guidance and size, per transformer and per branch (diffusers has one list for
both; the authors' code one for each). They are kept as a curve over sigma, log-linear in between,
G(sigma_i) = sum of log gamma up to i, and read off as exp(G(now) - G(before)): at the rehearsed
sigmas these are the gammas themselves, and a run whose remaining steps are spaced anew gets the
products it needs. diffusers counts steps by itself from a transformer's first call; here the run's
own index and total are told before every pass, so a second transformer and a shrinking total are
counted rightly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import exp, log
from typing import Any

import numpy as np
from diffusers.hooks.mag_cache import _MAG_CACHE_LEADER_BLOCK_HOOK, MagCacheConfig, MagCacheHeadHook

from vidplat.methods.kinds import Seam
from vidplat.methods.peers.calibration import key_of, learned, remember
from vidplat.methods.protocol import Run
from vidplat.methods.seams.layouts import layout_of
from vidplat.methods.seams.passes import Counted, Place, Skipper, cached, watched

NEVER = -1.0  # a threshold that no sum is within
# More steps than any run has: diffusers prints its ratios when a calibration ends.
ENDLESS = 10**9


@dataclass(frozen=True)
class Curve:
    """How the residual's size changes along a run: `logs` is G at `sigmas`, which rise."""

    sigmas: tuple[float, ...]
    logs: tuple[float, ...]

    @classmethod
    def of(cls, seen: list[tuple[float, float]]) -> Curve:
        """From (sigma, gamma) of each step of a rehearsal, in its order: sigmas fall."""
        sigmas, logs, so_far = [], [], 0.0
        for sigma, gamma in seen:
            so_far += log(gamma) if gamma > 0 else 0.0
            sigmas.append(sigma)
            logs.append(so_far)
        return cls(tuple(reversed(sigmas)), tuple(reversed(logs)))

    def ratio(self, before: float, now: float) -> float:
        """gamma of a step from sigma `before` to sigma `now`."""
        g = np.interp([before, now], self.sigmas, self.logs)
        return exp(float(g[1] - g[0]))


class MagCache:
    """The method; see the module's text."""

    name = "magcache"

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self.counted = Counted()
        self._parts: list[_Part] = []

    def refusal(self, model: Any, run: Run) -> str:
        return layout_of(model).refusal(model, Seam.PASSES)

    @contextmanager
    def applied_to(self, model: Any) -> Iterator[None]:
        threshold = float(self._values["threshold"]) or NEVER
        config = MagCacheConfig(
            threshold, int(self._values["most"]), num_inference_steps=1, mag_ratios=[1.0]
        )
        part = _Part(model, config, float(self._values["warmup"]))
        with watched(model, self.name, part, self.counted), cached(model, config):
            first: Any = layout_of(model).blocks(model)[0]
            part.head = first._diffusers_hook.get_hook(_MAG_CACHE_LEADER_BLOCK_HOOK)
            self._parts.append(part)
            try:
                yield
            finally:
                self._parts.remove(part)

    def begin(self, run: Run) -> None:
        self.counted.clear()
        for part in self._parts:
            part.forget()
            part.curves = learned(part.model, key_of(self.name, run)) or {}

    def is_calibrated(self, run: Run) -> bool:
        if float(self._values["threshold"]) == 0:
            return True
        return all(learned(part.model, key_of(self.name, run)) is not None for part in self._parts)

    @contextmanager
    def calibrating(self, run: Run) -> Iterator[None]:
        for part in self._parts:
            part.forget()
            part.seen = {}
        try:
            yield
            for part in self._parts:
                curves = {branch: Curve.of(seen) for branch, seen in (part.seen or {}).items()}
                remember(part.model, key_of(self.name, run), curves)
        finally:
            for part in self._parts:
                part.seen = None
                part.forget()


@dataclass
class _Part(Skipper):
    model: Any
    config: MagCacheConfig
    warmup: float
    head: MagCacheHeadHook | None = None
    curves: Mapping[str, Curve] = field(default_factory=dict)
    seen: dict[str, list[tuple[float, float]]] | None = (
        None  # in a rehearsal: branch -> sigma and gamma of each step
    )
    sigmas: dict[str, float] = field(default_factory=dict)  # branch -> sigma of its last step

    def call(
        self, here: Place, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]
    ) -> Any:
        if self.head is None:
            return run()
        state = self.head.state_manager.get_state()
        state.step_index = here.step
        self.config.calibrate = self.seen is not None
        # Above all steps: diffusers would reset (and print) at the last one; `begin` does it, and
        # frees no later.
        self.config.num_inference_steps = ENDLESS
        steps = here.steps or 0
        always = max(1, round(self.warmup * steps))
        # diffusers rounds retention_ratio * num_inference_steps down after adding a half.
        self.config.retention_ratio = (always if here.branch in self.curves else ENDLESS) / ENDLESS
        self.config.mag_ratios = [1.0] * here.step + [self._ratio(here)]
        answer = run()
        if here.sigma is not None:
            self.sigmas[here.branch] = here.sigma
            if self.seen is not None:
                self.seen.setdefault(here.branch, []).append(
                    (here.sigma, state.calibration_ratios[-1])
                )
        return answer

    def _ratio(self, here: Place) -> float:
        before, curve = self.sigmas.get(here.branch), self.curves.get(here.branch)
        if here.sigma is None or before is None or curve is None:
            return 1.0
        return curve.ratio(before, here.sigma)

    def forget(self) -> None:
        self.sigmas.clear()
        if self.head is not None:
            self.head.state_manager.reset()
