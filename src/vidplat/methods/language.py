"""The one language of `--method`: text to choices and back, and which methods go together.

    auto, full, steps, steps:N      what the planner chooses, all steps, fewer of them, N of them
    name, name:value                a method, its first parameter given bare: `hsa:50`
    name:key=value,key=value        more of them: `sparse:k=3,dense_steps=2`
    one+other                       methods that work together: `hsa:25+sparse:k=3`

`asked` reads every such text, `parse` those of methods alone, and `text` writes a choice back in
one canonical way (defaults left out, the table's order), so equal choices are equal texts in plans,
profiles and the catalog. It is the text that travels: a row of a method that has gone since can
still be shown, and only who plans or makes a video reads it. Each text is read once.

Left to others: what a kind of method says of itself (`words` of its folder).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import lru_cache

from vidplat.domain import PLAIN_METHODS, OperatingPoint
from vidplat.errors import UsageError, printable
from vidplat.methods.gone import gone, gone_option
from vidplat.methods.kinds import Choice, Chosen, MethodKind, Seam, Task, Value
from vidplat.methods.model_shape import EULER
from vidplat.methods.table import KINDS

#: Pairs of seams that exclude each other, with the reason.
_APART: Mapping[frozenset[Seam], str] = {
    frozenset({Seam.TOKENS, Seam.PASSES}): (
        "both reuse old velocities, and a pass that is skipped would leave the tokens' caches a "
        "step behind"
    ),
    frozenset({Seam.FRAMES, Seam.TOKENS}): "what is kept of tokens has the places of all frames",
    frozenset({Seam.FRAMES, Seam.PASSES}): (
        "what is kept of skipped passes has the places of all frames"
    ),
    frozenset({Seam.FRAMES, Seam.ATTENTION}): "masks are laid out for all frames",
}


@dataclass(frozen=True)
class Asked:
    """What a text asks for."""

    name: str  # auto, full, steps, or "" for the methods of `chosen`
    steps: int | None = None  # None: left to the planner
    chosen: tuple[Chosen, ...] = ()


def asked(method: str) -> Asked:
    """What a text of `--method` asks for. Raises `UsageError` that names the part at fault."""
    return _asked(method.strip().lower())


def parse(method: str) -> tuple[Chosen, ...]:
    """The methods of a text, in the table's order. Raises `UsageError` as `asked`."""
    return _parse(method.strip())


def text(chosen: tuple[Chosen, ...]) -> str:
    """The canonical text of what `parse` gave."""
    return "+".join(one.text for one in chosen)


def chosen(point: OperatingPoint) -> tuple[Chosen, ...]:
    """The methods that a point is made with; none for plain steps."""
    return parse(point.accelerator) if point.accelerator else ()


def in_full(method: str) -> str:
    """For people: with the defaults, which the canonical text leaves out: `early:work=0.5`."""
    return "+".join(one.in_full for one in parse(method)) if is_known(method) else method


def made_with(point: OperatingPoint) -> str:
    """For people: `24 steps, early:work=0.5`."""
    if not point.accelerator:
        return point.label
    return replace(point, method=in_full(point.accelerator)).label


def unsuited(method: str, task: Task) -> str:
    """Why what a text asks for cannot make such a video, as a row may say it; "" when it can."""
    chosen = asked(method).chosen
    for one in chosen:
        if one.kind.seam is Seam.SOLVER:
            task = replace(task, solver=one.kind.solver)
    for one in chosen:
        kind = one.kind
        if task.is_edit and not kind.makes_edits:
            use = [other.name for other in KINDS.values() if other.makes_edits]
            return f"{kind.name} is not made for rows with an input video: use {_or(*use)}"
        if task.in_blocks and not kind.makes_blocks:
            use = [other.name for other in KINDS.values() if other.makes_blocks]
            return (
                f"{kind.name} is not made for a model that makes its frames block by block: use "
                f"{_or(*use)}"
            )
        if kind.needs_euler and task.solver != EULER:
            return (
                f"{kind.name} needs euler, and this model's own solver is {task.solver}: write "
                f"{method.strip()}+euler"
            )
        if why := kind.unsuited(one.values, task):
            return why
    return ""


def may_rehearse(method: str) -> bool:
    """Whether what a text asks for may make each worker rehearse before its first video."""
    return any(one.kind.rehearses for one in asked(method).chosen)


def is_known(method: str) -> bool:
    """Whether a text asks for something that there is."""
    try:
        asked(method)
    except UsageError:
        return False
    return True


def uses_searched_masks(method: str) -> bool:
    """Whether what a text asks for reads masks from a file."""
    return any(one.kind.reads_masks(one.values) for one in asked(method).chosen)


@lru_cache(maxsize=4096)
def _asked(method: str) -> Asked:
    if method in ("", "auto"):
        return Asked("auto")
    if method in PLAIN_METHODS:
        return Asked(method)
    if not re.match(r"steps\b", method):
        return Asked("", chosen=parse(method))
    found = re.fullmatch(r"steps\s*:\s*([1-9]\d{0,4})", method)
    if found is None:
        raise UsageError(
            gone(method)
            or f"method {printable(method)!r} is not known; use steps:N with N of 1 or more"
        )
    return Asked("steps", int(found[1]))


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
    for method, solver in ((one, other), (other, one)):
        if method.needs_euler and solver.is_multistep:
            return f"{method.needs_euler}; {method.name} needs euler"
    return _APART.get(frozenset({one.seam, other.seam}), "")


def _one(part: str, whole: str) -> Chosen:
    name, _, rest = part.partition(":")
    name = name.strip().lower()
    if name not in KINDS:
        if sentence := gone(whole):
            raise UsageError(sentence)
        raise UsageError(
            f"method {printable(whole)!r} is not known; {_hint(name, KINDS)}use auto, "
            f"{', '.join(PLAIN_METHODS)}, or of these one or more joined by '+': {', '.join(KINDS)}"
        )
    kind = KINDS[name]
    told: dict[str, Value] = {}
    for item in filter(None, (piece.strip() for piece in rest.split(","))):
        key, equals, given = (piece.strip() for piece in item.partition("="))
        if not equals:
            key, given = kind.first, key
        key = key.lower()
        if key not in kind.parameters:
            if sentence := gone_option(name, key):
                raise UsageError(sentence)
            raise UsageError(
                f"{name} has no parameter {printable(key)!r}: {_hint(key, kind.parameters)}It has "
                f"{', '.join(kind.parameters)}"
            )
        if key in told:
            raise UsageError(f"{name} is given {key} twice: {printable(part)!r}")
        told[key] = _value(kind, key, given)
    chosen = kind.chosen(told)
    if why := kind.contradiction(chosen.values):
        raise UsageError(f"{name}: {why}")
    return chosen


def _hint(word: str, known: Mapping[str, object]) -> str:
    near = get_close_matches(word, known, 1)
    return f"did you mean {near[0]}? " if near else ""


def _value(kind: MethodKind, key: str, given: str) -> Value:
    parameter = kind.parameters[key]
    if isinstance(parameter, Choice):
        for option in parameter.options:
            if given.lower() == option.lower():
                return option
        raise UsageError(
            gone_option(kind.name, key, given.lower())
            or f"{kind.name} {key} must be one of {', '.join(parameter.options)}, not "
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


def _or(*methods: str) -> str:
    words = (*PLAIN_METHODS, *methods)
    return f"{', '.join(words[:-1])} or {words[-1]}"
