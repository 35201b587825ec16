"""From a model's files to a loaded family; `family.py` is what all of them look like."""

from __future__ import annotations

from contextlib import nullcontext

import torch

from vidplat.errors import ModelError, OutOfMemoryError, printable
from vidplat.workers import devices
from vidplat.workers.models.causal_wan import CausalWanFamily
from vidplat.workers.models.family import Family
from vidplat.workers.models.model_files import ModelFiles
from vidplat.workers.models.wan import WanFamily
from vidplat.workers.quick_import import without_extras

_FAMILIES = {family.name: family for family in (WanFamily, CausalWanFamily)}


def weight_bytes(located: ModelFiles, device: str) -> int:
    """What the weights take once loaded: float32, but for transformers and text encoder on CUDA."""
    return sum(_part_bytes(located, device))


def _part_bytes(located: ModelFiles, device: str) -> list[int]:
    narrow = 2 if device.startswith("cuda") else 4
    return [
        each.values * (4 if part == "vae" else narrow) for part, each in located.weights.items()
    ]


def _fits_in_turns(located: ModelFiles, device: str, free: int) -> bool:
    """Whether each part has room on the device when the others wait in the CPU's memory."""
    sizes = _part_bytes(located, device)
    is_elsewhere = device != "cpu" and located.family == WanFamily.name
    return is_elsewhere and max(sizes) < free and sum(sizes) < devices.free_bytes("cpu")


def load_family(located: ModelFiles, device: str) -> Family:
    """Load a located model on `device`. Raises `ModelError`; `OutOfMemoryError`, or torch's own,
    where there is no room for it."""
    need, free = weight_bytes(located, device), devices.free_bytes(device)
    in_turns = need > free and _fits_in_turns(located, device, free)
    if need > free and not in_turns:  # a process that takes more is killed, without a word
        kind = "in bfloat16" if device.startswith("cuda") else "in float32"
        raise OutOfMemoryError(
            f"the weights of {printable(located.id)} take {need / 1e9:.3g} GB {kind}, and {device} "
            f"has {free / 1e9:.3g} GB free: take a larger machine or a smaller model"
        )
    with nullcontext() if device.startswith("cuda") else without_extras():
        try:
            return _FAMILIES[located.family].load(located, device, in_turns=in_turns)
        except torch.OutOfMemoryError:
            raise
        except Exception as problem:  # of many kinds; all mean that these files are not usable
            reason = printable((str(problem).strip() or type(problem).__name__).splitlines()[0])
            raise ModelError(f"cannot load {printable(located.id)}: {reason}") from problem
