"""What moves on stderr: a glance drawn in place on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from vidplat.cli import render
from vidplat.cli.glance import Glance, sentence, times
from vidplat.errors import printable

if TYPE_CHECKING:
    from rich.console import RenderableType

LINE_EVERY_S = 5.0  # in a pipe
WORKERS_SHOWN = 12


class Screen:
    """Shows what `look` sees. A context manager; at the end the moving part is cleared away.

    On a terminal it draws four times a second; elsewhere `tick` prints a line when one is due.
    `quiet` shows warnings only.
    """

    def __init__(self, look: Callable[[], Glance], *, quiet: bool = False) -> None:
        self._look = look
        self._quiet = quiet
        self._live: Any = None  # on a terminal, while it is entered
        self._ticked_at = 0.0

    def __enter__(self) -> Self:
        if sys.stderr.isatty() and not self._quiet:
            from rich.live import Live

            self._live = Live(
                get_renderable=lambda: draw(self._look()),
                console=render.console(sys.stderr),
                refresh_per_second=4,
                redirect_stdout=False,
                redirect_stderr=True,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(self, *problem: object) -> None:
        if self._live:
            self._live.stop()
            self._live = None

    def tick(self, before: str = "") -> None:
        """Something has changed: where nothing is drawn, a line, unless there was one just now."""
        now = time.monotonic()
        if not self._live and not self._quiet and now - self._ticked_at >= LINE_EVERY_S:
            self._ticked_at = now
            self.say(before + sentence(self._look()))

    def say(self, text: str) -> None:
        """A line for where nothing is drawn."""
        if not self._live and not self._quiet and text:
            print(render.clean(text), file=sys.stderr, flush=True)

    def keep(self, text: str, style: str = "") -> None:
        """A line that stays, above what moves."""
        if self._live:
            from rich.text import Text

            self._live.console.print(Text(render.clean(text), style=style), soft_wrap=True)
        else:
            self.say(text)

    def warn(self, text: str) -> None:
        if self._live:
            self.keep(text, style="yellow")
        else:
            render.warn(text)


def draw(glance: Glance) -> RenderableType:
    """Phase, bar, times, and a line per worker."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    lines: list[RenderableType] = []
    if glance.steps_total:
        head = Table.grid(padding=(0, 2))
        head.add_column(width=32)
        head.add_column(no_wrap=True)
        bar = ProgressBar(
            total=glance.steps_total,
            completed=min(glance.steps_done, glance.steps_total),
            width=32,
            complete_style="cyan",
            finished_style="green",
        )
        head.add_row(bar, Text(sentence(replace(glance, finish_p50_at=None, deadline_at=None))))
        lines.append(head)
        if told := " · ".join(times(glance)):
            lines.append(Text(told, style="" if glance.is_on_time else "yellow"))
    if glance.phase and not glance.doing:
        lines.append(Text(printable(glance.phase, 160), style="dim"))
    table = Table.grid(padding=(0, 2))
    for doing in glance.doing[:WORKERS_SHOWN]:
        step = f"{doing.step}/{doing.steps}" if doing.steps else ""
        table.add_row(
            Text(printable(doing.worker, 24), style="cyan"),
            Text(printable(doing.phase, 14)),
            Text(step),
            Text(printable(doing.about, 60), style="dim", no_wrap=True, overflow="ellipsis"),
        )
    if len(glance.doing) > WORKERS_SHOWN:
        table.add_row(Text(f"and {len(glance.doing) - WORKERS_SHOWN} more workers", style="dim"))
    if glance.doing:
        lines.append(table)
    return Group(*lines)
