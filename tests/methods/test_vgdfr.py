"""Merging a video's quiet passages in mid-run, and putting every frame back into its time."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.methods.tiny import a_tiny_pair, a_tiny_transformer, randomise
from vidplat.domain import Job, OperatingPoint, VideoSpec
from vidplat.errors import SpecError
from vidplat.methods.filling.frames import filled
from vidplat.methods.filling.moments import filling_of
from vidplat.methods.installed import Installed
from vidplat.methods.language import parse
from vidplat.methods.protocol import Grid, Run
from vidplat.methods.seams.attention import Attend, AttentionCall, linked
from vidplat.methods.seams.layouts import layout_of
from vidplat.methods.solver import Solver
from vidplat.methods.vgdfr import on_model as vgdfr
from vidplat.methods.vgdfr.likeness import likeness, spans
from vidplat.methods.vgdfr.merges import Blocks, Merges, Similarity, merges_above, moments
from vidplat.methods.vgdfr.on_model import How, Vgdfr, compress, merged, renoised
from vidplat.workers import Worker
from vidplat.workers.generate import Made, Source, Wishes, draft, filled_in, generate
from vidplat.workers.models.catalogue import locate
from vidplat.workers.models.family import Condition, load_family
from vidplat.workers.models.wan import WanFamily
from vidplat.workers.text_cache import TextCache

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

    def compress(self, choose: Any, how: How = How()) -> Merges:
        found = compress(
            self.family, self.solver, self.latents, self.velocity, self.noise, choose, how
        )
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
    again = renoised(walk.solver, clean, walk.noise, Merges(17))
    assert torch.equal(again, sigma * walk.noise + (1 - sigma) * clean)


def test_noise_is_picked_and_not_averaged() -> None:
    # Of 25 latents 22 are merged by two; of averaged noise the 11 that they become would have half
    # the variance.
    solver = Solver(flipbook().scheduler, 5, "cpu")
    plan = merges_above(Blocks(Similarity([1.0] * 96)), 0.5)
    noise = torch.randn(1, 48, 25, 16, 16, generator=torch.Generator().manual_seed(2))
    part = renoised(solver, torch.zeros(1, 48, 14, 16, 16), noise, plan, "selected")
    assert torch.equal(part, solver.sigma * noise[:, :, list(plan.latents)])
    # 48 x 14 x 256 = 172,032 values: the variance is known to about 0.4 %.
    assert float(part.var()) == pytest.approx(solver.sigma**2, rel=0.02)


@pytest.mark.parametrize("size", [2, 4])
def test_pooled_noise_has_the_variance_of_noise_and_points_where_the_mean_does(size: int) -> None:
    solver, plan = Solver(flipbook().scheduler, 5, "cpu"), Merges(33, ((1, size),))
    noise = torch.randn(1, 48, 9, 32, 32, generator=torch.Generator().manual_seed(2))
    part = renoised(solver, torch.zeros(1, 48, len(plan.latents), 32, 32), noise, plan)

    # latents 1 .. size become the one at place 1; 48 x 1024 values: the variance is known to about
    # 0.7 %
    pooled, sigma = part[:, :, 1], solver.sigma
    torch.testing.assert_close(pooled, sigma * size**0.5 * noise[:, :, 1 : 1 + size].mean(2))
    assert float(pooled.var()) == pytest.approx(sigma**2, rel=0.03)
    assert torch.equal(part[:, :, 2:], sigma * noise[:, :, 1 + size :])


def test_merged_latents_are_the_mean_of_what_the_video_would_be_and_nothing_is_encoded() -> None:
    walk = Walk(flipbook()).go(2)
    clean = walk.solver.clean(walk.latents, walk.velocity)

    class Shows:
        temporal_factor, shown = 4, walk.family.shown

        def latents_of(self, frames: Tensor, level: int = 0) -> Tensor:
            raise AssertionError("nothing is encoded")

    found = compress(Shows(), walk.solver, walk.latents, walk.velocity, walk.noise, always(PLAN))

    pooled = walk.noise[:, :, 1:3].sum(2) / 2**0.5
    expected = walk.solver.sigma * pooled + (1 - walk.solver.sigma) * clean[:, :, 1:3].mean(2)
    torch.testing.assert_close(found.latents[:, :, 1], expected)


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
@pytest.mark.parametrize("rope", ["global", "local"])
def test_every_wan_takes_the_method_on_all_its_transformers(kind: str, rope: str) -> None:
    walk, method = Walk(a_wan(kind)), Vgdfr({**parse(ALL)[0].values, "rope": rope})
    method.choose = always(PLAN)  # a random model's preview is alike or not by chance
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


@pytest.mark.parametrize(("preview", "encode"), [(0, 0), (1, 0), (2, 0), (1, 1), (1, 2)])
def test_merged_latents_can_be_made_at_every_level(preview: int, encode: int) -> None:
    walk = Walk(flipbook(), side=64).go(2)
    shown, encoded = list[tuple[int, ...]](), list[tuple[int, ...]]()

    class Noting:
        temporal_factor = 4

        def shown(self, latents: Tensor, level: int = 0) -> Tensor:
            frames = walk.family.shown(latents, level)
            shown.append(tuple(frames.shape))
            return frames

        def latents_of(self, frames: Tensor, level: int = 0) -> Tensor:
            encoded.append(tuple(frames.shape))
            return walk.family.latents_of(frames, level)

    how = How(merge="mean", preview_level=preview, encode_level=encode)
    compress(Noting(), walk.solver, walk.latents, walk.velocity, walk.noise, always(PLAN), how)
    levels = (
        [preview] if preview == encode else [preview, encode]
    )  # at one level the preview is used again
    assert shown == [(1, 3, 17, 64 // 2**level, 64 // 2**level) for level in levels]
    assert encoded == [(1, 3, 13, 64 // 2**encode, 64 // 2**encode)]


def test_latents_of_frames_that_are_not_merged_go_on_as_they_are_unless_they_are_encoded_too() -> (
    None
):
    walk, other = Walk(flipbook()).go(2), Walk(flipbook()).go(2)
    before = walk.latents
    walk.compress(always(PLAN), How(merge="mean"))
    # Places 0, 2 and 3 are latents 0, 3 and 4; place 1 is latents 1 and 2 in one.
    assert torch.equal(walk.latents[:, :, [0, 2, 3]], before[:, :, [0, 3, 4]])
    assert not torch.equal(walk.latents[:, :, 1], before[:, :, 1])

    other.compress(always(PLAN), How(merge="mean", unmerged="encoded"))
    assert torch.equal(other.latents[:, :, 1], walk.latents[:, :, 1])
    assert not any(torch.equal(other.latents[:, :, at], walk.latents[:, :, at]) for at in (0, 2, 3))


def test_frames_are_merged_to_their_mean_or_to_the_first_of_them() -> None:
    # Frame i is i everywhere: pairs (1, 2) ... (7, 8) have means 1.5, 3.5, 5.5, 7.5.
    video = torch.arange(17.0).view(1, 1, 17, 1, 1).expand(1, 3, 17, 2, 2)
    assert merged(video, PLAN)[0, 0, :, 0, 0].tolist() == [0, 1.5, 3.5, 5.5, 7.5, *range(9, 17)]
    assert merged(video, PLAN, "first")[0, 0, :, 0, 0].tolist() == [0, 1, 3, 5, 7, *range(9, 17)]
    longer = torch.arange(33.0).view(1, 1, 33, 1, 1).expand(1, 3, 33, 2, 2)
    assert merged(longer, Merges(33, ((1, 4),)))[0, 0, :6, 0, 0].tolist() == [
        0,
        2.5,
        6.5,
        10.5,
        14.5,
        17,
    ]


def some_frames(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 4, 6, 3), np.uint8)


@pytest.mark.parametrize("plan", [PLAN, Merges(33, ((1, 4), (17, 2))), Merges(17)])
def test_decoded_frames_come_back_as_they_were_at_their_own_places(plan: Merges) -> None:
    decoded = some_frames(len(plan.frames))
    video = filled(decoded, moments(plan))
    assert len(video) == plan.num_frames
    assert np.array_equal(video[list(plan.frames)], decoded)


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
@pytest.mark.parametrize("anchor", ["first", "centre"])
def test_a_still_clip_is_restored_exactly(anchor: str, depth: int) -> None:
    decoded = np.random.default_rng(1).integers(0, 256, (1, 24, 32, 3), np.uint8).repeat(13, 0)
    assert np.array_equal(filled(decoded, moments(PLAN, anchor), depth), decoded[:1].repeat(17, 0))


def test_steady_brightening_is_restored_exactly_around_the_centres_alone() -> None:
    """Frame i is 8 i bright. A mean of two stands half a frame after the first of them, where
    `first` puts it."""
    truth = np.broadcast_to((8 * np.arange(17, dtype=np.uint8))[:, None, None, None], (17, 4, 6, 3))
    shown = torch.from_numpy(truth.copy()).float().permute(3, 0, 1, 2)[None]
    decoded = merged(shown, PLAN)[0].permute(1, 2, 3, 0).numpy().astype(np.uint8)

    assert np.array_equal(filled(decoded, moments(PLAN, "centre"), 0), truth)
    # As `first`: 12 at frame 1 instead of 8, and 20 at frame 2, half way to 28, instead of 16.
    assert filled(decoded, moments(PLAN), 0)[:4, 0, 0, 0].tolist() == [0, 12, 20, 28]


def test_words_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValueError, match="merge is latents or mean or first, not 'median'"):
        How(merge="median")
    with pytest.raises(ValueError, match="need 13 decoded frames, there are 12"):
        filled(some_frames(12), moments(PLAN))


# --- the method, through the loop that makes videos -------------------------------------------

SPEC = VideoSpec(32, 32, 17, 8, 5, 3.0, 6)
ALL = "vgdfr:theta=0,k=2,alike=whole"  # frames 1 .. 8 of 17 become four
LATE = Wishes(
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
    wishes: Wishes = Wishes(),
) -> Watched:
    """One video at `spec`; as a draft that is not filled in yet, unless it is wanted `whole`."""
    installed, seen = Installed(family.transformers), list[int]()
    installed.use(method)
    hook = family.transformer.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["hidden_states"].shape[2]), with_kwargs=True
    )
    point = OperatingPoint(spec.num_inference_steps, method or "full")
    try:
        texts = TextCache(family, "test")
        made = (generate if whole else draft)(
            family,
            texts,
            "a red circle",
            "",
            spec,
            point,
            wishes,
            installed=installed,
            source=source,
        )
        return Watched(
            made,
            seen,
            installed.facts(),
            [installed.share(step, point.steps) for step in range(point.steps)],
        )
    finally:
        hook.remove()
        installed.remove()


@pytest.mark.parametrize("rope", ["local", "global"])
def test_where_nothing_is_alike_enough_the_video_is_the_plain_one_bit_for_bit(
    family: WanFamily, rope: str
) -> None:
    plain = make(family, "")
    watched = make(family, f"vgdfr:theta=1,k=2,rope={rope}")

    assert torch.equal(watched.made.latents, plain.made.latents)
    assert np.array_equal(watched.made.frames, plain.made.frames)
    assert watched.facts == {"kept_latents": 1.0}
    assert "reconstruct" not in watched.made.phases


@pytest.mark.parametrize("rope", ["local", "global"])
def test_after_it_was_there_the_model_makes_the_same_as_before(
    family: WanFamily, rope: str
) -> None:
    before = make(family, "")
    merged_once = make(family, f"{ALL},rope={rope}")
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
    assert started.filling.made == 4
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
        vgdfr, "compress", lambda family, solver, *rest: pytest.fail(f"after {solver.index}")
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


@pytest.mark.parametrize(("left_s", "left"), [(None, FRAMES), (1e6, FRAMES), (-1.0, LEFT)])
def test_a_run_that_is_late_merges_further_where_it_was_told_to(
    left_s: float | None, left: int
) -> None:
    family = flipbook()
    walk = Walk(family)
    method = Vgdfr(dict(parse("vgdfr:theta=1,k=2,late=merge")[0].values))
    with method.applied_to(family.transformer):
        method.begin(replace(walk.run, left_s=lambda: left_s))
        walk.go(2)
        assert method.stepped(walk.latents, walk.velocity).shape[2] == left


def test_a_late_run_keeps_what_it_may_when_it_was_not_told_to_merge() -> None:
    made = make(flipbook(), "vgdfr:theta=1,k=2", wishes=LATE).made
    assert made.latents.shape[2] == FRAMES


def test_a_late_run_merges_as_far_as_it_can_and_never_less_than_what_is_alike() -> None:
    assert (
        make(
            flipbook(), "vgdfr:theta=1,k=2,late=merge", whole=False, wishes=LATE
        ).made.latents.shape[2]
        == LEFT
    )
    assert (
        make(flipbook(), f"{ALL},late=merge", whole=False, wishes=LATE).made.latents.shape[2]
        == LEFT
    )


def test_before_its_preview_a_run_that_may_merge_counts_on_the_fewest_latents() -> None:
    method = Vgdfr(dict(parse("vgdfr:theta=1,k=2,late=merge")[0].values))
    walk = Walk(flipbook())
    method.begin(walk.run)
    assert [method.share(step, 5) for step in range(5)] == [1.0, 1.0, *[LEFT / FRAMES] * 3]
    assert [method.share(step, 2) for step in range(2)] == [
        1.0,
        1.0,
    ]  # shortened: there will be no preview


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


@pytest.mark.parametrize("told", ["local", "global", "layer 1"])
def test_the_model_is_told_the_times_that_the_method_says(told: str) -> None:
    family = flipbook()
    values = dict(parse(f"{ALL},rope={told if told != 'layer 1' else 'local'}")[0].values)
    whole, *layers = tables_of_last_call(
        family, Vgdfr(values, frozenset({1}) if told == "layer 1" else None)
    )
    rows = whole.unflatten(1, (FRAMES, -1))
    local, original = rows[:, :LEFT].flatten(1, 2), rows[:, list(PLAN.latents)].flatten(1, 2)
    assert not torch.equal(local, original)
    for layer, table in enumerate(layers):
        assert torch.equal(
            table, original if told == "global" or (told == "layer 1" and layer == 1) else local
        )


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


def test_another_measure_of_likeness_may_give_another_plan() -> None:
    # Seed 6 at step 2: see the values that the thresholds lie between.
    family, walk = flipbook(), Walk(flipbook()).go(2)
    shown = (
        family.shown(walk.solver.clean(walk.latents, walk.velocity), 1)[0]
        .permute(1, 2, 3, 0)
        .numpy()
    )
    whole, tile = (
        Blocks(likeness(shown, by=by, quads=False)).pairs[0] for by in ("whole", "min-tile")
    )
    theta = (whole + tile) / 2
    assert tile < theta < whole
    assert compress_with(walk, f"vgdfr:theta={theta:.6f},k=2,alike=whole").latents == PLAN.latents
    assert compress_with(walk, f"vgdfr:theta={theta:.6f},k=2,alike=min-tile").merges_nothing


def test_likeness_of_spans_merges_what_strays_from_its_first_frame_by_less_than_theta() -> None:
    family, walk = flipbook(), Walk(flipbook()).go(2)
    shown = (
        family.shown(walk.solver.clean(walk.latents, walk.velocity), 1)[0]
        .permute(1, 2, 3, 0)
        .numpy()
    )
    (value,) = spans(shown, 4).pairs
    assert 0.01 < value < 0.99
    assert compress_with(walk, f"vgdfr:theta={value - 0.01:.6f},k=2").latents == PLAN.latents
    assert compress_with(walk, f"vgdfr:theta={value + 0.01:.6f},k=2").merges_nothing


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
    spec = replace(SPEC, num_inference_steps=10)  # of which 8 are taken
    watched = make(family, ALL, spec=spec, source=source)
    assert watched.made.frames.shape == (17, 32, 32, 3)
    assert watched.frames_of_calls == [FRAMES] * 2 * 2 + [LEFT] * 6 * 2


def test_a_run_that_ends_with_its_preview_is_refused() -> None:
    family = flipbook()
    with pytest.raises(
        SpecError, match="vgdfr cannot be used here: its preview is made after 5 of the steps, and"
    ):
        make(family, "vgdfr:theta=0,k=5")
    short = Source(family.noise(SPEC), strength=0.2)  # one step of five
    with pytest.raises(SpecError, match="made after 2 of the steps, and the whole run has 1"):
        make(family, ALL, source=short)


def test_a_run_that_is_shortened_to_less_than_its_preview_stays_whole() -> None:
    family = flipbook()
    texts, installed = TextCache(family, "test"), Installed(family.transformers)
    installed.use("vgdfr:theta=0,k=4")
    try:
        made = generate(
            family,
            texts,
            "a red circle",
            "",
            SPEC,
            OperatingPoint(5, "vgdfr:theta=0,k=4"),
            Wishes(finish_by=0.0),  # long ago: the second step is the last
            installed,
        )
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
