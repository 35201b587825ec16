"""LIPAR (arXiv 2603.05811): tokens that repeat their past in the edited video do not run, and
attention gets their keys back.

For video-to-video with a model that sees all frames at once. The mask comes from the source
(`mask.py`), once per video. Tokens that it prunes leave the network for all layers and steps. Three
things make up for them:

* keys and values, in self-attention: a pruned token's are those of its latest kept ancestor, turned
  to the pruned token's own position (keys are taken before RoPE). `noise-aware` takes them from one
  pass over the source at time 0, made before a branch's first step, so no token is attended twice
  with the same noise; `noisy` takes the ancestor's of this very pass; `bias` adds to an ancestor's
  logits the log of how many tokens it stands for; `none` leaves the pruned ones out.
* the answer: a pruned token's velocity is its ancestor's.
* the latents: a pruned token starts from its ancestor's noise and content (`started`). Solvers are
  linear in velocity and latents, so the two stay equal.

The paper's system is block-causal and has clean keys in its cache (`workers.blocks.stream`); a
source at time 0 in their place is our choice. A model whose tokens all share one time has never met
clean ones: there `noise-aware` is worse than `noisy` (measured on flipbook, benchmarks/lipar.py),
so `auto` takes it only where the call has a time per token.

Legend: B videos, N tokens, n kept ones, h heads, D head width, P values per token.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from vidplat.methods.lipar.mask import MaskRule, ancestors, keep_mask, repeated
from vidplat.methods.protocol import Method, Run
from vidplat.methods.seams.attention import Attend, AttentionCall, linked
from vidplat.methods.seams.layouts import Args, Kwargs, layout_of, wan_tables
from vidplat.methods.seams.tokens import Pass, Present, hooked


@dataclass(frozen=True)
class Pruning:
    """Who runs and who stands for whom, of one video. Numbers are token numbers, frame-major."""

    keep: Tensor  # (F, H, W) bool
    rows: Tensor  # (n,) kept tokens, sorted
    pruned: Tensor  # (N - n,) the others, sorted
    ancestor: Tensor  # (N,) latest kept ancestor; itself for kept ones
    place: Tensor  # (N,) where in `rows` that ancestor is
    #: (n,) float32: ln of how many tokens each kept one stands for, itself included
    log_counts: Tensor

    @classmethod
    def of(cls, keep: Tensor) -> Pruning:
        flat, ancestor = keep.flatten(), ancestors(keep).flatten()
        rows = flat.nonzero()[:, 0]
        place = torch.searchsorted(rows, ancestor)
        counts = torch.bincount(place, minlength=len(rows)).float()
        return cls(keep, rows, (~flat).nonzero()[:, 0], ancestor, place, counts.log())

    @property
    def whole(self) -> bool:
        return len(self.pruned) == 0


class Lipar(Method):
    name = "lipar"

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.recovery = str(values["recovery"])
        self.rule = MaskRule(values["tau1"], values["tau2"], min_keep=values["min_keep"])
        self.pruning: Pruning | None = None
        self.source: Tensor | None = None
        self.tables: wan_tables.Tables | None = None
        self.clean: dict[tuple[int, str], _Clean] = {}  # by model and branch

    def refusal(self, model: Any, run: Run) -> str:
        if type(model).__name__ != "WanTransformer3DModel":
            return (
                "its keys are turned to new positions as Wan does it, and this is a "
                f"{type(model).__name__}"
            )
        if run.source is None:
            return "it prunes what the edited video repeats, and this video is made from text alone"
        if model.config.patch_size[0] != 1:
            return "tokens of several latent frames cannot be pruned frame by frame"
        return ""

    def begin(self, run: Run) -> None:
        self.clean.clear()
        self.source, self.tables = run.source, None
        self.pruning = Pruning.of(self.mask(run)) if run.source is not None else None

    def mask(self, run: Run) -> Tensor:
        """(F, H, W) bool, True where tokens run."""
        assert run.source is not None
        latents = run.source[0]
        patch = (latents.shape[2] // run.grid.rows, latents.shape[3] // run.grid.columns)
        return keep_mask(latents, patch, self.rule)

    @property
    def kept_share(self) -> float:
        """Of the present video's tokens, 1 before `begin`."""
        return 1.0 if self.pruning is None else float(self.pruning.keep.float().mean())

    def facts(self) -> dict[str, float]:
        """The share of tokens that ran."""
        return {} if self.pruning is None else {"kept_share": self.kept_share}

    def started(self, latents: Tensor) -> Tensor:
        """The start latents (1, C, F, H, W) with pruned tokens' equal to their ancestors'."""
        if self.pruning is None or self.pruning.whole:
            return latents
        return repeated(latents, self.pruning.keep)

    @contextmanager
    def applied_to(self, model: Any) -> Iterator[None]:
        layout = layout_of(model)
        site = _Site(self, model)
        with (
            hooked(model, layout, self.name, site.choose, site.fill, site.before) as site.present,
            linked(layout.attentions(model), layout.processor, site.link),
        ):
            yield


@dataclass
class _Site:
    """The method at one transformer."""

    method: Lipar
    model: Any
    present: Present = field(default_factory=Present)
    leaves: _Clean | None = None  # where a pass at time 0 leaves its keys, while it runs

    @property
    def pruning(self) -> Pruning | None:
        """Of the present video; None where nothing is pruned."""
        found = self.method.pruning
        return None if found is None or found.whole else found

    def before(self, here: Pass, module: Any, args: Args, kwargs: Kwargs) -> None:
        """A branch's clean keys, by a pass over the source before its first step."""
        method, key = self.method, (id(self.model), here.branch)
        if self.pruning is None or self.leaves is not None or key in method.clean:
            return
        if method.recovery == "noise-aware" or (
            method.recovery == "auto" and wan_tables.has_time_per_token(args, kwargs)
        ):
            assert method.source is not None
            method.clean[key] = self.leaves = _Clean()
            clean_args, clean_kwargs = wan_tables.at_time_zero(args, kwargs, method.source)
            try:
                module(*clean_args, **clean_kwargs)
            finally:
                self.leaves = None

    def choose(self, here: Pass, device: Any) -> Tensor | None:
        pruning = self.pruning
        if pruning is None:
            return None
        if pruning.keep.numel() != here.grid.tokens:
            raise ValueError(
                f"the mask is of {pruning.keep.numel()} tokens, this call has {here.grid.tokens}"
            )
        if self.method.tables is None:
            self.method.tables = wan_tables.tables_of(self.model, here.grid)
        return pruning.rows

    def fill(self, here: Pass, rows: Tensor | None, output: Tensor) -> Tensor:
        if rows is None or self.pruning is None:
            return output
        return output.index_select(1, self.pruning.ancestor)

    def link(self, call: AttentionCall, rest: Attend) -> Tensor:
        here, pruning, tables = self.present.here, self.pruning, self.method.tables
        if here is None or self.present.rows is None or pruning is None or tables is None:
            return rest(call)
        if self.method.recovery == "none":
            return rest(replace(call.rotated(), rows=pruning.rows))
        if self.method.recovery == "bias":
            bias = pruning.log_counts.to(call.query).view(1, 1, 1, -1)
            return rest(replace(call.rotated(), rows=pruning.rows, mask=bias))
        # pruned tokens have their ancestors' of this pass
        key, value = (x.index_select(1, pruning.place) for x in (call.key, call.value))
        if self.leaves is not None:
            self.leaves.keep(call, pruning)
        elif clean := self.method.clean.get((id(self.model), here.branch)):
            clean.put(call.layer, key, value, pruning.pruned)
        query, key = call.rotate(call.query, call.rotary), call.rotate(key, tables)
        return rest(
            replace(call, query=query, key=key, value=value, rotary=None, rows=pruning.rows)
        )


class _Clean:
    """Keys (before RoPE) and values of the source at time 0 for pruned tokens, per layer."""

    def __init__(self) -> None:
        self._rows: dict[int, tuple[Tensor, Tensor]] = {}
        self._places: Tensor | None = None  # (N - n,): each pruned token's place among those rows

    def keep(self, call: AttentionCall, pruning: Pruning) -> None:
        wanted, places = torch.unique(pruning.place[pruning.pruned], return_inverse=True)
        self._places = places
        key, value = (x.index_select(1, wanted) for x in (call.key, call.value))
        self._rows[call.layer] = key, value

    def put(self, layer: int, key: Tensor, value: Tensor, pruned: Tensor) -> None:
        """Into `key` and `value` (B, N, h, D) at the places of the `pruned` tokens."""
        assert self._places is not None
        for whole, kept in zip((key, value), self._rows[layer], strict=True):
            whole.index_copy_(1, pruned, kept.index_select(1, self._places))
