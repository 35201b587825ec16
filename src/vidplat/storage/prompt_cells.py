"""What the cells of a prompt file may hold: checks that need no model.

Cells come raw: text from CSV, typed values from parquet and JSON, None where there is nothing. Each
column has a `Cell`: a quick test that nearly every cell passes as it is, and a parser for the rest,
which gives the clean value or raises `Wrong` with what is wrong. A million rows of twelve columns
take seconds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from types import NoneType
from typing import Any
from uuid import UUID

from vidplat.errors import printable

LONGEST_PROMPT_BYTES = 16 << 10
LONGEST_ID = 512
LONGEST_NAME = 1024
LONGEST_PLACE = 4096
LARGEST_SIDE = 16_384
_INTEGER = re.compile(r"[+-]?\d{1,40}", re.ASCII)
_SIZE = re.compile(r"(\d{1,9})\s*[x×*]\s*(\d{1,9})", re.ASCII | re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Wrong(ValueError):
    """What is wrong with one cell: the rest of a sentence that begins with the column's name."""


@dataclass(frozen=True)
class RowProblem:
    """Why one row cannot become a job."""

    row: int
    column: str  # the file's own name for it; empty for the whole row
    message: str  # reads on from the column's name: "is empty"

    def __str__(self) -> str:
        column = f", {printable(self.column, 40)}" if self.column else ""
        return f"row {self.row}{column}: {printable(self.message, 400)}"


@dataclass(frozen=True)
class Kind:
    """Of which types the cells of a column may be; of others every single one is wrong."""

    words: str
    types: tuple[type, ...]

    def fits(self, cell: type | None) -> bool:
        return cell in self.types or cell is NoneType


_TEXT = Kind("text", (str,))
_ID = Kind("text or numbers", (str, int, float, Decimal, UUID))
_WHEN = Kind("text or times", (str, int, float, Decimal, datetime, date, time, timedelta))
_NUMBER = Kind("numbers", (str, int, float, Decimal))
_SPAN = Kind("numbers or durations", (str, int, float, Decimal, timedelta))


@dataclass(frozen=True)
class Cell:
    """What one column's cells must be."""

    kind: Kind
    is_fine: Callable[[Any], bool]  # the value can be taken as it is
    parse: Callable[[Any], Any]  # the clean value, or Wrong; called when it is not obviously fine


def clean_column(field: str, values: Sequence[Any], say: Callable[[int, str], None]) -> list[Any]:
    """The clean values of a column; `say(index, what)` is told of wrong cells, now None."""
    cell = CELLS[field]
    is_fine = cell.is_fine
    clean: list[Any] = []
    # numbers in text repeat from row to row: CSV is read a sixth faster
    parsed: dict[str, Any] = {}
    for index, value in enumerate(values):
        if is_fine(value):
            clean.append(value)
            continue
        text = value if type(value) is str else None
        if text in parsed:
            clean.append(parsed[text])
            continue
        if value != value:  # NaN: how tables of numbers write that there is none
            value = None
            if is_fine(value):
                clean.append(None)
                continue
        try:
            clean.append(cell.parse(value))
            if text is not None:
                parsed[text] = clean[-1]
        except Wrong as wrong:
            say(index, str(wrong))
            clean.append(None)
    return clean


# --- text ----------------------------------------------------------------------------------------


def _is_plain_text(value: Any) -> bool:
    return (
        type(value) is str
        and len(value) <= LONGEST_PROMPT_BYTES
        and value.isascii()
        and "\0" not in value
    )


def _text(value: Any) -> str:
    """Text of at most 16 KiB in UTF-8. Control characters are data, but for NUL."""
    _need_text(value)
    if len(value) > LONGEST_PROMPT_BYTES:  # characters: there are at least as many bytes
        raise Wrong(f"is longer than 16 KiB ({len(value):,} characters)")
    size_bytes = len(_encoded(value))
    if size_bytes > LONGEST_PROMPT_BYTES:
        raise Wrong(f"is longer than 16 KiB ({size_bytes:,} bytes)")
    if "\0" in value:
        raise Wrong("holds a NUL character")
    return str(value)


def _is_plain_prompt(value: Any) -> bool:
    return _is_plain_text(value) and not value.isspace() and value != ""


def _prompt(value: Any) -> str:
    if value is None or not _text(value).strip():
        raise Wrong("is empty")
    return str(value)


def _is_plain_line(longest: int, value: Any) -> bool:
    return value is None or (
        type(value) is str and 0 < len(value) <= longest and value.isascii() and value.isprintable()
    )


def _line(value: Any, longest: int, *, is_shown: bool = True) -> str | None:
    """One line of text; an empty cell is None."""
    _need_text(value)
    if len(value) > longest:
        raise Wrong(f"has {len(value):,} characters, at most {longest:,} are allowed")
    if _CONTROL.search(value):
        what = f": '{printable(value, 40)}'" if is_shown else ""
        raise Wrong(f"holds a control character{what}")
    _encoded(value)
    return value or None


def _name(value: Any) -> str | None:
    return _line(value, LONGEST_NAME)


def _place(value: Any) -> str | None:
    """A path or URL. It is never shown in a message: a signed URL is a secret."""
    return _line(value, LONGEST_PLACE, is_shown=False)


def _identifier(value: Any) -> str | None:
    """The user's own id: numbers are read as text, whole ones without a point."""
    if isinstance(value, float | Decimal):
        value = str(int(value) if math.isfinite(value) and value == int(value) else value)
    is_exact = type(value) is int or isinstance(value, UUID)
    return _line(str(value) if is_exact else value, LONGEST_ID)


def _moment(value: Any) -> str | None:
    """A deadline as it was written; typed times become ISO 8601 or a duration, numbers stay
    bare."""
    if isinstance(value, timedelta):
        return f"{value.total_seconds():.6f}".rstrip("0").rstrip(".") + "s"
    if isinstance(value, time):
        return value.isoformat("seconds")
    if isinstance(value, datetime | date):
        return value.isoformat()
    is_number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    return _name(str(value) if is_number else value)


def _need_text(value: Any) -> None:
    if not isinstance(value, str):
        raise Wrong(f"must be text, found {_kind(value)}")


def _encoded(value: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise Wrong("holds bytes that are not text (a lone surrogate, or broken UTF-8)") from error


# --- numbers -------------------------------------------------------------------------------------


def _whole(least: int, most: int) -> Cell:
    """Whole numbers in [least, most]; `24`, `24.0` and `"24"` are the same."""

    def is_fine(value: Any) -> bool:
        return value is None or (type(value) is int and least <= value <= most)

    def parse(value: Any) -> int | None:
        number = _numeric(value, "a whole number")
        if number is None:
            return None
        if not isinstance(number, int) and not (math.isfinite(number) and number == int(number)):
            raise Wrong(f"must be a whole number, found {_shown(number)}{_rounded(number)}")
        if not least <= number <= most:
            raise Wrong(f"must be from {least:,} to {most:,}, found {_shown(int(number))}")
        return int(number)

    return Cell(_NUMBER, is_fine, parse)


def _number(least: float, most: float, *, above: bool = False, kind: Kind = _NUMBER) -> Cell:
    """Finite numbers in [least, most], or in (least, most] when they must be `above` the least."""

    def is_fine(value: Any) -> bool:
        return value is None or (type(value) is float and least < value <= most)

    def parse(value: Any) -> float | None:
        number = _numeric(
            value.total_seconds() if isinstance(value, timedelta) else value, "a number"
        )
        if number is None:
            return None
        if not (least < number <= most if above else least <= number <= most):
            raise Wrong(
                f"must be {'above' if above else 'at least'} {least:,} and at most {most:,}, "
                f"found {_shown(number)}"
            )
        return float(number)

    return Cell(kind, is_fine, parse)


def _numeric(value: Any, kind: str) -> int | float | Decimal | None:
    """The number that a cell holds or spells; None for an empty one."""
    if isinstance(value, str):
        text = value.strip()
        if not text:
            return None
        value = int(text) if _INTEGER.fullmatch(text) else _as_float(text)
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise Wrong(f"must be {kind}, found {_shown(value)}")
    return None if not isinstance(value, int) and math.isnan(value) else value


def _rounded(number: float | Decimal) -> str:
    """What to write instead: 30 for the 29.97 of a camera."""
    return f": round it to {round(number)}" if math.isfinite(number) else ""


def _size(value: Any) -> tuple[int, int] | None:
    """`832x480` becomes (832, 480)."""
    if value in ("", None):
        return None
    found = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if not found:
        raise Wrong(f"must look like 832x480, found {_shown(value)}")
    width, height = int(found[1]), int(found[2])
    if not (1 <= width <= LARGEST_SIDE and 1 <= height <= LARGEST_SIDE):
        raise Wrong(f"must have sides from 1 to {LARGEST_SIDE:,}, found {_shown(value)}")
    return width, height


def _not_yet(value: Any) -> None:
    if value != "":
        raise Wrong("is not supported yet by this version: leave it empty")


def _is_absent(value: Any) -> bool:
    return value is None


_IS_PLAIN_NAME = partial(_is_plain_line, LONGEST_ID)
_IS_PLAIN_PLACE = partial(_is_plain_line, LONGEST_PLACE)

#: Our word for a column -> what its cells must be. Bounds lie far beyond any model: they catch
#: slips.
CELLS = {
    "text": Cell(_TEXT, _is_plain_prompt, _prompt),
    "negative_prompt": Cell(_TEXT, lambda value: value is None or _is_plain_text(value), _text),
    "external_id": Cell(_ID, _IS_PLAIN_NAME, _identifier),
    "seed": _whole(0, 2**63 - 1),
    "width": _whole(1, LARGEST_SIDE),
    "height": _whole(1, LARGEST_SIDE),
    "size": Cell(_TEXT, _is_absent, _size),
    "num_frames": _whole(1, 100_000),
    "seconds": _number(0, 86_400, above=True, kind=_SPAN),
    "fps": _whole(1, 1_000),
    "num_inference_steps": _whole(1, 10_000),
    "guidance_scale": _number(0, 1_000),
    "image": Cell(_TEXT, _is_absent, _not_yet),
    "input_video": Cell(_TEXT, _IS_PLAIN_PLACE, _place),
    "strength": _number(0, 1, above=True),
    "deadline": Cell(_WHEN, _IS_PLAIN_NAME, _moment),
    "priority": _whole(-1_000_000, 1_000_000),
    "model": Cell(_TEXT, _IS_PLAIN_NAME, _name),
    "method": Cell(_TEXT, _IS_PLAIN_NAME, _name),
}


def _as_float(text: str) -> float | str:
    """`text` as a number, or itself when it is none."""
    try:
        return float(text)
    except ValueError:
        return text


def _shown(value: object) -> str:
    return printable(repr(value[:60]) if isinstance(value, str) else value, 40)


def _kind(value: object) -> str:
    names = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), type(value).__name__)
