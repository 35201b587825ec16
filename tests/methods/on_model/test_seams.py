"""The seams change nothing by themselves, and leave nothing behind: in every family."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.methods.on_model.tiny import FAMILIES, Twin, a_tiny_pair, a_tiny_transformer, answer
from vidplat.errors import MethodRefused
from vidplat.methods.kinds import Seam
from vidplat.methods.protocol import Grid
from vidplat.methods.seams.attention import Attend, AttentionCall, dense, linked, masked_attention
from vidplat.methods.seams.layouts import layout_of
from vidplat.methods.seams.tokens import Pass, hooked

JOINT = [family for family in FAMILIES if family.startswith(("hunyuan", "cogvideox"))]


@pytest.fixture(params=FAMILIES)
def twin(request: pytest.FixtureRequest) -> Twin:
    return a_tiny_transformer(request.param)


def traces(model: Any) -> list[str]:
    """Everything that tells of an installation: hooks, foreign processors, rebound forwards."""
    found = [
        name
        for name, module in model.named_modules()
        if getattr(module, "_diffusers_hook", None) and module._diffusers_hook.hooks
    ]
    found += [name for name, module in model.named_modules() if "forward" in module.__dict__]
    layout = layout_of(model)
    return found + [
        type(a.processor).__name__
        for a in layout.attentions(model)
        if "Seam" in type(a.processor).__name__
    ]


def pass_on(call: AttentionCall, rest: Attend) -> Tensor:
    return rest(call)


def all_rows(here: Pass, device: Any) -> None:
    return None


def as_it_is(here: Pass, rows: Tensor | None, output: Tensor) -> Tensor:
    return output


def test_an_empty_seam_equals_the_stock_model_bit_for_bit_and_leaves_no_trace(twin: Twin) -> None:
    layout = layout_of(twin.model)
    before = answer(twin)
    with (
        linked(layout.attentions(twin.model), layout.processor, pass_on),
        hooked(twin.model, layout, "test", all_rows, as_it_is),
    ):
        assert traces(twin.model)
        assert torch.equal(answer(twin), before)
    assert traces(twin.model) == []
    assert torch.equal(answer(twin), before)


def test_links_run_in_the_order_they_were_installed_and_leave_one_by_one(twin: Twin) -> None:
    layout, seen = layout_of(twin.model), list[str]()

    def noting(name: str) -> Any:
        def link(call: AttentionCall, rest: Attend) -> Tensor:
            seen.append(name)
            return rest(call)

        return link

    attentions = layout.attentions(twin.model)
    with linked(attentions, layout.processor, noting("outer")):
        with linked(attentions, layout.processor, noting("inner")):
            answer(twin)
        assert seen == ["outer", "inner"] * len(attentions)
        seen.clear()
        answer(twin)
        assert seen == ["outer"] * len(attentions)
    assert traces(twin.model) == []


def test_all_rows_given_one_by_one_equal_the_stock_model(twin: Twin) -> None:
    layout = layout_of(twin.model)
    before = answer(twin)

    def every_row(here: Pass, device: Any) -> Tensor:
        return torch.arange(here.grid.tokens, device=device)

    with hooked(twin.model, layout, "test", every_row, as_it_is):
        assert torch.equal(answer(twin), before)


def test_rows_that_run_alone_see_their_own_positions(twin: Twin) -> None:
    """With attention cut to the token itself, dropping others cannot change what is left."""
    layout = layout_of(twin.model)

    def itself(call: AttentionCall, rest: Attend) -> Tensor:
        video = call.value.shape[1] - call.text
        mask = torch.eye(call.value.shape[1], dtype=torch.bool)
        assert video > 0
        return dense(AttentionCall(**{**vars(call), "mask": mask}))

    whole: list[Tensor] = []

    def keep(here: Pass, rows: Tensor | None, output: Tensor) -> Tensor:
        whole.append(output if rows is None else output[:, rows])
        return output

    with linked(layout.attentions(twin.model), layout.processor, itself):
        with hooked(twin.model, layout, "test", all_rows, keep):
            answer(twin)
        with hooked(twin.model, layout, "test", every_third, keep):
            answer(twin)
    torch.testing.assert_close(whole[1], whole[0][:, ::3])


def every_third(here: Pass, device: Any) -> Tensor:
    return torch.arange(0, here.grid.tokens, 3, device=device)


def test_rows_that_attend_to_kept_keys_of_all_tokens_equal_the_stock_rows(twin: Twin) -> None:
    """What HSA rests on: fewer queries over the keys of a full pass are the full pass's own
    rows."""
    layout = layout_of(twin.model)
    kept: dict[int, tuple[Tensor, Tensor]] = {}
    rows_of: list[Tensor] = []

    def keeping(call: AttentionCall, rest: Attend) -> Tensor:
        turned = call.rotated()
        kept[call.layer] = turned.key, turned.value
        return rest(call)

    def over_all(call: AttentionCall, rest: Attend) -> Tensor:
        return rest(call.over(*kept[call.layer]))

    def keep(here: Pass, rows: Tensor | None, output: Tensor) -> Tensor:
        rows_of.append(output if rows is None else output[:, rows])
        return output

    attentions = layout.attentions(twin.model)
    with (
        linked(attentions, layout.processor, keeping),
        hooked(twin.model, layout, "test", all_rows, keep),
    ):
        answer(twin)
    with (
        linked(attentions, layout.processor, over_all),
        hooked(twin.model, layout, "test", every_third, keep),
    ):
        answer(twin)
    torch.testing.assert_close(rows_of[1], rows_of[0][:, ::3], rtol=1e-4, atol=1e-5)


def test_the_grid_counts_the_tokens_that_the_blocks_see(twin: Twin) -> None:
    layout, seen = layout_of(twin.model), list[tuple[Grid, int]]()

    def note(here: Pass, rows: Tensor | None, output: Tensor) -> Tensor:
        seen.append((here.grid, output.shape[1]))
        return output

    with hooked(twin.model, layout, "test", all_rows, note):
        answer(twin)
    assert seen == [(Grid(5, 4, 6), 5 * 4 * 6)]


def test_a_pass_by_all_blocks_answers_with_the_tokens_it_was_given(twin: Twin) -> None:
    layout = layout_of(twin.model)
    first: Any = layout.blocks(twin.model)[0]
    stock, seen = type(first).forward, list[bool]()

    def noting(*args: Any, **kwargs: Any) -> Any:
        given = layout.hidden(args, kwargs)
        passed = layout.passed(args, kwargs, given)
        answered = stock(first, *args, **kwargs)
        seen.append(layout.video(passed) is given and layout.video(answered).shape == given.shape)
        assert type(passed) is type(answered)
        return answered

    first.forward = noting
    answer(twin)
    assert seen == [True]


def test_time_s_signal_changes_with_time_alone_when_tokens_are_equal(twin: Twin) -> None:
    layout, signals = layout_of(twin.model), list[Tensor]()
    first: Any = layout.blocks(twin.model)[0]
    stock = type(first).forward

    def noting(*args: Any, **kwargs: Any) -> Any:
        signals.append(layout.time_signal(twin.model, args, kwargs))
        return stock(first, *args, **kwargs)

    first.forward = noting
    for time in (500.0, 500.0, 400.0):
        answer(twin, time=time)
    assert torch.equal(signals[0], signals[1])
    assert not torch.equal(signals[1], signals[2])


@pytest.mark.parametrize("family", JOINT)
def test_text_is_part_of_queries_keys_and_values_at_its_end_and_never_rotated(family: str) -> None:
    twin = a_tiny_transformer(family)
    layout, calls = layout_of(twin.model), list[AttentionCall]()

    def noting(call: AttentionCall, rest: Attend) -> Tensor:
        calls.append(call)
        return rest(call)

    with linked(layout.attentions(twin.model), layout.processor, noting):
        answer(twin)
    texts = twin.inputs["encoder_hidden_states"].shape[1]
    assert [call.layer for call in calls] == list(range(len(layout.blocks(twin.model))))
    for call in calls:
        assert call.text == texts
        assert call.text_first == family.startswith("cogvideox")
        assert {x.shape[1] for x in (call.query, call.key, call.value)} == {5 * 4 * 6 + texts}
        turned = call.rotated()
        part = slice(None, texts) if call.text_first else slice(-texts, None)
        assert torch.equal(turned.key[:, part], call.key[:, part])
        if call.rotary is not None:
            assert not torch.equal(turned.key, call.key)


def test_hunyuan_s_padding_text_is_masked_whatever_it_says() -> None:
    twin = a_tiny_transformer("hunyuan")
    layout, masks = layout_of(twin.model), list[Tensor]()

    def reference(call: AttentionCall, rest: Attend) -> Tensor:
        turned = call.rotated()
        assert turned.mask is not None
        masks.append(turned.mask)
        return masked_attention(turned.query, turned.key, turned.value, turned.mask)

    with linked(layout.attentions(twin.model), layout.processor, reference):
        made = answer(twin)
    # 120 video tokens and 5 words may be attended, 2 words of padding not.
    assert all(mask.flatten().tolist() == [True] * 125 + [False] * 2 for mask in masks)
    torch.testing.assert_close(made, answer(twin))


def test_a_mask_follows_the_keys_that_are_attended() -> None:
    """3 video tokens and 2 words, the second of them padding; then over the keys of 5 video
    tokens."""
    for text_first, columns, wider in (
        (False, [1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1, 0]),
        (True, [1, 0, 1, 1, 1], [1, 0, 1, 1, 1, 1, 1]),
    ):
        tokens = torch.zeros(1, 5, 1, 2)
        call = AttentionCall(0, tokens, tokens, tokens, None, lambda x, _: x, masked_attention)
        call = replace(
            call, text=2, text_first=text_first, mask=torch.tensor(columns).bool()[None, None, None]
        )
        over = call.over(torch.zeros(1, 7, 1, 2), torch.zeros(1, 7, 1, 2))
        assert over.mask is not None
        assert over.mask.flatten().int().tolist() == wider


def test_two_transformers_take_the_same_seams_one_by_one_and_give_them_back() -> None:
    twins = a_tiny_pair()
    before = [answer(twin) for twin in twins]
    assert not torch.equal(*before)
    layout = layout_of(twins[0].model)
    with (
        linked(layout.attentions(twins[0].model), layout.processor, pass_on),
        linked(layout.attentions(twins[1].model), layout.processor, pass_on),
        hooked(twins[0].model, layout, "test", all_rows, as_it_is),
        hooked(twins[1].model, layout, "test", every_third, as_it_is),
    ):
        assert torch.equal(answer(twins[0]), before[0])
        assert not torch.equal(answer(twins[1]), before[1])
    for twin, stock in zip(twins, before, strict=True):
        assert traces(twin.model) == []
        assert torch.equal(answer(twin), stock)


def test_fused_projections_are_seen_as_the_stock_processors_see_them() -> None:
    for family in ("wan", "cogvideox"):
        twin = a_tiny_transformer(family)
        twin.model.fuse_qkv_projections()
        layout, before = layout_of(twin.model), answer(twin)
        with linked(layout.attentions(twin.model), layout.processor, pass_on):
            assert torch.equal(answer(twin), before)


def test_only_cogvideox_gives_something_else_than_a_velocity() -> None:
    given = {family: layout_of(a_tiny_transformer(family).model).velocity for family in FAMILIES}
    assert [family for family, velocity in given.items() if not velocity] == [
        "cogvideox",
        "cogvideox-2b",
        "cogvideox-1.5",
    ]


def test_what_a_family_cannot_do_is_refused_with_its_reason() -> None:
    from diffusers import HunyuanVideoTransformer3DModel

    model = HunyuanVideoTransformer3DModel(
        num_attention_heads=1,
        attention_head_dim=12,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        text_embed_dim=8,
        pooled_projection_dim=8,
        image_condition_type="token_replace",
    )
    layout = layout_of(model)
    assert "the image's tokens" in layout.refusal(model, Seam.TOKENS)
    assert [layout.refusal(model, seam) for seam in (Seam.ATTENTION, Seam.PASSES)] == ["", ""]
    for family in FAMILIES:
        stock = a_tiny_transformer(family).model
        assert {layout_of(stock).refusal(stock, seam) for seam in Seam} == {""}


def test_tokens_that_are_no_grid_and_classes_without_a_layout_are_refused() -> None:
    twin = a_tiny_transformer("ltx")
    layout = layout_of(twin.model)
    with (
        hooked(twin.model, layout, "test", all_rows, as_it_is),
        pytest.raises(MethodRefused, match="120 tokens are no grid of 6 frames, 4 rows, 6 columns"),
    ):
        answer(replace(twin, inputs={**twin.inputs, "num_frames": 6}))
    with pytest.raises(MethodRefused, match="no method can be installed on Linear; known are Wan"):
        layout_of(torch.nn.Linear(1, 1))
