"""`vidplat --help` with its verbs under headings, in the order of a day's work."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup


class GroupedHelp(TyperGroup):
    """Lists commands by the panel they were registered with."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        panels: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                panel = str(getattr(command, "rich_help_panel", None) or "Commands")
                panels.setdefault(panel, []).append(
                    (name, command.get_short_help_str(formatter.width - 14))
                )
        for panel, rows in panels.items():
            with formatter.section(panel):
                formatter.write_dl(rows)
