"""LIPAR on a model that sees all frames: exactness, recovered attention, restored answers, nothing
left behind.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.methods.on_model.test_seams import traces
from tests.methods.on_model.tiny import Twin, a_tiny_transformer, answer
from vidplat.methods.language import parse
from vidplat.methods.lipar.mask import repeated
from vidplat.methods.lipar.on_model import Lipar, Pruning
from vidplat.methods.protocol import Grid, Run
from vidplat.methods.seams.attention import Attend, AttentionCall, linked, masked_attention
from vidplat.methods.seams.layouts import layout_of
from vidplat.methods.seams.layouts.wan import rotated
from vidplat.methods.seams.layouts.wan_tables import rows_of, tables_of

GRID = Grid(5, 4, 6)


def a_lipar(text: str = "lipar") -> Lipar:
    return Lipar(parse(text)[0].values)


def a_run(source: Tensor | None) -> Run:
    return Run(solver=None, grid=GRID, branches=2, guidance_scale=3.0, source=source)  # type: ignore[arg-type]


def a_source(changing: int = 0) -> Tensor:
    """Still latents (1, 4, 5, 8, 12), but for the left `changing` token columns, which are new in
    every frame."""
    torch.manual_seed(11)
    still = torch.randn(1, 4, 1, 8, 12).expand(1, 4, 5, 8, 12).clone()
    still[..., : 2 * changing] = 3 * torch.randn(1, 4, 5, 8, 2 * changing)
    return still


@pytest.fixture
def twin() -> Twin:
    return a_tiny_transformer("wan", frames=GRID.frames, rows=GRID.rows, columns=GRID.columns)


@pytest.mark.parametrize("recovery", ["auto", "noise-aware", "noisy", "bias", "none"])
def test_all_tokens_kept_is_the_stock_model_bit_for_bit(twin: Twin, recovery: str) -> None:
    before = answer(twin)
    lipar = a_lipar(f"lipar:recovery={recovery}")

    lipar.begin(a_run(torch.randn(1, 4, 5, 8, 12)))  # everything changes
    with lipar.applied_to(twin.model):
        assert traces(twin.model)
        assert torch.equal(answer(twin), before)
        assert torch.equal(lipar.started(twin.latents), twin.latents)

    assert lipar.kept_share == 1.0


@pytest.mark.parametrize("recovery", ["noise-aware", "noisy", "bias", "none"])
def test_it_is_undone_without_a_trace(twin: Twin, recovery: str) -> None:
    before = answer(twin)
    lipar = a_lipar(f"lipar:recovery={recovery}")
    lipar.begin(a_run(a_source(changing=2)))

    with lipar.applied_to(twin.model):
        assert not torch.equal(answer(twin), before)

    assert traces(twin.model) == []
    assert torch.equal(answer(twin), before)


def test_a_second_video_does_not_see_the_first_ones_keys(twin: Twin) -> None:
    lipar, alone = (a_lipar("lipar:recovery=noise-aware") for _ in range(2))
    with lipar.applied_to(twin.model):
        lipar.begin(a_run(a_source(changing=1)))
        answer(twin)
        lipar.begin(a_run(2 * a_source(changing=2)))
        second = answer(twin)
    with alone.applied_to(twin.model):
        alone.begin(a_run(2 * a_source(changing=2)))
        assert torch.equal(answer(twin), second)


def test_branches_have_clean_keys_of_their_own(twin: Twin) -> None:
    lipar = a_lipar("lipar:recovery=noise-aware")
    lipar.begin(a_run(a_source(changing=2)))
    other = replace(twin, inputs={"encoder_hidden_states": torch.randn(1, 5, 16)})

    with lipar.applied_to(twin.model):
        together = answer(twin, branch="cond"), answer(other, branch="uncond")
        lipar.begin(a_run(a_source(changing=2)))
        assert torch.equal(answer(other, branch="uncond"), together[1])
        assert torch.equal(answer(twin, branch="cond"), together[0])


def test_two_transformers_have_clean_keys_of_their_own(twin: Twin) -> None:
    """As in Wan 2.2, whose second transformer takes over in mid-run."""
    other = a_tiny_transformer("wan", frames=GRID.frames, rows=GRID.rows, columns=GRID.columns)
    other.model.blocks[0].attn1.to_k.weight.data.mul_(-2)
    both, alone = (a_lipar("lipar:recovery=noise-aware") for _ in range(2))
    both.begin(a_run(a_source(changing=2)))
    alone.begin(a_run(a_source(changing=2)))

    with both.applied_to(twin.model), both.applied_to(other.model):
        answer(twin, step=0)
        second = answer(other, step=1)
    with alone.applied_to(other.model):
        assert torch.equal(answer(other, step=1), second)
    assert traces(twin.model) == traces(other.model) == []


def test_pruned_tokens_do_not_run(twin: Twin) -> None:
    lipar = a_lipar("lipar:recovery=noisy")
    lipar.begin(a_run(a_source(changing=2)))
    seen: list[tuple[int, int]] = []

    def count(call: AttentionCall, rest: Attend) -> Tensor:
        seen.append((call.query.shape[1], call.key.shape[1]))
        return rest(call)

    layout = layout_of(twin.model)
    with (
        lipar.applied_to(twin.model),
        linked(layout.attentions(twin.model), layout.processor, count),
    ):
        answer(twin)

    # Queries: the kept ones. Keys: everybody's, recovered.
    kept = int(lipar.kept_share * GRID.tokens + 0.5)
    assert kept < GRID.tokens
    assert seen == [(kept, GRID.tokens)] * 3


def test_a_pruned_tokens_answer_and_start_are_its_ancestors(twin: Twin) -> None:
    lipar = a_lipar()
    lipar.begin(a_run(a_source(changing=2)))
    pruning = lipar.pruning
    assert pruning is not None and not pruning.whole

    with lipar.applied_to(twin.model):
        x = lipar.started(twin.latents)
        velocity = answer(twin, latents=x)

    for of in (x, velocity, x - 0.7 * velocity):  # the last is the clean estimate at sigma 0.7
        tokens = token_rows(of)
        assert torch.equal(tokens, tokens[pruning.ancestor])
    assert torch.equal(token_rows(x)[pruning.rows], token_rows(twin.latents)[pruning.rows])


def test_latents_stay_equal_to_the_ancestors_through_every_solver(twin: Twin) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

    from vidplat.methods.solver import Solver

    multistep = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    for scheduler in (FlowMatchEulerDiscreteScheduler(shift=3.0), multistep):
        solver, lipar = Solver(scheduler, 5, "cpu"), a_lipar()
        lipar.begin(a_run(a_source(changing=2)))
        x = lipar.started(twin.latents)
        with lipar.applied_to(twin.model):
            while solver.remaining:
                if solver.index == 2:
                    solver.shorten(2)
                x = solver.advance(
                    answer(twin, step=solver.index, latents=x, time=float(solver.timestep)), x
                )
        assert lipar.pruning is not None
        assert torch.equal(token_rows(x), token_rows(x)[lipar.pruning.ancestor])


def test_a_recovered_key_is_turned_to_the_place_it_stands_for(twin: Twin) -> None:
    """Rows of the tables are the model's own, and a copy at (t, y, x) is the unturned source turned
    to (t, y, x)."""
    torch.manual_seed(0)
    full = twin.model.rope(twin.latents)
    rows = torch.tensor([0, 7, 24, 60, 119])
    key = torch.randn(1, 5, 3, 12)

    tables = tables_of(twin.model, GRID)
    assert all(torch.equal(ours, stock) for ours, stock in zip(tables, full, strict=True))
    later = tables_of(twin.model, Grid(2, 4, 6), [3, 1])
    assert torch.equal(later[0][:, :24], full[0][:, 72:96])
    assert torch.equal(later[1][:, 24:], full[1][:, 24:48])
    turned = rotated(key, rows_of(tables, rows))
    for place, row in enumerate(rows.tolist()):
        assert torch.equal(
            turned[:, place],
            rotated(key[:, place : place + 1], (full[0][:, [row]], full[1][:, [row]]))[:, 0],
        )
    with pytest.raises(ValueError, match="frame 64 lies beyond the 64 positions"):
        tables_of(twin.model, GRID, [64])


def test_of_exact_duplicates_recovered_attention_is_full_attention(twin: Twin) -> None:
    """Keys and values before RoPE equal to the ancestor's: nothing is lost; dropping them loses
    much."""
    torch.manual_seed(1)
    lipar = a_lipar("lipar:recovery=noisy")
    lipar.begin(a_run(a_source(changing=2)))
    pruning = lipar.pruning
    assert pruning is not None
    layout, tables = layout_of(twin.model), tables_of(twin.model, GRID)
    query, key, value = (torch.randn(1, GRID.tokens, 3, 12)[:, pruning.ancestor] for _ in range(3))
    full = masked_attention(rotated(query, tables), rotated(key, tables), value, None)[
        :, pruning.rows
    ]
    found: list[Tensor] = []

    def given(call: AttentionCall, rest: Attend) -> Tensor:
        kept = [x.index_select(1, pruning.rows) for x in (query, key, value)]
        found.append(rest(replace(call, query=kept[0], key=kept[1], value=kept[2])))
        return found[-1]

    for recovery in ("noisy", "none"):
        lipar.recovery = recovery
        attentions = layout.attentions(twin.model)
        with lipar.applied_to(twin.model), linked(attentions, layout.processor, given, first=True):
            answer(twin)

    assert (found[0] - full).abs().max() <= 1e-6
    assert (found[3] - full).abs().mean() > 0.05


def test_a_bias_of_counts_is_full_attention_of_exact_duplicates_without_positions(
    twin: Twin,
) -> None:
    """ln c added to a logit counts its key c times: softmax over c equal keys. Counts of 1 change
    nothing."""
    torch.manual_seed(1)
    lipar = a_lipar("lipar:recovery=bias")
    lipar.begin(a_run(a_source(changing=2)))
    pruning = lipar.pruning
    assert pruning is not None
    query, key, value = (torch.randn(1, GRID.tokens, 3, 12)[:, pruning.ancestor] for _ in range(3))
    full = masked_attention(query, key, value, None)[:, pruning.rows]
    kept = [x.index_select(1, pruning.rows) for x in (query, key, value)]
    found: list[tuple[Tensor, Tensor]] = []

    def given(call: AttentionCall, rest: Attend) -> Tensor:
        placeless = tuple(
            torch.ones_like(x) if i == 0 else torch.zeros_like(x) for i, x in enumerate(call.rotary)
        )
        made = rest(replace(call, query=kept[0], key=kept[1], value=kept[2], rotary=placeless))
        found.append((made, pruning.log_counts))
        return made

    layout = layout_of(twin.model)
    with (
        lipar.applied_to(twin.model),
        linked(layout.attentions(twin.model), layout.processor, given, first=True),
    ):
        answer(twin)

    assert (found[0][0] - full).abs().max() <= 1e-6
    assert float(found[0][1].exp().sum()) == pytest.approx(GRID.tokens)
    assert (masked_attention(kept[0], kept[1], kept[2], None) - full).abs().mean() > 0.01
    everything = Pruning.of(torch.ones(5, 4, 6, dtype=torch.bool))
    zero = everything.log_counts.view(1, 1, 1, -1)
    assert torch.equal(zero, torch.zeros_like(zero))
    torch.testing.assert_close(
        masked_attention(query, key, value, zero), masked_attention(query, key, value, None)
    )


def test_copies_turned_where_they_come_from_are_wrong(twin: Twin) -> None:
    """The pitfall of copying keys after RoPE: as far off as leaving the tokens out."""
    torch.manual_seed(1)
    pruning = Pruning.of(torch.cat([torch.ones(1, 4, 6), torch.zeros(4, 4, 6)]).bool())
    tables = tables_of(twin.model, GRID)
    query, key, value = (torch.randn(1, GRID.tokens, 3, 12)[:, pruning.ancestor] for _ in range(3))
    full = masked_attention(rotated(query, tables), rotated(key, tables), value, None)
    after = masked_attention(
        rotated(query, tables), rotated(key, tables)[:, pruning.ancestor], value, None
    )

    assert (after - full).abs().mean() > 0.05


def test_noise_aware_copies_do_not_know_the_noise(twin: Twin) -> None:
    lipar = a_lipar("lipar:recovery=noise-aware")
    layout, keys = layout_of(twin.model), list[tuple[Tensor, Tensor]]()

    def note(call: AttentionCall, rest: Attend) -> Tensor:
        keys.append((call.key, call.value))
        return rest(call)

    with (
        lipar.applied_to(twin.model),
        linked(layout.attentions(twin.model), layout.processor, note),
    ):
        for seed in (1, 2):
            lipar.begin(a_run(a_source(changing=2)))
            torch.manual_seed(seed)
            answer(twin, latents=torch.randn_like(twin.latents))

    # Three layers of the clean pass, three of the step; then the same with other noise.
    pruning = lipar.pruning
    assert pruning is not None and len(keys) == 12
    for layer in range(3):
        for one, other in zip(keys[3 + layer], keys[9 + layer], strict=True):
            assert torch.equal(one[:, pruning.pruned], other[:, pruning.pruned])
            assert not torch.equal(one[:, pruning.rows], other[:, pruning.rows])


def test_the_clean_pass_runs_once_per_branch_and_only_where_tokens_have_their_own_times(
    twin: Twin,
) -> None:
    calls: list[float] = []
    embedder = twin.model.condition_embedder.register_forward_pre_hook(
        lambda module, args: calls.append(float(args[0].float().mean()))
    )
    try:
        for recovery, expected in (("noise-aware", [0.0, 500.0, 500.0]), ("auto", [500.0, 500.0])):
            calls.clear()
            lipar = a_lipar(f"lipar:recovery={recovery}")
            lipar.begin(a_run(a_source(changing=2)))
            with lipar.applied_to(twin.model):
                answer(twin, step=0)
                answer(twin, step=1)
            assert calls == expected

        calls.clear()
        lipar = a_lipar()
        lipar.begin(a_run(a_source(changing=2)))
        with lipar.applied_to(twin.model), torch.inference_mode():
            times = torch.full((1, GRID.tokens), 500.0)
            with twin.model.cache_context("cond", step_index=0):
                made = twin.model(
                    hidden_states=twin.latents, timestep=times, return_dict=False, **twin.inputs
                )[0]
        assert calls == [0.0, 500.0]
        assert lipar.pruning is not None
        assert torch.equal(token_rows(made), token_rows(made)[lipar.pruning.ancestor])
    finally:
        embedder.remove()


def test_repeating_is_idempotent_and_reaches_back_to_the_frame_before() -> None:
    torch.manual_seed(2)
    latents, before = torch.randn(1, 4, 3, 4, 4), torch.randn(1, 4, 4, 4)
    keep = torch.tensor([[[0, 1], [1, 0]], [[0, 0], [1, 0]], [[1, 0], [0, 0]]]).bool()

    found = repeated(latents, keep, before)

    assert torch.equal(repeated(found, keep, before), found)
    assert torch.equal(
        found[:, :, 0, :2, :2], before[..., :2, :2]
    )  # token (0, 0) is first kept in frame 2
    assert torch.equal(found[:, :, 2, :2, :2], latents[:, :, 2, :2, :2])
    assert torch.equal(found[:, :, 1:, :2, 2:], latents[:, :, :1, :2, 2:].expand(-1, -1, 2, -1, -1))
    assert torch.equal(found[:, :, 2, 2:, :2], latents[:, :, 1, 2:, :2])
    assert torch.equal(
        found[..., 2:, 2:], before[:, :, None, 2:, 2:].expand(-1, -1, 3, -1, -1)
    )  # never kept


def test_it_refuses_a_video_made_from_text_alone_and_other_models(twin: Twin) -> None:
    lipar = a_lipar()

    assert "made from text alone" in lipar.refusal(twin.model, a_run(None))
    assert "a Linear" in lipar.refusal(torch.nn.Linear(1, 1), a_run(a_source()))
    assert lipar.refusal(twin.model, a_run(a_source())) == ""


def token_rows(latents: Tensor) -> Tensor:
    """(N, values) of latents (1, C, F, H, W), patches of 1x2x2."""
    split = latents[0].unflatten(3, (-1, 2)).unflatten(2, (-1, 2))
    return split.permute(1, 2, 4, 0, 3, 5).flatten(3).flatten(0, 2)
