"""Self-Forcing's weights (arXiv 2506.08009) in diffusers' `WanTransformer3DModel`: names and sizes.

    python -m vidplat.workers.models.self_forcing WEIGHTS.safetensors WAN TARGET [--window SINK
    RECENT]

makes of them, and of the text encoder and autoencoder of the Wan 2.1 pipeline in the folder WAN, a
directory that `vidplat submit --model TARGET` takes like any other.

The released causal Wan 2.1 uses the names of Wan's own repository. Here they become diffusers'; the
network is the same, so nothing but names changes. Wan's `norm3`, the only one with weights, is the
norm before cross-attention, which diffusers calls `norm2`.

Only safetensors are read: the checkpoints are published as pickles, which can run anything when
they are loaded, so they must be converted where they are trusted. A prefix such as `model.` or
`generator_ema.model.` is taken off.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from vidplat.errors import ModelError, printable
from vidplat.methods.blocks import document, read
from vidplat.methods.model_shape import Blocks
from vidplat.workers.models.catalogue import locate
from vidplat.workers.models.model_files import CAUSAL

_OUTSIDE = {
    "patch_embedding": "patch_embedding",
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "head.head": "proj_out",
    "head.modulation": "scale_shift_table",
}
_ATTENTION = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0"}
_ATTENTION |= {"norm_q": "norm_q", "norm_k": "norm_k"}
_IN_BLOCK = {
    **{f"self_attn.{theirs}": f"attn1.{ours}" for theirs, ours in _ATTENTION.items()},
    **{f"cross_attn.{theirs}": f"attn2.{ours}" for theirs, ours in _ATTENTION.items()},
    "norm3": "norm2",
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
    "modulation": "scale_shift_table",
}
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")
_HEAD_WIDTH = 128  # of every Wan model
#: As published: four steps, shift 5, and attention to all that the model has learnt. LIPAR (arXiv
#: 2603.05811) runs it with a sink of 1 and 6 recent frames, which takes about half the work; both
#: fields are the user's to choose.
PUBLISHED = Blocks(frames=3, steps=(1000, 750, 500, 250), shift=5.0, sink=0, recent=21, trained=21)


def diffusers_name(name: str) -> str:
    """Our name of one of their tensors, prefix removed. Raises `ModelError` for other names."""
    found = _BLOCK.fullmatch(name)
    inner, table, start = (
        (found[2], _IN_BLOCK, f"blocks.{found[1]}.") if found else (name, _OUTSIDE, "")
    )
    if inner in table:  # a bare parameter
        return start + table[inner]
    part, _, kind = inner.rpartition(".")
    if part not in table or kind not in ("weight", "bias"):
        raise ModelError(f"{printable(name)!r} is no tensor of a causal Wan 2.1")
    return f"{start}{table[part]}.{kind}"


def converted(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dictionary of theirs as one of diffusers'. Raises `ModelError`."""
    anchor = next((name for name in state if name.endswith("patch_embedding.weight")), None)
    if anchor is None:
        raise ModelError(
            "there is no patch_embedding.weight: these are not the weights of a Wan model"
        )
    prefix = anchor.removesuffix("patch_embedding.weight")
    strange = [name for name in state if not name.startswith(prefix)]
    if strange:
        raise ModelError(
            f"{printable(strange[0])!r} does not begin with {printable(prefix)!r} as the others do"
        )
    return {diffusers_name(name.removeprefix(prefix)): tensor for name, tensor in state.items()}


def sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments of `WanTransformer3DModel` that a converted state dictionary fits."""
    width, channels, *patch = state["patch_embedding.weight"].shape
    layers = 1 + max(int(found[1]) for found in map(_BLOCK.fullmatch, state) if found)
    return {
        "patch_size": tuple(patch),
        "num_attention_heads": width // _HEAD_WIDTH,
        "attention_head_dim": _HEAD_WIDTH,
        "in_channels": channels,
        "out_channels": state["proj_out.weight"].shape[0] // math.prod(patch),
        "text_dim": state["condition_embedder.text_embedder.linear_1.weight"].shape[1],
        "freq_dim": state["condition_embedder.time_embedder.linear_1.weight"].shape[1],
        "ffn_dim": state["blocks.0.ffn.net.0.proj.weight"].shape[0],
        "num_layers": layers,
        "cross_attn_norm": "blocks.0.norm2.weight" in state,
        "qk_norm": "rms_norm_across_heads" if "blocks.0.attn1.norm_q.weight" in state else None,
    }


def load_self_forcing(path: Path) -> Any:
    """The transformer of a safetensors file. Raises `ModelError` for other files and misfits."""
    import torch
    from diffusers import WanTransformer3DModel
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if path.suffix != ".safetensors":
        raise ModelError(
            f"{printable(path.name)} is not a safetensors file: pickles can run anything and "
            "are not read"
        )
    try:
        state = converted(load_file(path))
    except (SafetensorError, OSError) as problem:
        raise ModelError(f"cannot read {printable(path.name)}: {printable(problem)}") from problem
    with torch.device("meta"):
        model = WanTransformer3DModel(**sizes(state))
    missing, unexpected = model.load_state_dict(state, strict=False, assign=True)
    if missing or unexpected:
        told = ", ".join([*missing, *unexpected][:3])
        raise ModelError(f"{printable(path.name)} does not fit its own sizes: {printable(told)}")
    config = model.config
    rope = type(model.rope)  # its tables are computed, not loaded
    model.rope = rope(config.attention_head_dim, config.patch_size, config.rope_max_seq_len)
    return model.eval().requires_grad_(False)


def write(weights: Path, wan: Path, target: Path, blocks: Blocks = PUBLISHED) -> None:
    """A pipeline directory of converted weights and the other parts of the Wan 2.1 pipeline in
    `wan`: hard links where the file system allows it, else copies. Raises `ModelError`."""
    parts = locate(str(wan))
    load_self_forcing(weights).save_pretrained(target / "transformer", safe_serialization=True)
    for part, folder in parts.parts.items():
        if part != "transformer":
            shutil.copytree(folder, target / part, copy_function=_linked, dirs_exist_ok=True)
    shutil.copy(parts.root / "model_index.json", target / "model_index.json")
    (target / CAUSAL).write_text(json.dumps(document(blocks), indent=2) + "\n", encoding="utf-8")


def _linked(source: str, target: str) -> None:
    Path(target).unlink(missing_ok=True)
    try:
        os.link(Path(source).resolve(), target)  # the hub's cache has symbolic links
    except OSError:
        shutil.copy2(source, target)


def main() -> None:
    words = argparse.ArgumentParser(
        prog="python -m vidplat.workers.models.self_forcing",
        description="make a pipeline of Self-Forcing's weights",
    )
    words.add_argument("weights", type=Path, help="the checkpoint as safetensors")
    words.add_argument("wan", type=Path, help="folder of the Wan 2.1 1.3B pipeline")
    words.add_argument("target", type=Path, help="directory that receives the pipeline")
    window = (PUBLISHED.sink, PUBLISHED.recent)
    words.add_argument("--window", type=int, nargs=2, metavar=("SINK", "RECENT"), default=window)
    told = words.parse_args()
    sink, recent = told.window
    blocks = read(document(replace(PUBLISHED, sink=sink, recent=recent)))  # checked
    write(told.weights, told.wan, told.target, blocks)


if __name__ == "__main__":
    main()
