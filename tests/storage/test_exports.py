"""The storage room loads only what is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import vidplat.storage


def loaded_after(statement: str) -> set[str]:
    """Heavy packages that a fresh interpreter has loaded after `statement`."""
    heavy = "{'pyarrow', 'boto3', 'sqlalchemy', 'alembic', 'fsspec', 'torch', 'ray', 'numpy'}"
    script = f"import sys\n{statement}\nprint(*({heavy} & set(sys.modules)))"
    return set(
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        ).stdout.split()
    )


def test_every_name_of_the_room_can_be_had() -> None:
    assert all(callable(getattr(vidplat.storage, name)) for name in vidplat.storage.__all__)
    with pytest.raises(AttributeError):
        vidplat.storage.nothing  # noqa: B018


def test_importing_the_room_or_opening_a_folder_loads_nothing_heavy() -> None:
    assert loaded_after("import vidplat.storage, vidplat.storage.artifacts") == set()
    assert loaded_after("from vidplat.storage import open_store; open_store('renders')") == set()


def test_reading_prompts_loads_neither_boto3_nor_the_catalog() -> None:
    assert loaded_after("from vidplat.storage import read_prompts") == {"pyarrow", "numpy"}
