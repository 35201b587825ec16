"""The methods a job may be made with, as text, and which of them go together.

A method is written `name`, `name:value` or `name:key=value,key=value`; methods that work together
are joined by `+`: `hsa:50`, `sparse:k=3,dense_steps=2`, `hsa:25+sparse:k=3`. `parse` reads such a
text and `text` writes it back in one canonical way (defaults left out, fixed order), so equal
choices are equal texts in plans, profiles and the catalog.

Only words and numbers: what a kind of method says of itself is in `words` of its folder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from functools import lru_cache
from types import MappingProxyType

from vidplat.domain import PLAIN_METHODS
from vidplat.errors import UsageError, printable
from vidplat.methods.gone import gone
from vidplat.methods.kinds import Choice, Chosen, MethodKind, Seam, Value
from vidplat.methods.table import KINDS

#: Pairs of seams that exclude each other, with the reason.
_APART: Mapping[frozenset[Seam], str] = {
    frozenset({Seam.TOKENS, Seam.PASSES}): (
        "both reuse old velocities, and a pass that is skipped would leave the tokens' caches a "
        "step behind"
    ),
    frozenset({Seam.FRAMES, Seam.TOKENS}): "what is kept of tokens has the places of all frames",
    frozenset(
        {Seam.FRAMES, Seam.PASSES}
    ): "what is kept of skipped passes has the places of all frames",
    frozenset({Seam.FRAMES, Seam.ATTENTION}): "masks are laid out for all frames",
}


def parse(method: str) -> tuple[Chosen, ...]:
    """The methods of a text, in the table's order. Raises `UsageError` that names the part at
    fault."""
    return _parse(method.strip())


def text(chosen: tuple[Chosen, ...]) -> str:
    """The canonical text of what `parse` gave."""
    return "+".join(one.text for one in chosen)


def may_rehearse(method: str) -> bool:
    """Whether a text that `parse` takes may make each worker run once for nothing before its first
    video."""
    return bool(method) and any(one.kind.rehearses for one in parse(method))


def uses_searched_masks(method: str) -> bool:
    """Whether a text that `parse` takes, or one of the plain methods, reads masks from a file."""
    return "searched" in method.lower() and any(
        one.kind.reads_masks(one.values) for one in parse(method)
    )


@lru_cache(maxsize=4096)
def _parse(method: str) -> tuple[Chosen, ...]:
    found = [_one(part.strip(), method) for part in method.split("+")]
    for i, one in enumerate(found):
        for other in found[:i]:
            if why := _conflict(other.kind, one.kind):
                raise UsageError(
                    f"{other.kind.name} and {one.kind.name} cannot be used together: {why}"
                )
    order = list(KINDS)
    return tuple(sorted(found, key=lambda one: order.index(one.kind.name)))


def _conflict(one: MethodKind, other: MethodKind) -> str:
    if one.seam == other.seam:
        return f"both decide {one.seam}"
    by_name = one.excludes.get(other.name) or other.excludes.get(one.name)
    return by_name or _APART.get(frozenset({one.seam, other.seam}), "")


def _one(part: str, whole: str) -> Chosen:
    name, _, rest = part.partition(":")
    name = name.strip().lower()
    if name not in KINDS:
        if sentence := gone(whole):
            raise UsageError(sentence)
        near = get_close_matches(name, KINDS, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UsageError(
            f"method {printable(whole)!r} is not known; {hint}use auto, "
            f"{', '.join(PLAIN_METHODS)}, "
            f"or of these one or more joined by '+': {', '.join(KINDS)}"
        )
    kind = KINDS[name]
    values: dict[str, Value | None] = {
        key: parameter.default for key, parameter in kind.parameters.items()
    }
    told: set[str] = set()
    for item in filter(None, (piece.strip() for piece in rest.split(","))):
        key, equals, given = (piece.strip() for piece in item.partition("="))
        if not equals:
            key, given = kind.first, key
        key = key.lower()
        if key not in kind.parameters:
            near = get_close_matches(key, kind.parameters, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise UsageError(
                f"{name} has no parameter {printable(key)!r}: {hint}It has "
                f"{', '.join(kind.parameters)}"
            )
        if key in told:
            raise UsageError(f"{name} is given {key} twice: {printable(part)!r}")
        told.add(key)
        values[key] = _value(kind, key, given)
    if why := kind.contradiction(values):
        raise UsageError(f"{name}: {why}")
    return Chosen(kind, MappingProxyType(values))


def _value(kind: MethodKind, key: str, given: str) -> Value:
    parameter = kind.parameters[key]
    if isinstance(parameter, Choice):
        for option in parameter.options:
            if given.lower() == option.lower():
                return option
        raise UsageError(
            f"{kind.name} {key} must be one of {', '.join(parameter.options)}, not "
            f"{printable(given)!r}"
        )
    allowed = f"between {parameter.low:g} and {parameter.high:g}"
    pattern = r"\d{1,9}" if parameter.whole else r"\d{0,9}\.?\d{0,9}(e-?\d{1,2})?"
    if not re.fullmatch(pattern, given, re.IGNORECASE) or not re.match(r"\.?\d", given):
        noun = "a whole number" if parameter.whole else "a number"
        raise UsageError(f"{kind.name} {key} must be {noun} {allowed}, not {printable(given)!r}")
    number: float | int = int(given) if parameter.whole else float(given)
    if not parameter.low <= number <= parameter.high:
        raise UsageError(f"{kind.name} {key} must be {allowed}, not {printable(given)!r}")
    return number
