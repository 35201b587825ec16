"""The sparse method on real transformers: what it computes, when it leaves the stock attention
alone, its traces.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.methods.on_model.test_seams import traces
from tests.methods.on_model.tiny import FAMILIES, Twin, a_tiny_pair, a_tiny_transformer, answer
from vidplat.domain import OperatingPoint, VideoSpec
from vidplat.errors import MethodRefused
from vidplat.methods.installed import Installed
from vidplat.methods.language import parse
from vidplat.methods.protocol import Grid
from vidplat.methods.seams.attention import Attend, AttentionCall, linked, masked_attention
from vidplat.methods.seams.layouts import layout_of
from vidplat.methods.vdit import paths as tile_paths
from vidplat.methods.vdit.tiling import Tiling, tile_mask
from vidplat.workers import Worker
from vidplat.workers.generate import generate
from vidplat.workers.making import Ask

GRID = Grid(5, 4, 6)  # of the tiny transformers


def a_sparse(text: str) -> Any:
    (chosen,) = parse(f"sparse:{text}")
    return chosen.install()


def with_method(twin: Twin, text: str, **call: Any) -> Tensor:
    with a_sparse(text).applied_to(twin.model):
        return answer(twin, **call)


def with_mask(twin: Twin, k_of: Callable[[int], int]) -> Tensor:
    """The answer when every layer's stock attention gets the explicit mask of `k_of(layer)`
    references."""

    def masked(call: AttentionCall, rest: Attend) -> Tensor:
        tiling = Tiling(GRID.frames, GRID.per_frame, k_of(call.layer), call.text, call.text_first)
        mask = tile_mask(tiling)
        if call.mask is not None:
            mask = (
                mask & call.mask
                if call.mask.dtype == torch.bool
                else call.mask.masked_fill(~mask, -torch.inf)
            )
        return rest(replace(call, mask=mask))

    layout = layout_of(twin.model)
    with linked(layout.attentions(twin.model), layout.processor, masked):
        return answer(twin)


def layers(twin: Twin) -> int:
    return len(layout_of(twin.model).attentions(twin.model))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_computes_what_the_mask_says_and_is_undone_without_trace(family: str) -> None:
    twin = a_tiny_transformer(family)
    before = answer(twin)

    for text in ("k=2", "k=2,path=lse"):
        torch.testing.assert_close(
            with_method(twin, text), with_mask(twin, lambda layer: 2), atol=2e-5, rtol=1e-4
        )
        assert traces(twin.model) == []
    assert not torch.allclose(with_method(twin, "k=2"), before, atol=1e-3)
    assert torch.equal(answer(twin), before)


@pytest.mark.parametrize("k", [4, 5, 64])
def test_a_mask_that_keeps_everything_is_the_stock_attention_bit_for_bit(k: int) -> None:
    twin = a_tiny_transformer("wan")
    assert torch.equal(with_method(twin, f"k={k}"), answer(twin))


def test_one_frame_is_the_stock_attention_bit_for_bit() -> None:
    twin = a_tiny_transformer("wan", frames=1)
    assert torch.equal(with_method(twin, "k=1"), answer(twin))


def test_the_first_steps_stay_dense() -> None:
    twin = a_tiny_transformer("wan")
    stock = answer(twin)
    for step, is_stock in ((0, True), (1, True), (2, False), (7, False)):
        assert torch.equal(with_method(twin, "k=1,dense_steps=2", step=step), stock) == is_stock


def test_the_first_and_last_layers_stay_dense() -> None:
    twin = a_tiny_transformer("wan")
    last = layers(twin) - 1

    made = with_method(twin, "k=1,dense_ends=1")

    due = with_mask(twin, lambda layer: 5 if layer in (0, last) else 1)
    torch.testing.assert_close(made, due, atol=2e-5, rtol=1e-4)
    assert torch.equal(
        with_method(twin, f"k=1,dense_ends={last}"), answer(twin)
    )  # no layer is left between


def test_another_size_of_video_gets_its_own_tiles() -> None:
    twin, longer = (
        a_tiny_transformer("wan"),
        a_tiny_transformer("wan", frames=7),
    )  # of the same weights
    longer.inputs = twin.inputs
    with a_sparse("k=2").applied_to(twin.model):
        short = answer(twin)
        long = answer(twin, latents=longer.latents)
        assert torch.equal(answer(twin), short)

    torch.testing.assert_close(short, with_mask(twin, lambda layer: 2), atol=2e-5, rtol=1e-4)
    assert torch.equal(long, with_method(longer, "k=2"))


@pytest.mark.parametrize("path", ["gather", "lse"])
def test_a_change_in_a_local_frame_reaches_only_itself_and_the_references(path: str) -> None:
    """One layer, 5 frames, references 0 and 2: frame 3 is changed."""
    twin = a_tiny_transformer("wan")
    twin.model.blocks = twin.model.blocks[:1]
    changed = twin.latents.clone()
    changed[:, :, 3] += 1

    with a_sparse(f"k=2,path={path}").applied_to(twin.model):
        off = (answer(twin, latents=changed) - answer(twin)).abs().amax(dim=(0, 1, 3, 4))

    assert (off[[0, 2, 3]] > 1e-3).all()
    assert (off[[1, 4]] < 1e-6).all()


def test_with_an_outer_method_that_runs_some_rows_these_get_what_they_get_among_all() -> None:
    """As hsa does: queries of the rows that run, keys and values of all."""
    twin = a_tiny_transformer("wan")
    layout = layout_of(twin.model)
    tokens = GRID.tokens
    rows = torch.tensor([r for r in range(tokens) if r // GRID.per_frame != 1 and r % 5])
    seen: dict[int, tuple[Tensor, Tensor]] = {}

    def some(call: AttentionCall, rest: Attend) -> Tensor:
        call = call.rotated()
        whole = rest(call)
        seen[call.layer] = (
            whole[:, rows],
            rest(replace(call, query=call.query[:, rows], rows=rows)),
        )
        return whole

    for path in ("gather", "lse"):
        with (
            a_sparse(f"k=2,path={path}").applied_to(twin.model),
            linked(layout.attentions(twin.model), layout.processor, some, first=True),
        ):
            answer(twin)
        assert len(seen) == layers(twin)
        for whole, alone in seen.values():
            torch.testing.assert_close(alone, whole, atol=1e-5, rtol=0)


def test_hsa_and_sparse_run_together_and_leave_nothing() -> None:
    """Rows that run differ from step to step; with k = F sparse changes nothing of what hsa
    does."""
    from vidplat.methods.protocol import Run
    from vidplat.methods.seams.solver_choice import EulerScheduler
    from vidplat.methods.solver import Solver

    twin = a_tiny_transformer("wan")
    before = answer(twin)

    def made(text: str) -> Tensor:
        solver = Solver(EulerScheduler(shift=3.0), 20, "cpu")
        run = Run(solver, GRID, branches=2, guidance_scale=4.0)
        methods = [one.install() for one in parse(text)]
        latents = twin.latents
        with ExitStack() as stack:
            for method in methods:
                stack.enter_context(method.applied_to(twin.model))
            for method in methods:
                assert method.refusal(twin.model, run) == ""
                method.begin(run)
            while solver.remaining:
                time = float(solver.timestep)
                for branch in twin.branches:
                    velocity = answer(
                        twin, branch=branch, step=solver.index, latents=latents, time=time
                    )
                latents = solver.advance(velocity, latents)
        return latents

    plain = made("hsa:50")
    assert torch.equal(made("hsa:50+sparse:k=5"), plain)
    both = made("hsa:50+sparse:k=2")
    assert bool(torch.isfinite(both).all()) and not torch.equal(both, plain)
    assert torch.equal(answer(twin), before) and traces(twin.model) == []


def test_rows_that_attend_to_each_other_alone_do_so_within_the_mask() -> None:
    """As lipar does without recovery: pruned tokens have no keys either."""
    twin = a_tiny_transformer("wan")
    layout = layout_of(twin.model)
    rows = torch.tensor([r for r in range(GRID.tokens) if r % 3])
    mask = tile_mask(Tiling(GRID.frames, GRID.per_frame, 2))[rows][:, rows]
    seen: list[tuple[Tensor, Tensor]] = []

    def some(call: AttentionCall, rest: Attend) -> Tensor:
        turned = call.rotated()
        kept = replace(
            turned,
            **{of: getattr(turned, of)[:, rows] for of in ("query", "key", "value")},
            rows=rows,
        )
        seen.append((rest(kept), masked_attention(kept.query, kept.key, kept.value, mask)))
        return rest(call)

    with (
        a_sparse("k=2").applied_to(twin.model),
        linked(layout.attentions(twin.model), layout.processor, some, first=True),
    ):
        answer(twin)
    for made, due in seen:
        torch.testing.assert_close(made, due, atol=1e-5, rtol=0)


def test_keys_of_some_tokens_alone_are_refused() -> None:
    twin = a_tiny_transformer("wan")
    layout = layout_of(twin.model)

    def fewer(call: AttentionCall, rest: Attend) -> Tensor:
        call = call.rotated()
        return rest(replace(call, key=call.key[:, :9], value=call.value[:, :9]))

    with (
        a_sparse("k=2").applied_to(twin.model),
        linked(layout.attentions(twin.model), layout.processor, fewer, first=True),
        pytest.raises(ValueError, match="needs the keys of all 120 tokens, not of 9"),
    ):
        answer(twin)


def test_both_transformers_of_wan_2_2_are_sparse() -> None:
    noisy, clean = a_tiny_pair()
    method = a_sparse("k=2")
    with method.applied_to(noisy.model), method.applied_to(clean.model):
        found = [answer(twin) for twin in (noisy, clean)]

    for twin, made in zip((noisy, clean), found, strict=True):
        assert torch.equal(made, with_method(twin, "k=2"))


def test_a_path_that_fails_its_check_is_refused_before_any_video(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*given: Any) -> Tensor:
        raise RuntimeError("no compiler here")

    monkeypatch.setitem(tile_paths.PATHS, "flex", broken)
    twin = a_tiny_transformer("wan")

    with pytest.raises(
        MethodRefused, match=r"path=flex: it fails on cpu: no compiler here\. Use path=gather"
    ):
        with_method(twin, "k=2,path=flex")
    assert traces(twin.model) == []


def test_gradients_take_the_gather_path() -> None:
    """lse has none through the log-sum-exp: its weights would stay as they are without a word."""
    twin = a_tiny_transformer("wan")
    found = []
    for text in ("k=2,path=gather", "k=2,path=lse"):
        twin.model.zero_grad()
        with a_sparse(text).applied_to(twin.model), twin.model.cache_context("cond", step_index=0):
            made = twin.model(
                hidden_states=twin.latents,
                timestep=torch.tensor([500.0]),
                return_dict=False,
                **twin.inputs,
            )[0]
            made.square().mean().backward()
        found.append(twin.model.blocks[0].attn1.to_q.weight.grad.clone())

    assert torch.equal(found[0], found[1]) and found[0].abs().max() > 0


def test_a_block_called_by_itself_stays_stock() -> None:
    twin = a_tiny_transformer("wan")
    attention = twin.model.blocks[0].attn1
    hidden = torch.randn(1, 10, 36)
    before = attention(hidden)
    with a_sparse("k=1").applied_to(twin.model):
        assert torch.equal(attention(hidden), before)


def test_inside_a_stock_pipeline_it_makes_the_same_video_as_in_our_loop(tiny_wan: Path) -> None:
    """5 latent frames, the first step dense. With k = F both are the plain video."""
    from diffusers import WanPipeline

    worker = Worker(str(tiny_wan))
    worker.load()
    family = worker.loaded.family
    installed = Installed(family.transformers)
    pipeline = WanPipeline.from_pretrained(tiny_wan, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    spec = VideoSpec(
        width=32, height=32, num_frames=17, fps=8, num_inference_steps=3, guidance_scale=4.0, seed=7
    )

    def ours(text: str) -> Tensor:
        installed.use(text)
        point = OperatingPoint(3)
        ask = Ask("a red circle", "dark", spec, point)
        return generate(family, ask, installed).latents

    def theirs() -> Tensor:
        made: Tensor = pipeline(
            prompt="a red circle",
            negative_prompt="dark",
            height=32,
            width=32,
            num_frames=17,
            num_inference_steps=3,
            guidance_scale=4.0,
            generator=torch.Generator("cpu").manual_seed(7),
            max_sequence_length=16,
            output_type="latent",
        ).frames
        return made

    plain = ours("")
    with a_sparse("k=1,dense_steps=1").applied_to(pipeline.transformer):
        assert torch.equal(theirs(), ours("sparse:k=1,dense_steps=1"))
    assert not torch.equal(ours("sparse:k=1,dense_steps=1"), plain)
    assert torch.equal(ours("sparse:k=5"), plain) and torch.equal(theirs(), plain)
