"""What every method of the table must keep, whoever wrote it. A new line in the table needs a line
in `CASES` here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.methods.on_model.runs import CIRCLE, SPEC, SQUARE, a_tiny_family, denoised, error
from vidplat.domain import OperatingPoint, VideoSpec
from vidplat.methods.installed import Installed
from vidplat.methods.kinds import Seam
from vidplat.methods.language import parse
from vidplat.methods.table import KINDS
from vidplat.workers.generate import generate
from vidplat.workers.making import Ask
from vidplat.workers.models.catalogue import locate
from vidplat.workers.models.loading import load_family


@dataclass(frozen=True)
class Case:
    """A method: as it is tried on a random model, whose answers change much from step to step; as
    it changes nothing; as it is tried on flipbook, and the error it may make there at 12 steps."""

    text: str
    nothing: (
        str | None
    )  # None: it has no such setting, and its own tests show that its parts change nothing
    mild: str
    error: float  # relative L2 distance of the latents to those of the full run
    edits: bool = False  # it needs a video to start from
    whole: bool = False  # its latents are of another clip: the error is that of the finished frames
    frames: int = SPEC.num_frames  # of the videos it is tried on


CASES = {
    "hsa": Case("hsa:75A", None, "hsa:75A", error=0.5),
    "lipar": Case("lipar", "lipar:tau1=0,tau2=0", "lipar", error=0.7, edits=True),
    "sparse": Case("sparse:k=1", "sparse:k=64", "sparse:k=1,dense_steps=4", error=0.5),
    "early": Case("early:0.5", "early:1", "early:0.5", error=0.3),
    "teacache": Case("teacache:10", "teacache:0", "teacache:0.2", error=0.5),
    "easycache": Case("easycache:10", "easycache:0", "easycache:0.1", error=0.3),
    # Of 5 latent frames of the videos it is tried on 3 are kept; the videos that nothing may change
    # in have no more.
    "eco": Case("eco:3", "eco:3", "eco:4", error=0.4, whole=True, frames=17),
    "vgdfr": Case(
        "vgdfr:ratio=0.01,k=2",
        "vgdfr:theta=1",
        "vgdfr:ratio=0.01,k=4",
        error=0.4,
        whole=True,
        frames=17,
    ),
}
NAMES = [kind.name for kind in KINDS.values() if kind.seam is not Seam.SOLVER]
PASSES = [name for name in NAMES if KINDS[name].seam is Seam.PASSES]
every_method = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return a_tiny_family(tmp_path_factory.mktemp("models") / "tiny")


def run(family: Any, name: str, text: str, **changes: Any) -> Tensor:
    """A run with `text` of the method `name`, as long as it needs, and from a video where it needs
    one."""
    if CASES[name].edits:
        changes["source"] = a_source(family)
    changes["spec"] = replace(changes.get("spec", SPEC), num_frames=CASES[name].frames)
    return denoised(family, text, **changes)


def a_source(family: Any) -> Tensor:
    """Latents of a picture that stands still for three latent frames."""
    latents: Tensor = family.noise(replace(SPEC, seed=77, num_frames=1))
    return latents.repeat(1, 1, 3, 1, 1)


def attributes(model: Any) -> list[tuple[str, set[str], list[str]]]:
    """For every module: its name, its attributes but for diffusers' empty registry, its submodules
    in their order."""
    return [
        (name, vars(part).keys() - {"_diffusers_hook"}, list(part._modules))
        for name, part in model.named_modules()
    ]


def processors(model: Any) -> list[str]:
    return [type(part.processor).__name__ for part in model.modules() if hasattr(part, "processor")]


def test_every_method_of_the_table_is_tried_here() -> None:
    assert list(CASES) == NAMES


@every_method
def test_undone_leaves_the_stock_model_bit_for_bit_and_no_trace(tiny: Any, name: str) -> None:
    model = tiny.transformer
    before, parts, stock = run(tiny, name, ""), attributes(model), processors(model)
    run(tiny, name, CASES[name].text)
    assert (attributes(model), processors(model)) == (parts, stock)
    assert not any(
        getattr(part, "_diffusers_hook", None) and part._diffusers_hook.hooks
        for part in model.modules()
    )
    assert torch.equal(run(tiny, name, ""), before)


@every_method
def test_what_is_tried_does_change_something(tiny: Any, name: str) -> None:
    assert not torch.equal(run(tiny, name, CASES[name].text), run(tiny, name, ""))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.nothing is not None])
def test_a_setting_that_skips_nothing_equals_the_stock_run_bit_for_bit(
    tiny: Any, name: str
) -> None:
    nothing = CASES[name].nothing
    source = (
        tiny.noise(replace(SPEC, seed=77)) if CASES[name].edits else None
    )  # nothing in it repeats
    assert torch.equal(denoised(tiny, nothing, source=source), denoised(tiny, "", source=source))


@every_method
def test_a_second_prompt_does_not_see_the_first_one_s_cache(tiny: Any, name: str) -> None:
    alone = run(tiny, name, CASES[name].text, prompt=SQUARE)
    installed = Installed(tiny.transformers)
    installed.use(CASES[name].text)
    try:
        run(tiny, name, "", prompt=CIRCLE, spec=replace(SPEC, seed=6), installed=installed)
        after = run(tiny, name, "", prompt=SQUARE, installed=installed)
    finally:
        installed.remove()
    assert torch.equal(after, alone)


@every_method
def test_a_video_that_was_broken_off_leaves_nothing_to_the_next(tiny: Any, name: str) -> None:
    alone = run(tiny, name, CASES[name].text)
    installed = Installed(tiny.transformers)
    installed.use(CASES[name].text)
    stock, calls = tiny.velocity, 0

    def failing(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise InterruptedError
        return stock(*args)

    try:
        tiny.velocity = failing
        with pytest.raises(InterruptedError):
            run(tiny, name, "", prompt=SQUARE, installed=installed)
        del tiny.velocity
        assert torch.equal(run(tiny, name, "", installed=installed), alone)
    finally:
        vars(tiny).pop("velocity", None)
        installed.remove()


@every_method
def test_a_run_whose_total_shrinks_stays_finite_and_ends_where_it_should(
    tiny: Any, name: str
) -> None:
    made = run(
        tiny, name, CASES[name].text, shorten=(4, 2)
    )  # 12 steps, or 6 of an edit, become 4 + 2
    assert torch.isfinite(made).all()
    if nothing := CASES[name].nothing:
        source = tiny.noise(replace(SPEC, seed=77)) if CASES[name].edits else None
        full = denoised(tiny, "", shorten=(4, 2), source=source)
        assert torch.equal(denoised(tiny, nothing, shorten=(4, 2), source=source), full)


@every_method
def test_a_run_without_guidance_has_one_branch_and_works(tiny: Any, name: str) -> None:
    plain = replace(SPEC, guidance_scale=1.0)
    assert torch.isfinite(run(tiny, name, CASES[name].text, spec=plain)).all()
    if nothing := CASES[name].nothing:
        source = tiny.noise(replace(SPEC, seed=77)) if CASES[name].edits else None
        assert torch.equal(
            denoised(tiny, nothing, spec=plain, source=source),
            denoised(tiny, "", spec=plain, source=source),
        )


@pytest.mark.parametrize("name", PASSES)
def test_skipped_passes_and_sparse_attention_go_together_unchanged(tiny: Any, name: str) -> None:
    both = f"sparse:k=1+{CASES[name].nothing}"
    assert parse(both)
    assert torch.equal(denoised(tiny, both), denoised(tiny, "sparse:k=1"))
    made = denoised(tiny, f"sparse:k=1+{CASES[name].text}")
    assert torch.isfinite(made).all()
    assert not torch.equal(made, denoised(tiny, "sparse:k=1"))


@pytest.mark.parametrize("name", [name for name in NAMES if not CASES[name].whole])
def test_on_flipbook_the_error_is_within_what_is_declared(name: str, full_flipbook: Any) -> None:
    family, full = full_flipbook
    made = denoised(
        family, CASES[name].mild, prompt=FLIPBOOK_PROMPT, spec=FLIPBOOK, **edited(name, full[""])
    )
    assert torch.isfinite(made).all()
    found = error(made, full["edited" if CASES[name].edits else ""])
    assert 0 < found < CASES[name].error


@pytest.mark.thorough  # each makes and decodes whole videos; their own files have smaller ones
@pytest.mark.parametrize("name", [name for name in NAMES if CASES[name].whole])
def test_on_flipbook_the_finished_frames_are_within_what_is_declared(
    name: str, full_flipbook: Any
) -> None:
    family, spec = full_flipbook[0], replace(FLIPBOOK, num_frames=CASES[name].frames)
    full, made = (finished(family, text, spec) for text in ("", CASES[name].mild))
    assert made.shape == full.shape
    assert 0 < error(made, full) < CASES[name].error


def finished(family: Any, text: str, spec: VideoSpec) -> Tensor:
    """Frames (N, rows, columns, 3) of FLIPBOOK_PROMPT made with `text`, float32."""
    installed, point = (
        Installed(family.transformers),
        OperatingPoint(spec.num_inference_steps, text or "full"),
    )
    installed.use(text)
    try:
        ask = Ask(FLIPBOOK_PROMPT, "", spec, point)
        made = generate(family, ask, installed)
        return torch.from_numpy(made.frames).float()
    finally:
        installed.remove()


FLIPBOOK = replace(SPEC, width=64, height=64, fps=16)
FLIPBOOK_PROMPT = "a large red square waits then dashes left on a striped black background"


def edited(name: str, full: Tensor) -> dict[str, Any]:
    """The first frame standing still, as the video to be edited."""
    return {"source": full[:, :, :1].repeat(1, 1, 3, 1, 1)} if CASES[name].edits else {}


@pytest.fixture(scope="module")
def full_flipbook() -> Any:
    """The family, and what it makes with nothing installed: of the prompt alone, and "edited"."""
    family = load_family(locate("flipbook"), "cpu")
    full = {"": denoised(family, "", prompt=FLIPBOOK_PROMPT, spec=FLIPBOOK)}
    still = edited("lipar", full[""])
    full["edited"] = denoised(family, "", prompt=FLIPBOOK_PROMPT, spec=FLIPBOOK, **still)
    return family, full
