"""Eco: after a few steps only K latent frames go on, and the frames between them are interpolated
(EcoVideo, arXiv 2606.30557).

All F frames are denoised for the first `warmup` share of the steps, then K are chosen
(`keyframes.py`) and finished by themselves, on the trajectories they are on: their latents go on,
nothing is noised anew. The solver forgets its past steps, as in the released program, or keeps what
it knows of these frames. The transformer is told the times they stand at (`frame_rope.py`), or
counts them anew as the released program does. At the end the K latents are decoded as one clip, and
the `Filling` says where each of its frames belongs and which are to be made.

The paper chooses by entropy: in the warm-up the last layer's self-attention is watched in the
conditional branch, and each frame scored (`frame_entropy.py`). Unless told, frames are spaced
evenly, which was nearer to the full run on the one trained model this was measured on (decision
0014); whether entropy is worth more on a large one is open.

`context`: one token for each frame left out, the mean of its patch embedding at the noise level
where it was left, goes before the text in every cross-attention that follows. As released for Wan
2.1; the tokens bear no time. They stay at that noise level, unless told to `refresh`: then the
left-out frames go on as well, by Euler's rule, and the model is asked about them every so many
steps, in passes of their own (off by default in the released program, which offers other rules for
when; a count is what a plan can reckon with).

With two transformers (Wan 2.2) scores begin anew where the second one takes over. With K = F
nothing changes, bit for bit. A run that has no step left after the warm-up keeps all its frames.

What it does not do: models that are given an image, whose channels come with each call for all
frames, and models whose frames cannot be told their times.

Legend: C latent channels, F latent frames, K kept of them, d model width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from diffusers.hooks import HookRegistry, ModelHook
from torch import Tensor, nn

from vidplat.methods.eco.budget import PassSize, kept_frames, refreshes, warmup_steps
from vidplat.methods.eco.entropy import ESTIMATORS
from vidplat.methods.eco.keyframes import aggregated, changes, select, widest_gap
from vidplat.methods.filling.moments import Filling, code_moments, true_moments
from vidplat.methods.model_shape import decoded_frames
from vidplat.methods.protocol import Run
from vidplat.methods.seams.attention import Attend, AttentionCall, linked
from vidplat.methods.seams.frame_times import Times, timed
from vidplat.methods.seams.layouts import Layout, layout_of
from vidplat.methods.seams.tokens import Present, forget_empty_registries, located

_SCORED = ("entropy", "anti-entropy")  # selectors that look at attention


@dataclass
class _Video:
    """The present video: what was seen of it, and what was decided."""

    run: Run
    kept: int  # K
    share: float  # of a full step's work, that a step of K frames takes
    others_share: float  # and one of the F - K others
    scores: list[tuple[float, ...]] = field(default_factory=list)  # of each step of the warm-up
    scored_by: Any = None  # the transformer that they are of
    key: tuple[int, ...] | None = None  # the kept frames; None: all, so far
    spread: float | None = None  # of the scores that decided, relative to the largest
    others: tuple[int, ...] = ()  # the frames that are not
    left: Tensor | None = (
        None  # their latents (1, C, F - K, H, W): where they were left, or refreshed
    )
    left_velocity: Tensor | None = None  # the last answer about them
    cropped_at: int = 0  # steps that saw all frames
    is_aside: bool = False  # whether the model is being asked about them

    @property
    def is_whole(self) -> bool:
        """Whether all frames are to be finished, so that nothing is to be done."""
        return self.kept >= self.run.grid.frames


class Eco:
    """The method; see the module's text."""

    name = "eco"

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self._times = Times(layers=None if values["rope"] == "original" else frozenset())
        self._video: _Video | None = None

    def refusal(self, model: Any, run: Run) -> str:
        layout, frames, k = layout_of(model), run.grid.frames, self._kept(run)
        if why := layout.times_refusal(model):
            return f"frames that are left of it would lose their times: {why}"
        config = model.config
        if config.in_channels != (config.out_channels or config.in_channels) or getattr(
            config, "image_dim", None
        ):
            return "this model starts from an image, which is given to every call for all frames"
        if run.noise is None or run.family is None:
            return "whoever makes this video cannot leave frames out"
        if k > frames:
            return (
                f"{k} keyframes cannot be chosen from {frames} latent frames; take "
                f"K={frames} or less"
            )
        gap = self._values["max_gap"]
        if gap is not None and frames > 1 and (k - 1) * gap < frames - 1:
            least = -(-(frames - 1) // (k - 1))
            return (
                f"{k} of {frames} latent frames leave a gap of {least} or more: take "
                f"max_gap={least}, or a larger K"
            )
        if self._values["selector"] == "motion" and not run.solver.tells_clean:
            solver = type(run.solver.scheduler).__name__
            return (
                f"selector=motion looks at the video that a run is heading for, and {solver} "
                "does not tell it; "
                "take another selector, or add +euler"
            )
        if self._values["refresh"] is not None and run.velocity is None:
            return (
                "whoever makes this video cannot ask the model about the frames that were left out"
            )
        if self._has_context and not _can_have_context(model):
            return (
                "context=on is for Wan, whose cross-attention reads the text by itself; "
                "take "
                "context=off"
            )
        return ""

    @contextmanager
    def applied_to(self, model: Any) -> Iterator[None]:
        """Raises `SpecError` for a model whose frames cannot be told their times."""
        layout = layout_of(model)
        last = len(layout.attentions(model)) - 1
        with timed(model, layout, self._times), located(model, layout, self.name) as present:
            site = _Site(self, model, layout, present)
            with (
                linked(
                    layout.attentions(model)[last:], lambda _: layout.processor(last), site.watch
                ),
                _contextual(model, self)
                if self._has_context and _can_have_context(model)
                else _nothing(),
            ):
                try:
                    yield
                finally:
                    self._forget()

    def begin(self, run: Run) -> None:
        self._forget()
        frames = run.grid.frames
        size, kept = _size(run), min(self._kept(run), frames)
        share = size.share(kept, frames, context=self._has_context)
        self._video = _Video(
            run, kept, share, size.share(frames - kept, frames) if kept < frames else 0.0
        )

    def share(self, step: int, steps: int) -> float:
        """What `step` of `steps` costs relative to one with all frames."""
        video, warmup = self._video, warmup_steps(self._values["warmup"], steps)
        if video is None or video.is_whole or step < warmup:
            return 1.0
        return video.share + video.others_share * refreshes(
            step, steps, warmup, self._values["refresh"]
        )

    def stepped(self, latents: Tensor, velocity: Tensor) -> Tensor:
        video = self.video
        solver = video.run.solver
        is_warm = solver.index >= warmup_steps(self._values["warmup"], solver.total)
        if video.key is not None and video.left_velocity is not None:
            self._move_the_others(video)
        if video.is_whole or video.key is not None or not is_warm or not solver.remaining:
            return latents
        video.key = self._chosen(latents, velocity)
        self._times.frames = video.key
        if self._has_context:
            video.others = tuple(f for f in range(latents.shape[2]) if f not in video.key)
            video.left = latents[:, :, list(video.others)]
            if self._values["refresh"] is not None:
                video.left_velocity, video.cropped_at = (
                    velocity[:, :, list(video.others)],
                    solver.index,
                )
        if self._values["solver"] == "reset":
            solver.forget()
        else:
            solver.keep_frames(video.key)
        return latents[:, :, list(video.key)]

    def filling(self) -> Filling | None:
        video = self.video
        if video.key is None:
            return None
        factor = video.run.family.temporal_factor
        of = decoded_frames(video.run.grid.frames, factor)
        if self._values["timeline"] == "code":
            return Filling(
                code_moments(decoded_frames(len(video.key), factor), of), self._values["d"]
            )
        return Filling(true_moments(video.key, of, factor=factor), self._values["d"])

    def facts(self) -> Mapping[str, float]:
        """How many latent frames were kept, the widest gap between them, and, where scores decided,
        how far these lay apart relative to the largest: under 0.001 the choice means little."""
        video = self.video
        key = video.key or tuple(range(video.run.grid.frames))
        found = {"kept_frames": float(len(key)), "widest_gap": float(widest_gap(key))}
        return found if video.spread is None else {**found, "score_spread": video.spread}

    @property
    def video(self) -> _Video:
        if self._video is None:
            raise ValueError("eco must be told of a video, by begin(run), before its first pass")
        return self._video

    @property
    def watched(self) -> _Video | None:
        """The present video while its attention is worth looking at."""
        video = self._video
        if (
            video is None
            or video.is_whole
            or video.key is not None
            or self._values["selector"] not in _SCORED
        ):
            return None
        return video

    def entropies(self, query: Tensor, key: Tensor, run: Run) -> tuple[float, ...]:
        """One per frame, of rotated q and k (B, n, H, e)."""
        return tuple(ESTIMATORS[self._values["entropy"]](query, key, run.grid).tolist())

    def left(self) -> Tensor | None:
        """The latents of the frames that were left out; None before, and while the model is asked
        about these."""
        return None if self._video is None or self._video.is_aside else self._video.left

    def _move_the_others(self, video: _Video) -> None:
        """Take the step that the kept frames took, with what is known of the others, and ask again
        where it is time."""
        solver, velocity = video.run.solver, video.left_velocity
        assert video.left is not None and velocity is not None and video.run.velocity is not None
        before, now = solver.sigmas[solver.index - 1 : solver.index + 1]
        video.left = video.left + (now - before) * velocity.to(video.left)
        if not refreshes(solver.index - 1, solver.total, video.cropped_at, self._values["refresh"]):
            return
        self._times.frames, video.is_aside = video.others, True
        try:
            video.left_velocity = video.run.velocity(video.left)
        finally:
            self._times.frames, video.is_aside = video.key, False

    @property
    def _has_context(self) -> bool:
        return bool(self._values["context"] == "on")

    def _kept(self, run: Run) -> int:
        return kept_frames(self._values["k"], run.grid.frames)

    def _chosen(self, latents: Tensor, velocity: Tensor) -> tuple[int, ...]:
        video, selector = self.video, self._values["selector"]
        scores: tuple[float, ...] = (0.0,) * latents.shape[2]
        if selector == "motion":
            clean = video.run.solver.clean(latents, velocity)[0].transpose(0, 1)
            scores = changes(clean.float().cpu().numpy())
        elif selector in _SCORED:
            if not video.scores:
                raise ValueError(
                    "eco saw no pass of the conditional branch, so it has no scores to choose by"
                )
            scores = aggregated(video.scores, self._values["join"])
        if selector in (*_SCORED, "motion"):
            video.spread = (max(scores) - min(scores)) / max(scores) if max(scores) > 0 else 0.0
        return select(
            scores,
            video.kept,
            selector=selector,
            max_gap=self._values["max_gap"],
            seed=_seed(video.run),
        )

    def _forget(self) -> None:
        self._video = None
        self._times.frames = None


@dataclass
class _Site:
    """The method at one transformer."""

    method: Eco
    model: Any
    layout: Layout
    present: Present

    def watch(self, call: AttentionCall, rest: Attend) -> Tensor:
        here, video = self.present.here, self.method.watched
        if video is None or here is None or here.branch == "uncond":
            return rest(call)
        call = call.rotated()
        start = call.text if call.text_first else 0
        rows = slice(start, start + here.grid.tokens)
        conditional = slice(
            len(call.query) // 2 if self.layout.branches_in_batch else 0, None
        )  # the second half
        if video.scored_by is not self.model:
            video.scores.clear()
            video.scored_by = self.model
        query, key = call.query[conditional, rows], call.key[conditional, rows]
        video.scores.append(self.method.entropies(query, key, video.run))
        return rest(call)


class _Context(ModelHook):  # type: ignore[misc]
    """At the module that embeds times and text: a token for each frame that was left out, before
    the text's."""

    def __init__(self, model: Any, method: Eco) -> None:
        super().__init__()
        self._model, self._method = model, method
        self._of: Tensor | None = None  # the latents that `_tokens` are of
        self._tokens: Tensor | None = None

    def post_forward(self, module: nn.Module, output: Any) -> Any:
        left = self._method.left()
        if left is None:
            self._of = self._tokens = None
            return output
        if self._tokens is None or self._of is not left:
            embedded = self._model.patch_embedding(
                left.to(self._model.dtype)
            )  # (1, d, F - K, rows, columns)
            self._of, self._tokens = left, embedded.flatten(3).mean(3).transpose(1, 2)
        times, modulation, text, image = output
        tokens = self._tokens.to(text).expand(len(text), -1, -1)
        return times, modulation, torch.cat([tokens, text], dim=1), image


@contextmanager
def _contextual(model: Any, method: Eco) -> Iterator[None]:
    name, embedder = "vidplat-eco-context", model.condition_embedder
    HookRegistry.check_if_exists_or_initialize(embedder).register_hook(
        _Context(model, method), name
    )
    _tell_root(model)
    try:
        yield
    finally:
        HookRegistry.check_if_exists_or_initialize(embedder).remove_hook(name, recurse=False)
        _tell_root(model)
        forget_empty_registries(model)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _tell_root(model: Any) -> None:
    """The root's registry, which `located` has made, keeps a list of those below it."""
    model._diffusers_hook.invalidate_child_registries_cache()


def _can_have_context(model: Any) -> bool:
    return hasattr(model, "condition_embedder") and hasattr(model, "patch_embedding")


def _size(run: Run) -> PassSize:
    """Of the first transformer; those of one model have one shape."""
    model = run.family.transformers[0]
    width = model.config.num_attention_heads * model.config.attention_head_dim
    ffn = getattr(model.config, "ffn_dim", 4 * width)
    return PassSize(run.grid.per_frame, width, ffn, int(getattr(run.family, "text_length", 0)))


def _seed(run: Run) -> int:
    """For selector=random: a number that follows from the start noise, and so from the video's own
    seed."""
    first: np.ndarray = (
        run.noise.flatten()[:1].float().cpu().numpy() if run.noise is not None else np.zeros(1)
    )
    return int(first.astype(np.float32).view(np.uint32)[0])
