"""Tables and lines: aligned, uncut in pipes, harmless whatever is in them."""

from __future__ import annotations

import json

import pytest

from vidplat.cli import render

NASTY = "\x1b[31mred\x1b[0m \x07 [bold]not bold[/bold] :smile: ‮gnp.exe\nnext"


def test_a_cell_can_neither_colour_nor_break_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    render.print_table(["ROW", "PROMPT"], [(1, NASTY)], right=["ROW"])

    assert capsys.readouterr().out.splitlines() == [
        "ROW  PROMPT",
        "  1  " + r"\x1b[31mred\x1b[0m \x07 [bold]not bold[/bold] :smile: \u202egnp.exe\nnext",
    ]


def test_in_a_pipe_no_cell_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    render.print_table(["PROMPT", "LAST"], [("word " * 60, "end")], wide="PROMPT")

    shown = capsys.readouterr().out
    assert "word " * 59 in shown
    assert "end" in shown


def test_without_a_terminal_there_is_no_colour(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)

    render.print_table(["STATE"], [("done",), ("failed",)], state="STATE")

    assert "\x1b" not in capsys.readouterr().out


def test_json_is_ascii_and_has_no_infinity(capsys: pytest.CaptureFixture[str]) -> None:
    render.print_json({"prompt": NASTY, "at": float("inf"), "many": [float("nan"), 1.5]})

    shown = capsys.readouterr().out
    assert all(" " <= character <= "~" or character == "\n" for character in shown)
    assert json.loads(shown) == {"prompt": NASTY, "at": None, "many": [None, 1.5]}


def test_facts_that_are_unknown_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    render.print_facts([("batch", "b1"), ("deadline", None)])

    assert capsys.readouterr().out.split() == ["batch", "b1"]
