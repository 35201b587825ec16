"""The seams change nothing by themselves, and leave nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.workers.acceleration.tiny import Twin, a_tiny_transformer, answer
from vidplat.workers.acceleration.attention import Attend, AttentionCall, dense, linked
from vidplat.workers.acceleration.layouts import layout_of
from vidplat.workers.acceleration.tokens import Pass, hooked


@pytest.fixture
def twin() -> Iterator[Twin]:
    torch.manual_seed(0)
    yield a_tiny_transformer("wan")


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
        type(a.processor).__name__ for a in layout.attentions(model) if "Seam" in type(a.processor).__name__
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

    def every_third(here: Pass, device: Any) -> Tensor:
        return torch.arange(0, here.grid.tokens, 3, device=device)

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
