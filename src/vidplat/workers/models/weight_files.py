"""The weight files of one part of a model, and the JSON beside them, without torch.

Which files are loaded is decided as diffusers and transformers decide it: the plain file or the
shards of its index, and where only a variant is there (fp16, bf16), that. Of a safetensors file the
header is read and the size compared with it. What is wrong is one sentence that names the file.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import struct
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidplat.errors import ModelError, printable

_VARIANTS = ("bf16", "fp16")  # taken before others, where the plain weights are not there
_VALUE_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}  # what weights may be stored as
_LONGEST_HEADER = 100 * 2**20
_POINTER = b"version https://git-lfs"  # how what Git LFS leaves for a file begins


@dataclass(frozen=True)
class Weights:
    """The weight files of one part that are loaded."""

    files: tuple[Path, ...]
    variant: str | None  # None: the plain ones
    shapes: Mapping[str, tuple[int, ...]]  # by tensor

    @property
    def values(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes.values())


def names_in(folder: Path) -> frozenset[str]:
    """Names of what lies in a folder, links to nothing included and Git's pointers to files that
    were not fetched left out; none where there is no folder."""
    if not folder.is_dir():
        return frozenset()
    return frozenset(path.name for path in folder.iterdir() if not is_pointer(path))


def is_pointer(path: Path) -> bool:
    """Whether Git LFS left three lines about a file in its place."""
    if not path.is_file() or path.stat().st_size >= 1024 or not os.access(path, os.R_OK):
        return False
    return path.read_bytes().startswith(_POINTER)


def first_file(names: Collection[str], stem: str) -> tuple[str | None, str | None]:
    """(variant, name) of the weight file or index that is loaded of those that begin with `stem`;
    (None, None): none. transformers looks for one whole file first, diffusers for an index."""
    patterns = [
        rf"{stem}(?:\.(\w+))?\.safetensors",
        rf"{stem}\.safetensors\.index(?:\.(\w+))?\.json",
    ]
    if stem.startswith("diffusion"):
        patterns.reverse()
    found: dict[str | None, str] = {}
    for pattern in patterns:
        for name in sorted(names):
            if match := re.fullmatch(pattern, name):
                found.setdefault(match[1], name)
    order = (None, *_VARIANTS, *sorted(found.keys() - {None}, key=str))
    variant = next((one for one in order if one in found), None)
    return variant, found.get(variant)


def read_weights(folder: Path, stem: str) -> Weights:
    """The weights of a part, each file's header read. Raises `ModelError`."""
    variant, file = first_file(names_in(folder), stem)
    if file is None:
        raise ModelError(f"{printable(folder)} has no {stem}.safetensors")
    if not file.endswith(".json"):
        return Weights((folder / file,), variant, tensors_of(folder / file))
    placed = weight_map(folder / file)
    files = [folder / name for name in sorted(set(placed.values()))]
    shapes: dict[str, tuple[int, ...]] = {}
    owner: dict[str, str] = {}
    for path in files:
        for tensor, shape in tensors_of(path).items():
            if tensor in owner:
                raise ModelError(
                    f"{printable(path, 400)} and {owner[tensor]} both hold "
                    f"{printable(tensor)}: one of them does not belong to the model"
                )
            owner[tensor], shapes[tensor] = path.name, shape
    for tensor, name in placed.items():
        if owner.get(tensor) != name:
            raise ModelError(
                f"{printable(folder / file, 400)} says that {printable(tensor)} is in "
                f"{printable(name)}, and it is not: fetch the model again"
            )
    return Weights(tuple(files), variant, shapes)


def weight_map(index: Path) -> dict[str, str]:
    """Which shard holds each tensor. Raises `ModelError`."""
    placed = read_json(index, unique=True).get("weight_map")
    if not isinstance(placed, dict) or not placed:
        raise ModelError(f"cannot use {printable(index, 400)}: it has no weight_map")
    for name in placed.values():
        if not isinstance(name, str) or Path(name).name != name:
            raise ModelError(
                f"cannot use {printable(index, 400)}: it names {printable(name)}, which is no "
                "file of its folder"
            )
        if not name.endswith(".safetensors"):
            raise ModelError(
                f"cannot use {printable(index, 400)}: {printable(name)} is no safetensors file"
            )
    return placed


def read_json(path: Path, *, unique: bool = False) -> dict[str, Any]:
    """One JSON object; `unique`: without a key that stands twice. Raises `ModelError`."""
    try:
        hook = _without_twins if unique else None
        value = json.loads(path.read_text("utf-8"), object_pairs_hook=hook)
    except OSError as problem:
        raise ModelError(unreadable(path, problem)) from problem
    except (ValueError, RecursionError) as problem:
        raise ModelError(f"cannot read {printable(path, 400)}: {printable(problem)}") from problem
    if not isinstance(value, dict):
        raise ModelError(f"cannot use {printable(path, 400)}: it should hold one JSON object")
    return value


def _without_twins(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{key!r} stands in it twice")
        found[key] = value
    return found


def unreadable(path: Path, problem: OSError) -> str:
    shown = printable(path, 400)
    if problem.errno == errno.ELOOP:
        return f"{shown} is a link that leads back to itself"
    if path.is_symlink() and isinstance(problem, FileNotFoundError):
        return f"{shown} is a link to a missing file: fetch the model again"
    return f"cannot read {shown}: {printable(problem.strerror or problem)}"


def tensors_of(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of a safetensors file's tensors: 8 bytes of length, then that many bytes of JSON, then
    the data, all of it. Raises `ModelError`."""
    shown = printable(path, 400)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(_LONGEST_HEADER, size):
                is_text = struct.pack("<Q", length).decode("latin-1").isprintable()
                begins = "it begins with text, as a web page does: fetch it again"
                raise ValueError(begins if is_text else "its header is longer than the file")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        tensors = {name: (t["dtype"], tuple(t["shape"])) for name, t in header.items()}
        end = max((t["data_offsets"][1] for t in header.values()), default=0)
    except OSError as problem:
        raise ModelError(unreadable(path, problem)) from problem
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, IndexError) as problem:
        why = "it is empty" if size == 0 else printable(problem)
        raise ModelError(f"{shown} is not a safetensors file: {why}") from problem
    if size != 8 + length + end:
        raise ModelError(
            f"{shown} has {size:,} bytes, by its own header it should have {8 + length + end:,}: "
            "it was cut off or damaged; fetch it again"
        )
    odd = sorted({dtype for dtype, _ in tensors.values() if dtype not in _VALUE_BYTES}, key=str)
    if odd:
        raise ModelError(
            f"{shown} holds values of type {printable(odd[0])}: weights must be "
            f"{', '.join(_VALUE_BYTES)}, not quantized ones"
        )
    expected = sum(_VALUE_BYTES[dtype] * math.prod(shape) for dtype, shape in tensors.values())
    if expected != end:
        raise ModelError(f"{shown} is damaged: its header's types and shapes do not fill the file")
    return {name: shape for name, (_, shape) in tensors.items()}
