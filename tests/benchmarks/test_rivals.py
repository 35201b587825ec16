"""Rivals run on a loaded model like the product's methods, though no table knows them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.rivals.caches import RIVALS, WithRivals
from tests.methods.on_model.counting import counting
from tests.methods.on_model.runs import SPEC, a_tiny_family
from vidplat.domain import OperatingPoint
from vidplat.methods.language import is_known
from vidplat.workers.generate import generate
from vidplat.workers.making import Ask, Made


@pytest.mark.parametrize("name", RIVALS)
def test_a_rival_skips_passes_by_its_threshold_and_leaves_the_model_as_it_was(
    name: str, tmp_path: Path
) -> None:
    family = a_tiny_family(tmp_path / "tiny")
    installed = WithRivals(family.transformers)

    def made(method: str) -> Made:
        installed.use(method)
        point = OperatingPoint(SPEC.num_inference_steps, method or "full")
        return generate(family, Ask("a red circle", "", SPEC, point), installed)

    # given
    stock = made("").latents
    (candidate,) = RIVALS[name].candidates(SPEC.num_inference_steps, 3)
    assert candidate.point is not None

    # when all is skipped that may be
    most = candidate.point(0.0).method
    with counting(*family.transformers) as passes:
        hurried = made(most).latents

    # then
    assert not is_known(most)
    assert passes.skipped.total() > 0
    assert torch.isfinite(hurried).all()
    assert not torch.equal(hurried, stock)
    # the same again, and nothing of it afterwards
    assert torch.equal(made(most).latents, hurried)
    assert torch.equal(made("").latents, stock)
