"""The sparsest mask of each layer that a model can do with, searched once and kept for its runs.

Watches the model make videos of the given length. `--method sparse:masks=searched` finds what is
written here, for this model, number of frames and solver.

Left to others: the search itself (`workers.survey.mask_search`), the file and where it lies
(`methods.vdit.mask_file`), and how it is shown (the command line).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidplat.errors import UsageError
from vidplat.methods.kinds import Seam
from vidplat.methods.language import parse
from vidplat.methods.vdit import tiles

if TYPE_CHECKING:
    from vidplat.methods.vdit.mask_file import LayerMask, Masks


@dataclass(frozen=True)
class Search:
    """What to search for, and how."""

    model: str
    threshold: float = 0.05  # r: most error a layer's mask may make
    density: float | None = None  # most mean share of kept tiles, in place of the threshold
    prompts: int = 16  # trajectories to watch
    metric: str = "relative"
    is_sequential: bool = False
    spec: Mapping[str, int] = field(default_factory=dict)  # VideoSpec fields unlike the model's own
    solver: str | None = None  # method text; None: the model's own
    device: str = "cpu"
    threads: int = 1
    out: Path | None = None  # a file; None: the user's folder of the model


@dataclass(frozen=True)
class Found:
    """The masks of one transformer, where they were written, and what they save at best."""

    masks: Masks
    path: Path
    step_speedup: float  # of a whole step

    @property
    def attention_speedup(self) -> float:
        return 1 / self.masks.density

    @property
    def least_error(self) -> float:
        """Of any mask in any layer."""
        return min(min(row) for row in self.masks.errors.values())

    @property
    def place_of_its_own(self) -> Path:
        """Where the method looks for them."""
        from vidplat.methods.vdit.mask_file import users_file

        return users_file(self.masks)

    def kept(self, layer: LayerMask) -> float:
        """The share of tiles that a layer keeps."""
        return tiles.density(self.masks.frames, layer.k)


def search_masks(wanted: Search, on_step: Callable[[str, int, int], None]) -> tuple[Found, ...]:
    """Search and write masks for each transformer. Raises UsageError, SpecError and ModelError
    before the model is loaded. `on_step` hears a phase, and the forwards done and in all."""
    from vidplat.workers import check_spec, describe_model
    from vidplat.workers.models.catalogue import locate

    reference, shape = describe_model(wanted.model)
    spec = replace(shape.defaults, **wanted.spec)
    check_spec(shape, spec)
    _check(wanted)

    import torch

    from vidplat.methods.vdit import mask_file
    from vidplat.workers.models.loading import load_family
    from vidplat.workers.survey import mask_search
    from vidplat.workers.survey.calibration_prompts import calibration_prompts

    rule = mask_search.Wanted(wanted.threshold, wanted.density, wanted.metric, wanted.is_sequential)
    torch.set_num_threads(wanted.threads)
    located = locate(wanted.model)
    texts = calibration_prompts(located.origin == "embedded", wanted.prompts)
    family = load_family(located, wanted.device)
    solver = _scheduler(wanted.solver, family.scheduler)
    found = mask_search.search(family, reference, texts, spec, rule, solver, on_step)
    written = []
    for masks in found:
        path = _path(masks, wanted.out) if wanted.out else mask_file.users_file(masks)
        try:
            mask_file.save(masks, path)
        except OSError as problem:
            raise UsageError(
                f"cannot write {str(path)!r}: {problem.strerror}; name another place by --out"
            ) from problem
        share = shape.block.attention_share(masks.frames * masks.per_frame)
        written.append(Found(masks, path, tiles.step_speedup(share, masks.density)))
    return tuple(written)


def _check(wanted: Search) -> None:
    if wanted.device != "cpu" and not wanted.device.startswith("cuda"):
        raise UsageError(f"--device must be cpu, cuda or cuda:N, not {wanted.device!r}")
    if wanted.out is not None and wanted.out.is_dir():
        raise UsageError(f"--out must name a file, {str(wanted.out)!r} is a folder")
    solver = wanted.solver
    if solver and any(one.kind.seam is not Seam.SOLVER for one in parse(solver)):
        raise UsageError("--solver takes euler or unipc, with or without a shift: --solver unipc:5")


def _scheduler(solver: str | None, own: Any) -> Any:
    return parse(solver)[0].scheduler(own) if solver else own


def _path(masks: Masks, out: Path) -> Path:
    """`out`, and beside it for a second transformer."""
    first = masks.part == "transformer"
    return out if first else out.with_name(f"{out.stem}-{masks.part}{out.suffix}")
