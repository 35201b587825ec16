"""Ranks train together: same weights on both, gradients of both batches, one writer."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from vidplat.training import ranks

TWO_RANKS = """
import json, sys
import torch
from torch import nn
from vidplat.training import ranks

with ranks.joined():
    folder = sys.argv[1]
    model = nn.Linear(3, 2)
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(1.0)
    model(torch.full((1, 3), float(ranks.rank()))).sum().backward()
    ranks.average_gradients(model)
    with ranks.rank_0_first():
        made = f"{folder}/once"
        try:
            found = open(made).read()
        except FileNotFoundError:
            found = "nothing"
            with open(made, "w") as file:
                file.write("written by 0" if ranks.rank() == 0 else "written by 1")
    with open(f"{folder}/{ranks.rank()}.json", "w") as file:
        json.dump({"gradient": model.weight.grad.tolist(), "found": found}, file)
"""


@pytest.mark.thorough
def test_two_ranks_share_gradients_and_rank_0_goes_first(tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(TWO_RANKS, encoding="utf-8")
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    ran = subprocess.run(
        [*launch, str(script), str(tmp_path)], timeout=120, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first["gradient"] == second["gradient"] == [[0.5] * 3] * 2  # the mean of 0 and 1
    assert (first["found"], second["found"]) == ("nothing", "written by 0")


def test_one_rank_alone_sends_nothing() -> None:
    model = nn.Linear(2, 1)
    model(torch.ones(1, 2)).sum().backward()
    assert model.weight.grad is not None
    before = model.weight.grad.clone()
    with ranks.joined():
        ranks.average_gradients(model)
        with ranks.rank_0_first():
            assert ranks.rank() == 0
    assert torch.equal(model.weight.grad, before)
