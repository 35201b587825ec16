"""Training resumes where it stopped, and its optimizer does what it says."""

from pathlib import Path

import pytest
import torch
from torch import nn

from vidplat.training.muon import Pair, orthogonalised, warm_then_down
from vidplat.training.runs import run_steps


class ToyRun:
    """A run of noisy steps on one matrix; `dies_at` stops it like a kill would."""

    def __init__(self, path: Path) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(4, 3)
        self.pair = Pair(self.model, lr=1e-2)
        self.path = path

    def go(self, steps: int, dies_at: int | None = None) -> torch.Tensor:
        def one_step(step: int) -> dict[str, float]:
            if step == dies_at:
                raise KeyboardInterrupt
            x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
            loss = (self.model(x) - x[:, :3]).pow(2).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            self.pair.step(warm_then_down(step, steps, warm=2))
            return {"loss": loss.item()}

        run_steps(
            "toy",
            self.pair,
            steps=steps,
            path=self.path,
            one_step=one_step,
            say=lambda line: None,
            every_s=0.0,
        )
        return self.model.weight.detach().clone()


def test_a_killed_run_goes_on_and_ends_where_an_unbroken_one_ends(tmp_path: Path) -> None:
    unbroken = ToyRun(tmp_path / "a.pt").go(20)
    with pytest.raises(KeyboardInterrupt):
        ToyRun(tmp_path / "b.pt").go(20, dies_at=13)
    resumed = ToyRun(tmp_path / "b.pt").go(20)
    assert torch.equal(unbroken, resumed)


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    done = ToyRun(tmp_path / "a.pt").go(5)
    assert torch.equal(ToyRun(tmp_path / "a.pt").go(5, dies_at=0), done)


@pytest.mark.parametrize("shape", [(8, 32), (32, 8), (16, 16)])
@pytest.mark.parametrize("bfloat16", [False, True])
def test_an_orthogonalised_matrix_has_singular_values_near_one(
    shape: tuple[int, int], bfloat16: bool
) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(orthogonalised(matrix, bfloat16=bfloat16))
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_the_learning_rate_warms_up_stays_and_falls() -> None:
    scales = [warm_then_down(step, 1000) for step in range(1000)]
    assert scales[0] == pytest.approx(1 / 50)
    assert scales[50:300] == [1.0] * 250
    assert scales[300:] == sorted(scales[300:], reverse=True)
    assert scales[-1] == pytest.approx(0.02, abs=0.002)
