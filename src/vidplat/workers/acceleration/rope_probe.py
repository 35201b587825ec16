"""Which layers should be told the original times of frames that are left: a probe for VGDFR's DyRoPE.

The paper (arXiv 2504.12259, section 3.3) names the layers of HunyuanVideo that see original times, and no way to find
those of another model. Ours, on a few prompts of a calibration set, at the step where the video is made shorter:

1. All F frames run. What each layer's self-attention answers at the frames that are left is its target.
2. The M frames that are left run with compact times in all layers: `local`, a squared distance to each target.
3. For each layer they run again with original times in that layer alone: `global`, likewise.

A layer's ratio is global / local, below 1 where original times bring it nearer to what it answers in the whole video.
Layers before it are compact in both, so it is given the same tokens, and its own rotary tables are all that differs.
`chosen_layers` makes of many prompts' ratios the layers that `Vgdfr` takes.

A probe of a model of L layers takes one forward of F frames and 1 + L of M, each times the guidance branches. Targets
wait in main memory: M / F of every layer's answer, of all branches.

It says what one step's answers are nearer to, not which video is nearer to the full run. On flipbook the layers that it
chooses lose to original times in all layers (docs/decisions/0015, `benchmarks/rope_probe.py`), so no parameter offers
them.

Legend: B videos (1), C latent channels, F and M latent frames before and after, L layers, P tokens per frame,
n = M P, d model width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from vidplat.errors import SpecError
from vidplat.workers.acceleration.frame_rope import Times, timed
from vidplat.workers.acceleration.layouts import layout_of
from vidplat.workers.models.family import Condition, Family
from vidplat.workers.models.solver import Solver

BELOW, OF_PROMPTS = 0.95, 0.8  # a layer qualifies whose ratio is below this on such a share of the prompts
CAP = 0.15  # of the layers at most; the paper's are 8 of 60

Hear = Callable[[int, Tensor], None]  # layer, and its self-attention's answer (B, tokens, d)


def chosen_layers(ratios: Sequence[Sequence[float]], cap: float = CAP) -> frozenset[int]:
    """The layers to be told original times, of `ratios[prompt][layer]`.

    Those whose ratio is below `BELOW` in the mean and on `OF_PROMPTS` of the prompts; of more than `cap` of all layers
    the ones with the least means, but one at least. Raises `ValueError` for no prompts, or rows of unequal lengths.
    """
    if not ratios or len({len(row) for row in ratios}) != 1:
        raise ValueError(f"every prompt needs a ratio per layer; found rows of {[len(row) for row in ratios]}")
    by_layer = list(zip(*ratios, strict=True))
    means = [math.fsum(column) / len(column) for column in by_layer]
    helped = [sum(ratio < BELOW for ratio in column) / len(column) for column in by_layer]
    fit = [layer for layer, mean in enumerate(means) if mean < BELOW and helped[layer] >= OF_PROMPTS]
    most = max(1, math.floor(cap * len(means) + 1e-9))
    return frozenset(sorted(fit, key=lambda layer: means[layer])[:most])


@torch.inference_mode()
def ratios(
    family: Family, solver: Solver, condition: Condition, whole: Tensor, left: Tensor, frames: Sequence[int]
) -> tuple[float, ...]:
    """global / local of each layer, for one prompt at the solver's present step; all branches count together.

    `whole` (1, C, F, H, W) are the latents before anything is left out, `left` (1, C, M, H, W) those that go on
    (`vgdfr.compress`), `frames` which of the F they are, rising. No step is taken, and no trace is left on the model.
    Raises `SpecError` for a model that cannot be told times, and where as many frames as latents are not named.
    """
    if left.shape[2] != len(frames):
        raise SpecError(f"{left.shape[2]} latent frames are left, but {len(frames)} are named: {tuple(frames)}")
    _, rows, columns = family.grid(whole)
    per_frame = rows * columns
    kept = torch.tensor(list(frames), device=whole.device)
    times = Times(layers=frozenset())

    with ExitStack() as told:
        for model in family.transformers:
            told.enter_context(timed(model, layout_of(model), times))

        # 1. Targets: what each layer answers at these frames when all run.
        targets: dict[int, list[Tensor]] = {}

        def keep(layer: int, answer: Tensor) -> None:
            by_frame = answer.reshape(len(answer), -1, per_frame, answer.shape[-1])
            targets.setdefault(layer, []).append(by_frame.index_select(1, kept).flatten(1, 2).cpu())  # (B, n, d)

        with _heard(family, keep):
            family.velocity(whole, solver, condition)

        # 2. Compact times in all layers.
        times.frames = tuple(frames)

        def distances() -> dict[int, float]:
            found, calls = dict.fromkeys(targets, 0.0), dict.fromkeys(targets, 0)

            def compare(layer: int, answer: Tensor) -> None:
                due = targets[layer][calls[layer]].to(answer.device)
                calls[layer] += 1
                found[layer] += float((answer.float() - due.float()).square().sum(dtype=torch.float64))

            with _heard(family, compare):
                family.velocity(left, solver, condition)
            return found

        local = distances()

        # 3. Original times in one layer after the other.
        made = []
        for layer in sorted(targets):
            times.layers = frozenset({layer})
            made.append(_ratio(distances()[layer], local[layer]))
    return tuple(made)


def _ratio(own: float, local: float) -> float:
    """1 where both are equal, also where both are nothing."""
    if own == local:
        return 1.0
    return own / local if local else math.inf


@contextmanager
def _heard(family: Family, hear: Hear) -> Iterator[None]:
    """Within this context `hear` is told what each layer's self-attention answers, its video tokens alone."""
    handles = []

    def hook(layer: int) -> Callable[[Any, Any, Any], None]:
        # Joint attention answers (video, text).
        return lambda module, given, answer: hear(layer, answer[0] if isinstance(answer, tuple) else answer)

    for model in family.transformers:
        for layer, attention in enumerate(layout_of(model).attentions(model)):
            handles.append(attention.register_forward_hook(hook(layer)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
