"""The methods a job may be made with: their names, parameters, and which of them go together.

A method is written `name`, `name:value` or `name:key=value,key=value`; methods that work together
are joined by `+`: `hsa:50`, `sparse:k=3,dense_steps=2`, `hsa:25+sparse:k=3`. `parse` reads such a
text and `text` writes it back in one canonical way (defaults left out, fixed order), so equal
choices are equal texts in plans, profiles and the catalog.

Only words and numbers: what a method does is in `workers/acceleration`, one file for each kind
below. This file loads neither torch nor ray, so the command line, intake and the scheduler can
refuse a wrong method before any work is done.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType

from vidplat.domain import PLAIN_METHODS
from vidplat.errors import UsageError, printable

Value = float | int | str


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


@dataclass(frozen=True)
class MethodKind:
    """One line of the table. `first` names the parameter that may be given bare, as in `hsa:50`."""

    name: str
    about: str
    seam: Seam
    parameters: Mapping[str, Number | Choice]
    first: str


@dataclass(frozen=True)
class Chosen:
    """One method with a value for every parameter; None where the method decides by itself."""

    kind: MethodKind
    values: Mapping[str, Value | None]

    @property
    def text(self) -> str:
        """The canonical text."""
        told = [
            f"{name}={_shown(value)}"
            for name, value in self.values.items()
            if value is not None and value != self.kind.parameters[name].default
        ]
        return self.kind.name + (":" + ",".join(told) if told else "")


KINDS: Mapping[str, MethodKind] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            MethodKind(
                "hsa",
                "tokens that hardly change take fewer steps (HSA, arXiv 2605.06892)",
                Seam.TOKENS,
                {
                    "preset": Choice("50", ("75A", "75B", "50", "25")),
                    "work": Number(
                        None, 0.05, 1.0
                    ),  # share of the full run's work, instead of a preset's
                    "score": Choice("cond", ("cond", "guided", "random")),
                    "selector": Choice("groups", ("groups", "topk")),
                    "form": Choice("stepwise", ("stepwise", "lazy")),
                    "kv": Choice("full", ("full", "fp8", "offload")),
                    "smooth": Number(0, 0, 3, whole=True),
                },
                first="preset",
            ),
            MethodKind(
                "lipar",
                "tokens that repeat their past in the edited video do not run (LIPAR, arXiv "
                "2603.05811)",
                Seam.TOKENS,
                {
                    "tau1": Number(0.15, 0.0, 10.0),
                    "tau2": Number(0.3, 0.0, 10.0),
                    "recovery": Choice("auto", ("auto", "noise-aware", "noisy", "bias", "none")),
                    "min_keep": Number(0.0, 0.0, 1.0),
                },
                first="tau1",
            ),
            MethodKind(
                "sparse",
                "frames attend to themselves and to k reference frames (Efficient-vDiT, arXiv "
                "2502.06155)",
                Seam.ATTENTION,
                {
                    "k": Number(3, 1, 64, whole=True),
                    "masks": Choice("uniform", ("uniform", "searched")),
                    "dense_steps": Number(0, 0, 1000, whole=True),
                    "dense_ends": Number(0, 0, 16, whole=True),
                    "path": Choice("auto", ("auto", "gather", "lse", "flex")),
                },
                first="k",
            ),
            MethodKind(
                "early",
                "passes run at chosen steps, dense at first and thin at the end, the velocity "
                "held between (ours)",
                Seam.PASSES,
                {"work": Number(0.5, 0.01, 1.0)},  # share of the steps whose passes run
                first="work",
            ),
            MethodKind(
                "teacache",
                "passes are skipped while the time embedding changes little (TeaCache, arXiv "
                "2411.19108)",
                Seam.PASSES,
                {"threshold": Number(0.08, 0.0, 10.0)},
                first="threshold",
            ),
            MethodKind(
                "easycache",
                "passes are skipped while the output is predicted to change little (EasyCache, "
                "arXiv 2507.02860)",
                Seam.PASSES,
                {"threshold": Number(0.05, 0.0, 10.0), "warmup": Number(0.2, 0.0, 1.0)},
                first="threshold",
            ),
            MethodKind(
                "magcache",
                "passes are skipped while residuals keep their size (MagCache, arXiv "
                "2506.09045; diffusers)",
                Seam.PASSES,
                {
                    "threshold": Number(0.12, 0.0, 10.0),
                    "most": Number(3, 1, 100, whole=True),
                    "warmup": Number(0.2, 0.0, 1.0),
                },
                first="threshold",
            ),
            MethodKind(
                "fbcache",
                "passes are skipped while the first block's residual changes little "
                "(FirstBlockCache; diffusers)",
                Seam.PASSES,
                {
                    "threshold": Number(0.05, 0.0, 10.0),
                    "most": Number(3, 1, 100, whole=True),
                    "warmup": Number(0.2, 0.0, 1.0),
                },
                first="threshold",
            ),
            MethodKind(
                "dbcache",
                "as fbcache, with F first and B last blocks always computed (DBCache; cache-dit)",
                Seam.PASSES,
                {
                    "threshold": Number(0.08, 0.0, 10.0),
                    "front": Number(1, 1, 64, whole=True),
                    "back": Number(0, 0, 64, whole=True),
                    "taylor": Number(0, 0, 4, whole=True),
                    "warmup": Number(4, 0, 1000, whole=True),
                },
                first="threshold",
            ),
            MethodKind(
                "eco",
                "K latent frames are finished, the others left out early and filled in "
                "(EcoVideo, arXiv 2606.30557)",
                Seam.FRAMES,
                {
                    "k": Number(
                        None, 2, 1000, whole=True
                    ),  # latent frames that are finished; a half of them
                    "d": Number(
                        1, 0, 3, whole=True
                    ),  # depth of interpolation, see `workers/reconstruct.py`
                    "warmup": Number(0.1, 0.0, 1.0),  # share of the steps that see all frames
                    "selector": Choice(
                        "uniform", ("entropy", "uniform", "random", "motion", "anti-entropy")
                    ),
                    "entropy": Choice("rows", ("rows", "pooled", "heads")),
                    "join": Choice("ema", ("ema", "mean", "last")),
                    "rope": Choice("original", ("original", "compact")),
                    "solver": Choice("reset", ("keep", "reset")),
                    "context": Choice("off", ("off", "on")),
                    "refresh": Number(
                        None, 1, 1000, whole=True
                    ),  # steps after which the context is made anew; never
                    "max_gap": Number(None, 1, 1000, whole=True),
                    "timeline": Choice("true", ("true", "code")),
                },
                first="k",
            ),
            MethodKind(
                "vgdfr",
                "quiet passages are merged in mid-run, and fewer latent frames go on (VGDFR, "
                "arXiv 2504.12259)",
                Seam.FRAMES,
                {
                    "theta": Number(0.7, 0.0, 1.0),  # frames more alike than this are merged
                    "k": Number(
                        None, 1, 1000, whole=True
                    ),  # steps before the preview; a tenth of them
                    "ratio": Number(
                        None, 0.01, 1.0
                    ),  # of the frames at most this share is left, instead of theta
                    "alike": Choice("span", ("span", "whole", "min-tile")),
                    "quads": Choice("on", ("on", "off")),
                    "merge": Choice("latents", ("latents", "mean", "first")),
                    "noise": Choice("pooled", ("pooled", "selected")),
                    "anchor": Choice("first", ("first", "centre")),
                    "unmerged": Choice("own", ("own", "encoded")),
                    "rope": Choice("global", ("global", "local")),
                    "d": Number(
                        1, 0, 3, whole=True
                    ),  # depth of interpolation, see `workers/reconstruct.py`
                    "late": Choice(
                        "shorten", ("shorten", "merge")
                    ),  # what is given up by a run that is late
                },
                first="theta",
            ),
            MethodKind(
                "euler",
                "solve with flow-match Euler, whatever the model's own solver is",
                Seam.SOLVER,
                {"shift": Number(None, 0.01, 100.0)},
                first="shift",
            ),
            MethodKind(
                "unipc",
                "solve with UniPC of order 2, whatever the model's own solver is",
                Seam.SOLVER,
                {"shift": Number(None, 0.01, 100.0)},
                first="shift",
            ),
        )
    }
)

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
#: Pairs of methods that exclude each other, with the reason.
_APART_BY_NAME: Mapping[frozenset[str], str] = {
    frozenset({"hsa", "unipc"}): (
        "UniPC would divide the change of several steps by one when a token wakes up; hsa needs "
        "euler"
    ),
    frozenset({"early", "unipc"}): (
        "UniPC would divide the change of several steps by one when a pass runs again; early "
        "needs euler"
    ),
}


#: Calibrated by a whole run, some of them only on models without published constants.
_REHEARSED = frozenset({"magcache", "teacache"})


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
    return bool(method) and any(one.kind.name in _REHEARSED for one in parse(method))


def uses_searched_masks(method: str) -> bool:
    """Whether a text that `parse` takes, or one of the plain methods, reads masks from a file."""
    return "searched" in method.lower() and any(
        one.values.get("masks") == "searched" for one in parse(method)
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
    by_name = _APART_BY_NAME.get(frozenset({one.name, other.name}))
    return by_name or _APART.get(frozenset({one.seam, other.seam}), "")


def _one(part: str, whole: str) -> Chosen:
    name, _, rest = part.partition(":")
    name = name.strip().lower()
    if name not in KINDS:
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
    if why := _contradiction(kind, values):
        raise UsageError(f"{name}: {why}")
    return Chosen(kind, MappingProxyType(values))


def _contradiction(kind: MethodKind, values: Mapping[str, Value | None]) -> str:
    """Why values that are good one by one mean nothing together; "" when they do."""
    if (
        kind.name == "sparse"
        and values["masks"] == "searched"
        and values["k"] != kind.parameters["k"].default
    ):
        return (
            f"k={values['k']} and masks=searched exclude each other, since searched masks "
            "bring a k for each layer"
        )
    if kind.name == "eco" and values["refresh"] is not None and values["context"] == "off":
        return (
            f"refresh={values['refresh']} is for context=on: nothing else looks at the "
            "frames that were left out"
        )
    if (
        kind.name == "vgdfr"
        and values["ratio"] is not None
        and values["theta"] != kind.parameters["theta"].default
    ):
        return (
            f"theta={values['theta']} and ratio={values['ratio']} exclude each other: a "
            "ratio finds its own theta"
        )
    if kind.name == "vgdfr" and values["merge"] == "first" and values["anchor"] == "centre":
        return (
            "merge=first and anchor=centre exclude each other: a group's first frame stands "
            "at its own time"
        )
    if kind.name == "vgdfr" and values["merge"] == "latents" and values["unmerged"] == "encoded":
        return (
            "unmerged=encoded is for merge=mean and merge=first: of merged latents nothing "
            "is encoded"
        )
    return ""


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


def _shown(value: Value) -> str:
    return value if isinstance(value, str) else f"{value:.9g}"
