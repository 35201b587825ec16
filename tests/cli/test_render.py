"""Tables and lines: aligned, uncut in pipes, harmless whatever is in them."""

from __future__ import annotations

import io
import json

import pytest

from vidplat.cli import render
from vidplat.cli.render import Column

NASTY = "\x1b[31mred\x1b[0m \x07 [bold]not bold[/bold] :smile: ‮gnp.exe\nnext"


def test_a_cell_can_neither_colour_nor_break_the_table() -> None:
    out = io.StringIO()

    render.print_table([Column("ROW", right=True), Column("PROMPT")], [(1, NASTY)], to=out)

    assert out.getvalue().splitlines() == [
        "ROW  PROMPT",
        "  1  " + r"\x1b[31mred\x1b[0m \x07 [bold]not bold[/bold] :smile: \u202egnp.exe\nnext",
    ]


def test_in_a_pipe_no_cell_is_cut() -> None:
    out = io.StringIO()

    render.print_table(
        [Column("PROMPT", gives_way=True), Column("LAST")], [("word " * 60, "end")], to=out
    )

    assert "word " * 59 in out.getvalue()
    assert "end" in out.getvalue()


def test_without_a_terminal_there_is_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    out = io.StringIO()

    render.print_table([Column("STATE", states=True)], [("done",), ("failed",)], to=out)

    assert "\x1b" not in out.getvalue()


def test_json_is_ascii_and_has_no_infinity(capsys: pytest.CaptureFixture[str]) -> None:
    render.print_json({"prompt": NASTY, "at": float("inf"), "many": [float("nan"), 1.5]})

    shown = capsys.readouterr().out
    assert all(" " <= character <= "~" or character == "\n" for character in shown)
    assert json.loads(shown) == {"prompt": NASTY, "at": None, "many": [None, 1.5]}


def test_facts_that_are_unknown_are_left_out() -> None:
    out = io.StringIO()

    render.print_facts([("batch", "b1"), ("deadline", None)], to=out)

    assert out.getvalue().split() == ["batch", "b1"]
