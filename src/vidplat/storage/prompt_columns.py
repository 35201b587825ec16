"""Which column means what: the names people give to the columns of a prompt file, brought to ours.

A column is matched without regard to case and surrounding spaces. When two columns mean the same,
the one named first in COLUMNS wins and the other is told to be ignored. A name nobody knows is
ignored too, with a warning that says the nearest known one; only a missing prompt column is an
error.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Callable, Iterable, Sequence

from vidplat.errors import InputError, printable

#: Our word for it -> the names it may have, the preferred one first.
COLUMNS = {
    "text": ("prompt", "caption", "text", "prompt_en"),
    "external_id": ("id", "uuid", "custom_id", "job_id"),
    "negative_prompt": ("negative_prompt",),
    "seed": ("seed",),
    "width": ("width",),
    "height": ("height",),
    "size": ("size",),
    "num_frames": ("num_frames",),
    "seconds": ("seconds",),
    "fps": ("fps",),
    "num_inference_steps": ("num_inference_steps", "steps"),
    "guidance_scale": ("guidance_scale",),
    "image": ("image", "input_reference"),
    "input_video": ("input_video", "video", "source_video", "init_video"),
    "strength": ("strength",),
    "deadline": ("deadline",),
    "priority": ("priority",),
    "model": ("model",),
    "method": ("method",),
}
#: name -> (our word, rank among its names)
_MEANING = {
    name: (field, rank) for field, names in COLUMNS.items() for rank, name in enumerate(names)
}
#: What stands between the cells of a table in text, the usual one first.
_DELIMITERS = (",", "\t", ";", "|")
_MOST_SHOWN = 20
_MOST_WARNINGS = 20


def delimiter_of(header: str) -> str:
    """What stands between the names of a header: what makes the most known names of it."""

    def fitness(mark: str) -> tuple[int, bool]:
        return len(_known(header, mark)[1]), mark in header

    return max(_DELIMITERS, key=fitness)


def is_header(line: str) -> bool:
    """Whether a line of text names columns: one that holds prompts, and half of all or more."""
    cells, known = _known(line, delimiter_of(line))
    return bool(known & set(COLUMNS["text"])) and 2 * len(known) >= len(cells)


def _known(header: str, mark: str) -> tuple[list[str], set[str]]:
    """The names of a header, and those that mean something."""
    try:
        cells = [_folded(cell) for cell in next(csv.reader([header], delimiter=mark), [])]
    except csv.Error:
        cells = []
    return cells, set(cells) & _MEANING.keys()


def is_optional(name: str) -> bool:
    """Whether a row may do without this column, which means something to us."""
    return _folded(name) in _MEANING and _folded(name) not in COLUMNS["text"]


class ColumnNames:
    """What the names of one file mean; it warns once about each that is not used. Those of
    `ignored` count as if they were not there."""

    def __init__(
        self, where: str, warn: Callable[[str], None], ignored: Sequence[str] = ()
    ) -> None:
        self.synonyms: dict[str, list[str]] = {}  # our word -> the file's, the preferred one first
        self._where = where
        self._warn = warn
        self._ignored = {_folded(name): name for name in ignored}
        self._seen: dict[str, None] = {}
        self._warned: set[str] = set()

    @property
    def chosen(self) -> dict[str, str]:
        """Our word -> the file's name that counts."""
        return {field: known[0] for field, known in self.synonyms.items()}

    def of_table(self, names: Sequence[str]) -> dict[str, str]:
        """What is `chosen` of a file with fixed columns. Raises InputError."""
        doubled = next(
            (name for name in names if names.count(name) > 1 and self._is_meant(name)), None
        )
        if doubled is not None:
            raise InputError(
                f"{self._where} has two columns named '{printable(doubled, 40)}': rename one"
            )
        self.add(names)
        for chosen, *others in self.synonyms.values():
            for other in others:
                self._ignore(other, f": '{printable(chosen, 40)}' means the same")
        self.need_text()
        return self.chosen

    def add(self, names: Iterable[str]) -> None:
        """Enter `names` under our words for them, the preferred ones first; warn of others."""
        for name in names:
            if name in self._seen:
                continue
            self._seen[name] = None
            folded = _folded(name)
            if folded in self._ignored:
                continue
            if folded not in _MEANING:
                nearest = difflib.get_close_matches(folded, _MEANING, n=1, cutoff=0.7)
                self._ignore(name, f"; did you mean {nearest[0]!r}?" if nearest else "")
                continue
            known = self.synonyms.setdefault(_MEANING[folded][0], [])
            known.append(name)
            known.sort(key=lambda one: _MEANING[_folded(one)][1])

    def tell_missing(self) -> None:
        """Warn of columns that were to be ignored and never came."""
        seen = {_folded(name) for name in self._seen}
        for folded, name in self._ignored.items():
            if folded not in seen:
                self._warn(f"{self._where}: there is no column '{printable(name, 40)}' to ignore")

    def tell_skipped(self, count: int, after: int) -> None:
        if count:
            rows = (
                "1 row without any cell is"
                if count == 1
                else f"{count:,} rows without any cell are"
            )
            self._warn(f"{self._where}: {rows} skipped, the first after row {after:,}")

    def _is_meant(self, name: str) -> bool:
        return _folded(name) in _MEANING and _folded(name) not in self._ignored

    def _is_left_out(self, name: str) -> bool:
        """Whether a column of prompts is there, and is to be ignored."""
        return _folded(name) in self._ignored and _MEANING.get(_folded(name), ("",))[0] == "text"

    def need_text(self) -> None:
        """InputError, with what there is and comes nearest, unless a column holds prompts."""
        if "text" in self.synonyms:
            return
        names = list(self._seen)
        left_out = next((name for name in names if self._is_left_out(name)), None)
        nearest = _nearest_to_a_prompt(names)
        shown = ", ".join(printable(name, 40) for name in names[:_MOST_SHOWN]) or "none"
        more = f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
        if left_out is not None:
            hint = f"; --ignore-columns leaves out '{printable(left_out, 40)}'"
        else:
            hint = f"; rename '{printable(nearest, 40)}' if it is meant" if nearest else ""
        raise InputError(
            f"{self._where} has no prompt column: needed one of {', '.join(COLUMNS['text'])}; "
            f"found {shown}{more}{hint}"
        )

    def _ignore(self, name: str, because: str) -> None:
        if name in self._warned or len(self._warned) > _MOST_WARNINGS:
            return
        self._warned.add(name)
        if len(self._warned) > _MOST_WARNINGS:
            self._warn(f"{self._where}: more columns are ignored")
        else:
            self._warn(f"{self._where}: column '{printable(name, 40)}' is ignored{because}")


def _folded(name: str) -> str:
    return name.strip().lower()


def _nearest_to_a_prompt(names: list[str]) -> str | None:
    """The name that looks most like one of a prompt column, or None when none does."""

    def likeness(name: str) -> float:
        folded = _folded(name)
        if any(known in folded for known in COLUMNS["text"]):
            return 0.9
        return max(
            difflib.SequenceMatcher(None, folded, known).ratio() for known in COLUMNS["text"]
        )

    best = max(names[:1000], key=likeness, default=None)
    return best if best is not None and likeness(best) >= 0.6 else None
