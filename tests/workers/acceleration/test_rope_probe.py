"""Which layers are told original times: what is measured of each, and which are chosen of what was measured."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.workers.acceleration.runs import SPEC, a_tiny_family
from tests.workers.acceleration.test_seams import traces
from tests.workers.acceleration.tiny import Twin, a_tiny_transformer, answer
from vidplat.errors import SpecError
from vidplat.workers.acceleration.attention import Attend, AttentionCall, linked
from vidplat.workers.acceleration.frame_rope import Times, timed
from vidplat.workers.acceleration.layouts import layout_of
from vidplat.workers.acceleration.rope_probe import chosen_layers, ratios
from vidplat.workers.models.family import Condition
from vidplat.workers.models.solver import Solver

FRAMES, LAYERS = 5, 3
KEPT = (0, 2, 4)  # of five latent frames


# --- choosing ---------------------------------------------------------------------------------------


def of_layers(*columns: float | list[float], prompts: int = 5) -> list[list[float]]:
    """Ratios (prompts x layers), a column for each layer; a number stands for the same on every prompt."""
    full = [column if isinstance(column, list) else [column] * prompts for column in columns]
    return [list(row) for row in zip(*full, strict=True)]


def test_the_layer_that_original_times_help_is_chosen() -> None:
    assert chosen_layers(of_layers(1.0, 0.8, 1.2)) == {1}


def test_where_they_help_no_layer_none_is_chosen() -> None:
    assert chosen_layers(of_layers(1.0, 1.1, 0.96)) == frozenset()


def test_a_ratio_of_exactly_0_95_does_not_help() -> None:
    assert chosen_layers(of_layers(0.95)) == frozenset()
    assert chosen_layers(of_layers(0.949)) == {0}


def test_it_must_help_on_four_of_five_prompts() -> None:
    four, three = [0.5, 0.5, 0.5, 0.5, 1.0], [0.1, 0.1, 0.1, 1.0, 1.0]
    assert chosen_layers(of_layers(four)) == {0}
    assert chosen_layers(of_layers(three)) == frozenset()  # whatever its mean, 0.46


def test_it_must_help_in_the_mean_too() -> None:
    # (0.9 * 4 + 2.0) / 5 = 1.12: better on most prompts, and much worse on one.
    assert chosen_layers(of_layers([0.9, 0.9, 0.9, 0.9, 2.0])) == frozenset()
    assert chosen_layers(of_layers([0.9, 0.9, 0.9, 0.9, math.inf])) == frozenset()


@pytest.mark.parametrize(("layers", "most"), [(1, 1), (6, 1), (13, 1), (14, 2), (20, 3), (40, 6), (60, 9)])
def test_of_layers_that_all_qualify_15_percent_are_chosen_and_one_at_least(layers: int, most: int) -> None:
    chosen = chosen_layers(of_layers(*(0.5 + 0.001 * layer for layer in range(layers))))
    assert chosen == set(range(most))


def test_without_a_cap_all_that_qualify_are_chosen() -> None:
    assert chosen_layers(of_layers(0.9, 1.0, 0.8, 0.7), cap=1.0) == {0, 2, 3}


def test_under_the_cap_the_least_mean_goes_first_and_the_earlier_of_equals() -> None:
    assert chosen_layers(of_layers(0.9, 0.7, 0.8)) == {1}
    assert chosen_layers(of_layers(0.9, 0.7, 0.7)) == {1}


@pytest.mark.parametrize("wrong", [[], [[0.9, 0.9], [0.9]]])
def test_every_prompt_must_have_a_ratio_per_layer(wrong: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="every prompt needs a ratio per layer"):
        chosen_layers(wrong)


# --- measuring --------------------------------------------------------------------------------------


@dataclass
class Halted:
    """A guided run that stands at its fifth step, where frames are left out."""

    family: Any
    solver: Solver
    condition: Condition
    latents: Tensor

    def left(self, frames: tuple[int, ...] = KEPT) -> Tensor:
        return self.latents[:, :, list(frames)]

    def ratios(self, frames: tuple[int, ...] = KEPT) -> tuple[float, ...]:
        return ratios(self.family, self.solver, self.condition, self.latents, self.left(frames), frames)

    def answer(self) -> Tensor:
        made: Tensor = self.family.velocity(self.latents, self.solver, self.condition)
        return made


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return a_tiny_family(tmp_path_factory.mktemp("probe"))


@pytest.fixture
def run(tiny: Any) -> Iterator[Halted]:
    with torch.inference_mode():
        condition = Condition(tiny.encode("a red circle"), tiny.encode(""), 3.0)
        solver, latents = tiny.solver(12), tiny.noise(SPEC, FRAMES)
        for _ in range(4):
            latents = solver.advance(tiny.velocity(latents, solver, condition), latents)
        yield Halted(tiny, solver, condition, latents)


@contextmanager
def counted(model: Any) -> Iterator[list[int]]:
    """The latent frames of each call of the transformer."""
    seen = list[int]()
    hook = model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["hidden_states"].shape[2]), with_kwargs=True
    )
    try:
        yield seen
    finally:
        hook.remove()


def tables_of(run: Halted, latents: Tensor) -> list[Any]:
    """The rotary tables of each layer, then of each again: a guided step calls the model twice."""
    layout, model, seen = layout_of(run.family.transformer), run.family.transformer, list[Any]()

    def noting(call: AttentionCall, rest: Attend) -> Tensor:
        seen.append(call.rotary)
        return rest(call)

    with linked(layout.attentions(model), layout.processor, noting):
        run.family.velocity(latents, run.solver, run.condition)
    return seen


def by_hand(run: Halted, frames: tuple[int, ...] = KEPT) -> list[float]:
    """The same ratios of one call with all layers compact, in which every attention is asked a second time, with the
    original rows: before a layer nothing has changed, so this must be all the same."""
    model = run.family.transformer
    layout = layout_of(model)
    attentions: Any = layout.attentions(model)
    with timed(model, layout, Times(frames)):
        original = tables_of(run, run.left(frames))[0]
    per_frame = math.prod(run.family.grid(run.latents)[1:])
    targets, local, told = (tuple(list[Tensor]() for _ in range(LAYERS)) for _ in range(3))

    def projected(layer: int, attended: Tensor) -> Tensor:
        made: Tensor = attentions[layer].to_out[0](attended.flatten(2, 3))
        return made

    def whole(call: AttentionCall, rest: Attend) -> Tensor:
        attended = rest(call)
        by_frame = projected(call.layer, attended).reshape(1, FRAMES, per_frame, -1)
        targets[call.layer].append(by_frame[:, list(frames)].flatten(1, 2))
        return attended

    def twice(call: AttentionCall, rest: Attend) -> Tensor:
        attended = rest(call)
        local[call.layer].append(projected(call.layer, attended))
        told[call.layer].append(projected(call.layer, rest(replace(call, rotary=original))))
        return attended

    with linked(attentions, layout.processor, whole):
        run.answer()
    with linked(attentions, layout.processor, twice):
        run.family.velocity(run.left(frames), run.solver, run.condition)

    def distance(one: list[Tensor], other: list[Tensor]) -> float:
        return sum(float((a - b).double().square().sum()) for a, b in zip(one, other, strict=True))

    return [distance(told[layer], targets[layer]) / distance(local[layer], targets[layer]) for layer in range(LAYERS)]


def test_a_layer_s_own_table_is_all_that_changes_for_it(run: Halted) -> None:
    found = run.ratios()

    assert found == pytest.approx(by_hand(run), rel=1e-4)
    assert all(abs(ratio - 1) > 1e-3 for ratio in found)


@pytest.mark.parametrize("frames", [(0, 1, 2), (0, 1, 2, 3, 4)])
def test_the_first_frames_have_the_same_times_either_way_and_every_ratio_is_1(
    run: Halted, frames: tuple[int, ...]
) -> None:
    # (0, 1, 2): both are equally far from the targets. All five: nothing is left out, and both distances are 0.
    assert run.ratios(frames) == (1.0,) * LAYERS


def test_one_forward_sees_the_whole_video_and_one_more_than_there_are_layers_what_is_left(run: Halted) -> None:
    with counted(run.family.transformer) as frames:
        run.ratios()
    # Two branches each.
    assert frames == [FRAMES] * 2 + [len(KEPT)] * 2 * (1 + LAYERS)


def test_without_guidance_there_is_one_branch(run: Halted) -> None:
    run.condition = replace(run.condition, negative=None, guidance_scale=1.0)
    with counted(run.family.transformer) as frames:
        assert len(run.ratios()) == LAYERS
    assert frames == [FRAMES] + [len(KEPT)] * (1 + LAYERS)


def test_afterwards_the_model_and_the_run_are_as_before(run: Halted) -> None:
    model, before, latents = run.family.transformer, run.answer(), run.latents.clone()
    weights = [weight.clone() for weight in model.parameters()]

    run.ratios()

    assert traces(model) == []
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(weight, was) for weight, was in zip(model.parameters(), weights, strict=True))
    assert run.solver.index == 4
    assert torch.equal(run.latents, latents)
    assert torch.equal(run.answer(), before)


def test_a_probe_that_fails_half_way_leaves_no_trace_either(run: Halted) -> None:
    before, wrong = run.answer(), run.left()[:, :8]  # the targets are there; these latents have too few channels
    with pytest.raises(RuntimeError):
        ratios(run.family, run.solver, run.condition, run.latents, wrong, KEPT)
    assert traces(run.family.transformer) == []
    assert not any(module._forward_hooks for module in run.family.transformer.modules())
    assert torch.equal(run.answer(), before)


def test_every_latent_that_is_left_must_be_named(run: Halted) -> None:
    with pytest.raises(SpecError, match=r"3 latent frames are left, but 2 are named: \(0, 4\)"):
        ratios(run.family, run.solver, run.condition, run.latents, run.left(), (0, 4))


def test_the_same_run_has_the_same_ratios(run: Halted) -> None:
    assert run.ratios() == run.ratios()


def test_of_two_transformers_the_one_that_runs_is_probed(run: Halted, tmp_path: Path) -> None:
    alone = run.ratios()
    other = a_tiny_family(tmp_path).transformer
    pair = _Pair(run.family, other)
    with counted(other) as frames:
        assert ratios(pair, run.solver, run.condition, run.latents, run.left(), KEPT) == alone
    assert frames == []
    assert traces(other) == []


@pytest.mark.parametrize("frames", [KEPT, (0, 1, 2)])
def test_of_joint_attention_the_video_s_part_is_compared(frames: tuple[int, ...]) -> None:
    # HunyuanVideo: two dual-stream blocks and two single-stream ones, whose attention answers (video, text).
    joint: Any = _Joint(a_tiny_transformer("hunyuan"))
    none: Any = None
    whole = joint.twin.latents

    found = ratios(joint, none, none, whole, whole[:, :, list(frames)], frames)

    assert len(found) == 4
    assert all((ratio == 1.0) == (frames == (0, 1, 2)) for ratio in found)


class _Joint:
    """As much of a family as is asked, around a bare transformer."""

    def __init__(self, twin: Twin) -> None:
        self.twin, self.transformers = twin, (twin.model,)

    def grid(self, latents: Tensor) -> tuple[int, int, int]:
        return latents.shape[2], latents.shape[3] // 2, latents.shape[4] // 2

    def velocity(self, latents: Tensor, solver: Solver, condition: Condition) -> Tensor:
        return answer(self.twin, latents=latents)


class _Pair:
    """A family with a second transformer for later steps, of which none is near."""

    def __init__(self, family: Any, other: Any) -> None:
        self._family, self.transformers = family, (family.transformer, other)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._family, name)
