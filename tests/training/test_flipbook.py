"""The shipped weights are what their card says, on small samples; benchmarks/flipbook_quality.py
has the figures.

Few clips and few steps tell weights that were mixed up from those that belong here. How
good they are is measured in the thorough tier.
"""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from flipbook_training import vae, world
from flipbook_training.flipbook import SIGMAS
from flipbook_training.prompt_fit import prompt_fit
from vidplat.domain import OperatingPoint
from vidplat.methods.solver import Solver
from vidplat.workers.blocks.stream import StreamPlan
from vidplat.workers.generate import generate
from vidplat.workers.making import Ask
from vidplat.workers.models.catalogue import describe_model, locate
from vidplat.workers.models.family import Family
from vidplat.workers.models.loading import load_family


@pytest.fixture(scope="module")
def flipbook() -> Family:
    return load_family(locate("flipbook"), "cpu")


def test_all_weights_together_are_safetensors_under_30_mb() -> None:
    root = locate("flipbook").root.parent
    files = [path for path in root.rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in {".bin", ".pt", ".pth", ".ckpt", ".pkl"}]
    assert sum(path.stat().st_size for path in files) < 30e6


def test_no_embedded_file_tells_where_it_was_made() -> None:
    configs = list(locate("flipbook").root.parent.rglob("*config.json"))
    assert len(configs) > 5
    assert not [path for path in configs if '": "/' in path.read_text("utf-8")]


@pytest.mark.parametrize("name", ["flipbook-edge", "flipbook-causal"])
def test_all_sizes_share_autoencoder_text_encoder_and_tokenizer(name: str) -> None:
    large, small = locate("flipbook").parts, locate(name).parts
    for part in ("vae", "text_encoder", "tokenizer"):
        assert Path(large[part]).resolve() == Path(small[part]).resolve()
    assert Path(large["transformer"]).resolve() != Path(small["transformer"]).resolve()


@pytest.mark.parametrize("name", ["flipbook", "flipbook-edge"])
def test_the_shipped_schedulers_are_those_that_training_writes(name: str) -> None:
    shipped = json.loads((locate(name).parts["scheduler"] / "scheduler_config.json").read_text())
    assert shipped | SIGMAS == shipped


def test_the_shipped_profile_was_measured_with_the_shipped_weights_and_sigmas() -> None:
    profile = json.loads((locate("flipbook").root / "profile.json").read_text())
    assert profile["revision"] == describe_model("flipbook")[0].revision


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 6, 12, 24])
@pytest.mark.parametrize("name", ["flipbook", "flipbook-edge"])
def test_every_step_has_noise_to_remove_however_few_they_are(name: str, steps: int) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    own = FlowMatchEulerDiscreteScheduler.from_pretrained(locate(name).parts["scheduler"])

    # The last of them takes a tenth of it or more; of 24 the first takes one in a hundred.
    sigmas = Solver(own, steps, "cpu").sigmas
    assert (sigmas[0], sigmas[-1]) == (1.0, 0.0)
    assert sigmas[-2] >= 0.1
    assert min(one - other for one, other in pairwise(sigmas)) > 0.01


def test_every_step_of_a_block_has_noise_to_remove() -> None:
    blocks = describe_model("flipbook-causal")[1].blocks
    assert blocks is not None

    sigmas = StreamPlan(steps=blocks.steps, shift=blocks.shift).sigmas

    assert min(one - other for one, other in pairwise((*sigmas, 0.0))) > 0.05


@pytest.mark.parametrize(
    ("num_frames", "clips"),
    [(33, 2), *(pytest.param(n, 4, marks=pytest.mark.thorough) for n in (33, 65))],
)
def test_the_autoencoder_keeps_held_out_clips_at_28_db(
    flipbook: Family, num_frames: int, clips: int
) -> None:
    assert np.mean(vae.held_out_psnr(flipbook.vae, frames=num_frames, count=clips)) >= 28.0


@pytest.mark.parametrize("name", ["flipbook", "flipbook-edge", "flipbook-causal"])
def test_few_steps_already_show_most_of_what_captions_say(name: str) -> None:
    assert shown(name, steps=6, videos=1) >= 0.7


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "steps", "share"),
    [("flipbook", 12, 0.75), ("flipbook-edge", 12, 0.6), ("flipbook-causal", 6, 0.85)],
)
def test_videos_show_most_of_what_their_captions_say(name: str, steps: int, share: float) -> None:
    assert shown(name, steps=steps, videos=8) >= share


def shown(name: str, *, steps: int, videos: int) -> float:
    """Share of what held-out captions say that the model's videos show, in [0, 1]."""
    _, shape = describe_model(name)
    family, spec = load_family(locate(name), "cpu"), shape.defaults
    shares = []
    for number in range(videos):
        caption = world.describe(world.draw_scene(np.random.default_rng(9_100_000_000 + number)))
        ask = Ask(caption, "", replace(spec, seed=number), OperatingPoint(steps))
        shares.append(prompt_fit(generate(family, ask).frames, caption, spec.fps).share)
    return float(np.mean(shares))
