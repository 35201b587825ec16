"""What appears on screen: tables for people, JSON for scripts, messages on stderr.

Data goes to stdout, everything else to stderr. On a terminal a table is cut to its width; in a pipe
no cell is cut, and there is no colour. `NO_COLOR` is respected. Every cell is escaped here
(`errors.printable`), and rich's markup is never interpreted, so a prompt cannot colour, move or
rewrite the screen. rich is imported when first drawn with: `--help` and `--json` stay light.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from typing import IO, TYPE_CHECKING, Any

from vidplat.errors import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

STATE_STYLES = {
    "queued": "dim",
    **dict.fromkeys(("running", "open"), "cyan"),
    **dict.fromkeys(("done", "ok"), "green"),
    **dict.fromkeys(("cancelled", "warn"), "yellow"),
    **dict.fromkeys(("failed", "quarantined", "infeasible", "fail"), "red"),
}


def print_json(value: Any) -> None:
    """One JSON value on stdout. ASCII only, so that nothing in it acts on a terminal."""
    print(json.dumps(_finite(value), indent=2, ensure_ascii=True, allow_nan=False))


def _finite(value: Any) -> Any:
    """JSON has no infinity and no NaN: both become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value


def print_table(
    headings: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Sequence[str] = (),
    state: str | None = None,
    wide: str | None = None,
) -> None:
    """Aligned columns without rulers. A cell is cut only on a terminal.

    Named by their headings: `right` are columns of numbers, `state` holds words of STATE_STYLES,
    and `wide` is cut first on a narrow terminal.
    """
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        table.add_column(
            heading,
            justify="right" if heading in right else "left",
            no_wrap=heading != wide,
            overflow="ellipsis",
        )
    for row in rows:
        cells = zip(headings, row, strict=True)
        table.add_row(*(_cell(value, is_state=heading == state) for heading, value in cells))
    screen = console(sys.stdout)
    if screen.is_terminal:
        screen.print(table)
        return
    with screen.capture() as drawn:
        screen.print(table)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in drawn.get().splitlines()))


def print_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Name and value, one a line, for `show` and the head of `status`. None is left out."""
    known = [(name, value) for name, value in facts if value is not None]
    width = max((len(name) for name, _ in known), default=0)
    for name, value in known:
        say_parts((f"{name:<{width}}  ", "dim"), (clean(value), ""))


def say(text: str = "", *, style: str = "", to: IO[str] | None = None) -> None:
    """A line for people on stdout, or on `to`."""
    say_parts((text, style), to=to)


def say_parts(*parts: tuple[str, str], to: IO[str] | None = None) -> None:
    """A line of parts, each with its style."""
    from rich.text import Text

    line = Text()
    for text, style in parts:
        line.append(clean(text), style=style)
    console(to or sys.stdout).print(line, soft_wrap=True)


def warn(text: str) -> None:
    """A line on stderr that starts with `warning:`."""
    say_parts(("warning: ", "yellow"), (text, ""), to=sys.stderr)


def clean(text: object, limit: int = 4000) -> str:
    """Lines fit to print: control characters are spelled out, secrets are masked."""
    return "\n".join(printable(line, limit) for line in str(text).split("\n"))


def console(to: IO[str]) -> Console:
    """A rich console on `to`. Pipes get lines as long as they need to be."""
    from rich.console import Console

    width = None if to.isatty() else 100_000
    return Console(file=to, width=width, highlight=False, markup=False, emoji=False)


def _cell(value: object, *, is_state: bool) -> Text:
    from rich.text import Text

    text = printable("–" if value is None else value, 400)
    style = STATE_STYLES.get(text, "") if is_state else ""
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")
