"""The methods installed around one loaded model.

`Installed` keeps what is on the model between videos: asking for the same methods again costs
nothing, asking for others undoes the old ones first. The order of installation is that of
`vidplat.methods.table.KINDS`, so attention links run in that order too.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from vidplat.errors import MethodRefused
from vidplat.methods.filling.moments import Filling
from vidplat.methods.kinds import Chosen
from vidplat.methods.language import parse
from vidplat.methods.protocol import Method, Run


class Installed:
    """The methods around one family's transformers. For one thread at a time, as the family."""

    def __init__(self, transformers: Sequence[Any], revision: str = "") -> None:
        """`revision`: of the model's files, for methods with files of their own; "": unknown."""
        self._transformers, self._revision = tuple(transformers), revision
        self._stack = ExitStack()
        # also when a worker ends, while imports still work
        weakref.finalize(self, self._stack.close)
        self._methods: tuple[Method, ...] = ()
        self._chosen: tuple[Chosen, ...] = ()

    def use(self, method: str) -> None:
        """Have exactly these methods installed, "" for none. Raises `UsageError` as `parse`."""
        self.install(parse(method) if method else ())

    def install(self, chosen: Sequence[Chosen]) -> None:
        """As `use`, of choices that were read already, be their kinds in the table or not."""
        chosen = tuple(chosen)
        if chosen == self._chosen:
            return
        self.remove()
        found = (one.install() for one in chosen)
        methods = tuple(one for one in found if one is not None)
        try:
            for one in methods:
                for model in self._transformers:
                    self._stack.enter_context(one.applied_to(model))
        except BaseException:
            self.remove()
            raise
        self._methods, self._chosen = methods, chosen

    def scheduler(self, own: Any) -> Any:
        """The diffusers scheduler that the methods ask for; the model's `own` by default."""
        for one in self._chosen:
            own = one.scheduler(own)
        return own

    def begin(self, run: Run) -> None:
        """Before each video. Raises `MethodRefused` with the reason where one cannot make it."""
        run = replace(run, revision=self._revision)
        for method in self._methods:
            for model in self._transformers:
                if why := method.refusal(model, run):
                    raise MethodRefused(f"{method.name} cannot be used here: {why}")
            method.begin(run)
        for method in self._methods:
            if not method.is_calibrated(run):
                self._calibrate(method, run)

    def _calibrate(self, method: Method, run: Run) -> None:
        """One rehearsal with all methods installed; then everything begins again."""
        if run.rehearse is None:
            raise MethodRefused(
                "a method that is calibrated by a whole run cannot be used where nobody can "
                "make one"
            )
        with method.calibrating(run):
            run.rehearse()
        for one in self._methods:
            one.begin(run)

    def started(self, latents: Any) -> Any:
        """The latents that the run starts from, as methods that prune a source video want them."""
        for method in self._methods:
            latents = method.started(latents)
        return latents

    def stepped(self, latents: Any, velocity: Any) -> Any:
        """After each step: the latents that go on, fewer where a method leaves frames out."""
        for method in self._methods:
            latents = method.stepped(latents, velocity)
        return latents

    def filling(self) -> Filling | None:
        """How the decoded frames become the whole video; None: they are the whole video."""
        # two such methods exclude each other
        return next(filter(None, (method.filling() for method in self._methods)), None)

    def share(self, step: int, steps: int) -> float:
        """Expected cost of a step relative to a full one, where the methods know it beforehand."""
        return math.prod(method.share(step, steps) for method in self._methods)

    def facts(self) -> dict[str, float]:
        """What the methods found of the video that was made last."""
        told = (method.facts() for method in self._methods)
        return {name: value for facts in told for name, value in facts.items()}

    def files(self) -> list[dict[str, Any]]:
        """The files that decided pixels of the video that was made last."""
        return [file for method in self._methods for file in method.files()]

    def remove(self) -> None:
        """Put the stock model back."""
        self._stack.close()
        self._methods, self._chosen = (), ()
