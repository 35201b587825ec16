"""HSA on tiny transformers of every family: what is computed, what is kept, and that nothing is
left behind.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from diffusers import CogVideoXDDIMScheduler, UniPCMultistepScheduler
from torch import Tensor

from tests.methods.on_model.test_seams import traces
from tests.methods.on_model.tiny import FAMILIES, Twin, a_tiny_pair, a_tiny_transformer, answer
from vidplat.domain import OperatingPoint, VideoSpec
from vidplat.methods.hsa.on_model import Hsa
from vidplat.methods.hsa.schedule import Schedule, kv_bytes
from vidplat.methods.installed import Installed
from vidplat.methods.language import parse
from vidplat.methods.protocol import Grid, Run
from vidplat.methods.seams.attention import Attend, AttentionCall, linked
from vidplat.methods.seams.layouts import layout_of
from vidplat.methods.seams.solver_choice import EulerScheduler
from vidplat.methods.solver import Solver
from vidplat.workers.generate import generate
from vidplat.workers.making import Ask
from vidplat.workers.models.catalogue import locate
from vidplat.workers.models.family import Family
from vidplat.workers.models.loading import load_family
from vidplat.workers.survey.flops import counted

GRID = Grid(5, 4, 6)  # of the tiny transformers: 120 tokens
FLOW = [family for family in FAMILIES if not family.startswith("cogvideox")]
HALF = Schedule(8, 2, 1, (1, 4), (0.25, 0.75))  # full at 0, 1, 4 and 7; 30 tokens at 2, 3, 5 and 6


@dataclass
class DdimWalk:
    """What methods look at of a `Solver`, over a real DDIM scheduler."""

    scheduler: Any
    total: int
    index: int = 0

    @property
    def timestep(self) -> Tensor:
        found: Tensor = self.scheduler.timesteps[self.index]
        return found


def a_solver(steps: int = 8) -> Solver:
    return Solver(EulerScheduler(shift=3.0), steps, "cpu")


def a_walk(steps: int = 8) -> DdimWalk:
    scheduler = CogVideoXDDIMScheduler(prediction_type="v_prediction", timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    return DdimWalk(scheduler, steps)


def a_run(twin: Twin, solver: Any, grid: Grid = GRID) -> Run:
    return Run(solver, grid, 2 if len(twin.latents) == 2 else len(twin.branches), 6.0)


def an_hsa(schedule: Schedule = HALF, **values: Any) -> Hsa:
    return Hsa({**parse("hsa")[0].values, **values}, lambda steps: replace(schedule, steps=steps))


@contextmanager
def installed(method: Hsa, *twins: Twin, solver: Any = None, begin: bool = True) -> Iterator[Any]:
    """The method on the twins' models, told of a video; gives its solver."""
    solver = solver or a_solver()
    with ExitStack() as stack:
        for twin in twins:
            stack.enter_context(method.applied_to(twin.model))
        if begin:
            assert method.refusal(twins[0].model, a_run(twins[0], solver)) == ""
            method.begin(a_run(twins[0], solver))
        yield solver


def guided(twin: Twin, solver: Solver, latents: Tensor, negative: Twin | None = None) -> Tensor:
    """The guided velocity at the solver's step, two calls as the loop makes them."""
    given: dict[str, Any] = {
        "step": solver.index,
        "latents": latents,
        "time": float(solver.timestep),
    }
    with_text = answer(twin, branch="cond", **given)
    without = answer(negative or a_negative(twin), branch="uncond", **given)
    return without + 6.0 * (with_text - without)


def a_negative(twin: Twin, seed: int = 3) -> Twin:
    text = torch.randn(
        twin.inputs["encoder_hidden_states"].shape, generator=torch.Generator().manual_seed(seed)
    )
    return replace(twin, inputs={**twin.inputs, "encoder_hidden_states": text})


def sampled(
    twin: Twin,
    solver: Solver,
    negative: Twin | None = None,
    shorten: Callable[[Solver], None] = lambda solver: None,
) -> Tensor:
    latents = twin.latents
    while solver.remaining:
        shorten(solver)
        latents = solver.advance(guided(twin, solver, latents, negative), latents)
    return latents


@pytest.fixture
def wan() -> Twin:
    return a_tiny_transformer("wan")


# --- invariants 1 and 2: nothing changes that is not meant to -------------------------------------


@pytest.mark.parametrize(("warmup", "cooldown"), [(0, 0), (3, 1), (8, 0)])
def test_a_full_budget_gives_the_stock_latents_bit_for_bit(
    wan: Twin, warmup: int, cooldown: int
) -> None:
    stock = sampled(wan, a_solver())
    with installed(an_hsa(Schedule(8, warmup, cooldown, (1,), (1.0,))), wan) as solver:
        assert torch.equal(sampled(wan, solver), stock)


@pytest.mark.parametrize("family", FAMILIES)
def test_warm_up_is_stock_and_so_is_the_model_afterwards(family: str) -> None:
    twin = a_tiny_transformer(family)
    before = [answer(twin, branch=branch) for branch in twin.branches]
    solver = a_walk() if family.startswith("cogvideox") else a_solver()
    with installed(an_hsa(), twin, solver=solver):
        for step in (0, 1):
            solver.index = step
            for branch, stock in zip(twin.branches, before, strict=True):
                assert torch.equal(answer(twin, branch=branch, step=step), stock)
        assert traces(twin.model)
    assert traces(twin.model) == []
    assert torch.equal(answer(twin, branch=twin.branches[0]), before[0])


def test_a_second_video_does_not_see_the_first(wan: Twin) -> None:
    with installed(an_hsa(), wan) as solver:
        first = sampled(wan, solver)
    method = an_hsa()
    with installed(method, wan) as solver:
        other = replace(wan, latents=wan.latents.flip(2))
        sampled(other, solver)
        method.begin(a_run(wan, again := a_solver()))
        assert torch.equal(sampled(wan, again), first)


def test_a_video_that_starts_again_from_step_0_is_a_new_one(wan: Twin) -> None:
    """In a stock pipeline nobody need say `begin` twice."""
    method = an_hsa()
    with installed(method, wan) as solver:
        for step in range(4):
            solver.index = step
            once = guided(wan, solver, wan.latents)
        for step in range(4):
            solver.index = step
            again = guided(wan, solver, wan.latents)
    assert torch.equal(once, again)


# --- invariant 3: sparse passes -------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_after_a_full_pass_at_the_same_place_active_rows_equal_it_and_the_others_are_what_was_kept(
    family: str,
) -> None:
    """Steps 1 and 2 at equal latents and time: keys and values are fresh, so tokens find what they
    found before."""
    twin = a_tiny_transformer(family)
    solver = a_walk() if family.startswith("cogvideox") else a_solver()
    with installed(an_hsa(), twin, solver=solver) as solver:
        for branch in twin.branches:
            answer(twin, branch=branch, step=0, latents=twin.latents.flip(0, 2))
        solver.index = 1  # for v-prediction, whose levels hang on it, it stays there
        dense = {branch: answer(twin, branch=branch, step=1) for branch in twin.branches}
        for branch in twin.branches:
            sparse = answer(twin, branch=branch, step=2)
            torch.testing.assert_close(sparse, dense[branch], rtol=1e-4, atol=1e-5)
            if not family.startswith("cogvideox"):
                same = (sparse == dense[branch]).float().mean()
                assert same >= 0.75  # the three quarters that did not run are equal in every bit


@pytest.mark.parametrize("family", ["wan", "ltx", "cogvideox"])
def test_tokens_are_scored_by_the_branch_that_has_the_text(family: str) -> None:
    """Called one by one, or both in one batch, whose second half has the text."""
    twin = a_tiny_transformer(family)
    shape = twin.inputs["encoder_hidden_states"].shape
    one, other = torch.randn(2, 1, *shape[1:], generator=torch.Generator().manual_seed(3))

    def scored(text: Tensor, negative: Tensor) -> Tensor:
        method = an_hsa()
        texts = {"cond": text, "uncond": negative}
        if shape[0] == 2:
            texts = dict.fromkeys(twin.branches, torch.cat([negative, text]))
        solver = a_walk() if family.startswith("cogvideox") else a_solver()
        with installed(method, twin, solver=solver):
            for step in (0, 1):
                solver.index = step
                latents = twin.latents * (1 - 0.3 * step)
                for branch in twin.branches:
                    inputs = {**twin.inputs, "encoder_hidden_states": texts[branch]}
                    answer(replace(twin, inputs=inputs), branch=branch, step=step, latents=latents)
            return method.video.score.values()

    assert torch.equal(scored(one, other), scored(one, one))
    assert not torch.equal(scored(one, other), scored(other, other))


def test_tokens_that_run_feel_the_others_only_through_their_keys(wan: Twin) -> None:
    """Step 2 with other latents: skipped tokens keep their velocity to the bit, the 30 that run
    change theirs."""
    made = []
    with installed(an_hsa(), wan) as solver:
        for step in (0, 1, 2):
            solver.index = step
            made.append(answer(wan, step=step, latents=wan.latents * (1 + 0.1 * step)))
    changed = (
        (made[2] != made[1]).view(1, 4, 5, 4, 2, 6, 2).any(dim=6).any(dim=4).any(dim=1)
    )  # per token
    assert int(changed.sum()) == 30


# --- invariant 5: the work that is left -----------------------------------------------------------


def test_the_work_of_a_video_is_that_of_its_running_tokens(wan: Twin) -> None:
    """Per block with a N tokens: q, k, v, o 8 a N d^2, self-attention 4 a N^2 d, cross q and o 4 a
    N d^2, its k and v 4 t d^2, its attention 4 a N t d, feed forward 4 a N d f; d = 36, f = 48, t =
    5 text tokens, N = 120, 3 blocks."""
    d, f, t, n, blocks = 36, 48, 5, GRID.tokens, 3
    with installed(an_hsa(), wan) as solver, counted(wan.model) as found:
        sampled(wan, solver)
    running = [n, n, 30, 30, n, 30, 30, n]
    assert sum(running) == HALF.relative_cost * 8 * n
    branches = 2
    assert found.attention == branches * blocks * sum(4 * a * n * d for a in running)
    linear = sum(
        8 * a * d * d + 4 * a * d * d + 4 * t * d * d + 4 * a * t * d + 4 * a * d * f
        for a in running
    )
    assert found.linear == branches * blocks * linear


# --- invariant 6: what a token that does not run answers ------------------------------------------


def test_a_run_may_be_shortened_while_it_is_under_way(wan: Twin) -> None:
    """From 12 steps to 9 before step 5: full at 0, 1, 4 and, the new last one, 8."""
    method, full = an_hsa(HALF), []

    def shorten(solver: Solver) -> None:
        if solver.index == 5:
            solver.shorten(4)
        full.append(method.share(solver.index, solver.total) == 1)

    with installed(method, wan, solver=a_solver(12)) as solver:
        end = sampled(wan, solver, shorten=shorten)
        assert not method.video.branches  # all that was kept is gone
    assert torch.isfinite(end).all()
    assert [step for step, whole in enumerate(full) if whole] == [0, 1, 4, 8]


def test_answers_after_warm_up_are_float32_and_latents_stay_so(wan: Twin) -> None:
    """A bfloat16 answer would make diffusers' Euler round the latents of skipped tokens at every
    step."""
    wan.model.to(torch.bfloat16)
    narrow = replace(wan, inputs={key: value.bfloat16() for key, value in wan.inputs.items()})
    with installed(an_hsa(), narrow) as solver:
        for step in range(4):
            solver.index = step
            made = answer(narrow, step=step, latents=narrow.latents.bfloat16())
            assert made.dtype == (torch.bfloat16 if step < 2 else torch.float32)


# --- steps that run for nobody --------------------------------------------------------------------


def test_every_second_step_left_out_is_euler_on_the_coarser_grid(wan: Twin) -> None:
    """The grid of 4 steps is every second sigma of that of 8, and a velocity held over two steps is
    one step."""
    coarse = sampled(wan, a_solver(4))
    with installed(an_hsa(Schedule(8, 0, 0, (1,), (1.0,), pace=2)), wan) as solver:
        torch.testing.assert_close(sampled(wan, solver), coarse, rtol=1e-4, atol=1e-4)


def test_groups_and_steps_left_out_go_together(wan: Twin) -> None:
    """16 steps at pace 2 are those of 8: the same work, in the same order, and the same end."""
    with installed(an_hsa(), wan) as solver:
        coarse = sampled(wan, solver)
    with installed(an_hsa(replace(HALF, pace=2)), wan, solver=a_solver(16)) as solver:
        torch.testing.assert_close(sampled(wan, solver), coarse, rtol=1e-3, atol=1e-3)


def test_a_step_that_runs_for_nobody_does_no_work_and_answers_as_before(wan: Twin) -> None:
    with installed(an_hsa(replace(HALF, pace=2)), wan, solver=a_solver(16)) as solver:
        before = answer(wan, step=0)
        solver.index = 1
        with counted(wan.model) as found:
            after = answer(wan, step=1, latents=wan.latents * 2)
    assert torch.equal(after, before)
    assert found.total == 0


# --- invariants 8 and 9: what is kept -------------------------------------------------------------


@pytest.mark.parametrize(("kv", "bytes_per_value"), [("full", 4), ("fp8", 1)])
def test_keys_and_values_take_the_bytes_foretold_and_are_freed_with_the_video(
    wan: Twin, kv: str, bytes_per_value: int
) -> None:
    method = an_hsa(kv=kv)
    with installed(method, wan) as solver:
        latents = wan.latents
        for _ in range(3):
            latents = solver.advance(guided(wan, solver, latents), latents)
        foretold = kv_bytes(
            tokens=120, width=36, layers=3, branches=2, bytes_per_value=bytes_per_value
        )
        scales = (
            0 if kv == "full" else 2 * 2 * 3 * 3 * 4
        )  # branches, keys and values, layers, heads, 4 bytes
        assert method.video.nbytes == foretold + scales
        held = [weakref.ref(branch.kv) for branch in method.video.branches.values() if branch.kv]
        assert len(held) == 2
        while solver.remaining:
            latents = solver.advance(guided(wan, solver, latents), latents)
        gc.collect()
        assert [reference() for reference in held] == [None, None]
        assert method.video.nbytes == 0


def cond_keys(twin: Twin, negative: Twin) -> list[Tensor]:
    """The text branch's keys of each layer after a sparse step, with latents that are given, not
    solved for."""
    method, seen = an_hsa(), list[Tensor]()

    def note(call: AttentionCall, rest: Attend) -> Tensor:
        part = method.video.part
        if (
            call.rows is not None
            and part is not None
            and part.present.here
            and part.present.here.branch == "cond"
        ):
            seen.append(call.key.clone())
        return rest(call)

    layout = layout_of(twin.model)
    with (
        installed(method, twin) as solver,
        linked(layout.attentions(twin.model), layout.processor, note),
    ):
        for step in range(4):
            solver.index = step
            guided(twin, solver, twin.latents * (1 - 0.1 * step), negative)
    return seen


def test_the_other_branch_s_text_does_not_reach_the_keys_of_this_one(wan: Twin) -> None:
    one, other = cond_keys(wan, a_negative(wan, 3)), cond_keys(wan, a_negative(wan, 4))
    assert len(one) == 6  # layers of two sparse steps
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_both_branches_run_the_same_rows(wan: Twin) -> None:
    method, rows = an_hsa(), dict[tuple[int, str], Tensor]()

    def note(call: AttentionCall, rest: Attend) -> Tensor:
        part = method.video.part
        if call.rows is not None and part is not None and part.present.here is not None:
            rows[part.present.here.step, part.present.here.branch] = call.rows
        return rest(call)

    layout = layout_of(wan.model)
    with (
        installed(method, wan) as solver,
        linked(layout.attentions(wan.model), layout.processor, note),
    ):
        sampled(wan, solver)
    assert [step for step, branch in rows if branch == "cond"] == [2, 3, 5, 6]
    assert all(torch.equal(found, rows[2, "cond"]) for found in rows.values())
    assert bool((rows[2, "cond"].diff() > 0).all())  # sorted, no row twice


def test_later_links_of_the_chain_see_active_queries_and_all_keys(wan: Twin) -> None:
    """What a sparse attention needs to compose: rows, and keys already turned by their
    positions."""
    shapes = set()

    def note(call: AttentionCall, rest: Attend) -> Tensor:
        if call.rows is not None:
            shapes.add(
                (
                    call.query.shape[1],
                    len(call.rows),
                    call.key.shape[1],
                    call.value.shape[1],
                    call.rotary,
                )
            )
        return rest(call)

    layout = layout_of(wan.model)
    with (
        installed(an_hsa(), wan) as solver,
        linked(layout.attentions(wan.model), layout.processor, note),
    ):
        sampled(wan, solver)
    assert shapes == {(30, 30, 120, 120, None)}


@pytest.mark.parametrize("kv", ["fp8", "offload"])
def test_other_ways_to_keep_keys_and_values_end_near_the_whole_ones(wan: Twin, kv: str) -> None:
    ends = {}
    for kind in ("full", kv):
        with installed(an_hsa(kv=kind), wan) as solver:
            ends[kind] = sampled(wan, solver)
    relative = (ends[kv] - ends["full"]).norm() / ends["full"].norm()
    assert relative == 0 if kv == "offload" else 0 < relative < 0.02


# --- models with surroundings of their own --------------------------------------------------------


def test_the_second_transformer_begins_with_a_full_step_and_the_first_one_s_keys_are_freed() -> (
    None
):
    """Wan 2.2 A14B with the boundary at step 3, in the middle of what would be sparse steps."""
    noisy, clean = a_tiny_pair()
    method = an_hsa()
    with installed(method, noisy, clean) as solver:
        latents, kept = noisy.latents, []
        for step in range(8):
            twin = noisy if step < 3 else clean
            before = [
                weakref.ref(branch.kv) for branch in method.video.branches.values() if branch.kv
            ]
            velocity = guided(twin, solver, latents)
            assert (method.video.rows is None) == (step in (0, 1, 3, 4, 7))
            if step == 3:
                gc.collect()
                kept = [reference() for reference in before]
                assert torch.equal(velocity, _stock(clean, solver, latents))
            latents = solver.advance(velocity, latents)
    assert kept == [None, None]


def test_a_boundary_before_any_score_puts_sparse_steps_off() -> None:
    """The second transformer comes at step 1: its steps 1 and 2 are the first two that can be
    compared."""
    noisy, clean = a_tiny_pair()
    method, full = an_hsa(), []
    with installed(method, noisy, clean) as solver:
        latents = noisy.latents
        for step in range(8):
            velocity = guided(noisy if step < 1 else clean, solver, latents)
            full.append(method.video.rows is None)
            latents = solver.advance(velocity, latents)
    assert full == [True, True, True, False, True, False, False, True]


def _stock(twin: Twin, solver: Solver, latents: Tensor) -> Tensor:
    """What the model of a fresh twin, without hooks, answers."""
    bare = a_tiny_pair()[1]
    return guided(replace(twin, model=bare.model), solver, latents)


@pytest.mark.parametrize("family", FLOW)
def test_every_flow_matching_family_runs_to_its_end(family: str) -> None:
    """Also Wan 2.2 5B, whose tokens have times of their own, and guidance within the batch."""
    twin = a_tiny_transformer(family)
    with installed(an_hsa(), twin) as solver:
        latents = twin.latents
        for step in range(8):
            answers = [
                answer(twin, branch=branch, step=step, latents=latents, time=float(solver.timestep))
                for branch in twin.branches
            ]
            latents = solver.advance(answers[0], latents)
    assert torch.isfinite(latents).all()


def test_v_prediction_keeps_what_the_token_stood_for_and_not_its_v() -> None:
    """CogVideoX under its DDIM: after the sparse step 2, cells of skipped tokens are at the
    closed-form jump alpha_3 x0 + sigma_3 eps from step 1, and not where a kept v would have brought
    them."""
    twin = a_tiny_transformer("cogvideox")
    walk = a_walk()
    levels = [float(walk.scheduler.alphas_cumprod[int(t)]) for t in walk.scheduler.timesteps]
    method = an_hsa()
    with installed(method, twin, solver=walk):
        latents = twin.latents
        for step in (0, 1, 2):
            walk.index = step
            v = answer(
                twin, branch="cond_uncond", step=step, latents=latents, time=float(walk.timestep)
            )
            if step == 1:
                a, s = levels[1] ** 0.5, (1 - levels[1]) ** 0.5
                x0, eps, kept = a * latents - s * v, s * latents + a * v, v
            latents = walk.scheduler.step(v, walk.timestep, latents)[0]
        rows = method.video.rows
    assert rows is not None
    jump = levels[3] ** 0.5 * x0 + (1 - levels[3]) ** 0.5 * eps
    skipped = torch.ones(120, dtype=torch.bool)
    skipped[rows] = False
    cells = skipped.view(1, 5, 1, 4, 1, 6, 1).expand(2, 5, 4, 4, 2, 6, 2).reshape(latents.shape)
    torch.testing.assert_close(latents[cells], jump[cells], rtol=1e-4, atol=1e-4)
    assert ((latents - jump)[~cells]).abs().max() > 1e-3
    assert ((v - kept)[cells]).abs().max() > 1e-2  # v itself has turned


# --- refusals -------------------------------------------------------------------------------------


def test_a_multistep_solver_is_refused_with_what_to_do(wan: Twin) -> None:
    unipc = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    told = an_hsa().refusal(wan.model, a_run(wan, Solver(unipc, 8, "cpu")))
    assert "the solver is UniPCMultistepScheduler" in told
    assert "add +euler" in told


def test_too_few_steps_for_a_preset_are_refused_with_how_many_it_needs(wan: Twin) -> None:
    told = Hsa(parse("hsa:75A")[0].values).refusal(wan.model, a_run(wan, a_solver(3)))
    assert "preset 75A needs" in told


def test_v_prediction_refuses_what_is_for_velocities() -> None:
    twin = a_tiny_transformer("cogvideox")
    assert "cannot be given again at another step" in an_hsa(replace(HALF, pace=2)).refusal(
        twin.model, a_run(twin, a_walk(16))
    )
    assert "needs DDIM steps" in an_hsa().refusal(twin.model, a_run(twin, a_solver()))


def test_too_little_memory_is_told_before_the_video_with_what_would_fit(wan: Twin) -> None:
    """2 x 2 branches x 120 tokens x 36 x 3 layers x 4 bytes = 207 360; a quarter of it as 8-bit
    floats."""
    values = parse("hsa")[0].values

    def with_free(free: int) -> Hsa:
        return Hsa(values, lambda steps: HALF, lambda device: free)

    roomy, tight, none = with_free(207_360), with_free(200_000), with_free(50_000)
    run = a_run(wan, a_solver())
    assert roomy.refusal(wan.model, run) == ""
    wan_14b = replace(run, grid=Grid(21, 45, 80))
    assert (
        "keys and values of 75600 tokens take 0.13 GB, and cpu has 0.00 GB free"
        in tight.refusal(wan.model, wan_14b)
    )
    assert "kv=fp8 takes 0.00 GB and would fit" in tight.refusal(wan.model, run)
    assert "a smaller video is needed" in none.refusal(wan.model, run)


def test_a_pass_before_any_video_was_begun_is_an_error(wan: Twin) -> None:
    with (
        installed(an_hsa(), wan, begin=False),
        pytest.raises(ValueError, match="before its first pass"),
    ):
        answer(wan)


# --- a trained model ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def flipbook() -> Family:
    return load_family(locate("flipbook"), "cpu")


SLOW = "a small yellow square moves slowly left on a plain navy background"
TURNING = "a large white cross bounces up and down on a striped gray background"


def made(
    family: Family, method: str, steps: int, caption: str = SLOW, num_frames: int = 9
) -> Tensor:
    """Latents of 64 x 64 pixels."""
    methods = Installed(family.transformers)
    methods.use(method)
    spec = VideoSpec(
        width=64,
        height=64,
        num_frames=num_frames,
        fps=16,
        num_inference_steps=24,
        guidance_scale=6.0,
        seed=5,
    )
    try:
        ask = Ask(caption, "", spec, OperatingPoint(steps))
        return generate(family, ask, methods).latents
    finally:
        methods.remove()


def test_flipbook_is_untouched_by_a_full_budget_and_afterwards(flipbook: Family) -> None:
    stock = made(flipbook, "", 4)
    assert torch.equal(made(flipbook, "hsa:work=1", 4), stock)
    assert traces(flipbook.transformers[0]) == []
    assert torch.equal(made(flipbook, "", 4), stock)


@pytest.mark.thorough
def test_half_of_the_work_comes_nearer_than_half_of_the_steps_where_a_path_turns(
    flipbook: Family,
) -> None:
    # On straight paths of few frames both are about as near (errors of 0.07); benchmarks/methods.py
    # tells by class.
    full, work, steps = (
        made(flipbook, m, n, TURNING, 33) for m, n in (("", 24), ("hsa:50", 24), ("", 12))
    )
    assert float((work - full).norm()) < 0.8 * float((steps - full).norm())


def test_fp8_keys_come_as_near_as_whole_ones(flipbook: Family) -> None:
    full = made(flipbook, "", 24)
    errors = {
        method: float((made(flipbook, method, 24) - full).norm() / full.norm())
        for method in ("hsa:50", "hsa:50,kv=fp8")
    }
    assert errors["hsa:50,kv=fp8"] == pytest.approx(errors["hsa:50"], rel=0.3)
