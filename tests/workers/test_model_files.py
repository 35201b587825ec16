"""A model's directory is checked from its files alone before anything is promised of it: each fault
is one sentence that names the file, and what is not loaded does not count."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from vidplat.errors import ModelError
from vidplat.workers import Worker
from vidplat.workers.models.catalogue import describe_model, list_models

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
SHARD = "transformer/diffusion_pytorch_model-00001-of-00002.safetensors"
INDEX = f"{WEIGHTS}.index.json"


@pytest.fixture
def model(tiny_wan: Path, tmp_path: Path) -> Path:
    """A copy of the tiny Wan to be spoilt."""
    describe_model.cache_clear()
    return Path(shutil.copytree(tiny_wan, tmp_path / "model"))


def edited(path: Path, **changes: Any) -> None:
    told = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**told, **changes}), "utf-8")


def sharded(model: Path, **index: Any) -> None:
    """The transformer's weights in two shards with an index, in which `index` overwrites."""
    tensors = load_file(model / WEIGHTS)
    (model / WEIGHTS).unlink()
    names = sorted(tensors)
    placed = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        shard = f"diffusion_pytorch_model-{number:05}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, model / "transformer" / shard)
        placed |= dict.fromkeys(part, shard)
    (model / INDEX).write_text(json.dumps({"weight_map": placed, **index}))


def pointed(path: Path) -> None:
    """What a clone without Git LFS holds instead of a large file."""
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 9\n")


def reheaded(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """A safetensors file with another header before the same data."""
    old = path.read_bytes()
    (length,) = struct.unpack("<Q", old[:8])
    header = json.loads(old[8 : 8 + length])
    change(header)
    new = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(new)) + new + old[8 + length :])


def every_dtype(dtype: str) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        for name in header.keys() - {"__metadata__"}:
            header[name]["dtype"] = dtype

    return change


def cut(path: Path, size: int) -> None:
    os.truncate(path, size)


def linked(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def a_second_shard_of_the_same(model: Path) -> None:
    sharded(model)
    first = model / "transformer" / "diffusion_pytorch_model-00001-of-00002.safetensors"
    placed = json.loads((model / INDEX).read_text())["weight_map"]
    shutil.copy(first, first.with_name("again.safetensors"))
    placed["a.tensor.more"] = "again.safetensors"
    (model / INDEX).write_text(json.dumps({"weight_map": placed}))


def fewer_layers(model: Path) -> None:
    tensors = load_file(model / WEIGHTS)
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("blocks.1.")}
    save_file(kept, model / WEIGHTS)


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    # weights
    "half a download": (lambda m: cut(m / WEIGHTS, 300_000), "300,000 bytes, by its own header"),
    "too long": (
        lambda m: (m / WEIGHTS).write_bytes((m / WEIGHTS).read_bytes() + b"more"),
        "it should have",
    ),
    "zero bytes": (lambda m: cut(m / "vae/diffusion_pytorch_model.safetensors", 0), "it is empty"),
    "quantized": (
        lambda m: reheaded(m / WEIGHTS, every_dtype("I8")),
        "holds values of type I8: weights must be F64, F32, F16, BF16",
    ),
    "another type than its data": (
        lambda m: reheaded(m / WEIGHTS, every_dtype("F16")),
        "types and shapes do not fill",
    ),
    "no header": (lambda m: (m / WEIGHTS).write_bytes(b"PK\3\4" * 99), "not a safetensors file"),
    "a web page for weights": (
        lambda m: (m / WEIGHTS).write_text("<!DOCTYPE html><title>404</title>" * 9),
        "begins with text, as a web page does: fetch it again",
    ),
    "pointers for weights": (
        lambda m: pointed(m / WEIGHTS),
        r"misses transformer/\*\.safetensors .*model\.safetensors .*pointer.*`git lfs pull`",
    ),
    "a pointer for a shard": (
        lambda m: [sharded(m), pointed(m / SHARD)],
        r"misses transformer/.*-00001-of-00002\.safetensors .*`git lfs pull`",
    ),
    "a pointer for a vocabulary": (
        lambda m: pointed(m / "tokenizer/tokenizer.json"),
        r"misses tokenizer/tokenizer\.json .*`git lfs pull`",
    ),
    "shards without their index": (
        lambda m: [sharded(m), (m / INDEX).unlink()],
        r"misses transformer/diffusion_pytorch_model\.safetensors\.index\.json$",
    ),
    "a layer is missing": (fewer_layers, "num_layers 2, and its weights are those of 1"),
    "pickles alone": (
        lambda m: (m / WEIGHTS).rename(m / "transformer/diffusion_pytorch_model.pt"),
        "pickled weights can run any code",
    ),
    "a dangling link": (
        lambda m: linked(m / WEIGHTS, "../blobs/none"),
        "model.safetensors is a link to a missing file",
    ),
    "links in a circle": (
        lambda m: linked(m / WEIGHTS, "diffusion_pytorch_model.safetensors"),
        "is a link that leads back to itself",
    ),
    "a part that links to itself": (
        lambda m: (shutil.rmtree(m / "vae"), (m / "vae").symlink_to("vae")),
        "vae",
    ),
    # shards
    "a missing shard": (
        lambda m: (sharded(m), next((m / "transformer").glob("*2-of*")).unlink()),
        r"misses transformer/diffusion_pytorch_model-00002-of-00002",
    ),
    "a shard outside the folder": (
        lambda m: sharded(m, weight_map={"a": "../vae/diffusion_pytorch_model.safetensors"}),
        "which is no file of its folder",
    ),
    "an absolute shard": (
        lambda m: sharded(m, weight_map={"a": "/etc/passwd"}),
        "names /etc/passwd, which is no file",
    ),
    "a pickled shard": (
        lambda m: sharded(m, weight_map={"a": "weights.bin"}),
        "weights.bin is no safetensors file",
    ),
    "an index of nothing": (lambda m: sharded(m, weight_map={}), "has no weight_map"),
    "a tensor in another shard": (
        lambda m: sharded(
            m, weight_map={"x": "diffusion_pytorch_model-00001-of-00002.safetensors"}
        ),
        "says that x is in",
    ),
    "a shard twice": (a_second_shard_of_the_same, "both hold"),
    "a tensor named twice": (
        lambda m: (sharded(m), (m / INDEX).write_text('{"weight_map": {"a": "x", "a": "y"}}')),
        "'a' stands in it twice",
    ),
    # configs
    "a config that is no JSON": (
        lambda m: (m / "text_encoder/config.json").write_text("{'a': 1}"),
        r"cannot read .*text_encoder/config\.json",
    ),
    "words for numbers": (
        lambda m: edited(m / "transformer/config.json", num_layers="two"),
        "num_layers in transformer/config.json must be a whole number",
    ),
    "a patch of two": (
        lambda m: edited(m / "transformer/config.json", patch_size=[1, 2]),
        "patch_size",
    ),
    "defaults of words": (
        lambda m: edited(m / "defaults.json", width="wide"),
        r"defaults\.json: width is wide",
    ),
    "another network": (
        lambda m: edited(m / "model_index.json", transformer=["diffusers", "WanVACEModel"]),
        "its transformer is a WanVACEModel; supported is WanTransformer3DModel",
    ),
    "a class of nobody": (
        lambda m: edited(m / "vae/config.json", _class_name="AutoencoderOfNobody"),
        "its vae is a AutoencoderOfNobody",
    ),
    "an entry that is no class": (
        lambda m: edited(m / "model_index.json", vae="AutoencoderKLWan"),
        "vae must be a library and a class",
    ),
    "an image model": (
        lambda m: edited(m / "transformer/config.json", in_channels=100),
        "in_channels 100, and the vae's z_dim is 48",
    ),
    "another text encoder": (
        lambda m: edited(m / "text_encoder/config.json", model_type="t5"),
        "is a t5, not a umt5",
    ),
    "code asked for": (
        lambda m: edited(m / "tokenizer/tokenizer_config.json", trust_remote_code=True),
        r"asks for its own code \(trust_remote_code in tokenizer/tokenizer_config",
    ),
    # solvers
    "LCM": (
        lambda m: edited(m / "model_index.json", scheduler=["diffusers", "LCMScheduler"]),
        "its scheduler is LCMScheduler; supported are",
    ),
    "a scheduler of nobody": (
        lambda m: edited(m / "model_index.json", scheduler=["diffusers", "NoSuchScheduler"]),
        "its scheduler is NoSuchScheduler",
    ),
    "UniPC that predicts noise": (
        lambda m: edited(
            m / "model_index.json", scheduler=["diffusers", "UniPCMultistepScheduler"]
        ),
        "must have prediction_type flow_prediction and use_flow_sigmas, found epsilon and False",
    ),
    "noise at every step": (
        lambda m: edited(m / "scheduler/scheduler_config.json", stochastic_sampling=True),
        "new noise at every step",
    ),
    "a shift by size": (
        lambda m: edited(m / "scheduler/scheduler_config.json", use_dynamic_shifting=True),
        "use_dynamic_shifting",
    ),
    # tokenizer, second transformer
    "no vocabulary": (
        lambda m: (m / "tokenizer/tokenizer.json").unlink(),
        r"misses tokenizer/tokenizer\.json",
    ),
    "half a vocabulary": (
        lambda m: cut(m / "tokenizer/tokenizer.json", 100),
        r"tokenizer\.json is not a JSON object",
    ),
    "a boundary without a second": (
        lambda m: edited(m / "model_index.json", boundary_ratio=0.875),
        "boundary_ratio 0.875, which needs a second transformer",
    ),
    "a boundary of words": (
        lambda m: edited(m / "model_index.json", boundary_ratio="high"),
        "must be between 0 and 1",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_from_the_files_alone(model: Path, fault: str) -> None:
    spoil, said = FAULTS[fault]
    spoil(model)
    with pytest.raises(ModelError, match=said):
        describe_model(str(model))


def test_a_part_of_the_weights_may_not_be_read(model: Path) -> None:
    (model / WEIGHTS).chmod(0)
    if os.access(model / WEIGHTS, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(ModelError, match="Permission denied"):
        describe_model(str(model))


def test_where_only_a_variant_is_there_it_is_loaded(model: Path) -> None:
    for part, stem in (
        ("transformer", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
    ):
        plain = model / part / f"{stem}.safetensors"
        tensors = {name: tensor.astype("float16") for name, tensor in load_file(plain).items()}
        save_file(tensors, plain.with_name(f"{stem}.fp16.safetensors"))
        plain.unlink()

    worker = Worker(str(model))
    worker.load()

    assert worker.shape.parameter_bytes > 1e6  # as float32, whatever lies there
    weight = next(worker.loaded.family.transformers[0].parameters())
    assert str(weight.dtype) == "torch.float32"


def test_what_is_not_loaded_does_not_count(model: Path) -> None:
    before = describe_model(str(model))[1].parameter_bytes
    describe_model.cache_clear()
    shutil.copy(model / WEIGHTS, model / "transformer/diffusion_pytorch_model.fp16.safetensors")
    sharded(model)
    for shard in list((model / "transformer").glob("*-of-00002.safetensors")):
        shutil.copy(shard, shard.with_name(shard.name.replace("00002.s", "00004.s")))

    assert describe_model(str(model))[1].parameter_bytes == before


def test_a_pointer_in_place_of_what_is_not_loaded_does_not_count(model: Path) -> None:
    before, _ = describe_model(str(model))
    pointed(model / "transformer/diffusion_pytorch_model.fp16.safetensors")
    assert describe_model(str(model))[0].revision == before.revision


def test_weights_that_the_check_cannot_miss_are_missed_when_loading(model: Path) -> None:
    tensors = load_file(model / WEIGHTS)
    del tensors["blocks.1.attn1.to_q.weight"]
    save_file(tensors, model / WEIGHTS)

    with pytest.raises(ModelError, match=r"lack 1, blocks\.1\.attn1\.to_q\.weight first"):
        Worker(str(model)).load()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("wan.safetensors", "is a single file; a diffusers folder is needed"),
        ("wan.gguf", "is a single file"),
        ("gone", "is a link to a missing folder"),
        ("model/transformer", "has no model_index.json; a pipeline in the layout of diffusers"),
    ],
)
def test_what_is_no_folder_of_a_pipeline_is_told_as_what_it_is(
    model: Path, path: str, said: str
) -> None:
    for name in ("wan.safetensors", "wan.gguf"):
        shutil.copy(model / WEIGHTS, model.parent / name)
    (model.parent / "gone").symlink_to("nowhere")
    with pytest.raises(ModelError, match=said):
        describe_model(str(model.parent / path))


def a_cached(model: Path, home: Path, name: str) -> Path:
    return Path(shutil.copytree(model, home / "hub" / f"models--acme--{name}" / "snapshots" / "a1"))


def test_one_broken_model_of_the_hub_cache_leaves_the_others_listed(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    broken = a_cached(model, tmp_path, "broken")
    linked(broken / WEIGHTS, "../../blobs/none")
    a_cached(model, tmp_path, "whole")

    told = {one.id: one for one in list_models() if one.origin == "hub cache"}

    assert not told["acme/broken"].usable
    assert "is a link to a missing file" in told["acme/broken"].detail
    assert told["acme/whole"].usable


def test_what_the_list_calls_usable_is_found_without_the_network(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    a_cached(model, tmp_path, "whole")  # its folder has no refs

    reference, _ = describe_model("acme/whole")

    assert (reference.id, reference.revision) == ("acme/whole", "a1")
