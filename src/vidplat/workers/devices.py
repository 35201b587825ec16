"""The device that a worker computes on: its name, its memory, and what fixes the order of sums."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from vidplat.domain import VideoSpec
from vidplat.errors import JobError, OutOfMemoryError, printable
from vidplat.machines import free_memory_bytes


def prepare(device: str, threads: int) -> None:
    """Import torch and fix what decides the order of sums: threads, and deterministic kernels.

    The CPU kernels used here are deterministic for a given thread count, and asking for it imports
    the compiler (1 s), so only CUDA is asked.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS is not repeatable
    import torch

    torch.set_num_threads(threads)
    if device.startswith("cuda"):
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Slow, and only for debugging.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = False


def class_of(device: str, threads: int) -> str:
    """Equal text, equal speed expected: `cpu-2` (two threads), or the name of the GPU."""
    if device.startswith("cuda"):
        import torch

        return str(torch.cuda.get_device_name(device))
    return f"cpu-{threads}"


def free_bytes(device: str) -> int:
    """Memory that a job could use now."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    return free_memory_bytes()


def is_out_of_memory(problem: BaseException) -> bool:
    """Whether torch, or Python, found no room: on a CPU torch says so in words alone."""
    import torch

    told = str(problem)
    return isinstance(problem, torch.OutOfMemoryError | MemoryError) or (
        isinstance(problem, RuntimeError)
        and ("not enough memory" in told or "can't allocate memory" in told)
    )


@contextmanager
def failures_told(device: str, spec: VideoSpec) -> Iterator[None]:
    """Within this context what the model raises becomes `OutOfMemoryError` or `JobError`."""
    import torch

    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as problem:
        if not is_out_of_memory(problem):
            raise JobError(f"the model failed: {printable(problem)}") from problem
        if device.startswith("cuda"):
            torch.cuda.empty_cache()
        raise OutOfMemoryError(
            f"out of memory at {spec.width}x{spec.height}, {spec.num_frames} frames: a smaller "
            "or shorter video may fit"
        ) from problem
