"""Merging a video's quiet passages in mid-run, and putting every frame back into its time."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.workers.acceleration.tiny import a_tiny_pair, a_tiny_transformer, randomise
from vidplat.domain import VideoSpec
from vidplat.frame_merges import Blocks, Merges, Similarity, merges_above
from vidplat.workers.models.catalogue import locate
from vidplat.workers.models.family import Condition, load_family
from vidplat.workers.models.solver import Solver
from vidplat.workers.models.wan import WanFamily
from vidplat.workers.vgdfr import How, compress, merged, renoised, restored

PLAN = Merges(17, ((1, 2),))  # of 5 latents 0, 1, 3 and 4 are left, of 17 frames 13
FRAMES, LEFT = 5, 4


@pytest.fixture(autouse=True)
def _inference() -> Any:
    with torch.inference_mode():
        yield


@lru_cache
def flipbook() -> WanFamily:
    family = load_family(locate("flipbook"), "cpu")
    assert isinstance(family, WanFamily)
    return family


def a_wan(kind: str) -> WanFamily:
    """A small one with Wan 2.1's VAE: `2.1`, `a14b` with a second transformer, `5b` with a time for each token."""
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler

    torch.manual_seed(1)
    vae = AutoencoderKLWan(base_dim=8, z_dim=4, num_res_blocks=1, latents_mean=[0.1] * 4, latents_std=[2.0] * 4)
    randomise(vae)
    one, other = a_tiny_pair() if kind == "a14b" else (a_tiny_transformer("wan"), None)
    return WanFamily(
        tokenizer=None,
        text_encoder=None,
        transformer=one.model,
        transformer_2=other and other.model,
        boundary_ratio=0.7 if other else None,
        expand_timesteps=kind == "5b",
        vae=vae.eval(),
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
        text_length=5,
    )


@dataclass
class Walk:
    """A guided run of a family that stops between two steps."""

    family: WanFamily
    steps: int = 5
    side: int = 32
    solver: Solver = field(init=False)
    noise: Tensor = field(init=False)
    latents: Tensor = field(init=False)
    velocity: Tensor = field(init=False)
    condition: Condition = field(init=False)

    def __post_init__(self) -> None:
        width = self.family.transformer.config.text_dim
        text = torch.randn(2, 1, 5, width, generator=torch.Generator().manual_seed(8))
        self.condition = Condition(text[0], text[1], 3.0)
        spec = VideoSpec(self.side, self.side, 17, 8, self.steps, 3.0, 6)
        self.solver = self.family.solver(self.steps)
        self.noise = self.latents = self.family.noise(spec, FRAMES)

    def go(self, steps: int | None = None) -> Walk:
        for _ in range(self.solver.remaining if steps is None else steps):
            self.velocity = self.family.velocity(self.latents, self.solver, self.condition)
            self.latents = self.solver.advance(self.velocity, self.latents)
        return self

    def compress(self, choose: Any, how: How = How()) -> Merges:
        found = compress(self.family, self.solver, self.latents, self.velocity, self.noise, choose, how)
        self.latents = found.latents
        return found.merges


def always(plan: Merges) -> Any:
    return lambda blocks: plan


@pytest.fixture(params=["flipbook", "tiny", "unipc"])
def family(request: pytest.FixtureRequest, tiny_wan: Path, tiny_unipc: Path) -> WanFamily:
    if request.param == "flipbook":
        return flipbook()
    found = load_family(locate(str(tiny_wan if request.param == "tiny" else tiny_unipc)), "cpu")
    assert isinstance(found, WanFamily)
    return found


def test_a_plan_that_merges_nothing_leaves_the_run_as_it_is(family: WanFamily) -> None:
    plain = Walk(family).go().latents

    walk = Walk(family).go(2)
    before = walk.latents
    merges = walk.compress(partial(merges_above, theta=1.0, quads=True), How(quads=True))

    assert merges.merges_nothing
    assert walk.latents is before
    assert torch.equal(walk.go().latents, plain)


def test_after_a_merge_fewer_latents_go_on_to_a_whole_video(family: WanFamily) -> None:
    walk = Walk(family).go(2)
    assert walk.compress(always(PLAN)) == PLAN
    assert walk.latents.shape == (*walk.noise.shape[:2], LEFT, *walk.noise.shape[3:])
    assert walk.latents.dtype == torch.float32

    frames = family.decode(walk.go().latents)

    assert walk.solver.index == 5
    assert len(frames) == 13
    assert restored(frames, PLAN, Dissolve).shape == (17, 32, 32, 3)


def test_the_preview_is_what_the_step_before_would_end_in(family: WanFamily) -> None:
    # x_k - sigma_k v_{k-1} = x_{k-1} - sigma_{k-1} v_{k-1} for Euler; for UniPC what it remembers itself.
    walk = Walk(family).go(2)
    shown, sigma = walk.latents, walk.solver.sigma
    walk.go(1)
    clean = walk.solver.clean(walk.latents, walk.velocity)
    torch.testing.assert_close(clean, shown - sigma * walk.velocity, rtol=0, atol=1e-5)
    if hasattr(walk.solver.scheduler, "model_outputs"):
        assert torch.equal(clean, walk.solver.scheduler.model_outputs[-1])


def test_noised_anew_with_its_own_noise_a_run_stands_where_it_stood() -> None:
    # Nothing merged and the clean video known: x_k' = (1 - sigma) x0 + sigma eps0.
    walk = Walk(flipbook()).go(2)
    clean, sigma = torch.randn_like(walk.noise), walk.solver.sigma
    again = renoised(walk.solver, clean, walk.noise, Merges(17))
    assert torch.equal(again, sigma * walk.noise + (1 - sigma) * clean)


def test_noise_is_picked_and_not_averaged() -> None:
    # Of 25 latents 22 are merged by two; of averaged noise the 11 that they become would have half the variance.
    solver = Solver(flipbook().scheduler, 5, "cpu")
    plan = merges_above(Blocks(Similarity([1.0] * 96)), 0.5)
    noise = torch.randn(1, 48, 25, 16, 16, generator=torch.Generator().manual_seed(2))
    part = renoised(solver, torch.zeros(1, 48, 14, 16, 16), noise, plan)
    assert torch.equal(part, solver.sigma * noise[:, :, list(plan.latents)])
    # 48 x 14 x 256 = 172,032 values: the variance is known to about 0.4 %.
    assert float(part.var()) == pytest.approx(solver.sigma**2, rel=0.02)


def test_a_merge_takes_no_forward_of_its_own_and_later_ones_are_shorter() -> None:
    walk, seen = Walk(flipbook()), list[int]()
    hook = walk.family.transformer.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["hidden_states"].shape[2]), with_kwargs=True
    )
    try:
        walk.go(2).compress(always(PLAN))
        walk.go()
    finally:
        hook.remove()
    # Two branches: k = 2 steps of 5 latents, then 3 of 4.
    assert seen == [FRAMES] * 4 + [LEFT] * 6


@pytest.mark.parametrize("kind", ["2.1", "a14b", "5b"])
@pytest.mark.parametrize("before", [1, 3])
def test_every_wan_goes_on_with_fewer_latents(kind: str, before: int) -> None:
    walk = Walk(a_wan(kind)).go(before)  # the 5B's times per token are made anew from the latents' shape
    walk.compress(always(PLAN))
    assert walk.solver.scheduler.lower_order_nums == 0
    assert torch.isfinite(walk.go().latents).all()
    assert walk.latents.shape == (1, 4, LEFT, 4, 4)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_merged_latents_can_be_made_at_every_level(level: int) -> None:
    walk = Walk(flipbook(), side=64).go(2)
    sizes: list[tuple[int, ...]] = []

    class Noting:
        temporal_factor = 4

        def shown(self, latents: Tensor, level: int = 0) -> Tensor:
            frames = walk.family.shown(latents, level)
            sizes.append(tuple(frames.shape))
            return frames

        latents_of = walk.family.latents_of

    how = How(preview_level=level, encode_level=0)
    compress(Noting(), walk.solver, walk.latents, walk.velocity, walk.noise, always(PLAN), how)
    wanted = [(1, 3, 17, 64 // 2**level, 64 // 2**level), (1, 3, 17, 64, 64)]
    assert sizes == (wanted if level else wanted[1:])  # at one level the preview is used again


def test_latents_of_frames_that_are_not_merged_may_go_on_as_they_are() -> None:
    walk = Walk(flipbook()).go(2)
    before = walk.latents
    walk.compress(always(PLAN), How(unmerged="own"))
    # Places 0, 2 and 3 are latents 0, 3 and 4; place 1 is latents 1 and 2 in one.
    assert torch.equal(walk.latents[:, :, [0, 2, 3]], before[:, :, [0, 3, 4]])
    assert not torch.equal(walk.latents[:, :, 1], before[:, :, 1])


def test_frames_are_merged_to_their_mean_or_to_the_first_of_them() -> None:
    # Frame i is i everywhere: pairs (1, 2) ... (7, 8) have means 1.5, 3.5, 5.5, 7.5.
    video = torch.arange(17.0).view(1, 1, 17, 1, 1).expand(1, 3, 17, 2, 2)
    assert merged(video, PLAN)[0, 0, :, 0, 0].tolist() == [0, 1.5, 3.5, 5.5, 7.5, *range(9, 17)]
    assert merged(video, PLAN, "first")[0, 0, :, 0, 0].tolist() == [0, 1, 3, 5, 7, *range(9, 17)]
    longer = torch.arange(33.0).view(1, 1, 33, 1, 1).expand(1, 3, 33, 2, 2)
    assert merged(longer, Merges(33, ((1, 4),)))[0, 0, :6, 0, 0].tolist() == [0, 2.5, 6.5, 10.5, 14.5, 17]


class Dissolve:
    """The plainest interpolation: one frame fades into the other."""

    def __init__(self, first: np.ndarray, second: np.ndarray) -> None:
        self._first, self._second = first.astype(float), second.astype(float)

    def at(self, part: float) -> np.ndarray:
        return np.rint((1 - part) * self._first + part * self._second).astype(np.uint8)


def some_frames(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 4, 6, 3), np.uint8)


@pytest.mark.parametrize("plan", [PLAN, Merges(33, ((1, 4), (17, 2))), Merges(17)])
def test_decoded_frames_come_back_as_they_were_at_their_own_places(plan: Merges) -> None:
    decoded = some_frames(len(plan.frames))
    video = restored(decoded, plan, Dissolve)
    assert len(video) == plan.num_frames
    assert np.array_equal(video[list(plan.frames)], decoded)


@pytest.mark.parametrize("anchor", ["first", "centre"])
def test_a_still_clip_is_restored_exactly(anchor: str) -> None:
    decoded = some_frames(1).repeat(13, 0)
    assert np.array_equal(restored(decoded, PLAN, Dissolve, anchor), decoded[:1].repeat(17, 0))


def test_steady_brightening_is_restored_exactly_around_the_centres_alone() -> None:
    """Frame i is 8 i bright. A mean of two stands half a frame after the first of them, where `first` puts it."""
    truth = np.broadcast_to((8 * np.arange(17, dtype=np.uint8))[:, None, None, None], (17, 4, 6, 3))
    shown = torch.from_numpy(truth.copy()).float().permute(3, 0, 1, 2)[None]
    decoded = merged(shown, PLAN)[0].permute(1, 2, 3, 0).numpy().astype(np.uint8)

    assert np.array_equal(restored(decoded, PLAN, Dissolve, "centre"), truth)
    # As `first`: 12 at frame 1 instead of 8, and 20 at frame 2, half way to 28, instead of 16.
    assert restored(decoded, PLAN, Dissolve)[:4, 0, 0, 0].tolist() == [0, 12, 20, 28]


def test_a_pair_of_frames_is_looked_at_once_however_many_lie_between() -> None:
    plan, asked = Merges(33, ((1, 4), (17, 2))), list[int]()

    def counting(first: np.ndarray, second: np.ndarray) -> Dissolve:
        asked.append(1)
        return Dissolve(first, second)

    restored(some_frames(len(plan.frames)), plan, counting)
    assert len(asked) == 4 + 4  # four quads, three frames each; four pairs, one each


def test_words_that_do_not_go_together_and_wrong_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="merge is mean or first, not 'median'"):
        How(merge="median")
    with pytest.raises(ValueError, match="stands at its own time"):
        How(merge="first", anchor="centre")
    with pytest.raises(ValueError, match="4 latents decode to 13 frames, not to 12"):
        restored(some_frames(12), PLAN, Dissolve)
