"""Eco: which frames go on, that they go on as they were, what that costs, and that the video comes
out whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor

from tests.methods.on_model.runs import CIRCLE, SPEC, a_tiny_family, denoised
from tests.methods.on_model.test_seams import traces
from tests.methods.on_model.tiny import Twin, a_tiny_pair, a_tiny_transformer, answer
from vidplat.domain import Job, OperatingPoint, VideoSpec
from vidplat.errors import MethodRefused, UsageError
from vidplat.methods.eco.entropy import exact_rows
from vidplat.methods.eco.keyframes import SELECTORS, changes, moving_average, select
from vidplat.methods.eco.on_model import Eco
from vidplat.methods.filling.moments import Moment, true_times
from vidplat.methods.installed import Installed
from vidplat.methods.kinds import Choice
from vidplat.methods.language import parse, text
from vidplat.methods.protocol import Grid, Run
from vidplat.methods.seams.attention import Attend, AttentionCall, linked
from vidplat.methods.seams.frame_times import Times, timed
from vidplat.methods.seams.layouts import layout_of
from vidplat.methods.seams.solver_choice import EulerScheduler
from vidplat.methods.solver import Solver
from vidplat.methods.table import KINDS
from vidplat.methods.work import method_work
from vidplat.workers import Worker
from vidplat.workers.generate import draft, generate
from vidplat.workers.making import Ask, Control
from vidplat.workers.models.catalogue import describe_model
from vidplat.workers.models.family import Condition
from vidplat.workers.survey.flops import Flops, counted

LONG = replace(
    SPEC, num_frames=17, num_inference_steps=6
)  # 5 latent frames of 16 tokens; the warm-up is one step
F, P, STEPS = 5, 16, 6
EVEN = (0, 2, 4)  # 3 of 5
TIMED = ("wan", "wan-5b", "ltx", "hunyuan", "hunyuan-true-cfg")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models") / "tiny"


@pytest.fixture(scope="module")
def tiny(directory: Path) -> Any:
    return a_tiny_family(directory)


@pytest.fixture(scope="module")
def unipc(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return a_tiny_family(
        tmp_path_factory.mktemp("models") / "unipc", scheduler="UniPCMultistepScheduler"
    )


def eco(method: str) -> Eco:
    made = parse(method)[0].install()
    assert isinstance(made, Eco)
    return made


def a_run(
    twin: Twin | None = None, *, frames: int = 5, branches: int = 2, scheduler: Any = None
) -> Run:
    """A run that has not begun, of a video as the tiny transformers take it: 4 x 6 tokens in a
    frame."""
    solver = Solver(scheduler or EulerScheduler(), STEPS, "cpu")
    models = (twin.model,) if twin else (a_tiny_transformer("wan", frames=1).model,)
    family = SimpleNamespace(transformers=models, temporal_factor=4, text_length=5)
    return Run(solver, Grid(frames, 4, 6), branches, 6.0, noise=torch.zeros(1), family=family)


Watch = Callable[
    [Eco, Solver, Tensor, Tensor], None
]  # after each step: the method, the latents, the velocity


def walk(
    family: Any, method: str, watch: Watch = lambda *_: None, spec: VideoSpec = LONG
) -> tuple[int, ...] | None:
    """A run by hand, whose method object can be looked at after each step; the frames it kept."""
    one = eco(method)
    condition = Condition(family.encode(CIRCLE), family.encode(""), spec.guidance_scale)
    solver = family.solver(spec.num_inference_steps)
    latents = noise = family.noise(spec)
    with one.applied_to(family.transformer), torch.inference_mode():
        run = Run(
            solver, Grid(*family.grid(latents)), 2, spec.guidance_scale, noise=noise, family=family
        )
        one.begin(run)
        while solver.remaining:
            velocity = family.velocity(latents, solver, condition)
            latents = one.stepped(solver.advance(velocity, latents), velocity)
            watch(one, solver, latents, velocity)
        key = one.video.key
    with pytest.raises(ValueError, match="must be told of a video"):
        one.filling()  # undone, it has forgotten
    return key


# --- what goes on ---------------------------------------------------------------------------------


@pytest.mark.parametrize("selector", SELECTORS)
def test_with_all_frames_kept_the_latents_are_the_stock_run_s_bit_for_bit(
    tiny: Any, selector: str
) -> None:
    made = denoised(tiny, f"eco:5,selector={selector}", spec=LONG)
    assert torch.equal(made, denoised(tiny, "", spec=LONG))


def test_with_all_frames_kept_a_multistep_solver_is_left_alone_too(unipc: Any) -> None:
    assert torch.equal(denoised(unipc, "eco:5", spec=LONG), denoised(unipc, "", spec=LONG))


def test_kept_frames_go_on_as_a_run_that_is_cropped_by_hand(unipc: Any) -> None:
    made = denoised(unipc, "eco:3,selector=uniform,warmup=0.5", spec=LONG)

    own, model = unipc.solver(STEPS), unipc.transformer
    condition = Condition(unipc.encode(CIRCLE), unipc.encode(""), LONG.guidance_scale)
    latents, times = unipc.noise(LONG), Times()
    with timed(model, layout_of(model), times), torch.inference_mode():
        for step in range(STEPS):
            latents = own.advance(unipc.velocity(latents, own, condition), latents)
            if step == 2:
                latents, times.frames = latents[:, :, list(EVEN)], EVEN
                own.forget()
    assert made.shape[2] == 3
    assert torch.equal(made, latents)


def test_what_unipc_remembers_is_forgotten_and_its_order_begun_anew(unipc: Any) -> None:
    def remembered(text: str) -> list[tuple[int, int]]:
        """(latent frames that it remembers, order of the next step) after each step."""
        seen = []

        def watch(method: Eco, solver: Solver, latents: Tensor, velocity: Tensor) -> None:
            lengths = {known.shape[2] for known in solver._remembered()}
            assert len(lengths) <= 1
            seen.append((max(lengths, default=0), solver.scheduler.lower_order_nums))

        walk(unipc, text, watch)
        return seen

    # Two of six steps with all frames, then once more from first order on.
    assert remembered("eco:3,warmup=0.34") == [(5, 1), (0, 0), (3, 1), (3, 2), (3, 2), (3, 2)]


@pytest.mark.parametrize(("warmup", "whole"), [(0.0, 1), (0.1, 1), (0.5, 3), (0.9, 5)])
def test_the_warm_up_s_passes_see_all_frames_and_all_others_the_kept_ones(
    tiny: Any, warmup: float, whole: int
) -> None:
    tokens: list[int] = []
    block = tiny.transformer.blocks[0]
    watch = block.register_forward_pre_hook(lambda module, args: tokens.append(args[0].shape[1]))
    try:
        denoised(tiny, f"eco:3,selector=entropy,warmup={warmup}", spec=LONG)
    finally:
        watch.remove()
    # Two branches: entropies take no pass of their own.
    assert tokens == [F * P] * (2 * whole) + [3 * P] * (2 * (STEPS - whole))


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0.1), (6, 1.0)])
def test_where_no_step_is_left_after_the_warm_up_all_frames_stay(
    tiny: Any, steps: int, warmup: float
) -> None:
    spec = replace(LONG, num_inference_steps=steps)
    assert torch.equal(
        denoised(tiny, f"eco:2,warmup={warmup}", spec=spec), denoised(tiny, "", spec=spec)
    )


def test_without_guidance_there_is_one_branch_and_it_is_looked_at(tiny: Any) -> None:
    plain = replace(LONG, guidance_scale=1.0)
    made = denoised(tiny, "eco:3,selector=entropy", spec=plain)
    assert made.shape[2] == 3
    assert torch.equal(made, denoised(tiny, "eco:3,selector=entropy", spec=plain))


def test_an_edit_warms_up_in_the_first_of_the_steps_it_takes(tiny: Any) -> None:
    source = tiny.noise(replace(LONG, seed=77))
    with counted(tiny.transformer) as whole:
        denoised(tiny, "", spec=LONG, source=source)
    with counted(tiny.transformer) as some:
        assert denoised(tiny, "eco:3,selector=uniform", spec=LONG, source=source).shape[2] == 3
    # 3 of 6 steps are taken, one of them with all frames; attention falls with the square.
    assert some.attention * 3 == pytest.approx(whole.attention * (1 + 2 * 9 / 25))


def test_a_run_that_is_shortened_in_its_warm_up_ends_it_as_the_shorter_run_would(tiny: Any) -> None:
    # 3 of 6 steps are the warm-up; after one of them the run is cut to 3 in all, of which 2 are.
    tokens: list[int] = []
    block = tiny.transformer.blocks[0]
    watch = block.register_forward_pre_hook(lambda module, args: tokens.append(args[0].shape[1]))
    try:
        denoised(tiny, "eco:3,warmup=0.5", spec=LONG, shorten=(1, 2))
    finally:
        watch.remove()
    assert tokens == [F * P] * 4 + [3 * P] * 2


# --- which frames ---------------------------------------------------------------------------------


@pytest.mark.parametrize("family", TIMED)
def test_scores_are_of_the_last_layer_s_conditional_rows_as_rotated(family: str) -> None:
    twin = a_tiny_transformer(family)
    layout, method, run = layout_of(twin.model), eco("eco:3,selector=entropy"), a_run(twin)
    seen: list[AttentionCall] = []

    def noting(call: AttentionCall, rest: Attend) -> Tensor:
        seen.append(call.rotated())
        return rest(call)

    with linked(layout.attentions(twin.model), layout.processor, noting):
        for branch in twin.branches:
            plain = answer(twin, branch=branch)
    with method.applied_to(twin.model):
        method.begin(run)
        for branch in twin.branches:
            assert torch.equal(answer(twin, branch=branch), plain)
        scores = method.video.scores
    # The first branch's last call; of both in one batch the second half, of joint attention the
    # video, which is first.
    last = seen[len(layout.attentions(twin.model)) - 1]
    kept = slice(1, None) if layout.branches_in_batch else slice(None)
    expected = exact_rows(last.query[kept, :120], last.key[kept, :120], run.grid)
    assert scores == [tuple(expected.tolist())]


def test_scores_of_all_warm_up_steps_are_joined_and_the_largest_kept(tiny: Any) -> None:
    scores: list[tuple[float, ...]] = []

    def watch(method: Eco, solver: Solver, latents: Tensor, velocity: Tensor) -> None:
        scores[:] = method.video.scores

    key = walk(tiny, "eco:3,selector=entropy,warmup=0.5", watch)
    assert len(scores) == 3
    assert key == select(moving_average(scores), 3)


def test_motion_keeps_the_frames_where_the_video_it_heads_for_changes_most(tiny: Any) -> None:
    cleans: list[Tensor] = []
    stock = Eco._chosen

    def watched(method: Eco, latents: Tensor, velocity: Tensor) -> tuple[int, ...]:
        cleans.append(method.video.run.solver.clean(latents, velocity))
        return stock(method, latents, velocity)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Eco, "_chosen", watched)
        key = walk(tiny, "eco:3,selector=motion")
    assert key == select(changes(cleans[0][0].transpose(0, 1).numpy()), 3, selector="motion")


def test_each_selector_keeps_first_last_and_as_many_as_asked(tiny: Any) -> None:
    for selector in SELECTORS:
        key = walk(tiny, f"eco:3,selector={selector}")
        assert key and len(key) == 3 and key[0] == 0 and key[-1] == 4
    assert walk(tiny, "eco:3,selector=uniform") == EVEN


def test_the_same_video_twice_is_the_same(tiny: Any) -> None:
    for selector in SELECTORS:
        method = f"eco:3,selector={selector}"
        assert torch.equal(denoised(tiny, method, spec=LONG), denoised(tiny, method, spec=LONG))


def test_where_a_second_transformer_takes_over_scores_begin_anew() -> None:
    noisy, clean = a_tiny_pair()
    method = eco("eco:3,selector=entropy,warmup=1")
    with method.applied_to(noisy.model), method.applied_to(clean.model):
        method.begin(a_run(noisy))
        answer(noisy, step=0)
        answer(noisy, step=1)
        assert len(method.video.scores) == 2
        answer(clean, step=2)
        assert len(method.video.scores) == 1
    assert traces(noisy.model) == traces(clean.model) == []


def test_it_tells_how_many_frames_were_kept_and_how_far_scores_lay_apart(tiny: Any) -> None:
    found: list[dict[str, float]] = []

    def watch(method: Eco, solver: Solver, latents: Tensor, velocity: Tensor) -> None:
        found.append(dict(method.facts()))

    walk(tiny, "eco:3,selector=uniform", watch)
    assert found[-1] == {"kept_frames": 3.0, "widest_gap": 2.0}
    walk(tiny, "eco:3,selector=entropy", watch)
    assert 0 < found[-1]["score_spread"] < 1


# --- what it costs --------------------------------------------------------------------------------


@pytest.mark.parametrize("options", ["", ",warmup=0.5", ",k=2"])
def test_what_it_costs_is_what_the_closed_form_says(
    tiny: Any, directory: Path, options: str
) -> None:
    _, shape = describe_model(str(directory))
    method = text(parse(f"eco:selector=uniform{options}"))

    def flops(method: str) -> Flops:
        with counted(tiny.transformer) as found:
            denoised(tiny, method, spec=LONG)
        return found

    full, some = flops(""), flops(method)
    said = method_work(shape, LONG, OperatingPoint(STEPS, method))
    assert some.linear == pytest.approx(full.linear * said.linear, rel=1e-9)
    assert some.attention == pytest.approx(full.attention * said.attention, rel=1e-9)

    shares: list[float] = []

    def watch(one: Eco, solver: Solver, latents: Tensor, velocity: Tensor) -> None:
        shares[:] = [one.share(step, STEPS) for step in range(STEPS)]

    walk(tiny, method, watch)
    assert sum(shares) / STEPS == pytest.approx(some.total / full.total, rel=1e-9)


def test_a_deadline_counts_later_steps_as_cheaper_and_with_all_frames_as_whole() -> None:
    method = eco("eco:3,warmup=0.34")
    assert method.share(5, STEPS) == 1.0  # nobody has begun
    method.begin(a_run())
    shares = [method.share(step, STEPS) for step in range(STEPS)]
    assert shares[:2] == [1.0, 1.0]
    assert len(set(shares[2:])) == 1 and 9 / 25 < shares[2] < 3 / 5 + 0.05
    whole = eco("eco:5")
    whole.begin(a_run())
    assert all(whole.share(step, STEPS) == 1.0 for step in range(STEPS))


def test_plans_count_a_number_that_does_not_fit_at_full_work(directory: Path, tiny: Any) -> None:
    _, shape = describe_model(str(directory))
    for k in (5, 6):  # all frames; more than there are, which the worker will refuse
        said = method_work(shape, LONG, OperatingPoint(STEPS, f"eco:k={k}"))
        assert (said.linear, said.attention) == (1.0, 1.0)


# --- the whole video ------------------------------------------------------------------------------


@pytest.fixture
def bench(tiny: Any) -> Iterator[Any]:
    """Makes drafts and whole videos with a method, and puts the stock model back."""
    installed = Installed(tiny.transformers)

    def make(how: Any, method: str, **control: Any) -> Any:
        installed.use(method)
        point = OperatingPoint(STEPS, method or "full")
        ask = Ask(CIRCLE, "", LONG, point, control=Control(**control))
        return how(tiny, ask, installed)

    yield make
    installed.remove()


@pytest.mark.parametrize("options", ["3", "2", "4,selector=motion"])
def test_a_video_has_all_its_frames_and_decoded_ones_come_back_as_they_were(
    bench: Any, options: str
) -> None:
    part, whole = bench(draft, f"eco:{options}"), bench(generate, f"eco:{options}")
    kept = part.latents.shape[2]
    assert len(part.frames) == 4 * (kept - 1) + 1
    assert whole.frames.shape == (17, 32, 32, 3) and whole.frames.dtype == np.uint8
    assert whole.filling is None
    shown = {moment.before: n for n, moment in enumerate(part.filling.moments) if moment.is_decoded}
    assert {0, len(part.frames) - 1} <= shown.keys()
    for q, n in shown.items():
        assert np.array_equal(whole.frames[n], part.frames[q])


def test_kept_frames_stand_at_their_true_times(bench: Any) -> None:
    part = bench(draft, "eco:3,selector=uniform")
    times = true_times(EVEN)
    assert all(
        part.filling.moments[time] == Moment(q, part.filling.moments[time].part)
        for q, time in enumerate(times)
    )
    assert all(part.filling.moments[time].is_decoded for time in times)
    assert sum(not moment.is_decoded for moment in part.filling.moments) == 17 - 9


def test_with_all_frames_kept_the_frames_are_the_stock_video_s_bit_for_bit(bench: Any) -> None:
    part = bench(draft, "eco:5")
    assert part.filling is None
    assert np.array_equal(part.frames, bench(generate, "").frames)


def test_progress_tells_every_step_and_the_filling_in(bench: Any) -> None:
    told: list[tuple[str, int, int]] = []
    made = bench(generate, "eco:3", on_step=lambda *heard: told.append(heard))
    assert [step for phase, step, of in told if phase == "denoise"] == list(range(STEPS + 1))
    assert {of for _, _, of in told} == {STEPS}
    assert list(dict.fromkeys(phase for phase, *_ in told)) == [
        "encode",
        "denoise",
        "decode",
        "reconstruct",
    ]
    assert {"denoise", "decode", "reconstruct"} <= made.phases.keys()


def test_a_worker_makes_it_and_tells_what_it_kept(tiny_wan: Path) -> None:
    worker = Worker(str(tiny_wan))
    worker.load()
    spec = VideoSpec(
        32, 32, num_frames=17, fps=8, num_inference_steps=4, guidance_scale=3.0, seed=1
    )
    job = Job("1" * 32, "a red circle", "", spec, worker.ref, row=1)
    rendered = worker.make(job, OperatingPoint(4, method="eco:3"))
    assert rendered.metrics["kept_frames"] == 3
    assert worker.make(job, OperatingPoint(4, method="eco:3")).video == rendered.video
    with pytest.raises(
        MethodRefused, match="6 keyframes cannot be chosen from 5 latent frames; take K=5 or less"
    ):
        worker.make(job, OperatingPoint(4, method="eco:6"))


# --- what it refuses ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "changes", "told"),
    [
        ("eco:5", {}, ""),
        ("eco:6", {}, "6 keyframes cannot be chosen from 5 latent frames; take K=5 or less"),
        (
            "eco:3,selector=motion",
            {"scheduler": DPMSolverMultistepScheduler()},
            "DPMSolverMultistepScheduler does not tell it",
        ),
        ("eco:3,selector=entropy", {"scheduler": DPMSolverMultistepScheduler()}, ""),
        ("eco:3", {"noise": None}, "whoever makes this video cannot leave frames out"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(
    method: str, changes: dict[str, Any], told: str
) -> None:
    twin = a_tiny_transformer("wan")
    run = a_run(twin, scheduler=changes.get("scheduler"))
    if "noise" in changes:
        run = replace(run, noise=None)
    why = eco(method).refusal(twin.model, run)
    assert told in why and bool(why) == bool(told)


@pytest.mark.parametrize("family", ["cogvideox", "cogvideox-2b", "cogvideox-1.5"])
def test_models_whose_frames_cannot_be_told_their_times_are_refused(family: str) -> None:
    twin = a_tiny_transformer(family)
    assert "would lose their times" in eco("eco:3").refusal(twin.model, a_run(twin))
    with (
        pytest.raises(MethodRefused, match="cannot be told the times"),
        eco("eco:3").applied_to(twin.model),
    ):
        pass


def test_models_that_are_given_an_image_are_refused() -> None:
    twin = a_tiny_transformer("wan")
    twin.model.register_to_config(in_channels=8)
    assert "starts from an image" in eco("eco:3").refusal(twin.model, a_run(twin))


def test_its_text_is_read_and_written() -> None:
    assert text(parse("eco:K=11,warmup=0.1")) == text(parse("eco:11")) == "eco:k=11"
    assert text(parse("ECO:K=11,selector=motion+unipc")) == "eco:k=11,selector=motion+unipc"
    for wrong, told in {
        "eco:1": "eco k must be between 2 and 1000, not '1'",
        "eco+hsa": "what is kept of tokens has the places of all frames",
        "eco+sparse": "masks are laid out for all frames",
        "eco+early": "what is kept of skipped passes has the places of all frames",
    }.items():
        with pytest.raises(UsageError, match=told):
            parse(wrong)


def test_the_selectors_that_a_user_can_name_are_those_that_there_are() -> None:
    named = KINDS["eco"].parameters["selector"]
    assert isinstance(named, Choice)
    assert named.options == SELECTORS
