"""What a method is: put around a loaded model, undone without trace, begun anew for each video.

Legend: B videos, F/H/W tokens per axis (frames, rows, columns after patching), N = F H W.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from vidplat.methods.filling.moments import Filling
    from vidplat.methods.solver import Solver


@dataclass(frozen=True)
class Grid:
    """How the N tokens of a video lie: frame-major, then rows, then columns."""

    frames: int
    rows: int
    columns: int

    @property
    def per_frame(self) -> int:
        return self.rows * self.columns

    @property
    def tokens(self) -> int:
        return self.frames * self.per_frame


@dataclass(frozen=True)
class Run:
    """One video that is about to be made. `solver` is alive: its index moves on."""

    solver: Solver
    grid: Grid
    branches: int  # 2 with guidance, 1 without
    guidance_scale: float
    #: the video that is edited, clean latents (1, C, F, H, W); None: made from text alone
    source: Tensor | None = None
    #: makes such a run once, of a fixed prompt and seed; None: nobody can
    rehearse: Callable[[], None] | None = None
    revision: str = ""  # of the model's files; "" where nobody knows
    #: what the run starts from, (1, C, F, H, W); None where no frames may be left out
    noise: Tensor | None = None
    #: the loaded model, for methods that look at the video in mid-run; None alike
    family: Any = None


class Method(ABC):
    """See the module's text. Made by `MethodKind.install` from a choice's values. The answers here
    are those of a method that neither leaves frames out nor learns anything."""

    name: str

    @abstractmethod
    def applied_to(self, model: Any) -> AbstractContextManager[None]:
        """Enter: install on a transformer. Leave: everything is as before, bit for bit."""

    def refusal(self, model: Any, run: Run) -> str:
        """Why it cannot make this video on this transformer, as a sentence; "" when it can."""
        return ""

    def begin(self, run: Run) -> None:  # noqa: B027
        """Before each video: forget the last one."""

    def is_calibrated(self, run: Run) -> bool:
        """Whether it knows all it needs for such a run, or must watch a whole one before it can
        skip anything; asked after `begin`. See `peers/calibration.py`."""
        return True

    def calibrating(self, run: Run) -> AbstractContextManager[None]:
        """Within this context a rehearsal is watched, nothing skipped; what it showed is kept."""
        return nullcontext()

    def started(self, latents: Tensor) -> Tensor:
        """The latents (1, C, F, H, W) that the run starts from; asked after `begin`."""
        return latents

    def stepped(self, latents: Tensor, velocity: Tensor) -> Tensor:
        """The latents (1, C, M, H, W) that go on, of those after the step that `velocity` answered,
        guidance included. Where they are other frames than before, the method has told
        `run.solver` to `forget`."""
        return latents

    def filling(self) -> Filling | None:
        """How the decoded frames become the whole video; None: nothing was left out."""
        return None

    def share(self, step: int, steps: int) -> float:
        """Cost of `step` of `steps` by now relative to a full one, as far as known beforehand."""
        return 1.0

    def facts(self) -> Mapping[str, float]:
        """By name, what plans and sidecars should know of the video that was just made."""
        return {}

    def files(self) -> list[dict[str, Any]]:
        """What it read for that video and its text does not tell: for the sidecar, each with its
        `kind` and the `sha256` of its content."""
        return []
