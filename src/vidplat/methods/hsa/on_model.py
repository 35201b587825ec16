"""Heterogeneous step allocation: tokens that hardly change take fewer steps (arXiv 2605.06892).

The first steps are full; in them every token is scored by how much its velocity changes
(`score.py`) and put into a group for good, the same for both branches of guidance. From then on
`schedule.py` says which groups run, or that a whole step is left out and the last velocity given
again. Tokens that run go through the blocks alone and attend to the keys and values of all, kept
per layer and branch (`kv_store.py`). What the others answer is kept too (`held.py`), so that the
solver's ordinary Euler step moves every token and all stand at the same sigma.

With two transformers (Wan 2.2) the first step of the second one is full, and nothing kept of the
first is used. Multistep solvers are refused: they would divide the change of several steps by one.
The tokens of a given first frame (image to video) are scored as all others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vidplat.methods.hsa import schedule as schedules
from vidplat.methods.hsa.held import Held, HeldPrediction, HeldVelocity, Level
from vidplat.methods.hsa.kv_store import KvStore, free_bytes, make_store
from vidplat.methods.hsa.schedule import Schedule
from vidplat.methods.hsa.score import Score, first_scored, partition
from vidplat.methods.protocol import Method, Run
from vidplat.methods.seams.attention import Attend, AttentionCall, linked
from vidplat.methods.seams.layouts import Args, Kwargs, Layout, layout_of
from vidplat.methods.seams.solver_choice import not_plain_euler
from vidplat.methods.seams.tokens import Pass, Present, hooked

#: Velocities are kept as they are; asking for the sigma would wait for the device.
_ANY = Level(1.0, 0.0)
_DDIM = ("DDIMScheduler", "CogVideoXDDIMScheduler")


class Hsa(Method):
    """The method. `schedule` makes a schedule for a number of steps; None: the preset's."""

    name = "hsa"

    def __init__(
        self,
        values: Mapping[str, Any],
        schedule: Callable[[int], Schedule] | None = None,
        free: Callable[[torch.device], int] = free_bytes,
    ) -> None:
        self.values, self._free = values, free
        self._schedule = schedule or partial(
            schedules.schedule_of, values["preset"], values["work"]
        )
        self._video: _Video | None = None

    def refusal(self, model: Any, run: Run) -> str:
        layout = layout_of(model)
        return (
            self._wrong_solver(layout, run)
            or self._too_few_steps(layout, run)
            or self._too_little_memory(model, layout, run)
        )

    @contextmanager
    def applied_to(self, model: Any) -> Iterator[None]:
        layout = layout_of(model)
        part = _Part(self, model, layout)
        before = None if layout.velocity else part.look
        with hooked(model, layout, self.name, part.choose, part.fill, before) as part.present:
            try:
                with linked(layout.attentions(model), layout.processor, part.attend):
                    yield
            finally:
                self._video = None

    def begin(self, run: Run) -> None:
        self._video = _Video(run, self._schedule(run.solver.total))

    def share(self, step: int, steps: int) -> float:
        """Share of tokens that run at `step` of `steps`: what it costs relative to a full step."""
        return 1.0 if self._video is None else self._video.schedule.share(step, steps)

    @property
    def video(self) -> _Video:
        if self._video is None:
            raise ValueError("hsa must be told of a video, by begin(run), before its first pass")
        return self._video

    def video_at(self, step: int) -> _Video:
        """The present video at a pass of `step`. One before its last step begins another video,
        though nobody said so: a stock pipeline does not."""
        if step < self.video.step:
            self._video = _Video(self.video.run, self.video.schedule)
        return self.video

    def _wrong_solver(self, layout: Layout, run: Run) -> str:
        if layout.velocity:
            return not_plain_euler(run.solver.scheduler, "token")
        if not hasattr(layout, "per_token"):
            return "this model predicts v, and its layout does not give the latents of each token"
        name = type(run.solver.scheduler).__name__
        why = f"with v-prediction it needs DDIM steps, and the solver is {name}"
        return "" if name in _DDIM else why

    def _too_few_steps(self, layout: Layout, run: Run) -> str:
        try:
            schedule = self._schedule(run.solver.total)
        except ValueError as infeasible:
            least = schedules.least_steps(self.values["preset"])
            return f"{infeasible}; preset {self.values['preset']} needs {least} steps or more"
        runs = (any(schedule.active(step)) for step in range(schedule.steps))
        if not layout.velocity and not all(runs):
            return (
                "it would leave out whole steps, and a v-prediction answer cannot be given again "
                "at another step; take hsa:75A, or fewer steps"
            )
        return ""

    def _too_little_memory(self, model: Any, layout: Layout, run: Run) -> str:
        if self._schedule(run.solver.total).relative_cost == 1:
            return ""  # nothing is kept
        weight = next(model.parameters())
        # of a video that was broken off; the next `begin` frees it
        kept = self._video.nbytes if self._video else 0
        cpu = torch.device("cpu")

        def need(kind: str) -> int:
            return store_bytes(model, layout, run, 1.0 if kind == "fp8" else model.dtype.itemsize)

        def fits(kind: str) -> bool:
            return need(kind) <= self._free(cpu if kind == "offload" else weight.device) + kept

        kind = self.values["kv"]
        if fits(kind):
            return ""
        where = cpu if kind == "offload" else weight.device
        others = [
            f"kv={other} takes {need(other) / 1e9:.2f} "
            f"GB{' of the CPU' if other == 'offload' else ''} and would fit"
            for other in ("fp8", "offload")
            if other != kind and (other == "fp8" or weight.device.type == "cuda") and fits(other)
        ]
        return (
            f"keys and values of {run.grid.tokens} tokens take {need(kind) / 1e9:.2f} GB, and "
            f"{where} has {(self._free(where) + kept) / 1e9:.2f} GB free; "
            f"{' or '.join(others) or 'a smaller video is needed'}"
        )


def store_bytes(model: Any, layout: Layout, run: Run, bytes_per_value: float) -> int:
    """Bytes that the keys and values of one video take, text tokens of joint attention left out."""
    attentions: Any = layout.attentions(model)
    first = attentions[0]
    fused = not hasattr(first, "to_k")
    width = first.to_qkv.out_features // 3 if fused else first.to_k.out_features
    return schedules.kv_bytes(
        run.grid.tokens, width, len(attentions), run.branches, bytes_per_value
    )


@dataclass
class _Branch:
    """What is kept of one branch of one transformer."""

    held: Held
    answered: bool = False
    kv: KvStore | None = None


@dataclass
class _Video:
    """One video on its way: what is decided once per step, and shared by the branches."""

    run: Run
    schedule: Schedule
    step: int = -1
    part: _Part | None = None  # whose transformer took the last step
    rows: Tensor | None = None  # that run at this step; None: all
    keeps: bool = False  # a full pass of this step keeps its keys and values
    branches: dict[str, _Branch] = field(default_factory=dict)
    score: Score = field(default_factory=Score)
    groups: list[Tensor] = field(default_factory=list)
    _sets: dict[tuple[bool, ...], Tensor] = field(default_factory=dict)
    _positions: tuple[Tensor, int, Tensor] | None = None

    @property
    def idle(self) -> bool:
        """No step of this video leaves a token out: the model stays as it is."""
        return self.schedule.relative_cost == 1

    @property
    def nbytes(self) -> int:
        return sum(branch.kv.nbytes for branch in self.branches.values() if branch.kv)

    @property
    def steps(self) -> int:
        return self.run.solver.total

    @property
    def is_scoring(self) -> bool:
        """Steps i0..W-1, and on until there is a score: a second transformer may come between."""
        if self.schedule.in_warmup(self.step):
            return self.step // self.schedule.pace >= first_scored(self.schedule.warmup)
        return not self.score.known

    def level(self, layout: Layout) -> Level:
        if layout.velocity:
            return _ANY
        kept = float(self.run.solver.scheduler.alphas_cumprod[int(self.run.solver.timestep)])
        return Level(kept**0.5, (1 - kept) ** 0.5)

    def turn(self, here: Pass, part: _Part, device: torch.device) -> None:
        """Decide which rows run at a step, at its first pass."""
        moved_on = part is not self.part
        if moved_on:
            self.branches.clear()
        self.step, self.part = here.step, part
        self.rows = None
        if not moved_on and not any(self.schedule.active(here.step, self.steps)):
            self.rows = torch.empty(0, dtype=torch.long, device=device)
        elif not moved_on and self.score.known and self._leaves_out(here.step):
            self.rows = self._running_rows(here)
        self.keeps = self._leaves_out(self.schedule.next_running(here.step, self.steps))

    def _leaves_out(self, step: int) -> bool:
        return step < self.steps and not self.schedule.is_full(step, self.steps)

    def _running_rows(self, here: Pass) -> Tensor:
        if not self.groups:
            sizes = self.schedule.sizes(here.grid.tokens)
            self.groups = partition(self.score.values(), sizes)
        active = self.schedule.active(here.step, self.steps)
        if active not in self._sets:
            running = [group for group, on in zip(self.groups, active, strict=True) if on]
            self._sets[active] = torch.cat(running).sort().values
        return self._sets[active]

    def positions(self, call: AttentionCall, rows: Tensor, tokens: int) -> Tensor:
        """Where the call's keys lie among all: those of `rows`, and the text's if joint."""
        if not call.text:
            return rows
        known = self._positions
        if known is None or known[0] is not rows or known[1] != call.text:
            text = torch.arange(call.text, device=rows.device)
            both = torch.cat([text, rows + call.text] if call.text_first else [rows, text + tokens])
            self._positions = known = (rows, call.text, both)
        return known[2]


class _Part:
    """One transformer that the method is installed on."""

    def __init__(self, method: Hsa, model: Any, layout: Layout) -> None:
        self._method, self.layout = method, layout
        self._layers = len(layout.attentions(model))
        self._latents: Tensor | None = None
        self.present = Present()

    def choose(self, here: Pass, device: Any) -> Tensor | None:
        video = self._method.video_at(here.step)
        if video.idle:
            return None
        if here.step != video.step or self is not video.part:
            video.turn(here, self, device)
        if video.rows is not None and not video.rows.numel():
            return video.rows
        held = HeldVelocity() if self.layout.velocity else HeldPrediction()
        branch = video.branches.setdefault(here.branch, _Branch(held))
        if video.rows is None:
            kind = self._method.values["kv"]
            branch.kv = (branch.kv or make_store(kind, device)) if video.keeps else None
        elif not (branch.answered and branch.kv and branch.kv.layers() == self._layers):
            raise ValueError(
                f"branch {here.branch!r} begins at step {here.step}, where hsa has nothing to "
                "go on from"
            )
        return video.rows

    def attend(self, call: AttentionCall, rest: Attend) -> Tensor:
        here, rows = self.present.here, self.present.rows
        if here is None or here.branch not in self._method.video.branches:
            return rest(call)
        kept = self._method.video.branches[here.branch].kv
        if kept is None:
            return rest(call)
        call = call.rotated()
        if rows is None:
            kept.keep(call.layer, call.key, call.value)
            return rest(call)
        places = self._method.video.positions(call, rows, here.grid.tokens)
        keys, values = kept.refreshed(call.layer, places, call.key, call.value)
        return rest(replace(call.over(keys, values), rows=rows))

    def fill(self, here: Pass, rows: Tensor | None, output: Tensor) -> Tensor:
        video = self._method.video
        if video.idle:
            return output
        branch, level = video.branches[here.branch], video.level(self.layout)
        latents = self._latents
        if rows is not None:
            output = output.index_select(1, rows)
            latents = None if latents is None else latents.index_select(1, rows)
        elif video.is_scoring and branch.answered and (text := self._with_text(here, output)):
            video.score.note(output[text], branch.held.given(level)[text])
        branch.held.take(level, rows, output, latents)
        branch.answered = True
        if video.schedule.next_running(here.step, video.steps) >= video.steps:
            del video.branches[here.branch]
        return output if video.schedule.in_warmup(here.step) else branch.held.given(level)

    def _with_text(self, here: Pass, output: Tensor) -> slice | None:
        """Which videos of an answer have the text: of both branches in one batch the second half;
        None of the other branch."""
        if self.layout.branches_in_batch and self._method.video.run.branches == 2:
            return slice(len(output) // 2, None)
        return None if here.branch.startswith("uncond") else slice(None)

    def look(self, here: Pass, model: Any, args: Args, kwargs: Kwargs) -> None:
        """v-prediction: the latents of a call are needed to tell what its answer stands for."""
        layout: Any = self.layout
        self._latents = layout.per_token(model, args, kwargs)
