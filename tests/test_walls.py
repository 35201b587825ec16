"""The walls between rooms, read from the source: every import statement counts, also those inside
functions; only those under TYPE_CHECKING, which never run, do not.

    cli -> platform -> scheduler, workers, storage; scheduler, workers -> methods -> domain, errors,
    config

What a module really loads is asked of a fresh interpreter.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from vidplat.methods.table import KINDS

SOURCE = Path(__file__).parents[1] / "src"
HEAVY = ("torch", "ray", "diffusers", "transformers", "cv2", "sqlalchemy", "pyarrow", "boto3")
ROOT = "vidplat"
#: What stands beside the rooms, for all of them to use.
LOOSE = {
    "__init__",
    "__main__",
    "config",
    "domain",
    "errors",
    "files",
    "machines",
    "measured",
    "quality",
    "stages",
    "testing",
    "times",
}
#: room -> the rooms that it must not import.
WALLS = {
    "methods": ("workers", "scheduler", "platform", "storage", "cli", "training"),
    "scheduler": ("workers", "platform", "storage", "cli", "training"),
    "workers": ("scheduler", "platform", "cli"),
    "storage": ("methods", "scheduler", "workers", "platform", "cli", "training"),
    "platform": ("cli",),
    "cli": ("workers",),
}


def name_of(path: Path) -> str:
    """vidplat/methods/eco/words.py -> vidplat.methods.eco.words."""
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


@cache
def modules() -> dict[str, Path]:
    return {name_of(path): path for path in sorted((SOURCE / ROOT).rglob("*.py"))}


def is_typing_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def statements(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif is_typing_only(child):
            for otherwise in child.orelse:  # type: ignore[attr-defined]
                yield from statements(otherwise)
        else:
            yield from statements(child)


@cache
def imported(module: str) -> frozenset[str]:
    """The modules of ours that one names, each as exactly as it is named."""
    found: set[str] = set()
    for node in statements(ast.parse(modules()[module].read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
            continue
        assert node.level == 0 and node.module, f"{module} imports relatively"
        for alias in node.names:
            inside = f"{node.module}.{alias.name}"
            found.add(inside if inside in modules() else node.module)
    return frozenset(found & modules().keys())


def circles() -> list[list[str]]:
    """Strongly connected sets of more than one module: those that reach each other."""
    reach = {module: _reached(module) for module in modules()}
    found = {
        tuple(sorted(other for other in reach[module] if module in reach[other]))
        for module in modules()
        if module in reach[module]
    }
    return [list(circle) for circle in sorted(found)]


def _reached(module: str) -> set[str]:
    seen: set[str] = set()
    to_come = [module]
    while to_come:
        for other in imported(to_come.pop()) - seen:
            seen.add(other)
            to_come.append(other)
    return seen


def room_of(module: str) -> str:
    return module.removeprefix(f"{ROOT}.").split(".")[0] if "." in module else ""


@pytest.mark.parametrize("room", WALLS)
def test_a_room_imports_nothing_from_behind_its_walls(room: str) -> None:
    crossed = [
        f"{module} imports {other}"
        for module in modules()
        if room_of(module) == room
        for other in imported(module)
        if room_of(other) in WALLS[room]
    ]
    assert crossed == []


def test_no_import_goes_round_in_a_circle() -> None:
    assert circles() == []


def test_nothing_lies_loose_at_the_root_but_what_all_rooms_share() -> None:
    assert {path.stem for path in (SOURCE / ROOT).glob("*.py")} <= LOOSE


def loaded_by(module: str) -> set[str]:
    """Which of HEAVY a fresh interpreter has loaded after importing `module`."""
    script = f"import sys, {module}; print(*(set({HEAVY!r}) & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(ran.stdout.split())


def test_what_methods_say_of_themselves_loads_neither_torch_nor_ray_nor_a_store() -> None:
    # the table imports every kind's words
    assert loaded_by("vidplat.methods.table, vidplat.methods.work, vidplat.methods.frames") == set()


def test_what_the_platform_may_ask_of_the_workers_loads_no_torch() -> None:
    light = "vidplat.workers, vidplat.workers.draft, vidplat.workers.making, vidplat.workers.worker"
    assert loaded_by(light) == set()


def test_the_package_needs_nothing_of_what_made_the_embedded_models() -> None:
    # which is not in the wheel
    found = [module for module, path in modules().items() if imports_trainer(path)]
    assert found == []


def imports_trainer(path: Path) -> bool:
    return any(
        (getattr(node, "module", None) or node.names[0].name).startswith("flipbook_training")
        for node in statements(ast.parse(path.read_text("utf-8")))
    )


def test_the_scheduler_loads_none_of_the_heavy_libraries() -> None:
    assert loaded_by("vidplat.scheduler") == set()


def literals(path: Path) -> Iterator[str]:
    """Texts of a module that are not sentences: docstrings are left out."""
    tree = ast.parse(path.read_text("utf-8"))
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.value


def folder_of(name: str) -> str:
    """The folder of a method, or of the solvers."""
    return type(KINDS[name]).__module__.rpartition(".")[0]


def test_no_method_s_name_stands_outside_its_own_folder() -> None:
    found = [
        f"{module}: {text!r}"
        for module, path in modules().items()
        if module != "vidplat.methods.gone"  # whose business names are
        for text in literals(path)
        for name in KINDS
        if re.match(rf"{name}($|[:+])", text) and not module.startswith(folder_of(name))
    ]
    assert found == []
