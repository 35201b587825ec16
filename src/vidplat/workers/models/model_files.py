"""What of a model's directory would be loaded, and whether it can be: the one check, without torch.

`checked` reads every config, the header of every weight file that would be loaded and its size
(`weight_files.py`), before anything is promised of the model. What it finds wrong is one sentence
that names the file.

Weights in pickle formats and models that bring their own code are refused, since loading either can
run anything. Not promised: that every single tensor is what a network wants; of those a few shapes
are looked at here, and the others show when a worker loads the model.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vidplat.errors import ModelError, printable
from vidplat.methods.model_shape import EULER, UNIPC
from vidplat.workers.models.weight_files import (
    Weights,
    first_file,
    is_pointer,
    names_in,
    read_json,
    read_weights,
    unreadable,
    weight_map,
)

PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})
FAMILIES: Mapping[str, str] = {"WanPipeline": "wan"}  # by pipeline class; one line per family
CAUSAL_FAMILIES: Mapping[str, str] = {"wan": "causal-wan"}  # of models with a causal.json
CAUSAL = "causal.json"
#: Parts with weights: their class, and how their weight files begin.
NETWORKS: Mapping[str, tuple[str, str]] = {
    "transformer": ("WanTransformer3DModel", "diffusion_pytorch_model"),
    "transformer_2": ("WanTransformer3DModel", "diffusion_pytorch_model"),
    "vae": ("AutoencoderKLWan", "diffusion_pytorch_model"),
    "text_encoder": ("UMT5EncoderModel", "model"),
}
CONFIGS: Mapping[str, str] = {
    **dict.fromkeys(NETWORKS, "config.json"),
    "tokenizer": "tokenizer_config.json",
    "scheduler": "scheduler_config.json",
}
PARTS = tuple(CONFIGS)
_OPTIONAL = ("transformer_2",)
DPM = "DPMSolverMultistepScheduler"
_OWN_CODE = ("auto_map", "trust_remote_code", "custom_pipeline")
_RULE = "only weights and configs are loaded"


@dataclass(frozen=True)
class ModelFiles:
    """Where the parts of a model lie on this machine."""

    id: str
    origin: str
    root: Path
    family: str
    parts: Mapping[str, Path]  # of `PARTS` those that it has
    index: Mapping[str, Any]  # model_index.json
    commit: str | None = None  # of the hub, for models from there
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # by part
    weights: Mapping[str, Weights] = field(default_factory=dict)  # by part


def checked(model_id: str, origin: str, root: Path) -> ModelFiles:
    """The files of a model, complete and safe to load. Raises `ModelError`."""
    name = printable(model_id)
    try:
        return _checked(model_id, origin, root)
    except (OSError, RuntimeError) as problem:  # a folder that cannot be read, links in a circle
        raise ModelError(f"cannot read {name}: {printable(problem)}") from problem


def _checked(model_id: str, origin: str, root: Path) -> ModelFiles:
    name = printable(model_id)
    if not os.path.lexists(root / "model_index.json"):
        raise ModelError(
            f"{name} is not a model directory: it has no model_index.json{_hint(root)}"
        )
    index = read_json(root / "model_index.json")
    kind = str(index.get("_class_name"))
    if kind not in FAMILIES:
        raise ModelError(f"{name} is a {printable(kind)}; supported are: {', '.join(FAMILIES)}")
    _refuse_code(name, root, index)
    family = FAMILIES[kind]
    if (root / CAUSAL).is_file():
        family = CAUSAL_FAMILIES[family]
    parts = parts_of(origin, root, index)
    if missing := missing_files(root, parts):
        raise ModelError(f"{name} misses {', '.join(missing)}{_note(parts)}")
    configs = {part: read_json(folder / CONFIGS[part]) for part, folder in parts.items()}
    weights = {
        part: read_weights(folder, NETWORKS[part][1])
        for part, folder in parts.items()
        if part in NETWORKS
    }
    located = ModelFiles(
        model_id, origin, root, family, parts, index, configs=configs, weights=weights
    )
    problems = (_wrong_classes, _wrong_solver, _wrong_tokenizer, _wrong_boundary, _unfit)
    for problem in problems:
        if why := problem(located):
            raise ModelError(f"{name} cannot be used: {why}")
    return located


def _hint(root: Path) -> str:
    if (root / "snapshots").is_dir():
        return "; it is a folder of the hub cache: give the model's id, or a folder in snapshots/"
    if (root / "config.json").is_file() or any(path.suffix in PICKLES for path in root.glob("*")):
        return "; a pipeline in the layout of diffusers is needed, not a part or another layout"
    return ""


# --- which files ----------------------------------------------------------------------------------


def parts_of(origin: str, root: Path, index: Mapping[str, Any]) -> dict[str, Path]:
    """The folder of each part that the pipeline has, in the model or shared with another one."""
    shares = root / "shares.json"
    shared = read_json(shares) if origin == "embedded" and shares.is_file() else {}
    return {
        part: (root / shared.get(part, part)).resolve()
        for part in PARTS
        if part in shared or _class_in(index, part) is not None
    }


def _class_in(index: Mapping[str, Any], part: str) -> str | None:
    """The class that model_index.json names for a part; None: it has none. Raises `ModelError`."""
    told = index.get(part)
    if told is None or told == [None, None]:
        return None
    if isinstance(told, list) and len(told) == 2 and all(isinstance(one, str) for one in told):
        return str(told[1])
    raise ModelError(
        f"cannot use model_index.json: {part} must be a library and a class, not "
        f"{printable(told, 60)}"
    )


def missing_files(root: Path, parts: Mapping[str, Path]) -> tuple[str, ...]:
    """Paths, relative to the model, that are needed and not there."""
    absent = []
    for part, config in CONFIGS.items():
        if part in _OPTIONAL and part not in parts:
            continue
        folder = parts.get(part, root / part)
        names = names_in(folder)
        if config not in names:
            absent.append(f"{part}/{config}")
        if part == "tokenizer" and not any(_is_vocabulary(name) for name in names):
            absent.append("tokenizer/tokenizer.json")
        if part not in NETWORKS:
            continue
        stem = NETWORKS[part][1]
        _, file = first_file(names, stem)
        if file is None:
            shard = re.compile(rf"{stem}.*-of-\d+\.safetensors")
            is_sharded = any(map(shard.fullmatch, names))
            index = f"{stem}.safetensors.index.json"
            absent.append(f"{part}/{index if is_sharded else '*.safetensors'}")
        elif file.endswith(".json"):
            listed = set(weight_map(folder / file).values())
            absent += sorted(f"{part}/{name}" for name in listed if name not in names)
    return tuple(absent)


def _is_vocabulary(name: str) -> bool:
    return name == "tokenizer.json" or name.endswith(".model")


def _note(parts: Mapping[str, Path]) -> str:
    """What lies there instead of files that are missing."""
    paths = [path for folder in parts.values() for path in folder.glob("*")]
    if pointers := [path.name for path in paths if is_pointer(path)]:
        return f" (of {pointers[0]} it has Git LFS's pointer alone: run `git lfs pull` there)"
    pickles = [path.name for path in paths if path.suffix in PICKLES]
    if not pickles:
        return ""
    return (
        f" (it has {pickles[0]}, but pickled weights can run any code and are refused: "
        "convert them to safetensors)"
    )


def _refuse_code(name: str, root: Path, index: Mapping[str, Any]) -> None:
    """Models are data. One that brings Python files, or points its config at some, is refused."""
    if code := sorted(root.rglob("*.py")):
        raise ModelError(f"{name} brings its own code ({code[0].relative_to(root)}); {_RULE}")
    for config in (root / "model_index.json", *sorted(root.glob("*/*config.json"))):
        told = read_json(config)
        if asked := [key for key in _OWN_CODE if told.get(key)]:
            where = f"{asked[0]} in {config.relative_to(root)}"
            raise ModelError(f"{name} asks for its own code ({where}); {_RULE}")


# --- what they say --------------------------------------------------------------------------------


def _wrong_classes(located: ModelFiles) -> str:
    """Parts of another class than the one that would be made of them."""
    for part, (kind, _) in NETWORKS.items():
        if part not in located.parts:
            continue
        told = (
            _class_in(located.index, part),
            located.configs[part].get("_class_name"),  # of diffusers
        )
        if wrong := [one for one in told if one not in (None, kind)]:
            return f"its {part} is a {printable(wrong[0])}; supported is {kind}"
    encoder = located.configs["text_encoder"].get("model_type", "umt5")
    return "" if encoder == "umt5" else f"its text_encoder is a {printable(encoder)}, not a umt5"


def _wrong_solver(located: ModelFiles) -> str:
    """A scheduler that would not make a Wan's video, or not the same one twice."""
    kind, config = _class_in(located.index, "scheduler"), located.configs["scheduler"]
    if kind not in (EULER, UNIPC, DPM):
        return f"its scheduler is {printable(kind)}; supported are {EULER}, {UNIPC}, {DPM}"
    if config.get("use_dynamic_shifting"):
        return f"its {kind} has use_dynamic_shifting, whose shift no Wan pipeline tells"
    if config.get("stochastic_sampling") or "sde" in str(config.get("algorithm_type")):
        return f"its {kind} adds new noise at every step, so no video could be made again"
    told = config.get("prediction_type", "epsilon"), bool(config.get("use_flow_sigmas"))
    if kind != EULER and told != ("flow_prediction", True):
        return (
            f"its {kind} must have prediction_type flow_prediction and use_flow_sigmas, found "
            f"{printable(told[0])} and {told[1]}"
        )
    return ""


def _wrong_tokenizer(located: ModelFiles) -> str:
    """A vocabulary that cannot be read."""
    path = located.parts["tokenizer"] / "tokenizer.json"
    if not os.path.lexists(path):
        there = find_spec("sentencepiece") is not None
        return "" if there else "its tokenizer has no tokenizer.json, and needs sentencepiece"
    try:
        text = path.read_bytes().strip()  # some are of many MB: parsing would take a while
    except OSError as problem:
        return unreadable(path, problem)
    return "" if text[:1] + text[-1:] == b"{}" else f"{printable(path)} is not a JSON object"


def _wrong_boundary(located: ModelFiles) -> str:
    """A Wan 2.2 of which a half is missing, or that is to be made block by block."""
    ratio = located.index.get("boundary_ratio")
    if located.family not in FAMILIES.values() and (
        ratio is not None or located.index.get("expand_timesteps")
    ):
        return (
            f"it is a Wan 2.2 with a {CAUSAL}: only models like Wan 2.1 can be made block by block"
        )
    if ratio is None:
        return ""
    if not isinstance(ratio, int | float) or not 0 < ratio < 1:
        return f"boundary_ratio in model_index.json must be between 0 and 1, not {printable(ratio)}"
    if "transformer_2" not in located.parts:
        return (
            f"model_index.json has boundary_ratio {ratio:g}, which needs a second transformer, and "
            "transformer_2 is not there"
        )
    return ""


def _unfit(located: ModelFiles) -> str:
    """Weights of other sizes than their config's, or parts that do not go together."""
    channels = whole(located, "vae", "z_dim", 16)
    text = whole(located, "text_encoder", "d_model", 512)
    for key in ("latents_mean", "latents_std"):
        told = located.configs["vae"].get(key)
        if told is not None and (not isinstance(told, list) or len(told) != channels):
            return f"vae/config.json must have {channels} {key}, one for each channel"
    for part in ("transformer", "transformer_2"):
        if part not in located.parts:
            continue
        size = {key: whole(located, part, key, usual) for key, usual in _TRANSFORMER.items()}
        width = size["num_attention_heads"] * size["attention_head_dim"]
        fits = {
            "in_channels": (size["in_channels"], channels, "the vae's z_dim"),
            "out_channels": (size["out_channels"], channels, "the vae's z_dim"),
            "text_dim": (size["text_dim"], text, "the text encoder's d_model"),
        }
        for key, (found, needed, of) in fits.items():
            if found != needed:
                return f"{part}/config.json has {key} {found}, and {of} is {needed}"
        if why := _unlike(located, part, "blocks", size["num_layers"]):
            return why
        first = {"patch_embedding.weight": width, "blocks.0.ffn.net.0.proj.weight": size["ffn_dim"]}
        for tensor, rows in first.items():
            shape = located.weights[part].shapes.get(tensor, (0,))
            if shape[:1] != (rows,):
                return (
                    f"the weights of {part} do not fit its config: {tensor} has {shape[0]} rows, "
                    f"needed are {rows}"
                )
    layers = whole(located, "text_encoder", "num_layers", 8)
    return _unlike(located, "text_encoder", r"encoder\.block", layers)


#: Of a transformer's config, with what diffusers takes where it says nothing.
_TRANSFORMER = {
    "num_attention_heads": 40,
    "attention_head_dim": 128,
    "num_layers": 40,
    "ffn_dim": 13824,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 4096,
}


def _unlike(located: ModelFiles, part: str, blocks: str, layers: int) -> str:
    """Why the weights of a part are not those of so many blocks; "" when they are."""
    found = {
        int(match[1])
        for tensor in located.weights[part].shapes
        if (match := re.match(rf"{blocks}\.(\d+)\.", tensor))
    }
    if found == set(range(layers)):
        return ""
    return (
        f"{part}/config.json has num_layers {layers}, and its weights are those of {len(found)}: "
        "fetch the model again"
    )


def whole(located: ModelFiles, part: str, key: str, usual: int) -> int:
    """A whole number above 0 of a part's config; `usual` where it says nothing."""
    value = located.configs[part].get(key)
    value = usual if value is None else value
    if type(value) is not int or not 0 < value < 2**31:
        raise ModelError(
            f"cannot use {printable(located.id)}: {key} in {part}/{CONFIGS[part]} must be a whole "
            f"number above 0, not {printable(value, 60)}"
        )
    return value
