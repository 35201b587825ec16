"""`vidplat profile ...`: learn something of a model once, that methods use from then on."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidplat import times
from vidplat.cli import options, phrases, render
from vidplat.cli.glance import Glance
from vidplat.cli.screen import Screen

if TYPE_CHECKING:
    from vidplat.platform.measuring.masks import Found

profile = typer.Typer(help="Learn of a model what methods need.", rich_markup_mode=None)


@profile.callback()
def profile_model() -> None:
    """Learn of a model what methods need."""


Error = Annotated[
    float, typer.Option("--r", metavar="R", help="Most error a layer's mask may make.")
]
Density = Annotated[
    float | None,
    options.option("--density", help="Keep at most this share of tiles instead of going by --r."),
]
Prompts = Annotated[
    int, typer.Option("--prompts", metavar="N", min=1, help="Trajectories to watch.")
]
Metric = Annotated[
    str, typer.Option("--metric", metavar="NAME", help="relative, absolute, or output (slow).")
]
Sequential = Annotated[
    bool,
    typer.Option("--sequential", help="Measure each layer with those before it sparse (slow)."),
]
Solver = Annotated[
    str | None,
    options.option("--solver", help="euler or unipc, as in a method. [default: the model's own]"),
]
Out = Annotated[
    Path | None,
    options.option("--out", metavar="FILE", help="Where to write instead of your own folder."),
]


@profile.command("masks")
def profile_masks(
    model: options.MeasuredModel,
    r: Error = 0.05,
    density: Density = None,
    prompts: Prompts = 16,
    metric: Metric = "relative",
    sequential: Sequential = False,
    num_frames: options.NumFrames = None,
    width: options.Width = None,
    height: options.Height = None,
    steps: options.Steps = None,
    solver: Solver = None,
    device: options.Device = "cpu",
    threads: options.Threads = 1,
    out: Out = None,
    json: options.Json = False,
) -> None:
    """Find for each layer of MODEL the frames it can do without.

    Watches the model make videos of the given length, and takes for each layer the sparsest mask
    whose error is at most R. `--method sparse:masks=searched` uses them, for this model, number of
    frames and solver.
    """
    from vidplat.platform.measuring.masks import Search, search_masks

    asked = {
        "num_frames": num_frames,
        "width": width,
        "height": height,
        "num_inference_steps": steps,
    }
    wanted = Search(
        model,
        threshold=r,
        density=density,
        prompts=prompts,
        metric=metric,
        is_sequential=sequential,
        spec={name: value for name, value in asked.items() if value is not None},
        solver=solver,
        device=device,
        threads=threads,
        out=out,
    )
    with _Display(quiet=json) as display:
        found = search_masks(wanted, display.step)
    if json:
        render.print_json([_document(one) for one in found])
        return
    for one in found:
        _show(one)
    if out is not None:
        place = found[0].place_of_its_own
        render.say(
            f"used when it lies, as {place.name}, in {place.parent} or in masks/ beside the model"
        )
    elif any(one.masks.density < 1 for one in found):
        render.say("used by: vidplat submit PROMPTS --method sparse:masks=searched", style="dim")


def _document(found: Found) -> dict[str, Any]:
    """What `--json` promises of one transformer's masks."""
    return {
        "file": str(found.path),
        **asdict(found.masks),
        "density": found.masks.density,
        "attention_speedup": found.attention_speedup,
    }


def _show(found: Found) -> None:
    masks = found.masks
    rule = (
        f"error at most {masks.threshold:g}"
        if masks.threshold is not None
        else "least error for the density"
    )
    render.print_facts(
        [
            ("file", found.path),
            ("model", f"{masks.model}, {masks.part} {masks.transformer}"),
            ("holds for", f"{masks.frames} latent frames, {masks.solver} at shift {masks.shift:g}"),
            ("searched", f"{rule}, {masks.metric}, {phrases.count(masks.prompts, 'prompt')}"),
            ("kept tiles", phrases.percent(masks.density)),
            (
                "attention",
                f"{found.attention_speedup:.2f} times as fast at best, a step "
                f"{found.step_speedup:.2f} times",
            ),
        ]
    )
    render.say()
    render.print_table(
        ["LAYER", "REFERENCES", "KEPT TILES", "ERROR"],
        [
            (
                number,
                "all" if layer.k == masks.frames else f"{layer.k} of {masks.frames}",
                phrases.percent(found.kept(layer)),
                None if layer.k == masks.frames else f"{layer.error:.3g}",
            )
            for number, layer in enumerate(masks.layers)
        ],
        right=("LAYER", "KEPT TILES", "ERROR"),
    )
    if masks.density == 1:
        render.warn(
            f"no layer has a mask within this error, the least is {found.least_error:.3g}: try a "
            "larger --r"
        )


class _Display(Screen):
    """The search on stderr."""

    def __init__(self, *, quiet: bool) -> None:
        self._glance = Glance(times.now(), "loading")
        super().__init__(lambda: self._glance, quiet=quiet)

    def step(self, phase: str, done: int, total: int) -> None:
        self._glance = Glance(times.now(), phase, done, total)
        self.tick(f"{phase}: ")
