"""The peers one by one: what each decides, and what was put right around the libraries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.methods.on_model.counting import counting
from tests.methods.on_model.runs import SPEC, a_tiny_family, denoised
from tests.methods.on_model.tiny import FAMILIES, Twin, a_tiny_pair, a_tiny_transformer, answer
from vidplat.errors import MethodRefused
from vidplat.methods.installed import Installed
from vidplat.methods.language import parse
from vidplat.methods.peers.easycache import EasyCache
from vidplat.methods.peers.teacache import PUBLISHED, Polynomial, fitted, published_for
from vidplat.methods.protocol import Grid, Run
from vidplat.methods.seams.layouts import layout_of
from vidplat.methods.seams.passes import Place, Skipper, watched
from vidplat.workers.survey.flops import counted as flops_of

STEPS = 8
STRONG = ("teacache:10", "easycache:10")


class Walk:
    """As much of a solver as methods ask: `STEPS` steps from sigma 1 to 0."""

    scheduler = None
    total = STEPS
    sigmas = tuple(1 - step / STEPS for step in range(STEPS + 1))


def a_run(twins: tuple[Twin, ...], rehearse: Callable[[], None] | None = None) -> Run:
    solver: Any = Walk()
    return Run(solver, Grid(5, 4, 6), len(twins[0].branches), 6.0, rehearse=rehearse)


def take(
    twin: Twin, branch: str, step: int, latents: Tensor | None = None, *, steps: int = STEPS
) -> Tensor:
    """A pass as our loop makes it: the context tells all."""
    given = (twin.latents if latents is None else latents) * (1 + 0.02 * step)
    told = {"step_index": step, "sigma": 1 - step / STEPS, "num_inference_steps": steps}
    shape = (len(given), twin.times_per_video) if twin.times_per_video else (len(given),)
    with torch.inference_mode(), twin.model.cache_context(branch, **told):
        made: Tensor = twin.model(
            hidden_states=given,
            timestep=torch.full(shape, 1000.0 * (1 - step / STEPS)),
            return_dict=False,
            **twin.inputs,
        )[0]
    return made


@contextmanager
def applied(text: str, *twins: Twin) -> Iterator[Any]:
    """The method `text` on the twins, calibrated where it must be, and begun."""
    method: Any = parse(text)[0].install()
    run = a_run(twins)
    with ExitStack() as stack:
        for twin in twins:
            assert method.refusal(twin.model, run) == ""
            stack.enter_context(method.applied_to(twin.model))
        method.begin(run)
        if not method.is_calibrated(run):
            with method.calibrating(run):
                for step in range(STEPS):
                    for branch in twins[0].branches:
                        take(twins[0 if step < STEPS / 2 else -1], branch, step)
            method.begin(run)
            assert method.is_calibrated(run)
        yield method


@pytest.mark.parametrize("text", STRONG)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_s_passes_are_skipped_and_given_back(family: str, text: str) -> None:
    twin = a_tiny_transformer(family)
    layers = len(layout_of(twin.model).blocks(twin.model))
    before = answer(twin)
    with applied(text, twin), counting(twin.model) as found:
        for step in range(STEPS):
            for branch in twin.branches:
                assert torch.isfinite(take(twin, branch, step)).all()
    assert torch.equal(answer(twin), before)
    assert tuple(found.whole) == twin.branches
    for branch in twin.branches:
        assert found.skipped[branch] > 0
        assert found.whole[branch] + found.skipped[branch] == STEPS
        assert found.blocks[branch] == found.whole[branch] * layers


@pytest.mark.parametrize("text", STRONG)
def test_what_the_negative_text_says_does_not_reach_the_other_branch(text: str) -> None:
    heard: list[list[Tensor]] = []
    for other in (0.0, 3.0):
        twin, answers = a_tiny_transformer("wan"), list[Tensor]()
        negative = replace(
            twin, inputs={"encoder_hidden_states": twin.inputs["encoder_hidden_states"] + other}
        )
        with applied(text, twin), counting(twin.model) as found:
            for step in range(STEPS):
                answers.append(take(twin, "cond", step))
                take(negative, "uncond", step)
        assert found.skipped["cond"] > 0
        heard.append(answers)
    assert all(torch.equal(one, two) for one, two in zip(*heard, strict=True))


@pytest.mark.parametrize("text", STRONG)
def test_two_transformers_keep_caches_of_their_own_and_start_with_a_whole_pass(text: str) -> None:
    twins = a_tiny_pair()
    before = [answer(twin) for twin in twins]
    with applied(text, *twins), counting(*(twin.model for twin in twins)) as found:
        for step in range(STEPS):
            twin, skipped = twins[0 if step < 4 else 1], found.skipped["cond"]
            stock = torch.isfinite(take(twin, "cond", step)).all()
            assert stock
            if step in (0, 4):  # its first pass: nothing to go by yet
                assert found.skipped["cond"] == skipped
            take(twin, "uncond", step)
    assert found.skipped["cond"] > 0
    for twin, stock_answer in zip(twins, before, strict=True):
        assert torch.equal(answer(twin), stock_answer)


@pytest.mark.parametrize("text", STRONG)
def test_no_product_of_a_skipped_pass_is_computed(text: str) -> None:
    twin = a_tiny_transformer("wan")
    with flops_of(twin.model) as whole:
        answer(twin)
    with applied(text, twin), counting(twin.model) as ran, flops_of(twin.model) as found:
        for step in range(STEPS):
            for branch in twin.branches:
                take(twin, branch, step)
    assert ran.skipped
    assert found.total == whole.total * ran.whole.total()


def test_a_call_outside_of_a_context_with_a_step_is_told_what_is_missing() -> None:
    twin = a_tiny_transformer("wan")
    with (
        watched(twin.model, "test", Skipper()),
        pytest.raises(ValueError, match=r"cache_context\(branch, step_index="),
        twin.model.cache_context("cond"),
    ):
        twin.model(hidden_states=twin.latents, timestep=torch.zeros(1), **twin.inputs)


def test_diffusers_reset_at_a_pipeline_s_end_forgets_all() -> None:
    twin = a_tiny_transformer("wan")
    for text in STRONG:
        with applied(text, twin) as method:
            fresh = [take(twin, "cond", step) for step in range(4)]
            twin.model._reset_stateful_cache()
            assert [torch.equal(take(twin, "cond", step), fresh[step]) for step in range(4)] == [
                True
            ] * 4, method.name


@pytest.mark.parametrize("text", ["easycache:10"])
def test_a_stock_pipeline_with_the_method_makes_what_our_loop_makes(
    text: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from diffusers import WanPipeline

    directory = tmp_path_factory.mktemp("models") / "tiny"
    family = a_tiny_family(directory)
    made = denoised(family, text, prompt="a red circle", negative="dark")
    pipeline = WanPipeline.from_pretrained(directory)
    pipeline.transformer.load_state_dict(family.transformer.state_dict())
    pipeline.set_progress_bar_config(disable=True)
    method: Any = parse(text)[0].install()
    with method.applied_to(pipeline.transformer):
        for _ in range(2):  # the second call starts anew, though nobody says begin
            stock = pipeline(
                prompt="a red circle",
                negative_prompt="dark",
                height=SPEC.height,
                width=SPEC.width,
                num_frames=SPEC.num_frames,
                num_inference_steps=SPEC.num_inference_steps,
                guidance_scale=SPEC.guidance_scale,
                generator=torch.Generator("cpu").manual_seed(SPEC.seed),
                max_sequence_length=16,
                output_type="latent",
            ).frames
            assert torch.equal(stock, made)


# --- EasyCache ---


class Doubler(torch.nn.Module):
    """Answers v = 2 x + 1: then k is 2 always."""

    def __call__(self, latents: Tensor) -> tuple[Tensor]:
        return (2 * latents + 1,)


def easy_steps(
    xs: list[float], threshold: float, *, steps: int | None = None, warmup: float = 0.0
) -> list[bool]:
    """Which steps are computed for latents that are x everywhere."""
    from vidplat.methods.peers.easycache import _Part

    part, computed, model = _Part(threshold, warmup), list[bool](), Doubler()
    for step, x in enumerate(xs):
        ran = False

        def run(x: float = x) -> Any:
            nonlocal ran
            ran = True
            return model(torch.full((2,), x))

        part.call(Place("cond", step, steps), (torch.full((2,), x),), {"return_dict": False}, run)
        computed.append(ran)
    return computed


def test_easycache_sums_predicted_changes_until_they_reach_the_threshold() -> None:
    # Steps 0 and 1 are computed: k = |v1 - v0| / |x1 - x0| = 2, v1 = 9. Steps of 1 in x add 2 * 1 /
    # 9 = .222 each: after two .444 < .5, the third would make .667: computed at step 4, with v4 =
    # 15, and 2 / 15 = .133 from then on.
    assert easy_steps([3, 4, 5, 6, 7, 8, 9, 10, 11], 0.5) == [
        True,
        True,
        False,
        False,
        True,
        False,
        False,
        False,
        True,
    ]


def test_easycache_computes_the_warm_up_and_the_last_step() -> None:
    xs = [100.0 + step for step in range(10)]  # changes of about 1 %
    assert easy_steps(xs, 9.0, steps=10, warmup=0.4) == [True] * 4 + [False] * 5 + [True]
    assert easy_steps(xs, 0.0, steps=10) == [True] * 10


def test_easycache_adds_to_the_input_what_the_last_computed_pass_added() -> None:
    twin = a_tiny_transformer("wan")
    with applied("easycache:10", twin):
        whole = [take(twin, "cond", step) for step in range(2)]
        skipped = take(twin, "cond", 2)
    # Step s is taken at x (1 + .02 s).
    torch.testing.assert_close(skipped, twin.latents * 1.04 + (whole[1] - twin.latents * 1.02))


def test_easycache_decides_on_the_first_branch_for_both() -> None:
    twin = a_tiny_transformer("wan")
    with applied("easycache:10", twin), counting(twin.model) as found:
        for step in range(STEPS):
            take(twin, "cond", step)
            take(
                twin, "uncond", step, twin.latents * (1 + step) ** 3
            )  # changes more than any threshold allows
    assert found.whole == {"cond": 3, "uncond": 3}  # 2 of 8 as warm-up, and the last


def test_easycache_refuses_a_model_whose_answer_cannot_be_added_to_its_input() -> None:
    twin = a_tiny_transformer("wan")
    twin.model.register_to_config(in_channels=36, out_channels=16)
    method = EasyCache(parse("easycache")[0].values)
    assert "the model takes 36 channels but gives 16" in method.refusal(twin.model, a_run((twin,)))


# --- TeaCache ---


def test_teacache_knows_the_published_models_by_their_shape() -> None:
    def shaped(name: str, **config: Any) -> Any:
        model: Any = type(name, (), {})()
        model.config = SimpleNamespace(**config)
        return model

    wan = shaped("WanTransformer3DModel", num_layers=30, num_attention_heads=12)
    small, large = (
        shaped(
            "CogVideoXTransformer3DModel", num_layers=n, num_attention_heads=h, patch_size_t=None
        )
        for n, h in ((30, 30), (42, 48))
    )
    assert published_for(wan) is not None
    assert published_for(small) != published_for(large)
    assert published_for(a_tiny_transformer("wan").model) is None
    # At the authors' 50 steps 1.3B's first 5 are always computed: 10 %.
    first = published_for(wan)
    assert first is not None
    assert round(first.first * 50) == 5
    assert all(len(polynomial.coefficients) == 5 for polynomial in PUBLISHED.values())


def test_teacache_s_published_polynomials_are_taken_as_they_are_and_fitted_ones_tamed() -> None:
    published = Polynomial((2.0, -1.0, 0.5), first=0.1)
    assert published(0.25) == 2 / 16 - 0.25 + 0.5
    assert Polynomial((1.0, -3.0), first=0.1)(1.0) == -2.0
    line = fitted([(0.1, 0.02), (0.2, 0.04), (0.3, 0.06), (0.4, 0.08)])
    assert [round(line(change), 6) for change in (0.1, 0.4, 0.8)] == [
        0.02,
        0.08,
        0.16,
    ]  # beyond .4 in proportion
    assert fitted([(0.1, -1.0), (0.2, -2.0)])(0.2) == 0.0
    assert fitted([])(0.5) == 0.0
    assert fitted([(0.2, 0.1), (0.2, 0.3)])(0.2) == pytest.approx(0.2)


def test_teacache_s_sum_reaches_the_threshold_at_the_right_step() -> None:
    from vidplat.methods.peers.teacache import _Part

    twin = a_tiny_transformer("wan")
    part = _Part(twin.model, layout_of(twin.model), 0.25, Polynomial((1.0, 0.0), first=0.1))
    ran = list[int]()
    tokens = torch.zeros(1, 2, 3)
    for step, level in enumerate(
        [10.0, 11.0, 12.1, 13.31, 14.641, 16.1051]
    ):  # each step changes by 10 %
        arguments = (tokens, None, torch.full((1, 6, 3), level), None)
        if part.enter(Place("cond", step, 20), arguments, {}, tokens) is None:
            ran.append(step)
            part.leave(Place("cond", step, 20), tokens, tokens + 1)
    # 10 % of 20 steps: 0 and 1. Then .1, .2, and at step 4 .3 > .25: computed; then .1 again.
    assert ran == [0, 1, 4]


def test_teacache_is_fitted_to_a_rehearsal_where_nothing_was_published() -> None:
    twin = a_tiny_transformer("wan")
    method: Any = parse("teacache:0.4")[0].install()
    run = a_run((twin,))
    with method.applied_to(twin.model):
        method.begin(run)
        assert not method.is_calibrated(run)
        with method.calibrating(run), counting(twin.model) as ran:
            outputs = [take(twin, "cond", step) for step in range(STEPS)]
        assert ran.whole == {"cond": STEPS}  # nothing is skipped in it
        assert method.is_calibrated(run)
        assert not method.is_calibrated(replace(run, guidance_scale=5.0))
        method.begin(run)
        (part,) = method.parts
        signals: list[float] = []
        stock = part.enter

        def noting(*given: Any) -> Any:
            found = stock(*given)
            change = part.branches["cond"].change
            if change is not None:
                signals.append(part.polynomial(change))
            return found

        part.enter = noting
        for step in range(STEPS):
            take(twin, "cond", step)
        moved = [float((b - a).abs().mean() / a.abs().mean()) for a, b in pairwise(outputs)]
        assert sum(signals) == pytest.approx(sum(moved), rel=0.05)  # least squares keep the sum


def test_a_rehearsal_that_was_broken_off_teaches_nothing() -> None:
    twin = a_tiny_transformer("wan")
    method: Any = parse("teacache:0.5")[0].install()
    run = a_run((twin,))
    with method.applied_to(twin.model):
        method.begin(run)
        with pytest.raises(InterruptedError), method.calibrating(run):
            take(twin, "cond", 0)
            raise InterruptedError
        assert not method.is_calibrated(run)


def test_a_method_that_must_be_calibrated_is_refused_where_no_run_can_be_made() -> None:
    twin = a_tiny_transformer("wan")
    installed = Installed([twin.model])
    installed.use("teacache")
    try:
        with pytest.raises(MethodRefused, match="calibrated by a whole run"):
            installed.begin(a_run((twin,)))
    finally:
        installed.remove()


def test_generate_rehearses_once_and_the_video_does_not_depend_on_what_came_first(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    from vidplat.domain import OperatingPoint
    from vidplat.workers.generate import generate
    from vidplat.workers.making import Ask

    directory = tmp_path_factory.mktemp("models")
    made: list[Tensor] = []
    for order in (("a red circle", "a blue square"), ("a blue square", "a red circle")):
        family = a_tiny_family(directory / str(len(made)))
        installed, calls = Installed(family.transformers), list[int]()
        stock = family.velocity
        family.velocity = lambda *given, stock=stock, calls=calls: (calls.append(1), stock(*given))[
            1
        ]
        installed.use("teacache:10")
        point = OperatingPoint(SPEC.num_inference_steps, method="teacache:10")
        found = {p: generate(family, Ask(p, "", SPEC, point), installed).latents for p in order}
        assert len(calls) == 3 * SPEC.num_inference_steps  # a rehearsal and two videos
        made.append(found["a red circle"])
    assert torch.equal(*made)


def test_a_shortened_run_of_flipbook_s_shape_is_decided_by_the_request_alone(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    family = a_tiny_family(tmp_path_factory.mktemp("models") / "tiny")
    for text in STRONG:
        one, two = (denoised(family, text, shorten=(5, 3)) for _ in range(2))
        assert torch.equal(one, two), text
