"""Which models can be used, where they are, and what the scheduler must know of them. No torch.

An id is one of three things, tried in this order:

1. an embedded model: a directory of `vidplat/models_data/`, shipped with the package;
2. a local directory in the layout of a diffusers pipeline (`model_index.json`, one folder per
   part);
3. a hub id `owner/name`, read from the local hub cache or downloaded into it (`hub.py`).

Everything is read from JSON files and safetensors headers. Weights in pickle formats and models
that bring their own code are refused, since loading either can run anything. An embedded model may
say in `shares.json` that a part lies in another one ({"vae": "../flipbook/vae"}), so that shared
weights are stored once.

Files of ours that may lie beside `model_index.json`, all optional:
`defaults.json`  the VideoSpec a row gets where it says nothing, e.g. {"width": 64,
                 "num_frames": 33};
`profile.json`   {"points": [...]}, the fields of `ProfilePoint`, measured for this model; see also
                 `measured`;
`causal.json`    the model makes its frames block by block (`methods.blocks`): sets the family.

Not promised: that weights fit the configs. That shows when a worker loads them.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from vidplat import measured
from vidplat.domain import ModelRef, VideoSpec
from vidplat.errors import ModelError, printable
from vidplat.methods import blocks
from vidplat.methods.language import is_known
from vidplat.methods.model_shape import Blocks, ModelShape, ProfilePoint

PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})
FAMILIES: Mapping[str, str] = {"WanPipeline": "wan"}  # by pipeline class; one line per family
CAUSAL_FAMILIES: Mapping[str, str] = {"wan": "causal-wan"}  # of models with a causal.json
CAUSAL = "causal.json"
PARTS = ("transformer", "transformer_2", "vae", "text_encoder", "tokenizer", "scheduler")
LONGEST_TEXT = 512  # tokens; what WanPipeline pads to
FAMILY_DEFAULTS = VideoSpec(  # those of Wan 2.1 1.3B, the smallest model of its makers
    width=832, height=480, num_frames=81, fps=16, num_inference_steps=50, guidance_scale=5.0, seed=0
)
_WHOLE_FILE_BYTES = 256 * 2**20  # larger weight files are hashed in part, see `_fingerprint`


@dataclass(frozen=True)
class ModelListing:
    """One line of `vidplat models`."""

    id: str
    origin: str  # embedded, directory, hub cache
    usable: bool
    missing: tuple[str, ...]  # files that are needed and not there
    detail: str  # size and defaults when usable, else the reason


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


# --- the two questions asked from outside ---------------------------------------------------------


def list_models() -> list[ModelListing]:
    """Embedded models and those in the local hub cache, usable or not, without the network."""
    from vidplat.workers.models import hub

    found = [(path.name, "embedded", path) for path in _embedded_roots()]
    found += [(name, "hub cache", path) for name, path in hub.cached_pipelines()]
    return [_listing(name, origin, root) for name, origin, root in found]


@lru_cache(maxsize=32)
def describe_model(model_id: str) -> tuple[ModelRef, ModelShape]:
    """The exact weights of `model_id`, and what counts their work. Raises `ModelError`."""
    located = locate(model_id)
    shape, revision = read_shape(located), located.commit or _revision(located)
    # What the user measured goes before what the model came with.
    profile = _profile(measured.folder(revision)) or shape.profile
    return ModelRef(model_id, revision), replace(shape, profile=profile)


def searched_masks(model_id: str, latent_frames: int) -> str:
    """SHA-256 of the searched masks that are here for videos of so many latent frames, or "".

    Of each transformer the one that a worker here takes: the user's own before that of the model.
    """
    reference, _ = describe_model(model_id)
    beside = locate(model_id).parts["transformer"].parent
    found: dict[str, Path] = {}
    for folder in (beside, measured.folder(reference.revision)):
        files = (folder / measured.MASKS).glob(f"*-F{latent_frames}.json")
        found |= {path.name: path for path in files}
    hashes = [measured.content_sha256(_json(path)) for _, path in sorted(found.items())]
    together = "".join(hashes)
    return together if len(hashes) < 2 else hashlib.sha256(together.encode()).hexdigest()


def locate(model_id: str) -> ModelFiles:
    """The files of `model_id`, complete and safe to load. Raises `ModelError`."""
    embedded = {path.name: path for path in _embedded_roots()}
    if model_id in embedded:
        return _checked(model_id, "embedded", embedded[model_id])
    with suppress(OSError, RuntimeError, ValueError):  # too long, a home of nobody, a NUL
        directory = Path(model_id).expanduser()
        if directory.is_dir():
            return _checked(model_id, "directory", directory)
    from vidplat.workers.models import hub

    if hub.looks_like_id(model_id) and not model_id.startswith((".", "/", "~")):
        root = hub.snapshot(model_id)
        return replace(_checked(model_id, "hub", root), commit=root.name)
    near = difflib.get_close_matches(model_id, embedded, n=1, cutoff=0.5)
    hint = f"there are: {', '.join(sorted(embedded)) or 'none embedded'};"
    hint = f"did you mean {near[0]!r}?" if near else hint
    raise ModelError(
        f"unknown model {printable(model_id)!r}: {hint} a local directory or a hub id "
        "(owner/name) also works"
    )


def read_shape(located: ModelFiles) -> ModelShape:
    """`ModelShape` from the config files of a model. Raises `ModelError` for unreadable ones."""
    denoiser = _json(located.parts["transformer"] / "config.json")
    vae = _json(located.parts["vae"] / "config.json")
    heads, head_width = (
        int(denoiser.get(name, usual))
        for name, usual in (("num_attention_heads", 40), ("attention_head_dim", 128))
    )
    patch = tuple(int(n) for n in denoiser.get("patch_size", (1, 2, 2)))
    in_blocks = read_blocks(located)
    if in_blocks is not None and patch[0] != 1:
        raise ModelError(
            f"{printable(located.id)} has tokens of several latent frames: no blocks can be "
            "made of them"
        )
    return ModelShape(
        family=located.family,
        layers=int(denoiser.get("num_layers", 40)),
        width=heads * head_width,
        ffn_width=int(denoiser.get("ffn_dim", 13824)),
        text_tokens=text_tokens(located),
        patch=(patch[0], patch[1], patch[2]),
        temporal_factor=int(vae.get("scale_factor_temporal", 4)),
        spatial_factor=int(vae.get("scale_factor_spatial", 8)),
        parameter_bytes=sum(_float32_bytes(path) for path in _weight_files(located)),
        defaults=_defaults(located.root, in_blocks),
        profile=_profile(located.root),
        blocks=in_blocks,
    )


def read_blocks(located: ModelFiles) -> Blocks | None:
    """The settings of a block-causal model; None of others. Raises `ModelError`."""
    path = located.root / CAUSAL
    if not path.is_file():
        return None
    try:
        return blocks.read(_json(path))
    except ValueError as problem:
        raise ModelError(f"cannot use {printable(path)}: {problem}") from problem


def text_tokens(located: ModelFiles) -> int:
    """Length that prompts are padded or cut to, in tokens."""
    said = _json(located.parts["tokenizer"] / "tokenizer_config.json").get("model_max_length")
    return LONGEST_TEXT if said is None else int(min(float(said), LONGEST_TEXT))  # or 1e30


# --- finding and checking files -------------------------------------------------------------------


def _embedded_roots() -> list[Path]:
    home = Path(str(files("vidplat"))) / "models_data"
    return sorted(index.parent for index in home.glob("*/model_index.json"))


def _checked(model_id: str, origin: str, root: Path) -> ModelFiles:
    """A located model, after the checks that need no weights."""
    name = printable(model_id)
    if not (root / "model_index.json").is_file():
        raise ModelError(f"{name} is not a model directory: it has no model_index.json")
    index = _json(root / "model_index.json")
    kind = str(index.get("_class_name"))
    if kind not in FAMILIES:
        raise ModelError(f"{name} is a {printable(kind)}; supported are: {', '.join(FAMILIES)}")
    _refuse_code(name, root, index)
    family = FAMILIES[kind]
    if (root / CAUSAL).is_file():
        family = CAUSAL_FAMILIES[family]
        if index.get("boundary_ratio") is not None or index.get("expand_timesteps"):
            raise ModelError(
                f"{name} is a Wan 2.2 with a {CAUSAL}: only models like Wan 2.1 can be made "
                "block by block"
            )
    shares = root / "shares.json"
    shared = _json(shares) if origin == "embedded" and shares.is_file() else {}
    located = ModelFiles(model_id, origin, root, family, _parts(root, index, shared), index)
    if missing := missing_files(located):
        raise ModelError(f"{name} misses {', '.join(missing)}{_pickle_note(located)}")
    return located


def _parts(root: Path, index: Mapping[str, Any], shared: Mapping[str, str] = {}) -> dict[str, Path]:
    """The folder of each part that the pipeline has, in the model or `shared` with another."""
    return {
        part: (root / shared.get(part, part)).resolve()
        for part in PARTS
        if part in shared or (index.get(part) or [None])[0] is not None
    }


def missing_files(located: ModelFiles) -> tuple[str, ...]:
    """Paths, relative to the model, that are needed and not there."""
    needed = {
        part: ["config.json"] for part in PARTS if part != "transformer_2" or part in located.parts
    }
    needed |= {"tokenizer": ["tokenizer_config.json"], "scheduler": ["scheduler_config.json"]}
    absent = []
    for part, names in needed.items():
        folder = located.parts.get(part, located.root / part)
        absent += [f"{part}/{name}" for name in names if not (folder / name).is_file()]
        if part in ("tokenizer", "scheduler"):
            continue
        shards = list(folder.glob("*.safetensors.index.json"))
        if shards:
            listed = set(_json(shards[0]).get("weight_map", {}).values())
            absent += sorted(f"{part}/{name}" for name in listed if not (folder / name).is_file())
        elif not any(folder.glob("*.safetensors")):
            absent.append(f"{part}/*.safetensors")
    return tuple(absent)


def _pickle_note(located: ModelFiles) -> str:
    pickles = [
        path.name
        for folder in located.parts.values()
        for path in folder.glob("*")
        if path.suffix in PICKLES
    ]
    if not pickles:
        return ""
    return (
        f" (it has {pickles[0]}, but pickled weights can run any code and are refused: "
        "convert them to safetensors)"
    )


def _refuse_code(name: str, root: Path, index: Mapping[str, Any]) -> None:
    """Models are data. One that brings Python files, or points its config at some, is refused."""
    rule = "only weights and configs are loaded"
    if code := sorted(root.rglob("*.py")):
        raise ModelError(f"{name} brings its own code ({code[0].relative_to(root)}); {rule}")
    for config in (root / "model_index.json", *sorted(root.glob("*/*config.json"))):
        if "auto_map" in _json(config):
            where = f"auto_map in {config.relative_to(root)}"
            raise ModelError(f"{name} asks for its own code ({where}); {rule}")


def _listing(name: str, origin: str, root: Path) -> ModelListing:
    try:
        located = _checked(name, origin, root)
        shape = read_shape(located)
    except ModelError as problem:
        return ModelListing(name, origin, False, _missing_of(root), str(problem))
    spec = shape.defaults
    size = (
        f"{spec.width}x{spec.height}, {spec.num_frames} frames at {spec.fps} fps, "
        f"{spec.num_inference_steps} steps"
    )
    if shape.blocks is not None:
        size += f", blocks of {shape.blocks.frames} latent frames"
    return ModelListing(
        name, origin, True, (), f"{shape.parameter_bytes / 2**20:.0f} MiB as float32; {size}"
    )


def _missing_of(root: Path) -> tuple[str, ...]:
    if not (root / "model_index.json").is_file():
        return ("model_index.json",)
    try:
        index = _json(root / "model_index.json")
    except ModelError:
        return ()
    return missing_files(ModelFiles(root.name, "", root, "", _parts(root, index), index))


# --- reading them ---------------------------------------------------------------------------------


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as problem:
        raise ModelError(f"cannot read {printable(path)}: {printable(problem)}") from problem
    if not isinstance(value, dict):
        raise ModelError(f"cannot use {printable(path)}: it should hold one JSON object")
    return value


def _defaults(root: Path, in_blocks: Blocks | None) -> VideoSpec:
    usual = FAMILY_DEFAULTS
    if in_blocks is not None:  # distilled, as a rule: few steps, and guidance is in the weights
        usual = replace(usual, num_inference_steps=len(in_blocks.steps), guidance_scale=1.0)
    path = root / "defaults.json"
    if not path.is_file():
        return usual
    known = {field.name for field in fields(VideoSpec)} - {"seed"}
    return replace(usual, **{key: value for key, value in _json(path).items() if key in known})


def _profile(root: Path) -> tuple[ProfilePoint, ...]:
    """The points of a folder's `profile.json`, without those made in a way that is gone."""
    path = root / "profile.json"
    if not path.is_file():
        return ()
    known = {field.name for field in fields(ProfilePoint)}
    try:
        rows = _json(path)["points"]
        return tuple(
            ProfilePoint(**{key: value for key, value in row.items() if key in known})
            for row in rows
            if is_known(row.get("method", "")) and row.get("keyframes_fraction", 1.0) >= 1.0
        )
    except (KeyError, TypeError, AttributeError) as problem:
        told = f"cannot use {printable(path)}: it should hold a list `points`"
        raise ModelError(told) from problem


def _weight_files(located: ModelFiles) -> Iterator[Path]:
    for folder in located.parts.values():
        yield from sorted(folder.glob("*.safetensors"))


def _header(path: Path) -> dict[str, Any]:
    """The JSON header of a safetensors file: 8 bytes of length, then that many bytes of JSON."""
    with path.open("rb") as file:
        try:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > 100 * 2**20:
                raise ValueError("its header is too long")
            header = json.loads(file.read(length))
        except (struct.error, ValueError) as problem:
            raise ModelError(
                f"{printable(path)} is not a safetensors file: {printable(problem)}"
            ) from problem
    return dict(header)


def _float32_bytes(path: Path) -> int:
    """Bytes of the file's tensors once loaded as float32, as on a CPU."""
    return sum(
        4 * math.prod(tensor["shape"])
        for name, tensor in _header(path).items()
        if name != "__metadata__"
    )


def _revision(located: ModelFiles) -> str:
    """16 hex digits that change with what decides pixels: weights, configs, tokenizer."""
    digest = hashlib.sha256()
    for part, folder in sorted(located.parts.items()):
        for path in sorted(folder.iterdir()):
            if path.suffix in (".json", ".safetensors", ".model", ".txt"):
                digest.update(f"{part}/{path.name}\0".encode())
                digest.update(_fingerprint(path))
    if (located.root / CAUSAL).is_file():
        digest.update(_fingerprint(located.root / CAUSAL))
    return digest.hexdigest()[:16]


def _fingerprint(path: Path) -> bytes:
    """SHA-256 of size and content; of a file over 256 MiB, of 64 evenly spaced MiB of it (seconds,
    not minutes)."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        if size <= _WHOLE_FILE_BYTES:
            digest.update(file.read())
        else:
            for piece in range(64):
                file.seek((size - 2**20) * piece // 63)
                digest.update(file.read(2**20))
    return digest.digest()
