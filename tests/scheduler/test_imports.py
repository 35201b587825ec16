"""The scheduler is arithmetic: it starts without the heavy libraries."""

from __future__ import annotations

import subprocess
import sys


def test_importing_the_scheduler_loads_neither_torch_nor_ray_nor_sql():
    script = "import sys, vidplat.scheduler; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()

    heavy = {
        "torch",
        "ray",
        "diffusers",
        "transformers",
        "sqlalchemy",
        "pyarrow",
        "boto3",
        "scipy",
        "typer",
        "rich",
    }
    assert heavy.isdisjoint(loaded)
