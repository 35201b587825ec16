"""Data-parallel training: a batch per rank, gradients averaged, the checkpoint kept by rank 0.

    torchrun --nproc-per-node 2 -m flipbook_training checkpoints src/vidplat/models_data --only
    flipbook --threads 1

Two ranks of one thread each train twice as many clips a second as one rank of two threads on small
models, whose products are too short to share. Without torchrun there is one rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

WAIT = timedelta(hours=2)  # rank 0 may encode a data set while the others wait


@contextmanager
def joined() -> Iterator[None]:
    """Meet the other ranks that torchrun started, and part from them; without it, nothing happens.

    A process that ends with the group still there may abort: its threads are not joined.
    """
    if not dist.is_torchelastic_launched() or dist.is_initialized():
        yield
        return
    dist.init_process_group("gloo", timeout=WAIT)
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


@contextmanager
def rank_0_first() -> Iterator[None]:
    """Rank 0 runs the block before all others do: what it writes to disk, they find."""
    if dist.is_initialized() and rank() > 0:
        dist.barrier()
    yield
    if dist.is_initialized() and rank() == 0:
        dist.barrier()


def average_gradients(model: nn.Module) -> None:
    """Replace every gradient by its mean over the ranks, in one message."""
    if not dist.is_initialized():
        return
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    message: Tensor = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(message)
    message /= dist.get_world_size()
    for gradient, mean in zip(
        gradients, torch.split(message, [g.numel() for g in gradients]), strict=True
    ):
        gradient.copy_(mean.view_as(gradient))
