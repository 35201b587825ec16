"""Merging a video's quiet passages in mid-run, and putting every frame back into its time."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.methods.on_model.tiny import a_tiny_pair, a_tiny_transformer, randomise
from vidplat.domain import Job, OperatingPoint, VideoSpec
from vidplat.errors import MethodRefused
from vidplat.methods.filling.frames import filled
from vidplat.methods.filling.moments import filling_of, moments_among
from vidplat.methods.installed import Installed
from vidplat.methods.language import parse
from vidplat.methods.protocol import Grid, Run
from vidplat.methods.seams.attention import Attend, AttentionCall, linked
from vidplat.methods.seams.layouts import layout_of
from vidplat.methods.solver import Solver
from vidplat.methods.vgdfr import on_model as vgdfr
from vidplat.methods.vgdfr.likeness import by_neighbours, by_spans
from vidplat.methods.vgdfr.merges import Lattice, Merges, merges_above, slot_starts
from vidplat.methods.vgdfr.on_model import (
    Merge,
    Midway,
    Vgdfr,
    compressed,
    encoded,
    merged_frames,
    pooled,
)
from vidplat.workers import Worker
from vidplat.workers.generate import draft, filled_in, generate
from vidplat.workers.making import Ask, Control, Made, Source
from vidplat.workers.models.catalogue import locate
from vidplat.workers.models.family import Condition
from vidplat.workers.models.loading import load_family
from vidplat.workers.models.wan import WanFamily

PLAN = Merges(17, ((1, 2),))  # of 5 latents 0, 1, 3 and 4 are left, of 17 frames 13
FRAMES, LEFT = 5, 4
FORMS = ("pooled", "paper")


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
    """A small one with Wan 2.1's VAE: `2.1`, `a14b` with a second transformer, `5b` with a time for
    each token."""
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler

    torch.manual_seed(1)
    vae = AutoencoderKLWan(
        base_dim=8, z_dim=4, num_res_blocks=1, latents_mean=[0.1] * 4, latents_std=[2.0] * 4
    )
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
        scheduler=UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
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
        self.noise = self.latents = self.family.noise(spec)

    @property
    def run(self) -> Run:
        grid = Grid(*self.family.grid(self.latents))
        return Run(self.solver, grid, 2, 3.0, noise=self.noise, family=self.family)

    def go(self, steps: int | None = None) -> Walk:
        for _ in range(self.solver.remaining if steps is None else steps):
            self.velocity = self.family.velocity(self.latents, self.solver, self.condition)
            self.latents = self.solver.advance(self.velocity, self.latents)
        return self

    @property
    def midway(self) -> Midway:
        return Midway(self.family, self.solver, self.latents, self.velocity, self.noise)

    def compress(self, plan: Any, merge: Merge = pooled) -> Merges:
        self.latents, merges = compressed(self.midway, plan, merge)
        return merges

    def pictures(self) -> np.ndarray:
        """The preview that the method would look at."""
        shown = self.family.shown(self.solver.clean(self.latents, self.velocity), 1)
        pictures: np.ndarray = shown[0].permute(1, 2, 3, 0).numpy()
        return pictures


def always(plan: Merges) -> Any:
    return lambda pictures, temporal_factor=4: plan


def nothing(pictures: np.ndarray) -> Merges:
    return merges_above(by_spans(pictures, 4, quads=True), 1.0)


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
    merges = walk.compress(nothing)

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


def test_the_preview_is_what_the_step_before_would_end_in(family: WanFamily) -> None:
    # x_k - sigma_k v_{k-1} = x_{k-1} - sigma_{k-1} v_{k-1} for Euler; for UniPC what it remembers
    # itself.
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
    midway = replace(walk.midway, family=Knowing(clean))
    again = encoded(midway, clean, walk.family.shown(clean, 1), Merges(17))
    assert torch.equal(again, sigma * walk.noise + (1 - sigma) * clean)


@dataclass(frozen=True)
class Knowing:
    """A family that encodes any clip to what it is told."""

    latents: Tensor
    temporal_factor: int = 4

    def shown(self, latents: Tensor, level: int = 0) -> Tensor:
        raise AssertionError("the preview was made before")

    def latents_of(self, frames: Tensor, level: int = 0) -> Tensor:
        return self.latents


def of_a_black_video(merges: Merges, noise: Tensor, merge: Merge) -> tuple[Tensor, float]:
    """Of a merge the latents that go on where the video would be black, and sigma."""
    solver = Solver(flipbook().scheduler, 5, "cpu")
    black = torch.zeros(1, 48, len(merges.latents), *noise.shape[3:])
    midway = Midway(Knowing(black), solver, solver.sigma * noise, noise, noise)
    frames = torch.zeros(1, 3, merges.num_frames, 2, 2)
    return merge(midway, torch.zeros_like(noise), frames, merges), solver.sigma


def test_as_the_paper_has_it_noise_is_picked_and_not_averaged() -> None:
    # Of 25 latents 22 are merged by two; of averaged noise the 11 that they become would have half
    # the variance.
    plan = merges_above(Lattice(97, (1.0,) * len(slot_starts(97, 4))), 0.5)
    noise = torch.randn(1, 48, 25, 16, 16, generator=torch.Generator().manual_seed(2))
    part, sigma = of_a_black_video(plan, noise, encoded)
    assert torch.equal(part, sigma * noise[:, :, list(plan.latents)])
    # 48 x 14 x 256 = 172,032 values: the variance is known to about 0.4 %.
    assert float(part.var()) == pytest.approx(sigma**2, rel=0.02)


@pytest.mark.parametrize("size", [2, 4])
def test_pooled_noise_has_the_variance_of_noise_and_points_where_the_mean_does(size: int) -> None:
    noise = torch.randn(1, 48, 9, 32, 32, generator=torch.Generator().manual_seed(2))
    part, sigma = of_a_black_video(Merges(33, ((1, size),)), noise, pooled)

    # latents 1 .. size become the one at place 1; 48 x 1024 values: the variance is known to about
    # 0.7 %
    merged = part[:, :, 1]
    torch.testing.assert_close(merged, sigma * size**0.5 * noise[:, :, 1 : 1 + size].mean(2))
    assert float(merged.var()) == pytest.approx(sigma**2, rel=0.03)
    assert torch.equal(part[:, :, 2:], sigma * noise[:, :, 1 + size :])


def test_merged_latents_are_the_mean_of_what_the_video_would_be_and_nothing_is_encoded() -> None:
    walk = Walk(flipbook()).go(2)
    clean = walk.solver.clean(walk.latents, walk.velocity)

    class Shows:
        temporal_factor, shown = 4, walk.family.shown

        def latents_of(self, frames: Tensor, level: int = 0) -> Tensor:
            raise AssertionError("nothing is encoded")

    before = walk.latents
    latents, _ = compressed(replace(walk.midway, family=Shows()), always(PLAN), pooled)

    noise = walk.noise[:, :, 1:3].sum(2) / 2**0.5
    expected = walk.solver.sigma * noise + (1 - walk.solver.sigma) * clean[:, :, 1:3].mean(2)
    torch.testing.assert_close(latents[:, :, 1], expected)
    # Places 0, 2 and 3 are latents 0, 3 and 4, which go on as they are.
    assert torch.equal(latents[:, :, [0, 2, 3]], before[:, :, [0, 3, 4]])


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
    walk = Walk(a_wan(kind)).go(
        before
    )  # the 5B's times per token are made anew from the latents' shape
    walk.compress(always(PLAN))
    assert walk.solver.scheduler.lower_order_nums == 0
    assert torch.isfinite(walk.go().latents).all()
    assert walk.latents.shape == (1, 4, LEFT, 4, 4)


@pytest.mark.parametrize("kind", ["2.1", "a14b", "5b"])
@pytest.mark.parametrize("form", FORMS)
def test_every_wan_takes_the_method_on_all_its_transformers(kind: str, form: str) -> None:
    walk, method = Walk(a_wan(kind)), Vgdfr({**parse(ALL)[0].values, "form": form})
    method.plan = always(PLAN)  # a random model's preview is alike or not by chance
    with ExitStack() as installed:
        for model in walk.family.transformers:
            assert method.refusal(model, walk.run) == ""
            installed.enter_context(method.applied_to(model))
        method.begin(walk.run)
        for _ in range(walk.steps):
            walk.go(1)
            walk.latents = method.stepped(walk.latents, walk.velocity)
    assert walk.latents.shape == (1, 4, LEFT, 4, 4)
    assert torch.isfinite(walk.latents).all()
    assert method.facts() == {"kept_latents": LEFT / FRAMES}


def test_as_the_paper_has_it_the_preview_is_merged_and_encoded_at_half_size() -> None:
    walk = Walk(flipbook(), side=64).go(2)
    shown, made = list[tuple[int, ...]](), list[Tensor]()

    class Noting:
        temporal_factor = 4

        def shown(self, latents: Tensor, level: int = 0) -> Tensor:
            frames = walk.family.shown(latents, level)
            shown.append(tuple(frames.shape))
            return frames

        def latents_of(self, frames: Tensor, level: int = 0) -> Tensor:
            shown.append(tuple(frames.shape))
            made.append(walk.family.latents_of(frames, level))
            return made[-1]

    latents, _ = compressed(replace(walk.midway, family=Noting()), always(PLAN), encoded)

    assert shown == [(1, 3, 17, 32, 32), (1, 3, 13, 32, 32)]
    # All of them are noised anew, those that nothing was merged into as well.
    own_noise = walk.noise[:, :, list(PLAN.latents)]
    assert torch.equal(latents, walk.solver.noised(made[0].to(own_noise), own_noise))


def test_frames_are_merged_to_their_mean() -> None:
    # Frame i is i everywhere: pairs (1, 2) ... (7, 8) have means 1.5, 3.5, 5.5, 7.5.
    video = torch.arange(33.0).view(1, 1, 33, 1, 1).expand(1, 3, 33, 2, 2)
    by_twos = merged_frames(video[:, :, :17], PLAN)[0, 0, :, 0, 0]
    assert by_twos.tolist() == [0, 1.5, 3.5, 5.5, 7.5, *range(9, 17)]
    by_fours = merged_frames(video, Merges(33, ((1, 4),)))[0, 0, :, 0, 0]
    assert by_fours.tolist() == [0, 2.5, 6.5, 10.5, 14.5, *range(17, 33)]


def some_frames(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 4, 6, 3), np.uint8)


@pytest.mark.parametrize("plan", [PLAN, Merges(33, ((1, 4), (17, 2))), Merges(17)])
def test_decoded_frames_come_back_as_they_were_at_their_own_places(plan: Merges) -> None:
    decoded = some_frames(len(plan.frames))
    video = filled(decoded, moments_among(plan.frames, plan.num_frames))
    assert len(video) == plan.num_frames
    assert np.array_equal(video[list(plan.frames)], decoded)


def test_a_still_clip_is_restored_exactly() -> None:
    decoded = np.random.default_rng(1).integers(0, 256, (1, 24, 32, 3), np.uint8).repeat(13, 0)
    video = filled(decoded, moments_among(PLAN.frames, 17))
    assert np.array_equal(video, decoded[:1].repeat(17, 0))


# --- the method, through the loop that makes videos -------------------------------------------

SPEC = VideoSpec(32, 32, 17, 8, 5, 3.0, 6)
ALL = "vgdfr:ratio=0.01,k=2"  # whatever they show, frames 1 .. 8 of 17 become four
LATE = Control(
    finish_by=0.0, min_steps=5
)  # it should have ended long ago, and may leave out no step


@dataclass
class Watched:
    """What a video was made of."""

    made: Made
    frames_of_calls: list[int]  # latent frames of each call of the transformer
    facts: dict[str, float]
    shares: list[float]  # of the steps, as told when they were done


def make(
    family: WanFamily,
    method: str,
    *,
    whole: bool = True,
    spec: VideoSpec = SPEC,
    source: Source | None = None,
    control: Control = Control(),
) -> Watched:
    """One video at `spec`; as a draft that is not filled in yet, unless it is wanted `whole`."""
    installed, seen = Installed(family.transformers), list[int]()
    installed.use(method)
    hook = family.transformer.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["hidden_states"].shape[2]), with_kwargs=True
    )
    point = OperatingPoint(spec.num_inference_steps, method or "full")
    try:
        ask = Ask("a red circle", "", spec, point, source, control)
        made = (generate if whole else draft)(family, ask, installed)
        return Watched(
            made,
            seen,
            installed.facts(),
            [installed.share(step, point.steps) for step in range(point.steps)],
        )
    finally:
        hook.remove()
        installed.remove()


@pytest.mark.parametrize("form", FORMS)
def test_where_nothing_is_alike_enough_the_video_is_the_plain_one_bit_for_bit(
    family: WanFamily, form: str
) -> None:
    plain = make(family, "")
    watched = make(family, f"vgdfr:theta=1,k=2,form={form}")

    assert torch.equal(watched.made.latents, plain.made.latents)
    assert np.array_equal(watched.made.frames, plain.made.frames)
    assert watched.facts == {"kept_latents": 1.0}
    assert "reconstruct" not in watched.made.phases


@pytest.mark.parametrize("form", FORMS)
def test_after_it_was_there_the_model_makes_the_same_as_before(
    family: WanFamily, form: str
) -> None:
    before = make(family, "")
    merged_once = make(family, f"{ALL},form={form}")
    after = make(family, "")

    assert not np.array_equal(merged_once.made.frames, before.made.frames)
    assert torch.equal(after.made.latents, before.made.latents)
    assert np.array_equal(after.made.frames, before.made.frames)


def test_the_same_request_makes_the_same_video(family: WanFamily) -> None:
    one, two = make(family, ALL), make(family, ALL)
    assert np.array_equal(one.made.frames, two.made.frames)


def test_the_whole_video_comes_back_with_the_decoded_frames_as_they_were(family: WanFamily) -> None:
    started = make(family, ALL, whole=False).made
    assert started.filling is not None
    assert started.latents.shape[2] == LEFT and len(started.frames) == len(PLAN.frames)

    whole = filled_in(started, SPEC)

    assert whole.frames.shape == (17, 32, 32, 3)
    assert np.array_equal(whole.frames[list(PLAN.frames)], started.frames)
    # Every index is written once: 13 decoded frames and 4 that are made.
    assert sum(not moment.is_decoded for moment in started.filling.moments) == 4
    assert filling_of(started.filling.document()) == started.filling
    assert np.array_equal(make(family, ALL).made.frames, whole.frames)


@pytest.mark.parametrize(("guidance", "branches"), [(3.0, 2), (1.0, 1)])
def test_k_steps_see_all_frames_and_the_others_those_that_are_left(
    guidance: float, branches: int
) -> None:
    watched = make(flipbook(), ALL, spec=replace(SPEC, guidance_scale=guidance))
    assert watched.frames_of_calls == [FRAMES] * 2 * branches + [LEFT] * 3 * branches


@pytest.mark.parametrize(("steps", "before"), [(2, 1), (24, 2), (50, 5)])
def test_unless_told_the_preview_comes_after_a_tenth_of_the_steps(
    steps: int, before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = flipbook()
    monkeypatch.setattr(family, "velocity", lambda latents, solver, condition: -latents)
    monkeypatch.setattr(
        vgdfr, "compressed", lambda midway, *rest: pytest.fail(f"after {midway.solver.index}")
    )
    with pytest.raises(pytest.fail.Exception, match=f"after {before}$"):
        make(family, "vgdfr:theta=0", spec=replace(SPEC, num_inference_steps=steps))


def test_a_plan_is_told_and_later_steps_count_by_what_is_left() -> None:
    watched = make(flipbook(), ALL)
    assert watched.facts == {"kept_latents": LEFT / FRAMES}
    before, with_compression, *after = watched.shares
    assert before == 1.0
    assert with_compression > 1.0  # it took time beside the step itself
    assert after == [LEFT / FRAMES] * 3


def test_before_the_preview_every_step_counts_in_full() -> None:
    installed = Installed(flipbook().transformers)
    installed.use(ALL)
    try:
        assert [installed.share(step, 5) for step in range(5)] == [1.0] * 5
    finally:
        installed.remove()


def test_a_late_run_keeps_the_latents_that_are_not_alike() -> None:
    made = make(flipbook(), "vgdfr:theta=1,k=2", control=LATE).made
    assert made.latents.shape[2] == FRAMES


def tables_of_last_call(family: WanFamily, method: Vgdfr) -> list[Tensor]:
    """The cosines that each layer's attention is given in the last call of a run with `method`."""
    layout, seen = layout_of(family.transformer), list[Tensor]()

    def noting(call: AttentionCall, rest: Attend) -> Tensor:
        seen.append(call.rotary[0])
        return rest(call)

    walk = Walk(family)
    with (
        method.applied_to(family.transformer),
        linked(layout.attentions(family.transformer), layout.processor, noting),
    ):
        method.begin(walk.run)
        walk.go(2)
        whole = seen[-1]
        walk.latents = method.stepped(walk.latents, walk.velocity)
        walk.go()
    return [whole, *seen[-len(layout.blocks(family.transformer)) :]]


@pytest.mark.parametrize("form", FORMS)
def test_the_model_is_told_the_times_that_are_left_or_counts_anew(form: str) -> None:
    family = flipbook()
    whole, *layers = tables_of_last_call(family, Vgdfr({**parse(ALL)[0].values, "form": form}))
    rows = whole.unflatten(1, (FRAMES, -1))
    counted, own = rows[:, :LEFT].flatten(1, 2), rows[:, list(PLAN.latents)].flatten(1, 2)
    assert not torch.equal(counted, own)
    assert all(torch.equal(table, counted if form == "paper" else own) for table in layers)


def test_both_solvers_take_it_on_one_model() -> None:
    euler, unipc = (make(flipbook(), f"{ALL}+{solver}").made for solver in ("euler", "unipc"))
    assert euler.frames.shape == unipc.frames.shape == (17, 32, 32, 3)
    assert not np.array_equal(euler.frames, unipc.frames)


def test_a_ratio_leaves_at_most_that_share_of_the_frames(family: WanFamily) -> None:
    made = make(family, "vgdfr:ratio=0.8,k=2", whole=False).made
    assert len(made.frames) == 13  # 0.8 of 17 are 13.6


def test_still_frames_are_merged_by_four_where_quads_are_on() -> None:
    family, spec = flipbook(), replace(SPEC, num_frames=33)
    pairs = make(family, "vgdfr:ratio=0.01,k=2,quads=off", spec=spec, whole=False).made
    quads = make(family, "vgdfr:ratio=0.01,k=2", spec=spec, whole=False).made
    assert pairs.latents.shape[2] == 6  # of 9: three pair runs
    assert quads.latents.shape[2] == 5  # one quad run and one pair run
    assert filled_in(quads, spec).frames.shape == (33, 32, 32, 3)


@pytest.mark.parametrize(("form", "measure"), [("pooled", by_spans), ("paper", by_neighbours)])
def test_what_is_more_alike_than_theta_by_the_form_s_own_measure_is_merged(
    form: str, measure: Any
) -> None:
    walk = Walk(flipbook()).go(2)
    (value,) = measure(walk.pictures(), 4, quads=False).pairs
    assert 0.01 < value < 0.99
    below, above = (f"vgdfr:theta={value + d:.6f},k=2,form={form}" for d in (-0.01, 0.01))
    assert compress_with(walk, below).latents == PLAN.latents
    assert compress_with(walk, above).merges_nothing


def compress_with(walk: Walk, text: str) -> Merges:
    """The plan of a method at the place where `walk` stands."""
    method = Vgdfr(parse(text)[0].values)
    method.begin(walk.run)
    method.stepped(walk.latents, walk.velocity)
    assert method._merges is not None
    return method._merges


def test_a_video_can_be_edited_and_its_own_steps_are_counted() -> None:
    family = flipbook()
    source = Source(family.noise(SPEC) * 0.5, strength=0.8)
    spec = replace(SPEC, num_inference_steps=8)  # the end of a schedule of 10
    watched = make(family, ALL, spec=spec, source=source)
    assert watched.made.frames.shape == (17, 32, 32, 3)
    assert watched.frames_of_calls == [FRAMES] * 2 * 2 + [LEFT] * 6 * 2


def test_a_run_that_ends_with_its_preview_is_refused() -> None:
    family = flipbook()
    with pytest.raises(
        MethodRefused,
        match="vgdfr cannot be used here: its preview is made after 5 of the steps, and",
    ):
        make(family, "vgdfr:ratio=0.01,k=5")
    short = Source(family.noise(SPEC), strength=0.2)
    with pytest.raises(MethodRefused, match="made after 2 of the steps, and the whole run has 1"):
        make(family, ALL, spec=replace(SPEC, num_inference_steps=1), source=short)


def test_a_run_that_is_shortened_to_less_than_its_preview_stays_whole() -> None:
    family = flipbook()
    installed = Installed(family.transformers)
    installed.use("vgdfr:ratio=0.01,k=4")
    try:
        late = Control(finish_by=0.0)  # long ago: the second step is the last
        point = OperatingPoint(5, "vgdfr:ratio=0.01,k=4")
        made = generate(family, Ask("a red circle", "", SPEC, point, control=late), installed)
        assert made.steps_done == 2
        assert installed.facts() == {"kept_latents": 1.0}
        assert made.latents.shape[2] == FRAMES
    finally:
        installed.remove()


def test_a_model_that_cannot_show_its_video_or_a_solver_without_an_estimate_is_refused() -> None:
    from diffusers import UniPCMultistepScheduler

    walk, method = Walk(flipbook()), Vgdfr(parse(ALL)[0].values)
    model = walk.family.transformer
    assert method.refusal(model, walk.run) == ""
    assert "cannot show it" in method.refusal(model, replace(walk.run, family=object()))
    assert "cannot show it" in method.refusal(model, replace(walk.run, noise=None))
    thick = replace(walk.run, grid=replace(walk.run.grid, frames=3))
    assert "tokens of several latent frames" in method.refusal(model, thick)
    noise_predicting = UniPCMultistepScheduler(
        predict_x0=False, prediction_type="flow_prediction", use_flow_sigmas=True
    )
    blind = replace(walk.run, solver=walk.family.solver(5, noise_predicting))
    assert (
        method.refusal(model, blind)
        == "UniPCMultistepScheduler has no preview of the video between its steps"
    )


def test_in_a_worker_the_share_that_was_kept_is_among_the_metrics() -> None:
    worker = Worker("flipbook")
    worker.load()
    spec = replace(SPEC, width=64, height=64)
    rendered = worker.make(
        Job("1" * 32, "a red circle", "", spec, worker.ref, row=1), OperatingPoint(5, ALL)
    )
    assert rendered.metrics["kept_latents"] == LEFT / FRAMES
    assert "reconstruct" in rendered.phases
