"""The search for a mask per layer: what is measured, what is chosen, and for which runs its file
holds.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.methods.on_model.tiny import a_tiny_pair, a_tiny_transformer, answer
from vidplat import measured
from vidplat.domain import ModelRef, VideoSpec
from vidplat.errors import MethodRefused, ModelError, SpecError, UsageError
from vidplat.methods.installed import Installed
from vidplat.methods.language import parse
from vidplat.methods.protocol import Grid, Run
from vidplat.methods.seams.attention import linked, masked_attention
from vidplat.methods.seams.layouts import layout_of
from vidplat.methods.seams.solver_choice import EulerScheduler
from vidplat.methods.solver import Solver
from vidplat.methods.vdit import mask_file, tiles
from vidplat.methods.vdit.mask_file import LayerMask, Masks
from vidplat.methods.vdit.tiling import Tiling, tile_mask
from vidplat.workers.models.catalogue import locate
from vidplat.workers.models.family import Family
from vidplat.workers.models.loading import load_family
from vidplat.workers.survey.calibration_prompts import SCENES, SHAPES, calibration_prompts
from vidplat.workers.survey.mask_search import Wanted, budgeted, recorded, search, within

# errors of two layers: the first is easy, the second is hard
ERRORS = {1: (0.10, 0.40), 2: (0.05, 0.30), 3: (0.02, 0.06)}
PROMPTS = ["a red circle moves left on dark", "a green square moves right slowly"]
SPEC = VideoSpec(
    width=32, height=32, num_frames=17, fps=8, num_inference_steps=6, guidance_scale=3.0, seed=0
)
REFERENCE = ModelRef("tiny", "0123456789abcdef")


@pytest.fixture(scope="module")
def family(tiny_wan: Path) -> Family:
    """A random Wan of two layers; 17 frames are 5 latent ones of 16 tokens."""
    return load_family(locate(str(tiny_wan)), "cpu")


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIDPLAT_MEASURED", str(tmp_path / "measured"))
    return measured.folder(REFERENCE.revision) / "masks"


def some_masks(network: Any, *, ks: tuple[int, ...] = (1, 2, 5), **changes: Any) -> Masks:
    """Of the tiny transformers: three layers, five frames of 24 tokens."""
    made = Masks(
        model="tiny",
        revision="0123456789abcdef",
        transformer=mask_file.revision_of(network),
        part="transformer",
        frames=5,
        per_frame=24,
        threshold=0.1,
        solver="euler",
        shift=3.0,
        sigmas=(0.9, 0.5),
        prompts=2,
        metric="relative",
        is_sequential=False,
        layers=tuple(LayerMask(k, 0.0 if k == 5 else 0.05) for k in ks),
        errors={1: (0.05, 0.2, 0.3), 2: (0.02, 0.05, 0.2)},
    )
    return replace(made, **changes)


def install(masks: Masks, folder: Path) -> Path:
    path = folder / mask_file.file_name(masks.transformer, masks.frames)
    mask_file.save(masks, path)
    return path


def a_run(frames: int = 5, shift: float = 3.0) -> Run:
    return Run(
        Solver(EulerScheduler(shift=shift), 4, "cpu"),
        Grid(frames, 4, 6),
        branches=2,
        guidance_scale=3.0,
    )


def searched() -> Any:
    return parse("sparse:masks=searched")[0].install()


# --- choice ---------------------------------------------------------------------------------------


def test_a_layer_gets_the_sparsest_mask_within_the_threshold() -> None:
    assert within(ERRORS, 9, 0.06) == (2, 3)
    assert within(ERRORS, 9, 0.05) == (2, 9)


def test_no_error_allowed_leaves_all_full_and_any_error_makes_all_sparsest() -> None:
    assert within(ERRORS, 9, 0.0) == (9, 9)
    assert within(ERRORS, 9, math.inf) == (1, 1)


def test_a_larger_threshold_is_never_denser() -> None:
    bent = {1: (0.1, 0.3), 2: (0.2, 0.1), 3: (0.05, 0.2)}  # errors need not fall with k
    for errors in (ERRORS, bent):
        found = [tiles.mean_density(9, within(errors, 9, r / 100)) for r in range(60)]
        assert found == sorted(found, reverse=True)


def test_a_budget_spends_error_where_it_saves_most() -> None:
    """F = 9: k = 1, 2, 3 keep 25, 39, 51 of 81 tiles, so they save 56, 42, 30. Error in thousandths
    per tile saved:

    from (9, 9)   layer 0 to 3: 20/30 = 0.7 (to 2: 1.2, to 1: 1.8); layer 1 to 3: 60/30 = 2
    from (3, 9)   layer 1 to 3: 2; layer 0 to 2: 30/12 = 2.5 (to 1: 80/26 = 3.1)
    from (3, 3)   layer 0 to 2: 2.5; then to 1: 50/14 = 3.6; then layer 1 to 1: 340/26 = 13 (to 2:
                  240/12 = 20)
    """
    walk = [budgeted(ERRORS, 9, kept / 162) for kept in (162, 161, 131, 101, 89, 75, 50)]
    assert walk == [(9, 9), (3, 9), (3, 3), (2, 3), (1, 3), (1, 1), (1, 1)]
    with pytest.raises(SpecError, match=r"sparser than a density of 0\.309, 0\.2 was asked for"):
        budgeted(ERRORS, 9, 0.2)


def test_wishes_that_contradict_each_other_are_refused() -> None:
    for wrong in (
        {"metric": "psnr"},
        {"threshold": -0.1},
        {"threshold": math.nan},
        {"is_sequential": True, "metric": "output"},
        {"is_sequential": True, "density": 0.5},
    ):
        with pytest.raises(UsageError):
            Wanted(**wrong)  # type: ignore[arg-type]


def test_calibration_prompts_repeat_when_more_are_wanted() -> None:
    assert calibration_prompts(True, 2) == list(SHAPES[:2])
    assert calibration_prompts(False, 18) == [*SCENES, *SCENES[:2]]


# --- search on a real model -----------------------------------------------------------------------


def test_calls_are_recorded_at_four_noise_levels_of_every_trajectory(family: Family) -> None:
    """6 steps in four parts: their middles are steps 0.75, 2.25, 3.75, 5.25, rounded down."""
    (samples,) = recorded(family, PROMPTS, SPEC, family.scheduler, lambda *told: None)

    assert len(samples) == 2 * 4 * 2  # prompts, noise levels, branches
    assert [sample.place.step for sample in samples[:8]] == [0, 0, 2, 2, 3, 3, 5, 5]
    assert {sample.place.branch for sample in samples} == {"cond", "uncond"}
    assert samples[0].sigma == 1.0 and samples[0].place.grid == Grid(5, 4, 4)
    assert not torch.equal(
        samples[0].kwargs["hidden_states"], samples[8].kwargs["hidden_states"]
    )  # another seed
    assert not any(
        hasattr(module, "_diffusers_hook") for module in family.transformers[0].modules()
    )


def test_the_measured_error_is_that_of_attention_under_the_explicit_mask(family: Family) -> None:
    (masks,) = search(family, REFERENCE, PROMPTS[:1], SPEC, Wanted(0.1))

    model = family.transformers[0]
    layout = layout_of(model)
    due = {k: [0.0, 0.0] for k in (1, 2)}

    def compare(call: Any, rest: Any) -> Any:
        full, turned = rest(call), call.rotated()
        for k, sums in due.items():
            mask = tile_mask(Tiling(5, 16, k))
            made = masked_attention(turned.query, turned.key, turned.value, mask)
            sums[call.layer] += (
                float((made - full).norm() / full.norm()) / 8
            )  # noise levels, branches
        return full

    (samples,) = recorded(family, PROMPTS[:1], SPEC, family.scheduler, lambda *told: None)
    with torch.inference_mode(), linked(layout.attentions(model), layout.processor, compare):
        for sample in samples:
            model(*sample.args, **sample.kwargs)
    for k, sums in due.items():
        assert masks.errors[k] == pytest.approx(sums, rel=1e-4)
    assert (masks.frames, masks.per_frame, masks.solver, masks.shift) == (5, 16, "euler", 3.0)
    assert len(masks.sigmas) == 4 and masks.threshold == 0.1 and masks.model == "tiny"
    assert masks.transformer == mask_file.revision_of(model)


def test_a_search_is_deterministic_and_leaves_the_model_as_it_was(family: Family) -> None:
    model = family.transformers[0]
    before = [type(attention.processor) for attention in layout_of(model).attentions(model)]
    told: list[tuple[str, int, int]] = []

    first = search(
        family, REFERENCE, PROMPTS[:1], SPEC, Wanted(0.1), on_step=lambda *step: told.append(step)
    )

    assert search(family, REFERENCE, PROMPTS[:1], SPEC, Wanted(0.1)) == first
    assert [type(attention.processor) for attention in layout_of(model).attentions(model)] == before
    assert told[0] == ("sampling", 1, 6) and told[-1] == ("measuring", 8, 8)


@pytest.mark.parametrize(
    "wanted",
    [
        Wanted(metric="absolute"),
        Wanted(metric="output"),
        Wanted(is_sequential=True),
        Wanted(is_sequential=True, metric="absolute"),
    ],
    ids=str,
)
def test_every_variant_goes_from_all_full_to_all_sparsest(family: Family, wanted: Wanted) -> None:
    for threshold, ks in ((0.0, (5, 5)), (math.inf, (1, 1))):
        (masks,) = search(
            family, REFERENCE, PROMPTS[:1], SPEC, replace(wanted, threshold=threshold)
        )
        assert masks.ks == ks
        assert [layer.error for layer in masks.layers] == (
            [0.0, 0.0] if ks == (5, 5) else list(masks.errors[1])
        )


def test_in_sequence_a_layer_is_measured_behind_sparse_ones(family: Family) -> None:
    """The first layer is measured alone either way; the second one sees what the first, sparse,
    makes."""
    (alone,) = search(family, REFERENCE, PROMPTS[:1], SPEC, Wanted(math.inf))
    (behind,) = search(family, REFERENCE, PROMPTS[:1], SPEC, Wanted(math.inf, is_sequential=True))

    assert behind.errors[1][0] == pytest.approx(alone.errors[1][0], rel=1e-5)
    assert behind.errors[1][1] != pytest.approx(alone.errors[1][1], rel=1e-5)


def test_a_density_takes_the_place_of_the_threshold(family: Family) -> None:
    (masks,) = search(family, REFERENCE, PROMPTS[:1], SPEC, Wanted(density=0.8))
    assert masks.density <= 0.8 and masks.threshold is None


def test_masks_are_searched_with_the_solver_that_will_be_used(family: Family) -> None:
    other = parse("unipc:5")[0].scheduler(family.scheduler)
    (masks,) = search(family, REFERENCE, PROMPTS[:1], SPEC, Wanted(), other)
    assert (masks.solver, masks.shift) == ("unipc", 5.0)


def test_one_frame_leaves_nothing_to_search(family: Family) -> None:
    with pytest.raises(SpecError, match="leave nothing out"):
        search(family, REFERENCE, PROMPTS, replace(SPEC, num_frames=1), Wanted())


# --- the file -------------------------------------------------------------------------------------


def test_a_file_comes_back_as_it_was_written(tmp_path: Path) -> None:
    masks = some_masks(a_tiny_transformer("wan").model)
    path = install(masks, tmp_path / "new" / "folder")

    assert mask_file.load(path) == masks
    written = json.loads(path.read_text())
    assert written["layers"][0] == {"k": 1, "error": 0.05} and written["frames"] == 5
    assert [one.name for one in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda facts: facts.pop("layers"),
        lambda facts: facts.update(layers=[{"k": 9, "error": 0}]),
        lambda facts: facts.update(layers=[]),
        lambda facts: facts.update(format=2),
        lambda facts: facts.update(extra=1),
        lambda facts: facts.update(errors=[1]),
    ],
)
def test_a_file_that_is_something_else_is_refused_with_its_name(tmp_path: Path, spoil: Any) -> None:
    path = install(some_masks(a_tiny_transformer("wan").model), tmp_path)
    facts = json.loads(path.read_text())
    spoil(facts)
    path.write_text(json.dumps(facts))

    with pytest.raises(ModelError, match=f"cannot use the masks of .*{path.name}.*profile masks"):
        mask_file.load(path)


def test_a_revision_tells_weights_and_configs_apart_and_not_dtypes() -> None:
    noisy, clean = a_tiny_pair()
    same = a_tiny_transformer("wan").model

    assert mask_file.revision_of(noisy.model) == mask_file.revision_of(same)
    assert mask_file.revision_of(noisy.model) != mask_file.revision_of(clean.model)
    assert mask_file.revision_of(same.to(torch.bfloat16)) == mask_file.revision_of(noisy.model)


def test_each_layer_gets_its_own_k(own_folder: Path) -> None:
    twin = a_tiny_transformer("wan")
    stock = answer(twin)
    for ks, same_as in (((2, 2, 2), "sparse:k=2"), ((5, 5, 5), ""), ((1, 2, 5), None)):
        install(some_masks(twin.model, ks=ks), own_folder)
        method = searched()
        with method.applied_to(twin.model):
            assert method.refusal(twin.model, a_run()) == ""
            made = answer(twin)
        if same_as == "":
            assert torch.equal(made, stock)
        elif same_as:
            with parse(same_as)[0].install().applied_to(twin.model):
                assert torch.equal(made, answer(twin))
        else:
            assert method.k_at(twin.model, 3, 5, 1, 0) == 2


def test_the_users_own_masks_come_before_those_beside_the_model_as_with_profiles(
    own_folder: Path, tmp_path: Path
) -> None:
    twin = a_tiny_transformer("wan")
    twin.model.save_pretrained(tmp_path / "tiny" / "transformer")
    loaded = type(twin.model).from_pretrained(tmp_path / "tiny" / "transformer")
    install(some_masks(loaded, ks=(2, 2, 2)), tmp_path / "tiny" / "masks")
    assert mask_file.find(loaded, 3, 5)[0].ks == (2, 2, 2)  # type: ignore[union-attr]

    path = install(some_masks(loaded, ks=(1, 1, 1)), own_folder)

    assert path == mask_file.users_file(some_masks(loaded))
    for revision in ("", REFERENCE.revision):
        found, _ = mask_file.find(loaded, 3, 5, revision=revision)
        assert found is not None and found.ks == (1, 1, 1)
    # a worker that knows its model's revision does not take what was searched under another one
    assert mask_file.find(loaded, 3, 5, revision="another")[0].ks == (2, 2, 2)  # type: ignore[union-attr]


def test_the_hash_of_masks_is_that_of_their_file_however_it_is_laid_out(own_folder: Path) -> None:
    masks = some_masks(a_tiny_transformer("wan").model)
    path = install(masks, own_folder)

    assert masks.sha256 == measured.content_sha256(json.loads(path.read_text()))
    assert mask_file.load(path).sha256 == masks.sha256
    assert some_masks(a_tiny_transformer("wan").model, ks=(1, 1, 5)).sha256 != masks.sha256


def test_the_method_tells_the_masks_that_it_used(own_folder: Path) -> None:
    twin = a_tiny_transformer("wan")
    masks = some_masks(twin.model)
    install(masks, own_folder)
    installed = Installed([twin.model], REFERENCE.revision)

    installed.use("sparse:masks=searched")
    installed.begin(a_run())
    (told,) = installed.files()
    assert (told["kind"], told["sha256"], told["model_revision"]) == (
        "masks",
        masks.sha256,
        REFERENCE.revision,
    )
    assert (told["part"], told["transformer"], told["latent_frames"]) == (
        "transformer",
        masks.transformer,
        5,
    )

    installed.use("sparse:k=2")
    installed.begin(a_run())
    assert installed.files() == []
    installed.remove()


def test_without_masks_the_method_says_what_it_needs(own_folder: Path) -> None:
    twin = a_tiny_transformer("wan")
    told = searched().refusal(twin.model, a_run())
    assert "needs searched masks for 5 latent frames" in told and "none are there" in told
    assert "vidplat profile masks MODEL" in told and "masks=uniform" in told

    install(some_masks(twin.model), own_folder)
    assert "found are some for 5 frames" in searched().refusal(twin.model, a_run(frames=7))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"transformer": "f" * 16, "model": "another"},
            "searched for another (transformer ffffffffffffffff, 3 layers)",
        ),
        ({"layers": (LayerMask(1, 0.1),) * 2}, "2 layers), loaded is"),
        ({"frames": 9}, "searched for 9 latent frames, this video has 5"),
        (
            {"shift": 5.0},
            "searched with euler at shift 5, this one is solved with euler at shift 3",
        ),
        (
            {"solver": "unipc"},
            "searched with unipc at shift 3, this one is solved with euler at shift 3",
        ),
    ],
)
def test_masks_of_another_model_length_or_solver_are_refused(
    own_folder: Path, changes: dict[str, Any], told: str
) -> None:
    """A file that bears the right name and holds the wrong thing, as after a copy by hand."""
    twin = a_tiny_transformer("wan")
    masks = some_masks(twin.model, **changes)
    path = own_folder / mask_file.file_name(mask_file.revision_of(twin.model), 5)
    mask_file.save(masks, path)

    refused = searched().refusal(twin.model, a_run())

    assert told in refused and str(path) in refused and "vidplat profile masks MODEL" in refused


def test_another_size_of_frame_is_no_reason_to_refuse(own_folder: Path) -> None:
    twin = a_tiny_transformer("wan")
    install(some_masks(twin.model, per_frame=1560), own_folder)
    assert searched().refusal(twin.model, a_run()) == ""


def test_a_pipeline_that_asks_nobody_meets_the_refusal_at_its_first_step() -> None:
    twin = a_tiny_transformer("wan")
    with (
        searched().applied_to(twin.model),
        pytest.raises(MethodRefused, match="needs searched masks for 5 latent frames"),
    ):
        answer(twin)
