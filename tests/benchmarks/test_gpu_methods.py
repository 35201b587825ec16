"""The GPU benchmark, rehearsed: every row is measured, and its work is what arithmetic says.

All rows of one round take half a minute of counting FLOPs, so they are asked for in the thorough
tier, and so is what a refusal or a lack of memory costs. An interrupt is tried in every run.
"""

from __future__ import annotations

import io
import json
import math
import signal
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu_methods import __main__ as script
from benchmarks.gpu_methods.bench import Bench
from benchmarks.gpu_methods.model import a_source
from benchmarks.gpu_methods.ways import FULL
from vidplat.methods.hsa.schedule import schedule_for
from vidplat.methods.lipar.mask import MaskRule
from vidplat.methods.vdit.tiles import density

TOKENS, FRAMES, STEPS = 7 * 6 * 8, 7, 24  # of the small setting
WIDTH, FFN, TEXT = 128, 512, 16
# FLOPs of a block; see vidplat.methods.pass_size
OF_TOKENS = (12 * WIDTH**2 + 4 * TEXT * WIDTH + 4 * WIDTH * FFN) * TOKENS
OF_TEXT, OF_ATTENTION = 4 * TEXT * WIDTH**2, 4 * TOKENS**2 * WIDTH
PATHS = ("gather", "lse")
HSA = ("75A", "75B", "50", "25")
DIGITS = 1e-5  # the JSON line tells six
RECOVERIES = ("noisy", "none", "bias", "noise-aware")


ALL_ROWS = pytest.mark.thorough


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, Any]]:
    """All rows of one round, by their names."""
    answer = told("--equal-steps", "1", "--paths", *PATHS, "--compile", "none")
    assert (answer["benchmark"], answer["interrupted"]) == ("gpu_methods", False)
    assert answer["steps"] == STEPS
    return {row["way"]: row for row in answer["rows"]}


@ALL_ROWS
def test_every_way_is_a_row_with_a_finite_time_and_nothing_to_excuse(
    rows: dict[str, dict[str, Any]],
) -> None:
    assert list(rows) == [
        *(f"hsa:{preset}" for preset in HSA),
        *(f"sparse:k={k},path={path}" for k in (1, 3, 5) for path in PATHS),
        *(f"hsa:{preset}+sparse:k=3,path={path}" for preset in ("50", "25") for path in PATHS),
        *(f"lipar:recovery={recovery}" for recovery in RECOVERIES),
        *(f"{kept} latent frames" for kept in (2, 3, 4, 5, 7)),
        "stream, pruned",
    ]
    for name, row in rows.items():
        assert row["reason"] == "", name
        for figure in (
            "ms_per_step",
            "dense_ms_per_step",
            "time_ratio",
            "flop_ratio",
            "time_over_flops",
        ):
            assert math.isfinite(row[figure]) and row[figure] > 0, (name, figure)
        assert isinstance(row["within"], bool) and row["peak_bytes"] > 0


@ALL_ROWS
@pytest.mark.parametrize("preset", HSA)
def test_the_work_of_hsa_is_its_share_of_tokens_and_the_text_of_the_passes_that_run(
    rows: dict[str, dict[str, Any]], preset: str
) -> None:
    schedule = schedule_for(preset, STEPS)
    share = exact_share(preset)
    runs = sum(any(schedule.active(step)) for step in range(STEPS)) / STEPS
    linear = (share * OF_TOKENS + runs * OF_TEXT) / (OF_TOKENS + OF_TEXT)
    due = (share * (OF_TOKENS + OF_ATTENTION) + runs * OF_TEXT) / (
        OF_TOKENS + OF_TEXT + OF_ATTENTION
    )
    assert_work(rows[f"hsa:{preset}"], linear, share, due)
    assert share == pytest.approx(schedule.relative_cost, abs=1 / TOKENS)


@ALL_ROWS
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("k", [1, 3, 5])
def test_the_work_of_sparse_attention_is_its_density(
    rows: dict[str, dict[str, Any]], k: int, path: str
) -> None:
    rho = density(FRAMES, k)
    due = (OF_TOKENS + OF_TEXT + rho * OF_ATTENTION) / (OF_TOKENS + OF_TEXT + OF_ATTENTION)
    assert_work(rows[f"sparse:k={k},path={path}"], 1.0, rho, due)


@ALL_ROWS
@pytest.mark.parametrize("preset", ["50", "25"])
def test_the_work_of_both_is_nearly_the_product(
    rows: dict[str, dict[str, Any]], preset: str
) -> None:
    """Not quite: tokens of reference frames attend to all, and HSA may choose more of those than of
    others."""
    for path in PATHS:
        row = rows[f"hsa:{preset}+sparse:k=3,path={path}"]
        due = {"linear": exact_share(preset), "attention": exact_share(preset) * density(FRAMES, 3)}
        assert row["flops_planned"]["linear"] == pytest.approx(due["linear"], rel=0.01)
        assert row["flops_planned"]["attention"] == pytest.approx(due["attention"], rel=0.01)
        assert row["flops_counted"]["linear"] == pytest.approx(due["linear"], rel=0.01)
        assert row["flops_counted"]["attention"] == pytest.approx(due["attention"], rel=0.1)


@ALL_ROWS
@pytest.mark.parametrize(("recovery", "keys"), [("noisy", 1), ("none", 2), ("bias", 2)])
def test_the_work_of_lipar_is_its_kept_share_of_queries_and_perhaps_of_keys(
    rows: dict[str, dict[str, Any]], recovery: str, keys: int
) -> None:
    row = rows[f"lipar:recovery={recovery}"]
    kept = row["kept_share"]
    linear = (kept * OF_TOKENS + OF_TEXT) / (OF_TOKENS + OF_TEXT)
    due = (kept * OF_TOKENS + OF_TEXT + kept**keys * OF_ATTENTION) / (
        OF_TOKENS + OF_TEXT + OF_ATTENTION
    )
    assert_work(row, linear, kept**keys, due)


@ALL_ROWS
@pytest.mark.parametrize("kept", [2, 3, 4, 5, 7])
def test_the_work_of_fewer_frames_is_their_share_and_its_square(
    rows: dict[str, dict[str, Any]], kept: int
) -> None:
    share = kept / FRAMES
    linear = (share * OF_TOKENS + OF_TEXT) / (OF_TOKENS + OF_TEXT)
    due = (share * OF_TOKENS + OF_TEXT + share**2 * OF_ATTENTION) / (
        OF_TOKENS + OF_TEXT + OF_ATTENTION
    )
    assert_work(rows[f"{kept} latent frames"], linear, share**2, due)


@ALL_ROWS
def test_clean_keys_cost_lipar_one_pass_more(rows: dict[str, dict[str, Any]]) -> None:
    """0.6 of 24 steps are taken, 14, and one pass more in each branch."""
    more, plain = (
        rows[f"lipar:recovery={form}"]["flops_counted"]["total"]
        for form in ("noise-aware", "noisy")
    )
    assert more == pytest.approx(plain * 15 / 14, rel=DIGITS)


def exact_share(preset: str) -> float:
    """Mean share of tokens that run, in whole tokens."""
    schedule = schedule_for(preset, STEPS)
    sizes = schedule.sizes(TOKENS)
    running = (zip(schedule.active(step), sizes, strict=True) for step in range(STEPS))
    return sum(size for groups in running for on, size in groups if on) / STEPS / TOKENS


def assert_work(row: dict[str, Any], linear: float, attention: float, total: float) -> None:
    due = {"linear": linear, "attention": attention, "total": total}
    assert row["flops_counted"] == pytest.approx(due, rel=DIGITS)
    assert row["flops_planned"] == pytest.approx(due, rel=0.02)  # as if text ran with the tokens
    assert row["flop_ratio"] == pytest.approx(total, rel=DIGITS)
    assert row["time_over_flops"] == pytest.approx(row["time_ratio"] / total, rel=DIGITS)
    assert row["within"] == (abs(row["time_over_flops"] - 1) <= 0.15)


@pytest.mark.parametrize(("first", "part"), [pytest.param(1, 1, marks=ALL_ROWS), (3, 2)])
def test_the_source_prunes_a_third_of_the_full_videos_tokens(first: int, part: int) -> None:
    """PRUNED is 32 %; of the 32 760 tokens a column of one frame is 30, and dilation adds some
    columns at once. The stream's mask is tried on a half of the picture's side."""
    rule = MaskRule(block=first, causal=first > 1)
    frames, rows, columns = FULL.latents
    source, keep = a_source((frames, rows // part, columns // part), rule, first=first)
    assert source.shape == (1, 16, 21, 60 // part, 104 // part)
    assert keep.shape == (21, 30 // part, 52 // part)
    assert bool(keep[:first].all())
    assert 1 - keep.float().mean() == pytest.approx(0.32, abs=0.01)


@ALL_ROWS
def test_a_way_that_is_refused_is_a_row_with_the_reason_and_the_others_go_on() -> None:
    """HSA-25 needs 21 steps."""
    answer = told("--only", "hsa", "--steps", "12", "--equal-steps", "1")
    named = {row["way"]: row for row in answer["rows"]}
    assert "preset 25 needs 21 steps or more" in named["hsa:25"]["reason"]
    assert named["hsa:25"]["time_ratio"] is None
    assert all(named[f"hsa:{preset}"]["time_ratio"] > 0 for preset in ("75A", "75B", "50"))


@ALL_ROWS
def test_memory_that_runs_out_costs_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Bench.run

    def short_of_memory(bench: Any, way: Any, steps: int | None = None) -> Any:
        if "k=1,path=gather" in way.method:
            raise torch.OutOfMemoryError("tried to allocate 12 GiB")
        return run(bench, way, steps)

    monkeypatch.setattr(Bench, "run", short_of_memory)
    answer = told("--only", "sparse")
    reasons = {row["way"]: row["reason"] for row in answer["rows"]}
    assert reasons.pop("sparse:k=1,path=gather") == "out of memory: tried to allocate 12 GiB"
    assert set(reasons.values()) == {""}


def test_an_interrupt_keeps_what_was_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lap = Bench.lap

    def stopped(bench: Any, way: Any, number: int, on: Any = None) -> Any:
        if "k=3" in way.method:
            signal.raise_signal(signal.SIGTERM)
        return lap(bench, way, number, on)

    monkeypatch.setattr(Bench, "lap", stopped)
    out = tmp_path / "kept" / "laps.jsonl"
    answer = told("--only", "sparse", "--out", str(out))
    assert answer["interrupted"]
    assert [row["rounds"] for row in answer["rows"]] == [1, 1, 0, 0, 0, 0]
    assert [json.loads(line)["way"] for line in out.read_text().splitlines()] == [
        "sparse:k=1,path=gather",
        "sparse:k=1,path=lse",
    ]


def told(*arguments: str) -> dict[str, Any]:
    """What one round of the script answers with on its last line, on a machine without CUDA."""
    threads, handler = torch.get_num_threads(), signal.getsignal(signal.SIGTERM)
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said):
        patch.setattr(torch.cuda, "is_available", lambda: False)
        patch.setattr(sys, "argv", ["gpu_methods", "--small", "--rounds", "1", *arguments])
        try:
            script.main()
        finally:
            torch.set_num_threads(threads)
            signal.signal(signal.SIGTERM, handler)
    answer: dict[str, Any] = json.loads(said.getvalue().splitlines()[-1])
    return answer
