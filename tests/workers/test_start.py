"""What a worker's process imports, and what it must leave as it was."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
from vidplat.domain import Job, OperatingPoint
from vidplat.workers import Worker

early = {"torch", "diffusers", "transformers", "cv2", "av"} & sys.modules.keys()
assert not early, f"imported before it is needed: {early}"
worker = Worker(sys.argv[1])
worker.load()
job = Job("1" * 32, "a red circle", "", worker.shape.defaults, worker.ref, row=1)
worker.make(job, OperatingPoint(1))
needless = {"torch._dynamo", "sympy", "scipy", "ray"} & sys.modules.keys()
assert not needless, f"imported though it is not needed: {needless}"

import torch, torch.distributed
assert torch.distributed.is_available()
compiled = torch.compile(worker.loaded.family.transformer.proj_out, backend="eager")
assert compiled(torch.ones(1, worker.shape.width)).shape == (1, 48)
"""


def test_a_cpu_worker_starts_without_the_compiler_and_leaves_it_usable(tiny_wan: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tiny_wan)], capture_output=True, text=True
    )

    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
