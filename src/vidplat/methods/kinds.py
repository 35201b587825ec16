"""What a method says of itself before anything is loaded: its name, its parameters, what it
excludes.

A kind is a line of `table.KINDS`, and a `Chosen` is a kind with a value for each of its parameters.
Each method's kind stands in `words.py` of its folder. This file loads neither torch nor Ray, so the
command line, intake and the scheduler can refuse a wrong method before any work is done.

Left to others: reading and writing a choice as text (`language`), and what a method does on a
loaded model (`on_model` in its folder).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

Value = float | int | str
Values = Mapping[str, Value | None]  # None: the method decides by itself

_NONE: Mapping[str, str] = MappingProxyType({})


class Seam(StrEnum):
    """What a method touches. Two methods on one seam exclude each other."""

    TOKENS = "which tokens run"
    PASSES = "which passes run"
    ATTENTION = "which keys are attended"
    FRAMES = "which frames run"
    SOLVER = "the solver"


@dataclass(frozen=True)
class Number:
    """A parameter within [low, high]; `whole` for counts."""

    default: float | int | None
    low: float
    high: float
    whole: bool = False


@dataclass(frozen=True)
class Choice:
    """A parameter that is one of a few words."""

    default: str
    options: tuple[str, ...]


class MethodKind:
    """One line of the table. A subclass gives the facts and whichever answers differ from these."""

    name: str
    about: str  # in half a sentence, with its source
    seam: Seam
    parameters: Mapping[str, Number | Choice]
    first: str  # the parameter that may be given bare, as in `hsa:50`
    excludes: Mapping[str, str] = _NONE  # names of other methods, each with the reason
    rehearses: bool = False  # a worker may run once for nothing before its first video

    def contradiction(self, values: Values) -> str:
        """Why values that are good one by one mean nothing together; "" when they do."""
        return ""

    def reads_masks(self, values: Values) -> bool:
        """Whether it reads masks that were searched for the model from a file."""
        return False


@dataclass(frozen=True)
class Chosen:
    """One method with a value for every parameter; None where the method decides by itself."""

    kind: MethodKind
    values: Values

    @property
    def text(self) -> str:
        """The canonical text."""
        told = [
            f"{name}={_shown(value)}"
            for name, value in self.values.items()
            if value is not None and value != self.kind.parameters[name].default
        ]
        return self.kind.name + (":" + ",".join(told) if told else "")


def _shown(value: Value) -> str:
    return value if isinstance(value, str) else f"{value:.9g}"
