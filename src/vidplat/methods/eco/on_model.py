"""Eco: after a few steps only K latent frames go on, and the frames between them are interpolated
(EcoVideo, arXiv 2606.30557).

All F frames are denoised for the first `warmup` share of the steps, then K are chosen
(`keyframes.py`) and finished on the trajectories they are on; nothing is noised anew. The solver
forgets its past steps, as in the released program, and the transformer is told the times that are
left (`seams/frame_times.py`). At the end the K latents are decoded as one clip, and the `Filling`
says where its frames belong and which are to be made.

The paper chooses by entropy: in the warm-up the last layer's self-attention is watched in the
conditional branch, and each frame scored (`entropy.py`). Unless told, frames are spaced evenly,
which was nearer to the full run on the one trained model this was measured on (decision 0014).

With two transformers (Wan 2.2) scores begin anew where the second one takes over. With K = F, and
where no step is left after the warm-up, nothing changes, bit for bit. Refused are models that are
given an image with each call for all frames, and those whose frames cannot be told their times.

Legend: C latent channels, F latent frames, K kept of them, d model width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from vidplat.methods.eco.budget import kept_frames, too_many, warmup_steps
from vidplat.methods.eco.entropy import exact_rows
from vidplat.methods.eco.keyframes import changes, moving_average, select, widest_gap
from vidplat.methods.filling.moments import Filling, true_moments
from vidplat.methods.model_shape import decoded_frames
from vidplat.methods.pass_size import BlockSize
from vidplat.methods.protocol import Method, Run
from vidplat.methods.seams.attention import Attend, AttentionCall, linked
from vidplat.methods.seams.frame_times import Times, timed
from vidplat.methods.seams.layouts import Layout, layout_of
from vidplat.methods.seams.tokens import Present, located


@dataclass
class _Video:
    """The present video: what was seen of it, and what was decided."""

    run: Run
    kept: int  # K
    share: float  # of a full step's work, that a step of K frames takes
    scores: list[tuple[float, ...]] = field(default_factory=list)  # of each step of the warm-up
    scored_by: Any = None  # the transformer that they are of
    key: tuple[int, ...] | None = None  # the kept frames; None: all, so far
    spread: float | None = None  # of the scores that decided, relative to the largest

    @property
    def is_whole(self) -> bool:
        """Whether all frames are to be finished, so that nothing is to be done."""
        return self.kept >= self.run.grid.frames


class Eco(Method):
    name = "eco"

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._k: int | None = values["k"]
        self._warmup, self._selector = float(values["warmup"]), str(values["selector"])
        self._times = Times()
        self._video: _Video | None = None

    def refusal(self, model: Any, run: Run) -> str:
        if why := layout_of(model).times_refusal(model):
            return f"frames that are left of it would lose their times: {why}"
        if _starts_from_image(model.config):
            return "this model starts from an image, which is given to every call for all frames"
        if run.noise is None or run.family is None:
            return "whoever makes this video cannot leave frames out"
        if why := too_many(self._k, run.grid.frames):
            return why
        if self._selector == "motion" and not run.solver.tells_clean:
            return (
                "selector=motion looks at the video that a run is heading for, and "
                f"{type(run.solver.scheduler).__name__} does not tell it; "
                "take another selector, or add +euler"
            )
        return ""

    @contextmanager
    def applied_to(self, model: Any) -> Iterator[None]:
        """Raises `MethodRefused` for a model whose frames cannot be told their times."""
        layout = layout_of(model)
        attentions = layout.attentions(model)
        last = len(attentions) - 1
        with timed(model, layout, self._times), located(model, layout, self.name) as present:
            site = _Site(self, model, layout, present)
            with linked(attentions[last:], lambda _: layout.processor(last), site.watch):
                try:
                    yield
                finally:
                    self._forget()

    def begin(self, run: Run) -> None:
        self._forget()
        frames = run.grid.frames
        kept = min(kept_frames(self._k, frames), frames)
        per_frame = run.grid.per_frame
        self._video = _Video(run, kept, _block(run).share(kept * per_frame, frames * per_frame))

    def share(self, step: int, steps: int) -> float:
        video = self._video
        if video is None or video.is_whole or step < warmup_steps(self._warmup, steps):
            return 1.0
        return video.share

    def stepped(self, latents: Tensor, velocity: Tensor) -> Tensor:
        video, solver = self.video, self.video.run.solver
        is_warm = solver.index >= warmup_steps(self._warmup, solver.total)
        if video.is_whole or video.key is not None or not is_warm or not solver.remaining:
            return latents
        video.key = self._chosen(latents, velocity)
        self._times.frames = video.key
        solver.forget()
        return latents[:, :, list(video.key)]

    def filling(self) -> Filling | None:
        video = self.video
        if video.key is None:
            return None
        factor = video.run.family.temporal_factor
        frames = decoded_frames(video.run.grid.frames, factor)
        return Filling(true_moments(video.key, frames, factor))

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
        if self._selector != "entropy" or video is None or video.is_whole or video.key is not None:
            return None
        return video

    def _chosen(self, latents: Tensor, velocity: Tensor) -> tuple[int, ...]:
        video = self.video
        scores: tuple[float, ...] = (0.0,) * latents.shape[2]
        if self._selector == "motion":
            clean = video.run.solver.clean(latents, velocity)[0].transpose(0, 1)
            scores = changes(clean.float().cpu().numpy())
        elif self._selector == "entropy":
            if not video.scores:
                raise ValueError(
                    "eco saw no pass of the conditional branch, so it has no scores to choose by"
                )
            scores = moving_average(video.scores)
        if self._selector != "uniform":
            video.spread = (max(scores) - min(scores)) / max(scores) if max(scores) > 0 else 0.0
        return select(scores, video.kept, selector=self._selector)

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
        # of both branches in one batch the second half has the text
        with_text = slice(len(call.query) // 2 if self.layout.branches_in_batch else 0, None)
        if video.scored_by is not self.model:
            video.scores.clear()
            video.scored_by = self.model
        query, key = call.query[with_text, rows], call.key[with_text, rows]
        video.scores.append(tuple(exact_rows(query, key, video.run.grid).tolist()))
        return rest(call)


def _starts_from_image(config: Any) -> bool:
    outputs = config.out_channels or config.in_channels
    return config.in_channels != outputs or bool(getattr(config, "image_dim", None))


def _block(run: Run) -> BlockSize:
    """Of the first transformer; those of one model have one shape."""
    model = run.family.transformers[0]
    width = model.config.num_attention_heads * model.config.attention_head_dim
    ffn = getattr(model.config, "ffn_dim", 4 * width)
    return BlockSize(width, ffn, int(getattr(run.family, "text_length", 0)))
