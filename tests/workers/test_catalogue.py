"""Finding and describing models from files alone, and refusing those that could run code."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vidplat.domain import ModelRef, VideoSpec
from vidplat.errors import ModelError
from vidplat.methods.model_shape import ProfilePoint
from vidplat.workers import Worker
from vidplat.workers.models import catalogue
from vidplat.workers.models.catalogue import describe_model, list_models, locate


@pytest.fixture
def model(tiny_wan: Path, tmp_path: Path) -> Path:
    """A copy of the tiny Wan to be spoilt."""
    return Path(shutil.copytree(tiny_wan, tmp_path / "model"))


def test_a_directory_is_described_from_its_configs_and_headers(model: Path) -> None:
    ref, shape = describe_model(str(model))

    assert ref.id == str(model) and len(ref.revision) == 16
    assert (shape.family, shape.layers, shape.width, shape.ffn_width) == ("wan", 2, 64, 128)
    assert (shape.patch, shape.temporal_factor, shape.spatial_factor) == ((1, 1, 1), 4, 8)
    assert shape.text_tokens == 16
    assert shape.defaults == VideoSpec(32, 32, 9, 8, 4, 3.0, seed=0)
    assert 1e6 < shape.parameter_bytes < 1e7


def test_the_solver_that_a_model_comes_with_is_known(tiny_wan: Path, tiny_unipc: Path) -> None:
    solvers = [describe_model(str(model))[1].solver for model in (tiny_wan, tiny_unipc)]
    assert solvers == ["FlowMatchEulerDiscreteScheduler", "UniPCMultistepScheduler"]


def test_describing_and_listing_load_no_torch(model: Path) -> None:
    script = (
        "import sys; from vidplat.workers import describe_model, list_models, check_spec;"
        f"describe_model({str(model)!r}); list_models();"
        "sys.exit(any(name in sys.modules for name in ('torch', 'diffusers', 'transformers', "
        "'av', 'cv2', 'ray')))"
    )

    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_a_profile_beside_the_model_is_read(model: Path) -> None:
    point = {"steps_fraction": 0.5, "quality": 0.93, "samples": 8, "note": "unknown key"}
    (model / "profile.json").write_text(json.dumps({"points": [point]}))

    assert catalogue.read_shape(locate(str(model))).profile == (ProfilePoint(0.5, 0.93, samples=8),)


def test_of_an_old_profile_what_is_made_no_more_is_passed_over(model: Path) -> None:
    points = [
        {"steps_fraction": 0.5, "keyframes_fraction": 1.0, "quality": 0.93, "samples": 8},
        {"steps_fraction": 1.0, "keyframes_fraction": 5 / 9, "quality": 0.5, "samples": 8},
        {"steps_fraction": 1.0, "quality": 0.5, "method": "keyframes:5"},
    ]
    (model / "profile.json").write_text(json.dumps({"points": points}))

    assert catalogue.read_shape(locate(str(model))).profile == (ProfilePoint(0.5, 0.93, samples=8),)


@pytest.mark.parametrize("name", ["transformer/config.json", "scheduler/scheduler_config.json"])
def test_the_revision_changes_with_each_file_that_decides_pixels(model: Path, name: str) -> None:
    before = describe_model(str(model))[0]
    describe_model.cache_clear()

    (model / name).write_text((model / name).read_text() + " ")

    assert describe_model(str(model))[0].revision != before.revision


def test_the_revision_does_not_change_with_a_note_or_a_profile(model: Path) -> None:
    before = describe_model(str(model))[0]
    describe_model.cache_clear()

    (model / "README.md").write_text("a note")
    (model / "profile.json").write_text('{"points": []}')

    assert describe_model(str(model))[0] == before


def test_missing_files_are_named(model: Path) -> None:
    (model / "vae" / "config.json").unlink()
    next((model / "transformer").glob("*.safetensors")).unlink()

    with pytest.raises(ModelError, match=r"misses transformer/\*\.safetensors, vae/config\.json"):
        locate(str(model))


def test_a_missing_shard_is_named(model: Path) -> None:
    index = {"weight_map": {"a": "part-1.safetensors", "b": "part-2.safetensors"}}
    (model / "transformer" / "diffusion_pytorch_model.safetensors.index.json").write_text(
        json.dumps(index)
    )

    with pytest.raises(
        ModelError, match=r"misses transformer/part-1\.safetensors, transformer/part-2"
    ):
        locate(str(model))


def test_pickled_weights_are_refused_with_the_reason(model: Path) -> None:
    weights = next((model / "transformer").glob("*.safetensors"))
    weights.rename(weights.with_name("diffusion_pytorch_model.bin"))

    with pytest.raises(ModelError, match=r"pickled weights can run any code and are refused"):
        locate(str(model))


def test_a_model_with_code_of_its_own_is_refused(model: Path) -> None:
    (model / "transformer" / "modeling.py").write_text("print('hello')")

    with pytest.raises(ModelError, match=r"brings its own code \(transformer/modeling.py\)"):
        locate(str(model))


def test_a_config_that_points_at_code_is_refused(model: Path) -> None:
    config = model / "text_encoder" / "config.json"
    config.write_text(
        json.dumps({**json.loads(config.read_text()), "auto_map": {"AutoModel": "x.Y"}})
    )

    with pytest.raises(ModelError, match=r"auto_map in text_encoder/config\.json"):
        locate(str(model))


def test_an_unknown_family_is_refused_with_the_known_ones(model: Path) -> None:
    (model / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')

    with pytest.raises(
        ModelError, match="is a StableDiffusionPipeline; supported are: WanPipeline"
    ):
        locate(str(model))


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "\udcff"])
def test_a_broken_config_is_one_sentence(model: Path, text: str) -> None:
    (model / "vae" / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))

    with pytest.raises(ModelError, match=r"vae/config\.json"):
        describe_model(str(model))


def test_weights_cut_short_are_one_sentence(model: Path) -> None:
    weights = next((model / "vae").glob("*.safetensors"))
    os.truncate(weights, 100)

    with pytest.raises(ModelError, match="not a safetensors file"):
        describe_model(str(model))


def test_weights_of_another_shape_are_one_sentence(model: Path) -> None:
    config = model / "transformer" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "num_attention_heads": 4}))

    with pytest.raises(ModelError, match=r"patch_embedding.weight has 64 rows, needed are 128"):
        describe_model(str(model))


def test_an_unknown_name_is_told_with_the_nearest(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "_embedded_roots", lambda: [model.with_name("flipbook")])

    with pytest.raises(ModelError, match="unknown model 'flipbok': did you mean 'flipbook'"):
        locate("flipbok")


def test_a_hub_id_without_a_network_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    with pytest.raises(ModelError, match=r"Wan-AI/Wan2\.1-T2V-1\.3B-Diffusers"):
        locate("Wan-AI/Wan2.1-T2V-1.3B-Diffusers")


def test_an_embedded_model_may_share_the_parts_of_another(
    model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    edge = tmp_path / "edge"
    edge.mkdir()
    for name in ("transformer", "scheduler"):
        shutil.copytree(model / name, edge / name)
    shutil.copy(model / "model_index.json", edge)
    shared = {part: f"../model/{part}" for part in ("vae", "text_encoder", "tokenizer")}
    (edge / "shares.json").write_text(json.dumps(shared))
    monkeypatch.setattr(catalogue, "_embedded_roots", lambda: [edge, model])

    worker = Worker("edge")
    worker.load()

    assert worker.ref == ModelRef(
        "edge", describe_model("model")[0].revision
    )  # the same files decide the same pixels


def test_the_list_says_what_is_usable_and_what_is_missing(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Path(shutil.copytree(model, model.with_name("whole")))
    shutil.rmtree(model / "text_encoder")
    monkeypatch.setattr(catalogue, "_embedded_roots", lambda: [model, whole])

    broken, fine = (listing for listing in list_models() if listing.origin == "embedded")

    assert (broken.usable, broken.missing) == (
        False,
        ("text_encoder/config.json", "text_encoder/*.safetensors"),
    )
    assert (fine.id, fine.usable, fine.missing) == ("whole", True, ())
    assert "32x32, 9 frames at 8 fps, 4 steps" in fine.detail
