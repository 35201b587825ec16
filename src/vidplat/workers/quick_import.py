"""Import diffusers and transformers without what a CPU worker never uses.

It starts with flipbook on 6.3 instead of 10.3 s of a busy core, in 425 instead of 555 MiB (torch
2.13, diffusers 0.42, transformers 5).

Both libraries import, on their way, torch's compiler (merely to mark functions for
`torch.compile`), torch's tensors over many machines, and SciPy where it happens to be installed:
1,400 modules for things that one process on one CPU does not do. While
`without_extras` is open:

  torch._dynamo                          is a placeholder whose marks do nothing
  torch.compiler.disable                 likewise
  torch.distributed.is_available         says no
  scipy                                  cannot be found; both libraries treat it as optional
  torch.nn.Embedding.reset_parameters    does nothing: values come from files, and drawing
                                         placeholders on the meta device, as transformers does,
                                         imports SymPy (0.25 s)

When it closes all are as before, and the real modules can be imported by whoever wants them.

What is lost in this process: functions imported meanwhile lack their marks, so `torch.compile`
around them may trace further than their authors meant; transformers loads no model over several
machines; diffusers refuses beta sigmas. So this is for CPU workers only. Where diffusers or
transformers is already imported, nothing is done.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType
from typing import Any

COMPILER, SCIPY = "torch._dynamo", "scipy"
_one_at_a_time = threading.RLock()  # workers may be threads of one process


@contextmanager
def without_extras() -> Iterator[None]:
    """While open, diffusers and transformers come without compiler, distribution and SciPy."""
    with _one_at_a_time, _substitutes():
        yield


@contextmanager
def _substitutes() -> Iterator[None]:
    import torch
    import torch.distributed

    if {COMPILER, "diffusers", "transformers"} & sys.modules.keys():
        yield
        return
    hides_scipy = SCIPY not in sys.modules
    disable, is_available = torch.compiler.disable, torch.distributed.is_available
    reset = torch.nn.Embedding.reset_parameters
    torch._dynamo = sys.modules[COMPILER] = _placeholder()
    torch.compiler.disable = _mark  # type: ignore[assignment]
    torch.distributed.is_available = lambda: False
    torch.nn.Embedding.reset_parameters = lambda self: None  # type: ignore[method-assign]
    if hides_scipy:
        # What is None there can be neither imported nor found.
        sys.modules[SCIPY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.compiler.disable, torch.distributed.is_available = disable, is_available
        torch.nn.Embedding.reset_parameters = reset  # type: ignore[method-assign]
        # torch imports the real one when it is asked for the attribute.
        del torch._dynamo, sys.modules[COMPILER]
        if hides_scipy:
            del sys.modules[SCIPY]


def _placeholder() -> ModuleType:
    """A package whose submodules are the real ones and whose marks do nothing."""
    module = ModuleType(COMPILER)
    module.__spec__ = spec = find_spec(COMPILER)
    module.__path__ = list(spec.submodule_search_locations or ()) if spec else []
    for name in (
        "allow_in_graph",
        "assume_constant_result",
        "disable",
        "disallow_in_graph",
        "mark_static_address",
    ):
        setattr(module, name, _mark)
    return module


def _mark(function: Callable[..., Any] | None = None, *_: Any, **__: Any) -> Any:
    """A decorator that leaves its function alone, with or without arguments of its own."""
    return function if function is not None else lambda function: function
