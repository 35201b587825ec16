"""The block-causal driver and its memory: exactness, counts, windows, and what pruning may and may
not change.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.methods.on_model.test_seams import traces
from tests.methods.on_model.tiny import Twin, a_tiny_transformer
from vidplat.methods.lipar.mask import repeated
from vidplat.methods.protocol import Grid
from vidplat.methods.seams.attention import Attend, AttentionCall, linked, masked_attention
from vidplat.methods.seams.layouts import layout_of
from vidplat.methods.seams.layouts.wan import rotated
from vidplat.methods.seams.layouts.wan_tables import tables_of
from vidplat.workers.blocks.memory import BlockMemory, Window
from vidplat.workers.blocks.stream import StreamPlan, stream
from vidplat.workers.models.family import Condition

ROWS, COLUMNS = 4, 6
PER_FRAME = ROWS * COLUMNS
PLAN = StreamPlan(block=3, window=Window(sink=1, recent=6, trained=21))


@pytest.fixture
def twin() -> Twin:
    return a_tiny_transformer("wan", frames=3, rows=ROWS, columns=COLUMNS)


def a_condition(twin: Twin, guided: bool = False) -> Condition:
    text = twin.inputs["encoder_hidden_states"]
    return Condition(text, -text if guided else None, 3.0 if guided else 1.0)


def a_source(frames: int = 9) -> Tensor:
    torch.manual_seed(21)
    return torch.randn(1, 4, frames, 2 * ROWS, 2 * COLUMNS)


def a_mask(frames: int = 9, *, columns: int = 2) -> Tensor:
    """Frame 0 whole; later the left `columns` token columns alone."""
    keep = torch.zeros(frames, ROWS, COLUMNS, dtype=torch.bool)
    keep[0] = True
    keep[:, :, :columns] = True
    return keep


def made(
    twin: Twin, plan: StreamPlan = PLAN, *, frames: int = 9, guided: bool = False, **told: Any
) -> Tensor:
    blocks = stream(
        twin.model, a_condition(twin, guided), told.pop("source", a_source(frames)), plan, **told
    )
    return torch.cat(list(blocks), dim=2)


@contextmanager
def watched(twin: Twin) -> Iterator[list[tuple[int, int, int]]]:
    """(layer, queries, keys) of every self-attention, as the memory hands them on."""
    seen: list[tuple[int, int, int]] = []

    def note(call: AttentionCall, rest: Attend) -> Tensor:
        seen.append((call.layer, call.query.shape[1], call.key.shape[1]))
        return rest(call)

    layout = layout_of(twin.model)
    with linked(layout.attentions(twin.model), layout.processor, note):
        yield seen


def test_levels_are_the_shifted_steps() -> None:
    # 5 t / (1 + 4 t): 2 / 2.6, 1.5 / 2.2, 1.25 / 2.
    assert PLAN.sigmas == pytest.approx((0.76923, 0.68182, 0.625), abs=1e-5)


def test_the_first_block_is_the_stock_model_bit_for_bit(twin: Twin) -> None:
    """Nothing is remembered yet: three plain calls of the model."""
    source, generator = a_source(3), torch.Generator().manual_seed(5)
    noises = [torch.randn(source.shape, generator=generator) for _ in range(3)]
    clean = source
    with torch.inference_mode():
        for sigma, noise in zip(PLAN.sigmas, noises, strict=True):
            x = (1.0 - sigma) * clean + sigma * noise
            times = torch.full((1,), 1000.0 * sigma)
            clean = (
                x
                - sigma
                * twin.model(hidden_states=x, timestep=times, return_dict=False, **twin.inputs)[0]
            )

    assert torch.equal(made(twin, frames=3, seed=5), clean)


def test_all_tokens_kept_is_bit_identical_and_leaves_no_trace(twin: Twin) -> None:
    plain = made(twin)
    everything = torch.ones(9, ROWS, COLUMNS, dtype=torch.bool)

    for recovery in ("noise-aware", "noisy", "none"):
        assert torch.equal(made(twin, keep=everything, recovery=recovery), plain)
    assert traces(twin.model) == []
    assert torch.equal(made(twin), plain)


def test_every_row_listed_is_bit_identical_too(twin: Twin) -> None:
    """All rows gathered, written row by row into the window: the path of pruning with nothing
    pruned."""
    found = []
    for keep in (None, torch.ones(3, ROWS, COLUMNS, dtype=torch.bool)):
        memory = BlockMemory(twin.model, ROWS, COLUMNS, Window())
        with memory.installed(), torch.inference_mode():
            first = run_block(twin, memory, 0, a_source(3), None)
            found.append(torch.cat([first, run_block(twin, memory, 3, a_source(3) * 2, keep)]))

    assert torch.equal(found[0], found[1])


def test_a_block_costs_its_steps_and_one_pass_more(twin: Twin) -> None:
    calls: list[float] = []
    hook = twin.model.condition_embedder.register_forward_pre_hook(
        lambda _, args: calls.append(float(args[0][0]))
    )
    try:
        made(twin, frames=6)
        assert [round(time) for time in calls] == [769, 682, 625, 0] * 2
        calls.clear()
        made(twin, frames=6, guided=True)
        assert len(calls) == 2 * 2 * 4
    finally:
        hook.remove()


def test_queries_are_the_kept_tokens_and_keys_the_window(twin: Twin) -> None:
    with watched(twin) as seen:
        made(twin, frames=12, keep=a_mask(12))

    # Per block 4 passes of 3 layers. Kept in a later block: 3 frames x 4 rows x 2 columns = 24 of
    # 72.
    queries = [[q for _, q, _ in seen[block * 12 : block * 12 + 12]] for block in range(4)]
    assert queries == [[72] * 12, [24] * 12, [24] * 12, [24] * 12]
    # Window 1 + 6 with the block's own 3: 3, 6, then sink + 3 + 3 = 7 frames of 24 tokens, never
    # more.
    keys = [{k for _, _, k in seen[block * 12 : block * 12 + 12]} for block in range(4)]
    assert keys == [{72}, {144}, {168}, {168}]


def test_the_window_keeps_the_sink_and_the_last_frames() -> None:
    window = Window(sink=1, recent=6, trained=21)

    assert window.held(0, 3) == []
    assert window.held(3, 3) == [0, 1, 2]
    assert window.held(6, 3) == [0, 3, 4, 5]
    assert window.held(30, 3) == [0, 27, 28, 29]
    for start in range(0, 60, 3):
        assert len(window.held(start, 3)) + 3 <= 7


def test_beyond_the_trained_length_places_stay_at_its_end_and_the_sink_at_the_start() -> None:
    window = Window(sink=2, recent=6, trained=21)

    assert window.places([0, 1, 15, 16, 17], 21) == [0, 1, 15, 16, 17]
    # The block 30..32 takes places 18..20, its window follows 12 places behind the numbers.
    assert window.places([30, 31, 32], 33) == [18, 19, 20]
    assert window.places(window.held(30, 3), 33) == [0, 1, 15, 16, 17]
    with pytest.raises(ValueError, match=r"2 \+ 6 frames does not fit 7 positions"):
        Window(sink=2, recent=6, trained=7)


def test_memory_grows_by_whole_blocks_and_forgets_all_but_sink_and_last(twin: Twin) -> None:
    memory = BlockMemory(twin.model, ROWS, COLUMNS, Window(1, 6, 21))
    held = []
    with memory.installed(), torch.inference_mode():
        for start in range(0, 15, 3):
            keep = None if start == 0 else a_mask(4)[1:]
            run_block(twin, memory, start, a_source(3), keep)
            held.append(memory.branches["cond"].frames)
            for layer in range(3):
                assert memory.branches["cond"].keys[layer].shape[1] == len(held[-1]) * PER_FRAME
            assert len(held[-1]) <= 1 + 6

    # Right after a block: what it attended to, and itself.
    assert held == [
        [0, 1, 2],
        [0, 1, 2, 3, 4, 5],
        [0, 3, 4, 5, 6, 7, 8],
        [0, *range(6, 12)],
        [0, *range(9, 15)],
    ]


def test_forgetting_keeps_the_rows_of_the_sink_and_the_last_frames(twin: Twin) -> None:
    memory = BlockMemory(twin.model, ROWS, COLUMNS, Window(1, 4, 21))
    with memory.installed(), torch.inference_mode():
        run_block(twin, memory, 0, a_source(3), None)
        run_block(twin, memory, 3, a_source(3), None)
        before = memory.branches["cond"].keys[1].clone()
        memory.begin(6, 3)

    # Held were 0, 2 and the block 3, 4, 5; left are 0 and 5.
    after = memory.branches["cond"]
    assert after.frames == [0, 5]
    assert torch.equal(
        after.keys[1], torch.cat([before[:, :PER_FRAME], before[:, -PER_FRAME:]], dim=1)
    )


def test_a_window_that_holds_everything_is_the_same_as_none(twin: Twin) -> None:
    wide = replace(PLAN, window=Window(sink=0, recent=12, trained=21))
    wider = replace(PLAN, window=Window(sink=3, recent=18, trained=21))
    keep = a_mask(12)

    assert torch.equal(made(twin, wide, frames=12), made(twin, wider, frames=12))
    assert torch.equal(
        made(twin, wide, frames=12, keep=keep), made(twin, wider, frames=12, keep=keep)
    )
    assert not torch.equal(made(twin, wide, frames=12), made(twin, PLAN, frames=12))


def test_streams_go_on_beyond_the_trained_length(twin: Twin) -> None:
    short = replace(PLAN, window=Window(sink=1, recent=6, trained=9))

    latents = made(twin, short, frames=30)

    assert latents.shape[2] == 30 and bool(latents.isfinite().all())
    # Up to the trained length nothing is different.
    assert torch.equal(latents[:, :, :9], made(twin, PLAN, frames=30)[:, :, :9])
    assert not torch.equal(latents[:, :, 9:], made(twin, PLAN, frames=30)[:, :, 9:])


def test_a_last_block_may_be_shorter(twin: Twin) -> None:
    source = a_source(9)
    whole, shorter = made(twin, source=source), made(twin, source=source[:, :, :8])

    assert shorter.shape[2] == 8
    assert torch.equal(shorter[:, :, :6], whole[:, :, :6])
    assert not torch.equal(
        shorter[:, :, 6:], whole[:, :, 6:8]
    )  # the block's attention reads fewer frames


def test_the_branches_of_guidance_do_not_share_memory(twin: Twin) -> None:
    alone, guided = made(twin, frames=6), made(twin, frames=6, guided=True)
    assert not torch.equal(alone, guided)

    # With both branches under one text, guidance is none: u + g (c - u) with c = u.
    condition = a_condition(twin)
    both = Condition(condition.text, condition.text.clone(), 3.0)
    blocks = torch.cat(list(stream(twin.model, both, a_source(6), PLAN)), dim=2)
    assert torch.equal(blocks, alone)


def test_a_second_stream_starts_empty(twin: Twin) -> None:
    first = made(twin)
    made(twin, source=5 * a_source(6), keep=a_mask(6))

    assert torch.equal(made(twin), first)


@pytest.mark.parametrize("recovery", ["noise-aware", "noisy", "none"])
def test_pruned_latents_are_those_of_the_frame_before_them(twin: Twin, recovery: str) -> None:
    keep = a_mask()

    latents = made(twin, keep=keep, recovery=recovery)

    # The first block is whole; from frame 3 on the right columns repeat frame 2.
    whole = keep.clone()
    whole[:3] = True
    assert torch.equal(repeated(latents, whole), latents)
    assert torch.equal(
        latents[:, :, 3:, :, 4:], latents[:, :, 2:3, :, 4:].expand_as(latents[:, :, 3:, :, 4:])
    )
    assert not torch.equal(latents[:, :, 3, :, :4], latents[:, :, 2, :, :4])


def test_noise_aware_rows_do_not_know_the_blocks_noise_and_noisy_ones_do(twin: Twin) -> None:
    keep = a_mask(4)[1:]
    pruned = (~keep).flatten().nonzero()[
        :, 0
    ] + 3 * PER_FRAME  # three frames of the past come first
    for recovery in ("noise-aware", "noisy"):
        read = []
        for seed in (1, 2):
            memory = BlockMemory(twin.model, ROWS, COLUMNS, Window(), recovery)
            with memory.installed(), torch.inference_mode():
                run_block(twin, memory, 0, a_source(3), None)
                memory.begin(3, 3, keep if recovery == "noise-aware" else with_first_frame(keep))
                torch.manual_seed(seed)
                call(twin, torch.randn(1, 4, 3, 2 * ROWS, 2 * COLUMNS), 500.0)
                read.append([rows.clone() for rows in memory._reading["cond", 2][:2]])
        same = [
            torch.equal(one[:, pruned], other[:, pruned]) for one, other in zip(*read, strict=True)
        ]
        assert same == [recovery == "noise-aware"] * 2
        # What is kept comes from this pass, so it does change.
        assert not torch.equal(read[0][0][:, 3 * PER_FRAME :], read[1][0][:, 3 * PER_FRAME :])


def test_of_exact_duplicates_recovered_attention_is_full_attention(twin: Twin) -> None:
    """The block's pruned tokens have the keys and values of the clean frame before them: nothing is
    lost."""
    torch.manual_seed(9)
    keep, window = a_mask(4)[1:], Window()
    rows = keep.flatten().nonzero()[:, 0]
    past, own = (torch.randn(3, 1, 3 * PER_FRAME, 3, 12) for _ in range(2))  # q, k, v
    copied = past[:, :, -PER_FRAME:].repeat(1, 1, 3, 1, 1)
    own = torch.where(keep.flatten().view(1, 1, -1, 1, 1), own, copied)
    whole = torch.cat([past, own], dim=2)
    tables = tables_of(twin.model, Grid(6, ROWS, COLUMNS))
    turned = [rotated(x, tables) for x in whole[:2]]
    full = masked_attention(turned[0][:, 3 * PER_FRAME :][:, rows], turned[1], whole[2], None)

    found = {}
    for recovery in ("noise-aware", "none"):
        memory = BlockMemory(twin.model, ROWS, COLUMNS, window, recovery)
        given: list[Tensor] = [*past]
        answers: list[Tensor] = []

        def replaced(
            call: AttentionCall, rest: Attend, given: list[Tensor] = given, to: Any = answers
        ) -> Tensor:
            to.append(rest(replace(call, query=given[0], key=given[1], value=given[2])))
            return to[-1]

        layout = layout_of(twin.model)
        attentions = layout.attentions(twin.model)
        with (
            memory.installed(),
            linked(attentions, layout.processor, replaced, first=True),
            torch.inference_mode(),
        ):
            run_block(twin, memory, 0, a_source(3), None)
            given[:] = [x[:, rows] for x in own]
            answers.clear()
            memory.begin(3, 3, keep)
            call(twin, a_source(3), 500.0)
        found[recovery] = answers[0]

    assert (found["noise-aware"] - full).abs().max() <= 1e-6
    assert (found["none"] - full).abs().mean() > 0.05


def test_a_block_that_keeps_nothing_is_copied_without_a_pass_and_memory_goes_on(twin: Twin) -> None:
    keep = a_mask()
    keep[3:6] = False
    with watched(twin) as seen:
        latents = made(twin, keep=keep)

    assert len(seen) == 2 * 4 * 3  # of three blocks two were computed
    assert torch.equal(latents[:, :, 3:6], latents[:, :, 2:3].expand(-1, -1, 3, -1, -1))
    assert {keys for _, _, keys in seen[12:]} == {
        7 * PER_FRAME
    }  # sink, three copied frames, the block
    # Masks do not move the noise: the first block is as ever.
    assert torch.equal(latents[:, :, :3], made(twin)[:, :, :3])


def test_a_refresh_makes_a_block_whole(twin: Twin) -> None:
    with watched(twin) as seen:
        made(twin, replace(PLAN, refresh=2), frames=12, keep=a_mask(12))

    assert [seen[block * 12][1] for block in range(4)] == [72, 24, 72, 24]


def test_wrong_plans_and_memories_are_refused_with_the_reason(twin: Twin) -> None:
    with pytest.raises(ValueError, match="falling steps"):
        StreamPlan(steps=(250, 400))
    with pytest.raises(ValueError, match="at most at 1000, not"):
        StreamPlan(steps=(1200,))
    with pytest.raises(ValueError, match="recovery must be one of noise-aware"):
        BlockMemory(twin.model, ROWS, COLUMNS, Window(), "hope")
    with pytest.raises(
        ValueError, match="window of 3 frames has no clean frame before a block of 3"
    ):
        made(twin, replace(PLAN, window=Window(1, 3, 21)), frames=6, keep=a_mask(6))


def with_first_frame(keep: Tensor) -> Tensor:
    """`keep` with its first frame whole, so that later tokens have noisy ancestors in the block."""
    whole = keep.clone()
    whole[0] = True
    return whole


def call(twin: Twin, latents: Tensor, time: float) -> Tensor:
    with twin.model.cache_context("cond", step_index=0):
        answer: Tensor = twin.model(
            hidden_states=latents, timestep=torch.full((1,), time), return_dict=False, **twin.inputs
        )[0]
    return answer


def run_block(
    twin: Twin, memory: BlockMemory, start: int, latents: Tensor, keep: Tensor | None
) -> Tensor:
    """One denoise pass and the remember pass; the answer of the first."""
    memory.begin(start, 3, keep)
    answer = call(twin, latents, 500.0)
    memory.mode = "remember"
    call(twin, latents, 0.0)
    memory.finish()
    return answer
