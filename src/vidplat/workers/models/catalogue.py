"""Which models can be used, where they are, and what the scheduler must know of them. No torch.

An id is one of three things, tried in this order:

1. an embedded model: a directory of `vidplat/models_data/`, shipped with the package;
2. a local directory in the layout of a diffusers pipeline (`model_index.json`, one folder per
   part);
3. a hub id `owner/name`, read from the local hub cache or downloaded into it (`hub.py`).

Everything is read from JSON files and safetensors headers, and checked before (`model_files.py`).
An embedded model may say in `shares.json` that a part lies in another one ({"vae":
"../flipbook/vae"}), so that shared weights are stored once.

Files of ours that may lie beside `model_index.json`, all optional:
`defaults.json`  the VideoSpec a row gets where it says nothing, e.g. {"width": 64,
                 "num_frames": 33};
`profile.json`   {"points": [...]}, the fields of `ProfilePoint`, measured for this model; see also
                 `measured`;
`causal.json`    the model makes its frames block by block (`methods.blocks`): sets the family.
"""

from __future__ import annotations

import difflib
import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import lru_cache, partial
from importlib.resources import files
from pathlib import Path

from vidplat import measured
from vidplat.domain import ModelRef, VideoSpec
from vidplat.errors import ModelError, printable
from vidplat.methods import blocks
from vidplat.methods.language import is_known
from vidplat.methods.model_shape import Blocks, ModelShape, ProfilePoint
from vidplat.workers.models.model_files import (
    CAUSAL,
    ModelFiles,
    checked,
    missing_files,
    parts_of,
    whole,
)
from vidplat.workers.models.weight_files import read_json

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
    hashes = [measured.content_sha256(read_json(path)) for _, path in sorted(found.items())]
    together = "".join(hashes)
    return together if len(hashes) < 2 else hashlib.sha256(together.encode()).hexdigest()


def locate(model_id: str) -> ModelFiles:
    """The files of `model_id`, complete and safe to load. Raises `ModelError`."""
    embedded = {path.name: path for path in _embedded_roots()}
    if model_id in embedded:
        return checked(model_id, "embedded", embedded[model_id])
    with suppress(OSError, RuntimeError, ValueError):  # too long, a home of nobody, a NUL
        directory = Path(model_id).expanduser()
        if directory.is_dir():
            return checked(model_id, "directory", directory)
        if os.path.lexists(directory):
            raise ModelError(_no_folder(model_id, directory))
    from vidplat.workers.models import hub

    if hub.looks_like_id(model_id) and not model_id.startswith((".", "/", "~")):
        root = hub.snapshot(model_id)
        return replace(checked(model_id, "hub", root), commit=root.name)
    near = difflib.get_close_matches(model_id, embedded, n=1, cutoff=0.5)
    hint = f"there are: {', '.join(sorted(embedded)) or 'none embedded'};"
    hint = f"did you mean {near[0]!r}?" if near else hint
    raise ModelError(
        f"unknown model {printable(model_id)!r}: {hint} a local directory or a hub id "
        "(owner/name) also works"
    )


def _no_folder(model_id: str, path: Path) -> str:
    shown = printable(model_id)
    if path.is_symlink() and not path.exists():
        return f"{shown} is a link to a missing folder"
    return (
        f"{shown} is a single file; a diffusers folder is needed, with a model_index.json and a "
        "folder for each part"
    )


def read_shape(located: ModelFiles) -> ModelShape:
    """`ModelShape` from the config files of a model. Raises `ModelError` for unreadable ones."""
    config = partial(whole, located, "transformer")
    patch = located.configs["transformer"].get("patch_size", (1, 2, 2))
    if len(patch) != 3 or any(type(size) is not int or size < 1 for size in patch):
        raise ModelError(
            f"cannot use {printable(located.id)}: patch_size in transformer/config.json must be "
            f"three whole numbers above 0, not {printable(patch, 60)}"
        )
    in_blocks = read_blocks(located)
    if in_blocks is not None and patch[0] != 1:
        raise ModelError(
            f"{printable(located.id)} has tokens of several latent frames: no blocks can be "
            "made of them"
        )
    return ModelShape(
        family=located.family,
        layers=config("num_layers", 40),
        width=config("num_attention_heads", 40) * config("attention_head_dim", 128),
        ffn_width=config("ffn_dim", 13824),
        text_tokens=text_tokens(located),
        patch=(patch[0], patch[1], patch[2]),
        temporal_factor=whole(located, "vae", "scale_factor_temporal", 4),
        spatial_factor=whole(located, "vae", "scale_factor_spatial", 8),
        parameter_bytes=4 * sum(each.values for each in located.weights.values()),
        defaults=_defaults(located.root, in_blocks),
        profile=_profile(located.root),
        blocks=in_blocks,
        solver=str(located.index["scheduler"][1]),
    )


def read_blocks(located: ModelFiles) -> Blocks | None:
    """The settings of a block-causal model; None of others. Raises `ModelError`."""
    path = located.root / CAUSAL
    if not path.is_file():
        return None
    try:
        return blocks.read(read_json(path))
    except ValueError as problem:
        raise ModelError(f"cannot use {printable(path)}: {problem}") from problem


def text_tokens(located: ModelFiles) -> int:
    """Length that prompts are padded or cut to, in tokens."""
    said = located.configs["tokenizer"].get("model_max_length")
    if said is None:
        return LONGEST_TEXT
    if type(said) not in (int, float) or not said >= 1:
        raise ModelError(
            f"cannot use {printable(located.id)}: model_max_length in tokenizer_config.json must "
            f"be a number of 1 or more, not {printable(said, 60)}"
        )
    return int(min(said, LONGEST_TEXT))  # some say 1e30


# --- finding and checking files -------------------------------------------------------------------


def _embedded_roots() -> list[Path]:
    home = Path(str(files("vidplat"))) / "models_data"
    return sorted(index.parent for index in home.glob("*/model_index.json"))


def _listing(name: str, origin: str, root: Path) -> ModelListing:
    try:
        located = checked(name, origin, root)
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
        index = read_json(root / "model_index.json")
        return missing_files(root, parts_of("", root, index))
    except (ModelError, OSError):
        return ()


# --- reading them ---------------------------------------------------------------------------------


def _defaults(root: Path, in_blocks: Blocks | None) -> VideoSpec:
    usual = FAMILY_DEFAULTS
    if in_blocks is not None:  # distilled, as a rule: few steps, and guidance is in the weights
        usual = replace(usual, num_inference_steps=len(in_blocks.steps), guidance_scale=1.0)
    path = root / "defaults.json"
    if not path.is_file():
        return usual
    known = {field.name for field in fields(VideoSpec)} - {"seed"}
    told = {key: value for key, value in read_json(path).items() if key in known}
    for key, value in told.items():
        allowed = (int, float) if key == "guidance_scale" else (int,)
        if type(value) not in allowed or not 0 <= value < 2**31:
            raise ModelError(f"cannot use {printable(path)}: {key} is {printable(value, 60)}")
    return replace(usual, **told)


def _profile(root: Path) -> tuple[ProfilePoint, ...]:
    """The points of a folder's `profile.json`, without those made in a way that is gone."""
    path = root / "profile.json"
    if not path.is_file():
        return ()
    known = {field.name for field in fields(ProfilePoint)}
    try:
        rows = read_json(path)["points"]
        return tuple(
            ProfilePoint(**{key: value for key, value in row.items() if key in known})
            for row in rows
            if is_known(row.get("method", "")) and row.get("keyframes_fraction", 1.0) >= 1.0
        )
    except (KeyError, TypeError, AttributeError) as problem:
        told = f"cannot use {printable(path)}: it should hold a list `points`"
        raise ModelError(told) from problem


def _revision(located: ModelFiles) -> str:
    """16 hex digits that change with what decides pixels: weights, configs, tokenizer."""
    digest = hashlib.sha256()
    for part, folder in sorted(located.parts.items()):
        for path in sorted(folder.iterdir()):
            if path.suffix in (".json", ".safetensors", ".model", ".txt") and path.is_file():
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
