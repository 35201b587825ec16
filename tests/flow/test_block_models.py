"""Prompts and an input video through intake, plan, worker and store, on a tiny block-causal
model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.flow.stage import Stage
from tests.platform.builders import Memory
from tests.source_videos import an_mp4, counted
from tests.workers.tiny_models import a_tiny_causal
from vidplat.config import PoolConfig
from vidplat.errors import InputError
from vidplat.platform import plan_only, submit
from vidplat.platform.interface import Listener, SubmitRequest


@pytest.fixture(scope="session")
def tiny_causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.workers.tiny_models import a_tiny_wan

    home = tmp_path_factory.mktemp("models")
    return a_tiny_causal(home / "elsewhere" / "causal", a_tiny_wan(home / "tiny"))


@pytest.fixture
def stage(tmp_path: Path, tiny_causal: Path) -> Stage:
    an_mp4(tmp_path / "a.mp4", counted(21), fps=8)
    return Stage(tmp_path, model=str(tiny_causal), pools=(PoolConfig("cloud"),))


def rows(stage: Stage, *told: dict[str, Any]) -> str:
    path = stage.folder / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": "a red circle", **row}) + "\n" for row in told))
    return str(path)


def test_two_prompts_and_an_edit_become_videos(stage: Stage):
    file = rows(
        stage,
        {"prompt": "a red circle moves left"},
        {"prompt": "a blue square moves right", "steps": 2},
        {"input_video": "a.mp4", "method": "lipar:tau1=10,tau2=10", "strength": 0.4},
    )
    heard = Memory()

    result = submit(SubmitRequest(file), stage.config, heard)

    assert (result.exit_code, result.computed) == (0, 3), [
        outcome.failure for outcome in heard.outcomes
    ]
    stage.check_nothing_lost_or_twice()
    folder = stage.folder / "out" / "batches" / result.batch.id
    metrics = {row["row"]: row for row in pq.read_table(folder / "metrics.parquet").to_pylist()}
    assert sorted(metrics) == [1, 2, 3]
    told = [json.loads(path.read_text()) for path in folder.rglob("meta.json")]
    spent = {meta["prompt"]: meta["point"]["steps_done"] for meta in told}
    assert spent == {
        "a red circle moves left": 4,
        "a blue square moves right": 2,
        "a red circle": 4,
    }
    assert [meta["metrics"].get("kept_share") for meta in told if "input" in meta] == [
        pytest.approx(1 / 3, abs=1e-6)
    ]
    # Passes are what workers report: three blocks of four or two steps, and one more each.
    assert {beat.steps for beat in heard.steps if beat.phase == "denoise"} == {15, 9}
    # Submitted again, nothing is made twice.
    assert submit(SubmitRequest(file), stage.config, Memory()).computed == 0


def test_what_such_a_model_cannot_do_is_refused_at_submit_row_by_row(stage: Stage):
    file = rows(
        stage,
        {"method": "keyframes:3"},
        {"method": "hsa:50"},
        {"method": "lipar"},
        {"steps": 9},
        {},
    )

    with pytest.raises(InputError) as caught:
        submit(SubmitRequest(file), stage.config, Memory())

    first, second, third, fourth = caught.value.problems
    assert first.startswith(
        "row 1, method: keyframes is gone: plain steps of the same cost are 18 dB nearer"
    )
    assert second.startswith(
        "row 2, method: hsa is not made for a model that makes its frames block by block"
    )
    assert third.startswith(
        "row 3, method: lipar leaves out what does not change in an input video"
    )
    assert fourth.startswith("row 4, video: num_inference_steps must be at most 4")


def test_a_plan_needs_nothing_but_files(stage: Stage):
    assert plan_only(SubmitRequest(rows(stage, {}, {})), stage.config, Listener()).jobs == 2
