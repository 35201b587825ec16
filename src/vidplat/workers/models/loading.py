"""From a model's files to a loaded family; `family.py` is what all of them look like."""

from __future__ import annotations

from contextlib import nullcontext

import torch

from vidplat.errors import ModelError, printable
from vidplat.workers.models.causal_wan import CausalWanFamily
from vidplat.workers.models.family import Family
from vidplat.workers.models.model_files import ModelFiles
from vidplat.workers.models.wan import WanFamily
from vidplat.workers.quick_import import without_extras

_FAMILIES = {family.name: family for family in (WanFamily, CausalWanFamily)}


def load_family(located: ModelFiles, device: str) -> Family:
    """Load a located model on `device`. Raises `ModelError`, or torch's out-of-memory error."""
    with nullcontext() if device.startswith("cuda") else without_extras():
        try:
            return _FAMILIES[located.family].load(located, device)
        except torch.OutOfMemoryError:
            raise
        except Exception as problem:  # of many kinds; all mean that these files are not usable
            reason = printable((str(problem).strip() or type(problem).__name__).splitlines()[0])
            raise ModelError(f"cannot load {printable(located.id)}: {reason}") from problem
