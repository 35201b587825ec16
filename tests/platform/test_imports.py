"""Each heavy library has one room: the platform starts without torch and, until a cluster is asked
for, without Ray.
"""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("imported", "absent"),
    [
        ("vidplat.platform", ("torch", "ray", "sqlalchemy", "pyarrow", "numpy")),
        ("vidplat.config", ("torch", "ray", "sqlalchemy", "pyarrow", "numpy")),
        ("vidplat.platform.assemble", ("torch", "ray", "diffusers", "transformers")),
        # what a worker process loads before it loads its model
        (
            "vidplat.platform.dispatch.worker_tools",
            ("torch", "ray", "sqlalchemy", "alembic", "pyarrow", "boto3"),
        ),
        ("vidplat.testing", ("torch", "ray", "sqlalchemy", "pyarrow")),
    ],
)
def test_a_module_loads_none_of_the_heavy_libraries(imported, absent):
    code = f"import sys, {imported}; print(*sorted(set({absent!r}) & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
