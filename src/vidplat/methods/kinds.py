"""What a method answers for itself before anything is loaded.

A kind is a line of `table.KINDS`; a `Chosen` is a kind with a value for each of its parameters. A
kind tells facts (its name, its parameters, which seam it touches, what it excludes) and answers
questions: does it suit a video, which share of the work does it leave, how many latent frames does
it make to the end, what should a survey try, how is it installed. The answers here are those of a
method of which nothing is known beforehand; each kind overrides two or three of them in `words.py`
of its folder. Nobody else compares names of methods.

Neither this file nor any `words.py` loads torch or Ray, so that the command line, intake and the
scheduler can refuse a wrong method before any work is done.

Left to others: reading and writing a choice as text (`language`), counting with the answers
(`work`, `frames`), and what a method does on a loaded model (`on_model` in its folder).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from vidplat.domain import OperatingPoint, VideoSpec
from vidplat.methods.model_shape import EULER, ModelShape
from vidplat.methods.pass_size import BlockSize

if TYPE_CHECKING:
    from vidplat.methods.protocol import Method

Value = float | int | str
#: A `Value` for each parameter; None: the method decides by itself.
Values = Mapping[str, Any]

_NOTHING: Values = MappingProxyType({})


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


def parameters(**each: Number | Choice) -> Mapping[str, Number | Choice]:
    """The parameters of a kind by name, in the order of its text."""
    return MappingProxyType(each)


@dataclass(frozen=True)
class Task:
    """What is to be made, as far as it decides whether a method suits."""

    latent_frames: int
    steps: int
    is_edit: bool = False  # from an input video, not from text alone
    in_blocks: bool = False  # on a model that makes its frames block by block
    patch_frames: int = 1  # latent frames of a token
    solver: str = EULER  # the model's own, or what is asked for in its place, by its class

    @classmethod
    def of(cls, shape: ModelShape, spec: VideoSpec, steps: int, is_edit: bool = False) -> Task:
        """A video of `spec` in so many steps on this model."""
        frames, in_blocks = shape.latent_frames(spec.num_frames), shape.blocks is not None
        return cls(frames, steps, is_edit, in_blocks, shape.patch[0], shape.solver)


@dataclass(frozen=True)
class PlannedRun:
    """A run as a plan knows it, for counting what a method leaves of its work."""

    steps: int
    frames: int  # token frames: latent frames after patching
    per_frame: int  # tokens of each
    layers: int
    block: BlockSize
    kept: float | None = None  # share of an edit's tokens that run; None: nobody knows yet
    passes: Sequence[int] = ()  # the steps whose passes run


class StoreSizes(NamedTuple):
    """What a method's stores are counted by."""

    tokens: int
    width: int
    layers: int
    branches: int
    value_bytes: int  # of the type that the transformer computes in
    on_gpu: bool  # so that there is another memory, the CPU's


class Share(NamedTuple):
    """Of the FLOPs of a plain run of as many steps: each in [0, 1], or little above."""

    linear: float = 1.0  # projections and feed forward
    attention: float = 1.0


@dataclass(frozen=True)
class Candidate:
    """A way of spending less that a survey compares, with one knob.

    Ways with few settings list them in `settings`, gentlest first; others are tuned by `point`,
    which for x in (0, 1) gives a point that takes about that share of the denoising time. `solver`
    is the method text of its full-step reference, "" for the model's own solver.
    """

    name: str
    settings: tuple[OperatingPoint, ...] = ()
    point: Callable[[float], OperatingPoint] | None = None
    solver: str = ""


class MethodKind:
    """One line of the table. A subclass gives the facts and whichever answers differ from these."""

    name: str
    seam: Seam
    parameters: Mapping[str, Number | Choice]
    first: str  # the parameter that may be given bare, as in `hsa:50`
    needs_euler: str = ""  # why it does not go with a solver that combines several steps
    is_multistep: bool = False  # of a solver: it is one
    solver: str = ""  # of a solver: its class in diffusers
    makes_edits: bool = False  # videos from an input video, too
    makes_blocks: bool = False  # also on models that make their frames block by block
    by_source: bool = False  # what it leaves out is found in the input video
    rehearses: bool = False  # a worker may run once for nothing before its first video
    # The parameter that a plan chooses where it is left open. Such a method's quality is read along
    # the share of latent frames that it keeps, and it goes with fewer steps.
    left_to_plan: str = ""
    # Module and class of what is put around a loaded model; "": nothing.
    on_model: str = ""

    # --- its text ---------------------------------------------------------------------------------

    def chosen(self, values: Values = _NOTHING) -> Chosen:
        """This method with these values, and defaults for the others."""
        defaults = {name: parameter.default for name, parameter in self.parameters.items()}
        return Chosen(self, MappingProxyType({**defaults, **values}))

    def contradiction(self, values: Values) -> str:
        """Why values that are good one by one mean nothing together; "" when they do."""
        return ""

    def reads_masks(self, values: Values) -> bool:
        """Whether it reads masks that were searched for the model from a file."""
        return False

    # --- for plans --------------------------------------------------------------------------------

    def unsuited(self, values: Values, task: Task) -> str:
        """Why it cannot make such a video, as a sentence; "" when it can. Whether it makes edits
        and blocks at all is told by the facts."""
        return ""

    def passes(self, values: Values, steps: int) -> Sequence[int]:
        """The steps whose passes run, as far as that is decided beforehand."""
        return range(steps)

    def share(self, values: Values, run: PlannedRun) -> Share | None:
        """What it leaves of a run's work, by closed form; None where only a profile knows."""
        return None

    def kept(self, values: Values, frames: int) -> int:
        """Of so many latent frames those that it makes to the end; all where the video decides."""
        return frames

    def options(self, values: Values, frames: int) -> Sequence[Value]:
        """What a plan may put for `left_to_plan` in a video of so many latent frames, rising."""
        return ()

    def stored_bytes(self, values: Values, sizes: StoreSizes) -> int:
        """What it keeps of a video from pass to pass, on the device, where that is much."""
        return 0

    def leaner(self, values: Values) -> Sequence[Values]:
        """The same with less on the device, in the order to be tried: neither passes nor tokens
        change, so what was measured of `values` holds."""
        return ()

    # --- for surveys ------------------------------------------------------------------------------

    def at(self, steps: int, **values: Value) -> OperatingPoint:
        """A point of so many steps with these values."""
        return OperatingPoint(steps, method=self.chosen(values).text)

    def candidates(self, steps: int, frames: int) -> Sequence[Candidate]:
        """What to try on videos of so many full steps and latent frames."""
        return ()

    # --- on a loaded model ------------------------------------------------------------------------

    def install(self, values: Values) -> Method | None:
        """What is put around a loaded model; None: nothing. Loads torch."""
        if not self.on_model:
            return None
        module, _, name = self.on_model.partition(":")
        made: Method = getattr(import_module(f"vidplat.methods.{module}"), name)(values)
        return made

    def scheduler(self, values: Values, own: Any) -> Any:
        """The diffusers scheduler to solve with, where the model brings its `own`."""
        return own


@dataclass(frozen=True)
class Chosen:
    """One method with a value for every parameter; None where the method decides by itself."""

    kind: MethodKind
    values: Values

    @property
    def text(self) -> str:
        """The canonical text."""
        usual = {name: parameter.default for name, parameter in self.kind.parameters.items()}
        return self._told(lambda name, value: value != usual[name])

    @property
    def in_full(self) -> str:
        """With the defaults."""
        return self._told(lambda name, value: True)

    def _told(self, is_worth_it: Callable[[str, Value], bool]) -> str:
        told = ",".join(
            f"{name}={_shown(value)}"
            for name, value in self.values.items()
            if value is not None and is_worth_it(name, value)
        )
        return f"{self.kind.name}:{told}" if told else self.kind.name

    def install(self) -> Method | None:
        """See `MethodKind.install`."""
        return self.kind.install(self.values)

    def scheduler(self, own: Any) -> Any:
        """See `MethodKind.scheduler`."""
        return self.kind.scheduler(self.values, own)


def _shown(value: Value) -> str:
    return value if isinstance(value, str) else f"{value:.9g}"
