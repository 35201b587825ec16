"""What the words refuse of a video before anything is loaded is what a loaded model refuses, and
nothing else: a plan promises neither too much nor too little."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)

from tests.methods.on_model.runs import SPEC, a_tiny_family
from vidplat.errors import MethodRefused
from vidplat.methods.installed import Installed
from vidplat.methods.kinds import Task
from vidplat.methods.language import unsuited
from vidplat.methods.protocol import Grid, Run

SCHEDULERS: dict[str, Any] = {
    "euler": FlowMatchEulerDiscreteScheduler(shift=3.0),
    "unipc": UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True),
    "dpm": DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True),
}
METHODS = (
    "hsa:25", "hsa:50", "hsa:75B", "hsa:work=0.3", "hsa:50+sparse", "hsa+euler",
    "hsa:25+euler", "early", "early:0.1+euler", "early+sparse:2", "sparse", "easycache", "eco",
    "eco:9", "eco:2,selector=motion", "eco:2,selector=motion+euler", "vgdfr", "vgdfr:k=4",
    "vgdfr+euler", "unipc", "euler",
)  # fmt: skip


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return a_tiny_family(tmp_path_factory.mktemp("models") / "tiny")


def refused_by_worker(family: Any, method: str, scheduler: Any, steps: int) -> str:
    spec = replace(SPEC, num_inference_steps=steps)
    installed = Installed(family.transformers)
    try:
        installed.use(method)
        solver = family.solver(steps, installed.scheduler(scheduler))
        noise = family.noise(spec)
        grid = Grid(*family.grid(noise))
        installed.begin(Run(solver, grid, 2, 6.0, noise=noise, family=family))
    except MethodRefused as refusal:
        return str(refusal)
    finally:
        installed.remove()
    return ""


@pytest.mark.parametrize("steps", [1, 4, 24])
@pytest.mark.parametrize("solver", SCHEDULERS)
def test_the_words_refuse_what_a_loaded_model_would(family: Any, solver: str, steps: int) -> None:
    scheduler = SCHEDULERS[solver]
    task = Task(3, steps, solver=type(scheduler).__name__)
    told = {method: bool(unsuited(method, task)) for method in METHODS}
    assert told == {
        method: bool(refused_by_worker(family, method, scheduler, steps)) for method in METHODS
    }


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("hsa:50", "this model's own solver is UniPCMultistepScheduler: write hsa:50+euler"),
        ("sparse:2 + early:0.3", "early needs euler, and this model's own solver is UniPC"),
        (
            "hsa:25+euler",
            "hsa:25 at 4 steps: 2 + 1 full steps do not fit into 2; it needs 21",
        ),
        ("vgdfr:k=9", "its preview is made after 9 of the steps, and the whole run has 4"),
        ("vgdfr:k=2+euler", ""),
    ],
)
def test_a_refusal_says_what_was_found_and_what_to_write(method: str, said: str) -> None:
    found = unsuited(method, Task(9, 4, solver="UniPCMultistepScheduler"))
    assert said in found if said else not found
