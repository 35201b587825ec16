"""The file of a layer-wise mask search: what is in it, where it lies, and for which runs it holds.

A method text cannot name a file, since texts come with prompt files from anywhere. Masks are found
by what they were searched for instead: in `masks/` of the user's folder of the model's revision
(`vidplat.measured`), then in `masks/` of the model's own folder. A file is named by the revision of
the transformer and the number of frames, `3f2a...-F21.json`; its content is checked against both.

Masks hold for one transformer, one number of latent frames and one solver with its shift; the
number of tokens per frame may differ. The search is `workers/survey/mask_search.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vidplat import measured
from vidplat.errors import ModelError, printable
from vidplat.files import write_whole
from vidplat.methods.seams.solver_choice import shift_of, solver_name
from vidplat.methods.vdit import tiles

FORMAT = 1
_SAMPLES = 64  # values of each weight that decide the revision


@dataclass(frozen=True)
class LayerMask:
    """One layer: its reference frames, and the error measured for them (0 where k = F)."""

    k: int
    error: float


@dataclass(frozen=True)
class Masks:
    """One searched mask per layer, and all that it was searched with."""

    model: str  # as it was named
    revision: str  # of the model's files
    transformer: str  # `revision_of` the network itself
    part: str  # transformer, or transformer_2 of Wan 2.2
    frames: int  # F
    per_frame: int  # P
    threshold: float | None  # r; None when a budget decided
    solver: str  # euler, unipc, ...
    shift: float
    sigmas: tuple[float, ...]
    prompts: int
    metric: str  # relative, absolute or output; see mask_search
    is_sequential: bool  # each layer was measured with those before it already sparse
    layers: tuple[LayerMask, ...]
    errors: Mapping[int, tuple[float, ...]]  # k -> error in each layer, as measured

    @property
    def ks(self) -> tuple[int, ...]:
        return tuple(layer.k for layer in self.layers)

    @property
    def density(self) -> float:
        """Mean share of tiles that is kept."""
        return tiles.mean_density(self.frames, self.ks)

    @property
    def sha256(self) -> str:
        """Of the content, as `measured.content_sha256` of the file."""
        return measured.content_sha256(_document(self))

    def unfit(self, transformer: str, layers: int, frames: int, scheduler: Any = None) -> str:
        """Why these masks do not hold for such a run; "" when they do. None: an unknown solver."""
        if (self.transformer, len(self.layers)) != (transformer, layers):
            return (
                f"these masks were searched for {printable(self.model)} (transformer "
                f"{printable(self.transformer)}, {len(self.layers)} layers), loaded is transformer "
                f"{transformer} with {layers}: {_SEARCH}"
            )
        if self.frames != frames:
            return (
                f"these masks were searched for {self.frames} latent frames, this video has "
                f"{frames}: {_SEARCH} with its --num-frames"
            )
        if scheduler is None:
            return ""
        kind, shift = solver_name(scheduler), shift_of(scheduler)
        if self.solver != kind or abs(self.shift - shift) > 1e-6:
            return (
                f"these masks were searched with {printable(self.solver)} at shift {self.shift:g}, "
                f"this one is solved with {kind} at shift {shift:g}: {_SEARCH} with --solver, or "
                "take the solver of the search"
            )
        return ""


_SEARCH = "run `vidplat profile masks MODEL`"


# --- where ----------------------------------------------------------------------------------------


def file_name(transformer: str, frames: int) -> str:
    return f"{transformer}-F{frames}.json"


def users_file(masks: Masks) -> Path:
    """Where searched masks go unless they are told elsewhere. Not created here."""
    name = file_name(masks.transformer, masks.frames)
    return measured.folder(masks.revision) / measured.MASKS / name


def folders(model: nn.Module, revision: str = "") -> Iterator[Path]:
    """Where masks of a transformer may lie, the first one first. `revision`: of the model's files;
    "" where nobody knows, as in a stock pipeline: then those of any revision serve, since the
    transformer is checked anyway."""
    if revision:
        yield measured.folder(revision) / measured.MASKS
    else:
        yield from sorted(measured.root().glob(f"*/{measured.MASKS}"))
    loaded_from = str(getattr(model.config, "_name_or_path", "") or "")
    if loaded_from and Path(loaded_from).is_dir():
        yield Path(loaded_from).resolve().parent / measured.MASKS


def find(
    model: nn.Module, layers: int, frames: int, scheduler: Any = None, revision: str = ""
) -> tuple[Masks | None, str]:
    """The masks of a transformer for videos of so many latent frames, or None and why.

    With a `scheduler` its kind and shift are checked too. `revision` as in `folders`. Raises
    `ModelError` for a file that cannot be read.
    """
    transformer = revision_of(model)
    others: list[str] = []
    for folder in folders(model, revision):
        path = folder / file_name(transformer, frames)
        if path.is_file():
            found = load(path)
            why = found.unfit(transformer, layers, frames, scheduler)
            return (None, f"{printable(path)}: {why}") if why else (found, "")
        there = sorted(folder.glob(f"{transformer}-F*.json"))
        others += [printable(path.stem.partition("-F")[2]) for path in there]
    found_are = f"found are some for {' and '.join(others)} frames" if others else "none are there"
    return None, (
        f"it needs searched masks for {frames} latent frames of this transformer ({transformer}), "
        f"{found_are}: {_SEARCH} with the --num-frames of the video, or use masks=uniform"
    )


def revision_of(model: nn.Module) -> str:
    """16 hex digits that tell configs and weights of transformers apart, not devices or dtypes.

    From the config, and of every weight its name, its shape and up to 64 evenly spaced values, as
    bfloat16: weights that are stored in float32 and loaded in bfloat16 count as the same.
    """
    config: Mapping[str, Any] = model.config  # type: ignore[assignment]
    facts = {key: value for key, value in sorted(config.items()) if not key.startswith("_")}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    for name, weight in sorted(model.named_parameters()):
        flat = weight.detach().reshape(-1)
        # Chosen on the CPU, since devices round differently.
        places = torch.linspace(0, flat.numel() - 1, min(_SAMPLES, flat.numel())).long()
        values = flat[places.to(flat.device)].to("cpu", torch.bfloat16).float()
        digest.update(f"{name}{tuple(weight.shape)}".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()[:16]


# --- reading and writing --------------------------------------------------------------------------


def save(masks: Masks, path: Path) -> None:
    """Write a file, folders above it included; the old one stays whole until the new one is."""
    write_whole(path, [(json.dumps(_document(masks), indent=1) + "\n").encode()])


def _document(masks: Masks) -> dict[str, Any]:
    return {"format": FORMAT, **asdict(masks)}


def load(path: Path) -> Masks:
    """Read a file. Raises `ModelError` with the path when it is not what `save` writes."""
    try:
        written = json.loads(path.read_text("utf-8"))
        if written.pop("format") != FORMAT:
            raise ValueError("it is of another format")
        written["layers"] = layers = tuple(
            LayerMask(int(one["k"]), float(one["error"])) for one in written["layers"]
        )
        errors = written["errors"].items()
        written["errors"] = {int(k): tuple(map(float, row)) for k, row in errors}
        masks = Masks(**{**written, "sigmas": tuple(written["sigmas"])})
        if not layers or not all(1 <= layer.k <= masks.frames for layer in layers):
            raise ValueError(f"a layer needs between 1 and {masks.frames} reference frames")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as problem:
        reason = printable(problem) or type(problem).__name__
        raise ModelError(
            f"cannot use the masks of {printable(path)}: {reason}. Delete it, or {_SEARCH}"
        ) from problem
    return masks
