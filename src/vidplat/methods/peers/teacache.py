"""TeaCache: passes are skipped while the time embedding changes little (arXiv 2411.19108).

At each step and for each branch the relative change of a signal is measured, mean|m_t - m_{t-1}| /
mean|m_{t-1}|, where m is `Layout.time_signal`. A polynomial turns it into the change of the output
to be expected, and these are summed. While the sum is below the threshold the blocks are skipped:
their answer is the tokens before them plus what the blocks added in the last pass that ran. A new
projection of the new time ends the pass as always.

The polynomials were published for some models (`PUBLISHED`, fitted by the authors at 50 steps). For
others, flipbook and Wan 2.2 among them, one is fitted to a rehearsal of the run (`calibration.py`).
Computed always are the first steps and the last one: the authors' counts of 50 steps are taken as
shares of the run's own. The total may shrink in mid-run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidplat.methods.peers.calibration import key_of, learned, remember
from vidplat.methods.protocol import Run
from vidplat.methods.seams.layouts import Args, Kwargs, Layout, layout_of
from vidplat.methods.seams.passes import Place, Skipper, SkippingMethod


@dataclass(frozen=True)
class Polynomial:
    """From the signal's relative change to the output's: highest degree first."""

    coefficients: tuple[float, ...]
    first: float  # share of the steps, at the start, that is always computed
    # the largest change it was fitted to; beyond it goes on in proportion (our choice)
    fitted_to: float = float("inf")

    def __call__(self, change: float) -> float:
        """Never negative for a fitted one; published ones are evaluated as by their authors."""
        if self.fitted_to == float("inf"):
            return float(np.polyval(self.coefficients, change))
        inside = min(change, self.fitted_to)
        found = max(0.0, float(np.polyval(self.coefficients, inside)))
        return found * change / inside if inside > 0 else found


#: By class, blocks, heads and frames per token, which tell the published models apart. Sources:
#: TeaCache's repository, TeaCache4Wan2.1 (constants for the projected embedding),
#: TeaCache4LTX-Video, TeaCache4HunyuanVideo and TeaCache4CogVideoX1.5; `first` is its `ret_steps`
#: of 50 steps.
PUBLISHED: Mapping[tuple[str, int, int, int | None], Polynomial] = {
    ("WanTransformer3DModel", 30, 12, None): Polynomial(
        (-5.21862437e4, 9.23041404e3, -5.28275948e2, 1.36987616e1, -4.99875664e-2), first=0.1
    ),
    ("WanTransformer3DModel", 40, 40, None): Polynomial(
        (-3.03318725e5, 4.90537029e4, -2.65530556e3, 5.87365115e1, -3.15583525e-1), first=0.1
    ),
    ("LTXVideoTransformer3DModel", 28, 32, None): Polynomial(
        (2.14700694e1, -1.28016453e1, 2.31279151, 7.92487521e-1, 9.69274326e-3), first=0.02
    ),
    ("HunyuanVideoTransformer3DModel", 20, 24, None): Polynomial(
        (7.33226126e2, -4.01131952e2, 6.75869174e1, -3.14987800, 9.61237896e-2), first=0.02
    ),
    ("CogVideoXTransformer3DModel", 30, 30, None): Polynomial(
        (-3.10658903e1, 2.54732368e1, -5.92380459, 1.75769064, -3.61568434e-3), first=0.02
    ),
    ("CogVideoXTransformer3DModel", 42, 48, None): Polynomial(
        (-1.53880483e3, 8.43202495e2, -1.34363087e2, 7.97131516, -5.23162339e-2), first=0.02
    ),
    ("CogVideoXTransformer3DModel", 42, 48, 2): Polynomial(
        (2.50210439e2, -1.65061612e2, 3.57804877e1, -7.81551492e-1, 3.58559703e-2), first=0.02
    ),
}
FITTED_FIRST = 0.1  # of a fitted one: as Wan's, whose signal most of them share


class TeaCache(SkippingMethod):
    name = "teacache"

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__()
        self._threshold = float(values["threshold"])

    def part_of(self, model: Any) -> _Part:
        return _Part(model, layout_of(model), self._threshold)

    def begin(self, run: Run) -> None:
        super().begin(run)
        for part in self.parts:
            part.polynomial = self._polynomial(part, run)

    def is_calibrated(self, run: Run) -> bool:
        return self._threshold == 0 or all(self._polynomial(part, run) for part in self.parts)

    @contextmanager
    def calibrating(self, run: Run) -> Iterator[None]:
        for part in self.parts:
            part.forget()
            part.seen = []
        try:
            yield
            for part in self.parts:
                remember(part.model, key_of(self.name, run), fitted(part.seen or []))
        finally:
            for part in self.parts:
                part.seen = None
                part.forget()

    def _polynomial(self, part: _Part, run: Run) -> Polynomial | None:
        # of two transformers neither is one that a polynomial was published for
        if len(self.parts) == 1 and (published := published_for(part.model)):
            return published
        found: Polynomial | None = learned(part.model, key_of(self.name, run))
        return found


def published_for(model: Any) -> Polynomial | None:
    """The authors' polynomial for this transformer, told by its shape."""
    config = model.config
    name = type(model).__name__
    span = getattr(config, "patch_size_t", None) if name == "CogVideoXTransformer3DModel" else None
    return PUBLISHED.get((name, config.num_layers, config.num_attention_heads, span))


def fitted(seen: Sequence[tuple[float, float]]) -> Polynomial:
    """Least squares through (signal's change, output's change) of a rehearsal, of degree 4 as the
    authors' (less when there are fewer than four points for each coefficient: our choice, against
    wiggles between few points)."""
    if not seen:  # this transformer ran at most once: nothing to skip
        return Polynomial((0.0,), FITTED_FIRST, 0.0)
    signal, output = np.array(seen).T
    if len(set(signal)) < 2:
        return Polynomial((float(output.mean()),), FITTED_FIRST, float(signal.max()))
    degree = min(4, max(1, len(seen) // 4 - 1))
    found = tuple(map(float, np.polyfit(signal, output, degree)))
    return Polynomial(found, FITTED_FIRST, float(signal.max()))


@dataclass
class _Branch:
    signal: Tensor | None = None  # of the last step
    change: float | None = None  # of the signal, at this step
    distance: float = 0.0  # sum since the last pass that ran
    added: Tensor | None = None  # (B, N, d) by all blocks, in the last pass that ran
    output: Tensor | None = None  # of the last step of a rehearsal


@dataclass
class _Part(Skipper):
    model: Any
    layout: Layout
    threshold: float
    polynomial: Polynomial | None = None
    seen: list[tuple[float, float]] | None = None  # in a rehearsal: changes of signal and output
    branches: dict[str, _Branch] = field(default_factory=dict)

    watches_blocks = True

    def enter(self, here: Place, args: Args, kwargs: Kwargs, tokens: Tensor) -> Tensor | None:
        branch = self.branches.setdefault(here.branch, _Branch())
        signal = self.layout.time_signal(self.model, args, kwargs)
        branch.change = _change(signal, branch.signal)
        branch.signal = signal
        if self._computes(here, branch) or branch.added is None:
            branch.distance = 0.0
            return None
        return tokens + branch.added

    def _computes(self, here: Place, branch: _Branch) -> bool:
        if self.seen is not None or self.polynomial is None:
            return True
        if branch.change is None or branch.added is None:
            return True
        if here.is_within(self.polynomial.first) or here.is_last:
            return True
        branch.distance += self.polynomial(branch.change)
        return not branch.distance < self.threshold

    def leave(self, here: Place, entered: Tensor, left: Tensor) -> None:
        self.branches[here.branch].added = left - entered

    def call(self, here: Place, args: Args, kwargs: Kwargs, run: Callable[[], Any]) -> Any:
        answer = run()
        if self.seen is not None:
            branch = self.branches[here.branch]
            moved = _change(answer[0], branch.output)
            branch.output = answer[0]
            if moved is not None and branch.change is not None:
                self.seen.append((branch.change, moved))
        return answer

    def forget(self) -> None:
        self.branches.clear()


def _change(now: Tensor, before: Tensor | None) -> float | None:
    """Relative L1 change; None when there is nothing to compare with."""
    if before is None or before.shape != now.shape:
        return None
    size = torch.mean(before.abs(), dtype=torch.float32)
    return float(torch.mean((now - before).abs(), dtype=torch.float32) / size)
