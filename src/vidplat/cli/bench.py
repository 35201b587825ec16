"""`vidplat bench methods`: what every method costs and loses, on the user's own model and
machine.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidplat.cli import options, render

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vidplat.platform.measuring.findings import Finding
    from vidplat.platform.measuring.methods import Measured

bench = typer.Typer(help="Measure a model on this machine.", rich_markup_mode=None)


@bench.callback()
def bench_model() -> None:
    """Measure a model on this machine."""


@bench.command("methods")
def bench_methods(
    model: options.MeasuredModel = "flipbook",
    prompts: Annotated[
        Path | None, options.option("--prompts", help="Prompt file; its first rows are used.")
    ] = None,
    count: Annotated[int, typer.Option("--count", min=1, help="How many prompts.")] = 4,
    only: Annotated[
        str | None, options.option("--only", help="Methods, separated by commas.")
    ] = None,
    device: options.Device = "cpu",
    threads: options.Threads = 1,
    out: Annotated[
        Path, typer.Option("--out", help="Where methods.svg and methods.parquet go.")
    ] = Path("bench"),
    keep: Annotated[
        bool, typer.Option("--keep/--no-keep", help="Let plans on this machine use what was found.")
    ] = True,
    json: options.Json = False,
) -> int:
    """Measure quality against cost for every method and peer, and let plans choose from it."""
    from vidplat.platform.measuring import methods

    names = tuple(name.strip() for name in only.split(",")) if only is not None else ()
    wanted = methods.Wanted(model, prompts, count, names, device, threads)
    measured = methods.measure_methods(wanted, _Display())
    picture, rows = _write(measured, model, out)
    kept = methods.keep(measured) if keep and measured.is_comparable else None
    if json:
        render.print_json(
            {
                "model": measured.model.id,
                "revision": measured.model.revision,
                "findings": [asdict(one) for one in measured.findings],
                "points": [asdict(point) for point in measured.points],
                "picture": str(picture),
                "rows": str(rows),
                "profile": str(kept) if kept else None,
            }
        )
        return 0
    _print_table(measured.findings)
    render.say(f"picture {picture}, rows {rows}")
    if kept:
        render.say(f"plans on this machine now choose from {kept}")
    elif keep:
        render.say(
            "plans do not use this: without `steps` there is nothing to compare methods with",
            style="dim",
        )
    return 0


def _write(measured: Measured, model: str, folder: Path) -> tuple[Path, Path]:
    """The picture and the rows it was drawn from; returns both paths."""
    from vidplat.cli.method_chart import method_chart
    from vidplat.platform.export import write
    from vidplat.storage.reformat import to_parquet

    lines: dict[str, list[tuple[float, float]]] = {}
    for one in measured.findings:
        lines.setdefault(one.method, []).append((one.cost, one.psnr_db))
    title = f"{model}, {measured.prompts} prompts"
    chart = method_chart(lines, title=title, measure="PSNR to the full run, dB")
    picture, rows = folder / "methods.svg", folder / "methods.parquet"
    write(rows, [to_parquet([asdict(row) for row in measured.rows])])
    write(picture, [chart.encode()])
    return picture, rows


def _print_table(found: Sequence[Finding]) -> None:
    render.print_table(
        ["METHOD", "POINT", "TIME", "END TO END", "FLOPS", "PSNR", "SSIM", "MIB"],
        [
            (
                one.method,
                one.label,
                f"{one.cost:.1%}",
                f"{one.cost_end_to_end:.1%}",
                f"{one.work:.1%}",
                f"{one.psnr_db:.2f}",
                f"{one.ssim:.4f}",
                f"{one.peak_bytes / 2**20:.0f}",
            )
            for one in found
        ],
        wide="POINT",
    )


class _Display:
    """Lines on stderr, each with the seconds since the measurement began."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    def said(self, line: str) -> None:
        passed_s = time.perf_counter() - self._began
        render.say(f"{passed_s:6.0f} s  {line}", style="dim", to=sys.stderr)

    def warn(self, text: str) -> None:
        render.warn(text)
