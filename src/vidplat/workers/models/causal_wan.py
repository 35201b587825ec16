"""Block-causal Wan in normal form: Self-Forcing's (arXiv 2506.08009), and our flipbook-causal.

Their directory is that of any Wan pipeline with a `causal.json` (`vidplat.methods.blocks`) beside
`model_index.json`; text encoder, autoencoder and weights are read by the same code. What differs is
how a video is made: `generate.py` hands such a family to blocks/jobs.py, and whatever asks for a
schedule over all frames is refused here.
"""

from __future__ import annotations

from typing import Any

import torch

from vidplat.errors import ModelError, SpecError, printable
from vidplat.methods.model_shape import Blocks
from vidplat.methods.solver import Solver
from vidplat.workers.models.catalogue import read_blocks
from vidplat.workers.models.family import Condition
from vidplat.workers.models.model_files import ModelFiles
from vidplat.workers.models.wan import WanFamily


class CausalWanFamily(WanFamily):
    """A loaded block-causal Wan. Build it with `load`."""

    name = "causal-wan"
    _parts_may_wait = False  # its driver calls the transformer itself
    blocks: Blocks

    @classmethod
    def load(cls, located: ModelFiles, device: str, *, in_turns: bool = False) -> CausalWanFamily:
        """See `WanFamily.load`. Raises `ModelError` for a `causal.json` that cannot be used."""
        blocks = read_blocks(located)
        if blocks is None:
            raise ModelError(f"{printable(located.id)} has no causal.json")
        made = super().load(located, device)
        assert isinstance(made, cls)
        made.blocks = blocks
        return made

    def solver(self, steps: int, scheduler: Any = None) -> Solver:
        raise SpecError(_NO_SCHEDULE)

    def velocity(self, latents: torch.Tensor, solver: Solver, condition: Condition) -> torch.Tensor:
        raise SpecError(_NO_SCHEDULE)


_NO_SCHEDULE = "this model makes its frames block by block: there is no schedule over all frames"
