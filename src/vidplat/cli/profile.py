"""`vidplat profile ...`: learn something of a model once, that methods use from then on."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidplat.cli import options, phrases, render
from vidplat.cli.progress import LINE_EVERY_S, Glance, LiveScreen, sentence
from vidplat.cli.render import Column
from vidplat.errors import UsageError
from vidplat.methods.vdit import tiles

if TYPE_CHECKING:
    from vidplat.domain import VideoSpec
    from vidplat.methods.model_shape import ModelShape
    from vidplat.methods.vdit.mask_file import Masks

profile = typer.Typer(
    help="Learn of a model what methods need.", no_args_is_help=True, rich_markup_mode=None
)


@profile.callback()
def profile_model() -> None:
    """Learn of a model what methods need."""


@profile.command("masks")
def profile_masks(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="As for --model of submit.")],
    r: Annotated[
        float, typer.Option("--r", metavar="R", help="Most error a layer's mask may make.")
    ] = 0.05,
    density: Annotated[
        float | None,
        typer.Option(
            "--density",
            help="Keep at most this share of tiles instead of going by --r.",
            show_default=False,
        ),
    ] = None,
    prompts: Annotated[
        int, typer.Option("--prompts", metavar="N", min=1, help="Trajectories to watch.")
    ] = 16,
    metric: Annotated[
        str, typer.Option("--metric", metavar="NAME", help="relative, absolute, or output (slow).")
    ] = "relative",
    sequential: Annotated[
        bool,
        typer.Option("--sequential", help="Measure each layer with those before it sparse (slow)."),
    ] = False,
    num_frames: options.NumFrames = None,
    width: options.Width = None,
    height: options.Height = None,
    steps: options.Steps = None,
    solver: Annotated[
        str | None,
        typer.Option(
            "--solver",
            help="euler or unipc, as in a method. [default: the model's own]",
            show_default=False,
        ),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:N.")] = "cpu",
    threads: Annotated[int, typer.Option("--threads", min=1, help="CPU threads.")] = 1,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Where to write instead of your own folder.",
            show_default=False,
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Find for each layer of MODEL the frames it can do without.

    Watches the model make videos of the given length, and takes for each layer the sparsest mask
    whose error is at most R. `--method sparse:masks=searched` uses them, for this model, number of
    frames and solver.
    """
    from vidplat import workers
    from vidplat.workers.models.catalogue import locate
    from vidplat.workers.models.limits import check_spec

    reference, shape = workers.describe_model(model)
    asked = {
        "num_frames": num_frames,
        "width": width,
        "height": height,
        "num_inference_steps": steps,
    }
    spec = replace(
        shape.defaults, **{name: value for name, value in asked.items() if value is not None}
    )
    check_spec(shape, spec)
    if device != "cpu" and not device.startswith("cuda"):
        raise UsageError(f"--device must be cpu, cuda or cuda:N, not {device!r}")
    if out is not None and out.is_dir():
        raise UsageError(f"--out must name a file, {str(out)!r} is a folder")
    _check_solver(solver)

    import torch

    torch.set_num_threads(threads)
    from vidplat.methods.vdit import mask_file
    from vidplat.workers.models.family import load_family
    from vidplat.workers.survey.calibration_prompts import calibration_prompts
    from vidplat.workers.survey.mask_search import Wanted, search

    wanted = Wanted(r, density, metric, sequential)
    located = locate(model)
    texts = calibration_prompts(located.origin == "embedded", prompts)
    family = load_family(located, device)
    with _Display(quiet=json) as display:
        found = search(
            family,
            reference,
            texts,
            spec,
            wanted,
            _scheduler(solver, family.scheduler),
            display.step,
        )
    paths = [out_path(masks, out) for masks in found]
    for masks, path in zip(found, paths, strict=True):
        try:
            mask_file.save(masks, path)
        except OSError as problem:
            raise UsageError(
                f"cannot write {str(path)!r}: {problem.strerror}; name another place by --out"
            ) from problem
    if json:
        render.print_json(
            [
                {"file": str(path), **as_json(masks)}
                for masks, path in zip(found, paths, strict=True)
            ]
        )
        return
    for masks, path in zip(found, paths, strict=True):
        _show(masks, path, shape, spec)
    if out is not None:
        name = mask_file.file_name(found[0].transformer, found[0].frames)
        folder = mask_file.users_file(found[0]).parent
        render.say(f"used when it lies, as {name}, in {folder} or in masks/ beside the model")
    elif any(masks.density < 1 for masks in found):
        render.say("used by: vidplat submit PROMPTS --method sparse:masks=searched", style="dim")


def out_path(masks: Masks, out: Path | None) -> Path:
    """Where masks are written: `out`, and beside it for a second transformer; else
    `measured.folder` of the model."""
    from vidplat.methods.vdit.mask_file import users_file

    if out is None:
        return users_file(masks)
    return (
        out
        if masks.part == "transformer"
        else out.with_name(f"{out.stem}-{masks.part}{out.suffix}")
    )


def as_json(masks: Masks) -> dict[str, Any]:
    """What `--json` promises of one transformer's masks."""
    return {**asdict(masks), "density": masks.density, "attention_speedup": 1 / masks.density}


def _check_solver(solver: str | None) -> None:
    """Before a model is loaded. Raises UsageError."""
    from vidplat.methods.kinds import Seam
    from vidplat.methods.language import parse

    if solver and any(one.kind.seam is not Seam.SOLVER for one in parse(solver)):
        raise UsageError("--solver takes euler or unipc, with or without a shift: --solver unipc:5")


def _scheduler(solver: str | None, own: Any) -> Any:
    from vidplat.methods.language import parse

    return parse(solver)[0].scheduler(own) if solver else own


def _show(masks: Masks, path: Path, shape: ModelShape, spec: VideoSpec) -> None:
    frames = masks.frames
    share = shape.block.attention_share(frames * masks.per_frame)
    rule = (
        f"error at most {masks.threshold:g}"
        if masks.threshold is not None
        else "least error for the density"
    )
    render.print_facts(
        [
            ("file", path),
            ("model", f"{masks.model}, {masks.part} {masks.transformer}"),
            ("holds for", f"{frames} latent frames, {masks.solver} at shift {masks.shift:g}"),
            ("searched", f"{rule}, {masks.metric}, {phrases.count(masks.prompts, 'prompt')}"),
            ("kept tiles", phrases.percent(masks.density)),
            (
                "attention",
                f"{1 / masks.density:.2f} times as fast at best, a step "
                f"{_step(share, masks):.2f} times",
            ),
        ]
    )
    render.say()
    render.print_table(
        [
            Column("LAYER", right=True),
            Column("REFERENCES"),
            Column("KEPT TILES", right=True),
            Column("ERROR", right=True),
        ],
        [
            (
                number,
                "all" if layer.k == frames else f"{layer.k} of {frames}",
                phrases.percent(tiles.density(frames, layer.k)),
                None if layer.k == frames else f"{layer.error:.3g}",
            )
            for number, layer in enumerate(masks.layers)
        ],
    )
    if masks.density == 1:
        least = min(min(row) for row in masks.errors.values())
        render.warn(
            f"no layer has a mask within this error, the least is {least:.3g}: try a larger --r"
        )


def _step(share: float, masks: Masks) -> float:
    return tiles.step_speedup(share, masks.density)


class _Display:
    """Progress on stderr: a bar on a terminal, now and then a line elsewhere."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._glance = Glance(time.time(), "loading")
        self._said_at = 0.0
        self._stack = ExitStack()

    def __enter__(self) -> _Display:
        self._live = sys.stderr.isatty() and not self._quiet
        if self._live:
            self._stack.enter_context(LiveScreen(lambda: self._glance))
        return self

    def __exit__(self, *problem: Any) -> None:
        self._stack.close()

    def step(self, phase: str, done: int, total: int) -> None:
        self._glance = Glance(time.time(), phase, done, total)
        if self._quiet or self._live or time.monotonic() - self._said_at < LINE_EVERY_S:
            return
        self._said_at = time.monotonic()
        render.say(f"{phase}: {sentence(self._glance)}", to=sys.stderr)
