"""Early: Euler on a part of the run's own sigmas, in every kind of run, and exactly the cost that
was foretold.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.methods.on_model.counting import counting
from tests.methods.on_model.runs import CIRCLE, SPEC, a_tiny_family, denoised, error
from tests.methods.on_model.tiny import a_tiny_pair, a_tiny_transformer, answer
from vidplat.domain import OperatingPoint
from vidplat.errors import MethodRefused
from vidplat.methods.early.grid import passes_of
from vidplat.methods.early.on_model import Early
from vidplat.methods.language import parse
from vidplat.methods.protocol import Grid, Run
from vidplat.methods.seams.solver_choice import EulerScheduler
from vidplat.methods.work import method_work
from vidplat.workers.models.catalogue import describe_model
from vidplat.workers.models.family import Condition
from vidplat.workers.survey.flops import Flops, counted

STEPS = SPEC.num_inference_steps  # 12


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return a_tiny_family(tmp_path_factory.mktemp("models") / "tiny")


def early(text: str) -> Early:
    made = parse(text)[0].install()
    assert isinstance(made, Early)
    return made


def take(twin: Any, step: int, *, branch: str = "cond", steps: int = STEPS) -> Tensor:
    """The answer at a step, of latents that differ from step to step."""
    with (
        torch.inference_mode(),
        twin.model.cache_context(branch, step_index=step, num_inference_steps=steps),
    ):
        made: Tensor = twin.model(
            hidden_states=twin.latents * (1 + 0.1 * step),
            timestep=torch.tensor([500.0]),
            return_dict=False,
            **twin.inputs,
        )[0]
    return made


def running(text: str, told: list[tuple[int, int]]) -> list[int]:
    """The steps that run, of a walk over (step, steps of the run by now)."""
    twin, method = a_tiny_transformer("wan", frames=1), early(text)
    ran = []
    with method.applied_to(twin.model), counting(twin.model) as found:
        for step, steps in told:
            before = found.whole["cond"]
            take(twin, step, steps=steps)
            if found.whole["cond"] > before:
                ran.append(step)
    return ran


def test_all_passes_at_work_1_are_the_stock_run_bit_for_bit(tiny: Any) -> None:
    assert torch.equal(denoised(tiny, "early:1"), denoised(tiny, ""))


@pytest.mark.parametrize("work", [0.25, 0.5, 0.75])
def test_held_steps_equal_one_longer_euler_step(tiny: Any, work: float) -> None:
    made = denoised(tiny, f"early:{work}")

    solver, latents = tiny.solver(STEPS), tiny.noise(SPEC)
    condition = Condition(tiny.encode(CIRCLE), tiny.encode(""), SPEC.guidance_scale)
    places = passes_of(work, STEPS)
    with torch.inference_mode():
        for place, following in zip(places, (*places[1:], STEPS), strict=True):
            solver.index = place
            velocity = tiny.velocity(latents, solver, condition)
            latents = latents + (solver.sigmas[following] - solver.sigmas[place]) * velocity
    assert error(made, latents) < 1e-6


def test_both_branches_skip_together_and_each_gives_its_own_answer() -> None:
    twin, method = a_tiny_transformer("wan"), early("early:0.5")
    other = replace(
        twin, inputs={"encoder_hidden_states": twin.inputs["encoder_hidden_states"] + 1}
    )
    places = passes_of(0.5, STEPS)
    with method.applied_to(twin.model), counting(twin.model) as found:
        kept: dict[str, Tensor] = {}
        for step in range(STEPS):
            answers = {"cond": take(twin, step), "uncond": take(other, step, branch="uncond")}
            if step not in places:
                assert all(torch.equal(answers[branch], kept[branch]) for branch in answers)
            assert not torch.equal(answers["cond"], answers["uncond"])
            kept = answers
    assert found.whole == {"cond": len(places), "uncond": len(places)}
    assert found.skipped == {"cond": STEPS - len(places), "uncond": STEPS - len(places)}


def test_an_edit_counts_the_steps_that_it_takes(tiny: Any) -> None:
    # The last 6 of 12 steps are taken; a half of them is 3 passes of two branches, and the grid
    # begins with the first.
    source = tiny.noise(replace(SPEC, seed=77))
    with counted(tiny.transformer) as whole:
        denoised(tiny, "", source=source)
    with counted(tiny.transformer) as half:
        denoised(tiny, "early:0.5", source=source)
    assert half.total * 2 == whole.total


def test_a_shortened_run_keeps_the_passes_it_has_steps_for() -> None:
    # Planned for 12 steps: PLANNED. When after 6 of them one is left, it stands for all that was to
    # come, and runs.
    planned = list(passes_of(0.5, 12))
    assert running("early:0.5", [(step, 12) for step in range(12)]) == planned
    done = [step for step in planned if step < 6]
    assert running("early:0.5", [*((step, 12) for step in range(6)), (6, 7)]) == [*done, 6]


def test_a_deadline_counts_held_steps_as_free() -> None:
    # Nothing has run: all the passes of a run are to come. Of 12 steps, 6 passes: a full run's
    # half.
    method = early("early:0.5")
    assert sum(method.share(step, 12) for step in range(12)) == 6
    # With time for 3 more passes a run of 12 is shortened to as many steps as hold no more than 3.
    twin = a_tiny_transformer("wan", frames=1)
    with method.applied_to(twin.model):
        for step in range(4):
            take(twin, step)
        left = {
            count: sum(method.share(step, 4 + count) for step in range(4, 4 + count))
            for count in range(1, 9)
        }
    to_come = sum(step >= 4 for step in passes_of(0.5, 12))
    assert left[8] == to_come
    assert all(left[count] <= left[count + 1] for count in range(1, 8))
    assert left[1] == 1


def test_two_transformers_share_one_grid_and_hold_across_their_boundary() -> None:
    noisy, clean = a_tiny_pair()
    places = passes_of(0.5, STEPS)
    boundary = next(step for step in range(3, STEPS) if step not in places)
    method = early("early:0.5")
    with (
        method.applied_to(noisy.model),
        method.applied_to(clean.model),
        counting(noisy.model, clean.model) as found,
    ):
        made = [take(noisy if step < boundary else clean, step) for step in range(STEPS)]
    assert torch.equal(made[boundary], made[boundary - 1])
    assert found.whole == {"cond": len(places)}
    assert torch.equal(answer(noisy), answer(a_tiny_pair()[0]))


def test_answers_of_16_bits_are_held_in_32() -> None:
    twin = a_tiny_transformer("wan", frames=1)
    twin.model.to(torch.bfloat16)
    twin = replace(
        twin,
        latents=twin.latents.bfloat16(),
        inputs={"encoder_hidden_states": twin.inputs["encoder_hidden_states"].bfloat16()},
    )
    with early("early:0.01").applied_to(twin.model):
        ran, held = take(twin, 0), take(twin, 1)
    assert (ran.dtype, held.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(ran.float(), held)


def test_a_video_that_lost_a_frame_since_runs_at_once() -> None:
    twin, method = a_tiny_transformer("wan", frames=2), early("early:0.01")
    with method.applied_to(twin.model), counting(twin.model) as found:
        take(twin, 0)
        shorter = take(replace(twin, latents=twin.latents[:, :, :1]), 1)
        assert torch.equal(take(replace(twin, latents=twin.latents[:, :, :1]), 2), shorter)
    assert shorter.shape[2] == 1
    assert found.whole == {"cond": 2}


def test_diffusers_reset_at_a_pipeline_s_end_forgets_all() -> None:
    twin = a_tiny_transformer("wan", frames=1)
    with early("early:0.5").applied_to(twin.model):
        fresh = [take(twin, step) for step in range(6)]
        twin.model._reset_stateful_cache()
        assert all(torch.equal(take(twin, step), fresh[step]) for step in range(6))


def test_what_it_costs_is_what_the_closed_form_says(tiny: Any) -> None:
    _, shape = describe_model("flipbook")

    def flops(text: str) -> Flops:
        with counted(tiny.transformer) as found:
            denoised(tiny, text)
        return found

    full, sparse = flops(""), flops("sparse:k=1")
    half = flops("early:0.4")
    said = method_work(shape, SPEC, OperatingPoint(STEPS, "early:0.4"))  # 4.8 passes are 5
    assert said.linear == said.attention == 5 / 12
    assert (half.linear * 12, half.attention * 12) == (full.linear * 5, full.attention * 5)
    # With two dense steps 3 of the 5 passes are sparse.
    both = flops("early:0.4+sparse:k=1,dense_steps=2")
    assert passes_of(0.4, 12)[:3] == (0, 1, 2)
    assert both.attention * 12 == 2 * full.attention + 3 * sparse.attention


def test_a_multistep_solver_is_refused_with_the_reason_and_euler_helps(tmp_path: Path) -> None:
    unipc = a_tiny_family(tmp_path / "unipc", scheduler="UniPCMultistepScheduler")
    with pytest.raises(
        MethodRefused, match="the solver is UniPCMultistepScheduler, which would take the change of"
    ):
        denoised(unipc, "early")
    assert torch.isfinite(denoised(unipc, "early+euler")).all()


@pytest.mark.parametrize(
    ("family", "told"), [("cogvideox", "cannot be given again at another step"), ("ltx", "")]
)
def test_v_prediction_is_refused_with_the_reason(family: str, told: str) -> None:
    solver: Any = SimpleNamespace(scheduler=EulerScheduler(), total=STEPS)
    why = early("early").refusal(
        a_tiny_transformer(family).model, Run(solver, Grid(5, 4, 6), 2, 6.0)
    )
    assert told in why and bool(why) == bool(told)


def test_a_call_that_does_not_tell_the_number_of_steps_is_told_what_is_missing() -> None:
    twin = a_tiny_transformer("wan", frames=1)
    with (
        early("early").applied_to(twin.model),
        pytest.raises(ValueError, match="num_inference_steps"),
    ):
        answer(twin)
