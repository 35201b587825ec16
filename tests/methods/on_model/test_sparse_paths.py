"""Every path equals dense attention under the explicit mask, and computes no more than the mask
keeps.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from tests.methods.test_tiles import block_sparsity, keeps
from vidplat.methods.seams.attention import masked_attention
from vidplat.methods.vdit import flex, frame_by_frame, tiles
from vidplat.methods.vdit.dense import attention_with_lse
from vidplat.methods.vdit.flex import block_mask
from vidplat.methods.vdit.frame_by_frame import gather
from vidplat.methods.vdit.paths import PATHS, fault
from vidplat.methods.vdit.tiling import Tiling, tile_mask

GRID = [
    *(
        Tiling(f, per_frame, k)
        for f, per_frame in ((1, 5), (2, 3), (5, 4), (7, 3))
        for k in range(1, f + 1)
    ),
    Tiling(21, 2, 4),  # 21/4 is no whole number
    Tiling(6, 4, 2, text=3),
    Tiling(6, 4, 1, text=3, text_first=True),
]
SOME = [Tiling(7, 3, 3), Tiling(6, 4, 2, text=3), Tiling(6, 4, 1, text=3, text_first=True)]
EXACT = ("gather", "lse")


def qkv(
    tiling: Tiling, dtype: torch.dtype = torch.float32, batch: int = 2
) -> tuple[Tensor, Tensor, Tensor]:
    """(B, K, h, D) with h = 3, D = 16."""
    generator = torch.Generator().manual_seed(3)
    made = (torch.randn(batch, tiling.tokens, 3, 16, generator=generator) for _ in range(3))
    q, k, v = (x.to(dtype) for x in made)
    return q, k, v


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """FlexAttention as it is written, without a compiler: the same block mask, the same
    arithmetic."""
    from torch.nn.attention.flex_attention import flex_attention

    monkeypatch.setattr(flex, "_flex_attention", lambda: flex_attention)


def test_the_mask_is_that_of_the_rule() -> None:
    tiling = Tiling(5, 3, 2, text=2, text_first=True)
    mask = tile_mask(tiling)

    assert mask[:2].all() and mask[:, :2].all()  # text
    for a in range(15):
        for b in range(15):
            assert mask[2 + a, 2 + b] == keeps(5, 2, a // 3, b // 3)


@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("tiling", GRID, ids=str)
def test_a_path_equals_attention_under_the_explicit_mask(
    tiling: Tiling, name: str, dtype: torch.dtype, allowed: float
) -> None:
    """bfloat16 keeps 8 bits: values of size 2 are rounded by up to 2^-8, and weights and scores
    likewise."""
    q, k, v = qkv(tiling, dtype)

    made = PATHS[name](q, k, v, tiling)

    assert made.dtype == dtype
    torch.testing.assert_close(
        made, masked_attention(q, k, v, tile_mask(tiling)), atol=allowed, rtol=0
    )


@pytest.mark.filterwarnings("ignore:.*flex_attention.*:UserWarning")
@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize(
    "tiling",
    [
        *(Tiling(frames, per_frame, k) for frames, per_frame, k in ((5, 48, 2), (4, 128, 1))),
        Tiling(4, 100, 1, text=30),
        Tiling(3, 150, 1, text=200, text_first=True),
    ],
    ids=str,
)
def test_flex_equals_attention_under_the_explicit_mask(tiling: Tiling) -> None:
    q, k, v = qkv(tiling, batch=1)

    made = PATHS["flex"](q, k, v, tiling)

    torch.testing.assert_close(
        made, masked_attention(q, k, v, tile_mask(tiling)), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize(
    ("frames", "per_frame", "k"), [(8, 225, 2), (6, 128, 2), (5, 100, 1), (24, 75, 4)]
)
def test_the_block_mask_keeps_the_blocks_that_arithmetic_says(
    frames: int, per_frame: int, k: int
) -> None:
    mask = block_mask(Tiling(frames, per_frame, k), "cpu")

    kept, blocks = (
        int(mask.kv_num_blocks.sum() + mask.full_kv_num_blocks.sum()),
        -(-frames * per_frame // 128),
    )
    assert 1 - kept / blocks**2 == pytest.approx(block_sparsity(frames, per_frame, k))


@pytest.mark.filterwarnings("ignore:.*flex_attention.*:UserWarning")
@pytest.mark.usefixtures("uncompiled")
def test_with_all_frames_as_references_every_path_is_dense_attention() -> None:
    tiling = Tiling(4, 40, 4)
    q, k, v = qkv(tiling)

    for name in PATHS:
        torch.testing.assert_close(
            PATHS[name](q, k, v, tiling), masked_attention(q, k, v, None), atol=1e-5, rtol=0
        )


@pytest.mark.parametrize("name", [*EXACT, "flex"])
@pytest.mark.parametrize("tiling", SOME, ids=str)
def test_some_rows_alone_get_what_they_get_among_all(tiling: Tiling, name: str) -> None:
    """Queries of some video rows and all text; frame 2 has none, frame 3 one."""
    q, k, v = qkv(tiling)
    rows = torch.tensor(
        [r for r in range(tiling.frames * tiling.per_frame) if _runs(r, tiling.per_frame)]
    )
    queries = (
        torch.cat([torch.arange(tiling.text), rows + tiling.text])
        if tiling.text_first
        else torch.cat([rows, torch.arange(tiling.tokens - tiling.text, tiling.tokens)])
    )
    counts = torch.bincount(rows // tiling.per_frame, minlength=tiling.frames).tolist()

    made = PATHS[name](q[:, queries], k, v, tiling, counts)

    due = masked_attention(q, k, v, tile_mask(tiling))[:, queries]
    torch.testing.assert_close(made, due, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", [*EXACT, "flex"])
@pytest.mark.parametrize("tiling", SOME, ids=str)
def test_rows_that_have_only_each_others_keys_get_what_the_mask_between_them_says(
    tiling: Tiling, name: str
) -> None:
    q, k, v = qkv(tiling)
    rows = torch.tensor(
        [r for r in range(tiling.frames * tiling.per_frame) if _runs(r, tiling.per_frame)]
    )
    tokens = (
        torch.cat([torch.arange(tiling.text), rows + tiling.text])
        if tiling.text_first
        else torch.cat([rows, torch.arange(tiling.tokens - tiling.text, tiling.tokens)])
    )
    counts = tuple(torch.bincount(rows // tiling.per_frame, minlength=tiling.frames).tolist())
    q, k, v = (x[:, tokens] for x in (q, k, v))
    bias = torch.randn(
        1, 1, 1, len(tokens), generator=torch.Generator().manual_seed(4)
    )  # as lipar's log-counts
    mask = tile_mask(tiling)[tokens][:, tokens]

    pruned = replace(tiling, key_counts=counts)

    assert torch.equal(tile_mask(pruned), mask)
    for given, due in ((None, mask), (bias, bias.masked_fill(~mask, -torch.inf))):
        made = PATHS[name](q, k, v, pruned, counts, given)
        torch.testing.assert_close(made, masked_attention(q, k, v, due), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", [*EXACT, "flex"])
def test_no_rows_and_no_keys_of_references_are_no_reason_to_fail(name: str) -> None:
    tiling = Tiling(4, 5, 2)  # references 0 and 2
    q, k, v = qkv(tiling)
    assert PATHS[name](q[:, :0], k, v, tiling, [0] * 4).shape == (2, 0, 3, 16)

    local = replace(tiling, key_counts=(0, 5, 0, 5))
    q, k, v = (torch.cat([x[:, 5:10], x[:, 15:]], dim=1) for x in (q, k, v))
    made = PATHS[name](q, k, v, local, local.key_counts)
    torch.testing.assert_close(made, masked_attention(q, k, v, tile_mask(local)), atol=1e-5, rtol=0)


def _runs(row: int, per_frame: int) -> bool:
    frame = row // per_frame
    return frame != 2 and (frame != 3 or row % per_frame == 1) and row % 2 == (frame == 3)


@pytest.mark.parametrize("name", [*EXACT, "flex"])
@pytest.mark.parametrize("additive", [False, True])
@pytest.mark.parametrize("per_row", [False, True])
@pytest.mark.parametrize("tiling", SOME, ids=str)
def test_a_stock_mask_holds_on_top_of_the_tiles(
    tiling: Tiling, per_row: bool, additive: bool, name: str
) -> None:
    """As HunyuanVideo's, which hides padding of the text; one of the two videos has a whole frame
    hidden as well."""
    q, k, v = qkv(tiling)
    rows = tiling.tokens if per_row else 1
    mask = torch.rand(2, 1, rows, tiling.tokens, generator=torch.Generator().manual_seed(1)) < 0.7
    mask[..., tiling.columns(1)] = True  # nobody of frame 1 is left without keys
    mask[..., tiling.global_columns()[0]] = True
    mask[1, ..., tiling.columns(4)] = False
    given = torch.zeros(mask.shape).masked_fill(~mask, -1e4) if additive else mask

    made = PATHS[name](q, k, v, tiling, None, given)

    torch.testing.assert_close(
        made, masked_attention(q, k, v, mask & tile_mask(tiling)), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("extra", [0, 20_000, 10**9])
def test_the_size_of_the_chunks_does_not_change_the_result(
    extra: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiling = Tiling(9, 8, 2)
    q, k, v = qkv(tiling)
    due = gather(q, k, v, tiling)
    monkeypatch.setitem(frame_by_frame.EXTRA_BYTES, "cpu", extra)

    torch.testing.assert_close(gather(q, k, v, tiling), due, atol=1e-6, rtol=0)


def test_copies_of_keys_stay_within_their_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """F = 40 of 4 tokens, k = 1: a frame's keys and values are 2 x (1 + 1) x 4 x 3 x 16 floats =
    3072 bytes."""
    monkeypatch.setitem(frame_by_frame.EXTRA_BYTES, "cpu", 4 * 3072)
    folds = [piece.frames for piece in frame_by_frame._pieces(Tiling(40, 4, 1), None, 4)]
    assert max(folds) == 4 and sum(folds) == 39

    seen: list[int] = []
    real = frame_by_frame.attention

    def noting(q: Tensor, *rest: Any) -> Tensor:
        seen.append(q.shape[0])
        return real(q, *rest)

    monkeypatch.setattr(frame_by_frame, "attention", noting)
    gather(*qkv(Tiling(40, 4, 1), batch=1), Tiling(40, 4, 1))
    assert sorted(seen) == [1] + [3] + [4] * 9  # frame 0, which attends to all; 39 local frames


@pytest.mark.parametrize("tiling", SOME, ids=str)
def test_gradients_of_the_gather_path_are_those_of_masked_attention(tiling: Tiling) -> None:
    ours, due = ([x.requires_grad_() for x in qkv(tiling)] for _ in range(2))
    weights = torch.randn(2, tiling.tokens, 3, 16, generator=torch.Generator().manual_seed(5))

    (gather(*ours, tiling) * weights).sum().backward()
    (masked_attention(*due, tile_mask(tiling)) * weights).sum().backward()

    for mine, theirs in zip(ours, due, strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-5, rtol=0)


def test_only_the_queries_gradient_is_enough_to_keep_chunks_apart() -> None:
    tiling = Tiling(6, 4, 1)
    q, k, v = qkv(tiling)
    due = q.clone().requires_grad_()
    gather(q.requires_grad_(), k, v, tiling).sum().backward()
    masked_attention(due, k, v, tile_mask(tiling)).sum().backward()

    torch.testing.assert_close(q.grad, due.grad, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("frames", "k"), [(5, 1), (7, 3), (9, 2), (21, 5), (4, 3)])
def test_the_gather_path_computes_exactly_the_kept_tiles(frames: int, k: int) -> None:
    """4 P^2 D h per tile: QK^T and AV, a multiply-add counted as 2."""
    tiling = Tiling(frames, 6, k)
    counter = FlopCounterMode(display=False, custom_mapping={_CPU_KERNEL: _its_flops})
    with counter:
        gather(*qkv(tiling, batch=1), tiling)

    per_tile = 4 * 6 * 6 * 16 * 3
    assert counter.get_total_flops() == tiles.kept_tiles(frames, k) * per_tile
    assert counter.get_total_flops() == pytest.approx(
        tiles.density(frames, k) * frames**2 * per_tile
    )


_CPU_KERNEL = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def _its_flops(q: Any, k: Any, v: Any, *rest: Any, out_shape: Any = None, **options: Any) -> int:
    return int(sdpa_flop_count(q, k, v))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("masked", [False, True])
def test_the_log_sum_exp_is_that_of_the_scores(dtype: torch.dtype, masked: bool) -> None:
    q, k, v = (
        x.transpose(1, 2) for x in qkv(Tiling(40, 8, 1), dtype)
    )  # 320 rows: more than go at one time
    mask = (
        torch.rand(320, 320, generator=torch.Generator().manual_seed(2)) < 0.5 if masked else None
    )

    made, found = attention_with_lse(q, k, v, None if mask is None else mask[None, None])

    scores = q.double() @ k.double().transpose(-1, -2) / 4  # sqrt(16)
    due = torch.logsumexp(scores if mask is None else scores.masked_fill(~mask, -torch.inf), dim=-1)
    assert found.dtype == torch.float32
    allowed = 1e-5 if dtype != torch.bfloat16 else 0.02
    torch.testing.assert_close(found.double(), due, atol=allowed, rtol=0)
    right = masked_attention(*(x.transpose(1, 2) for x in (q, k, v)), mask).transpose(1, 2)
    torch.testing.assert_close(made, right, atol=allowed, rtol=0)


def test_a_row_that_may_attend_to_nothing_weighs_nothing() -> None:
    q, k, v = (x.transpose(1, 2) for x in qkv(Tiling(2, 4, 1)))
    made, found = attention_with_lse(q, k, v, torch.zeros(1, 1, 8, 8, dtype=torch.bool))

    assert (found < -1e30).all()
    assert torch.equal(made, torch.zeros_like(made)) or (found == -torch.inf).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", EXACT)
def test_a_sound_path_passes_its_check(name: str, dtype: torch.dtype) -> None:
    assert fault(name, torch.device("cpu"), dtype, 12) == ""


def test_an_unsound_path_is_told_by_its_check(monkeypatch: pytest.MonkeyPatch) -> None:
    def first_key(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> Tensor:
        return v[:, :1].expand(q.shape)

    def no_compiler(*rest: Any) -> Tensor:
        raise RuntimeError("no C++ compiler\nlong story")

    monkeypatch.setitem(PATHS, "lse", first_key)
    monkeypatch.setitem(PATHS, "flex", no_compiler)

    assert "is off by" in fault("lse", torch.device("cpu"), torch.float32, 16)
    assert fault("flex", torch.device("cpu"), torch.float32, 16) == "fails on cpu: no C++ compiler"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", [*EXACT, "flex"])
def test_every_path_passes_its_check_on_a_gpu(name: str, dtype: torch.dtype) -> None:
    assert fault(name, torch.device("cuda"), dtype, 128) == ""
