"""Which frames a layer can do without: the layer-wise search for tile masks, without gradients.

1. `recorded`: run the model's own sampling trajectories, dense, and keep its calls at four noise
   levels of each.
2. `measured`: repeat these calls; in every layer compute attention under each candidate mask beside
   the full one, and average the error over all calls.
3. `within` or `budgeted`: take for each layer the sparsest mask whose error is at most r; or, for a
   wanted density, the masks that lose least per FLOP saved.

Source: Efficient-vDiT, arXiv 2502.06155, stage 2: greedy per layer with a threshold. The metric,
the calibration set and the other variants are our choice; the paper's thresholds are not ours,
since its metric is not free of scale.

    metric    relative   ||o_m - o_full|| / ||o_full||, o the attention output before `to_out` (the
              default) absolute   mean of (o_m - o_full)^2 output     ||v_m - v|| / ||v||, v the
              network's answer when this layer alone is sparse; a forward for each layer and mask
    sequential           a layer is measured with those before it already sparse; a pass over all
                         calls for each layer

Calibrate the model that will be used: masks do not outlast a distillation.

Legend: L layers, F latent frames, P tokens per frame, k reference frames, r threshold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vidplat.domain import ModelRef, VideoSpec
from vidplat.errors import SpecError, UsageError, printable
from vidplat.methods.kinds import Seam
from vidplat.methods.protocol import Grid
from vidplat.methods.seams.attention import Attend, AttentionCall, linked
from vidplat.methods.seams.layouts import layout_of
from vidplat.methods.seams.solver_choice import shift_of, solver_name
from vidplat.methods.seams.tokens import Pass, located
from vidplat.methods.vdit import tiles
from vidplat.methods.vdit.frame_by_frame import gather
from vidplat.methods.vdit.mask_file import LayerMask, Masks, revision_of
from vidplat.methods.vdit.tiling import Tiling
from vidplat.workers.models.family import Condition, Family

METRICS = ("relative", "absolute", "output")
SIGMAS = 4  # noise levels of each trajectory
Errors = Mapping[int, tuple[float, ...]]  # k -> error in each layer; the full mask is not in it
OnStep = Callable[[str, int, int], None]  # what is done, forwards done, forwards in all


@dataclass(frozen=True)
class Wanted:
    """What to search for. A `density` takes the place of the threshold."""

    threshold: float = 0.05  # r
    density: float | None = None  # most mean share of kept tiles
    metric: str = "relative"
    is_sequential: bool = False

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise UsageError(
                f"the metric must be one of {', '.join(METRICS)}, not {printable(self.metric)!r}"
            )
        if self.is_sequential and (self.metric == "output" or self.density is not None):
            raise UsageError(
                "a sequential search goes by a threshold, and by the error of attention, not of "
                "the output"
            )
        if not self.threshold >= 0:  # also false for NaN
            raise UsageError(f"the threshold r must be zero or more, not {self.threshold:g}")


@dataclass(frozen=True)
class Sample:
    """One call of a transformer on a sampling trajectory."""

    place: Pass
    sigma: float
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def search(
    family: Family,
    reference: ModelRef,
    prompts: Sequence[str],
    spec: VideoSpec,
    wanted: Wanted,
    scheduler: Any = None,
    on_step: OnStep = lambda phase, done, total: None,
) -> tuple[Masks, ...]:
    """Masks for each transformer of a loaded model, for videos of `spec`'s length.

    `scheduler` is the solver that will be used; None: the model's own. Raises `SpecError` when the
    model or the length leaves nothing to search.
    """
    used = scheduler if scheduler is not None else family.scheduler
    frames = family.grid(family.noise(spec))[0]
    if len(tiles.candidates(frames)) == 1:
        raise SpecError(
            f"masks for {frames} latent frame(s) leave nothing out: search for a longer video"
        )
    for model in family.transformers:
        if why := layout_of(model).refusal(model, Seam.ATTENTION):
            raise SpecError(f"masks cannot be searched for this model: {why}")
    kept = recorded(family, prompts, spec, used, on_step)
    parts = ("transformer", "transformer_2")
    found = []
    for part, model, samples in zip(parts, family.transformers, kept, strict=False):
        if not samples:
            raise SpecError(
                f"no step of {spec.num_inference_steps} runs the {part}: search with more steps"
            )
        grid = samples[0].place.grid
        chosen, errors = _chosen(model, samples, wanted, on_step)
        layers = tuple(
            LayerMask(k, 0.0 if k == frames else errors[k][layer]) for layer, k in enumerate(chosen)
        )
        found.append(
            Masks(
                model=reference.id,
                revision=reference.revision,
                transformer=revision_of(model),
                part=part,
                frames=frames,
                per_frame=grid.per_frame,
                threshold=None if wanted.density is not None else wanted.threshold,
                solver=solver_name(used),
                shift=shift_of(used),
                sigmas=tuple(sorted({round(sample.sigma, 6) for sample in samples}, reverse=True)),
                prompts=len(prompts),
                metric=wanted.metric,
                is_sequential=wanted.is_sequential,
                layers=layers,
                errors=errors,
            )
        )
    return tuple(found)


def _chosen(
    model: Any, samples: Sequence[Sample], wanted: Wanted, on_step: OnStep
) -> tuple[tuple[int, ...], dict[int, tuple[float, ...]]]:
    frames = samples[0].place.grid.frames
    if wanted.is_sequential:
        return _one_after_another(model, samples, wanted, on_step)
    errors = measured(model, samples, wanted.metric, on_step)
    if wanted.density is not None:
        return budgeted(errors, frames, wanted.density), errors
    return within(errors, frames, wanted.threshold), errors


# --- 1. trajectories ------------------------------------------------------------------------------


@torch.inference_mode()
def recorded(
    family: Family, prompts: Sequence[str], spec: VideoSpec, scheduler: Any, on_step: OnStep
) -> tuple[list[Sample], ...]:
    """For each transformer its calls at `SIGMAS` evenly spaced steps of those it takes, for every
    prompt and branch. Prompt i starts from the noise of seed `spec.seed` + i."""
    kept: tuple[list[Sample], ...] = tuple([] for _ in family.transformers)
    guided = spec.guidance_scale > 1
    negative = family.encode("") if guided else None
    total = len(prompts) * spec.num_inference_steps
    for number, prompt in enumerate(prompts):
        condition = Condition(family.encode(prompt), negative, spec.guidance_scale)
        solver = family.solver(spec.num_inference_steps, scheduler)
        latents = family.noise(replace(spec, seed=spec.seed + number))
        with ExitStack() as stack:
            calls = [
                stack.enter_context(_recording(model, solver.sigmas))
                for model in family.transformers
            ]
            while solver.remaining:
                latents = solver.advance(family.velocity(latents, solver, condition), latents)
                on_step("sampling", number * solver.total + solver.index, total)
        for mine, made in zip(kept, calls, strict=True):
            taken = _spread(sorted({call.place.step for call in made}), SIGMAS)
            mine.extend(call for call in made if call.place.step in taken)
    return kept


@contextmanager
def _recording(model: Any, sigmas: Sequence[float]) -> Iterator[list[Sample]]:
    calls: list[Sample] = []

    def note(here: Pass, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append(Sample(here, sigmas[here.step], args, dict(kwargs)))

    with located(model, layout_of(model), "mask-recording", note):
        yield calls


def _spread(steps: Sequence[int], many: int) -> set[int]:
    """`many` of the steps, at the middles of so many equal parts."""
    if len(steps) <= many:
        return set(steps)
    return {steps[int((part + 0.5) * len(steps) / many)] for part in range(many)}


def _again(model: Any, sample: Sample) -> Tensor:
    """The model's answer to a recorded call."""
    found: Tensor = model(*sample.args, **sample.kwargs)[0]
    return found


# --- 2. errors ------------------------------------------------------------------------------------


@torch.inference_mode()
def measured(
    model: Any, samples: Sequence[Sample], metric: str, on_step: OnStep
) -> dict[int, tuple[float, ...]]:
    """The mean error of every candidate mask in every layer, each layer alone sparse."""
    layout = layout_of(model)
    attentions = layout.attentions(model)
    grid = samples[0].place.grid
    sparse = tiles.candidates(grid.frames)[:-1]
    layers = len(attentions)
    if metric == "output":
        return _output_errors(model, samples, sparse, layers, on_step)
    probe = _Probe(grid, sparse, metric, range(layers))
    with linked(attentions, layout.processor, probe.link):
        for number, sample in enumerate(samples, start=1):
            _again(model, sample)
            on_step("measuring", number, len(samples))
    return {k: tuple(probe.mean(k, layer) for layer in range(layers)) for k in sparse}


def _output_errors(
    model: Any, samples: Sequence[Sample], sparse: Sequence[int], layers: int, on_step: OnStep
) -> dict[int, tuple[float, ...]]:
    layout = layout_of(model)
    sums = {k: [0.0] * layers for k in sparse}
    trial = _Trial(samples[0].place.grid, {})
    done, total = 0, len(samples) * layers * len(sparse)
    with linked(layout.attentions(model), layout.processor, trial.link):
        for sample in samples:
            trial.ks = {}
            whole = _again(model, sample)
            for layer in range(layers):
                for k in sparse:
                    trial.ks = {layer: k}
                    sums[k][layer] += _distance(_again(model, sample), whole, "relative")
                    on_step("measuring", done := done + 1, total)
    return {k: tuple(error / len(samples) for error in row) for k, row in sums.items()}


@torch.inference_mode()
def _one_after_another(
    model: Any, samples: Sequence[Sample], wanted: Wanted, on_step: OnStep
) -> tuple[tuple[int, ...], dict[int, tuple[float, ...]]]:
    layout = layout_of(model)
    attentions = layout.attentions(model)
    grid = samples[0].place.grid
    sparse = tiles.candidates(grid.frames)[:-1]
    trial = _Trial(grid, {})
    errors: dict[int, list[float]] = {k: [] for k in sparse}
    with linked(attentions, layout.processor, trial.link):
        for layer in range(len(attentions)):
            probe = _Probe(grid, sparse, wanted.metric, [layer])
            with linked(attentions, layout.processor, probe.link, first=True):
                for number, sample in enumerate(samples, start=1):
                    _again(model, sample)
                    on_step(
                        "measuring", layer * len(samples) + number, len(attentions) * len(samples)
                    )
            for k in sparse:
                errors[k].append(probe.mean(k, layer))
            here = {k: (errors[k][layer],) for k in sparse}
            trial.ks[layer] = within(here, grid.frames, wanted.threshold)[0]
    return tuple(trial.ks.values()), {k: tuple(row) for k, row in errors.items()}


class _Trial:
    """A link that makes some layers sparse; all others pass."""

    def __init__(self, grid: Grid, ks: dict[int, int]) -> None:
        self.ks = ks
        self._grid = grid

    def link(self, call: AttentionCall, rest: Attend) -> Tensor:
        k = self.ks.get(call.layer, self._grid.frames)
        if tiles.is_full(self._grid.frames, k):
            return rest(call)
        return _sparse(call, self._grid, k)


class _Probe:
    """A link that answers as the rest of the chain does, and sums up how far every candidate would
    be from that."""

    def __init__(self, grid: Grid, ks: Sequence[int], metric: str, layers: Sequence[int]) -> None:
        self._grid, self._ks, self._metric, self._layers = grid, ks, metric, set(layers)
        self._sums: dict[tuple[int, int], float] = {}
        self._counts: dict[int, int] = {}

    def link(self, call: AttentionCall, rest: Attend) -> Tensor:
        full = rest(call)
        if call.layer in self._layers:
            self._counts[call.layer] = self._counts.get(call.layer, 0) + 1
            for k in self._ks:
                error = _distance(_sparse(call, self._grid, k), full, self._metric)
                self._sums[k, call.layer] = self._sums.get((k, call.layer), 0.0) + error
        return full

    def mean(self, k: int, layer: int) -> float:
        return self._sums[k, layer] / self._counts[layer]


def _sparse(call: AttentionCall, grid: Grid, k: int) -> Tensor:
    call = call.rotated()
    tiling = Tiling(grid.frames, grid.per_frame, k, call.text, call.text_first)
    return gather(call.query, call.key, call.value, tiling, None, call.mask)


def _distance(made: Tensor, due: Tensor, metric: str) -> float:
    """Infinite where it is not a number, so that such a mask is never taken for a threshold."""
    off = made.float() - due.float()
    error = float(off.square().mean() if metric == "absolute" else off.norm() / due.float().norm())
    return error if math.isfinite(error) else math.inf


# --- 3. choice ------------------------------------------------------------------------------------


def within(errors: Errors, frames: int, threshold: float) -> tuple[int, ...]:
    """For each layer the sparsest k with an error of at most r = `threshold`, else F. A larger r is
    never denser."""
    layers = len(next(iter(errors.values())))
    return tuple(
        next((k for k in sorted(errors) if errors[k][layer] <= threshold), frames)
        for layer in range(layers)
    )


def budgeted(errors: Errors, frames: int, density: float) -> tuple[int, ...]:
    """Masks of at most this mean density with little error in all, greedily.

    From all layers full, always the change (one layer to one sparser mask) that adds least error
    per share of tiles saved, so the walk follows each layer's lower convex hull. Raises `SpecError`
    below the sparsest mask's density.
    """
    layers = len(next(iter(errors.values())))
    least = tiles.density(frames, min(errors))
    if density < least:
        raise SpecError(
            f"no mask for {frames} frames is sparser than a density of {least:.3f}, {density:g} "
            "was asked for"
        )
    chosen = [frames] * layers

    def error(layer: int, k: int) -> float:
        return 0.0 if k == frames else errors[k][layer]

    while tiles.mean_density(frames, chosen) > density:
        changes = [
            (
                (error(layer, k) - error(layer, now))
                / (tiles.density(frames, now) - tiles.density(frames, k)),
                layer,
                k,
            )
            for layer, now in enumerate(chosen)
            for k in sorted(errors)
            if k < now
        ]
        _, layer, k = min(changes)
        chosen[layer] = k
    return tuple(chosen)
